"""The line: packets that outlive their sender, get lost, come late, twice, or not at all."""

from __future__ import annotations

import asyncio
import random

import pytest

from simulator.inprocess import InProcessBroker
from simulator.latency import LatencyModel
from simulator.spells import Message
from simulator.venue import Venue
from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.orders import Outcome
from srm_agent.errors import BrokerUnreachable
from tests.unit.simulator.faults.conftest import BTC, D, a_broker, an_entry, an_exit, held, now, reachable

A = ClientOrderId("a")


async def test_an_order_arrives_although_its_sender_was_killed(desk: InProcessBroker, shop: Venue) -> None:
    """Killed between sending and execution: the packet goes on, and the venue acts (CP4)."""
    desk.network.delay_request(2.0)
    sender = asyncio.create_task(desk.submit(an_entry()))
    await asyncio.sleep(1)
    sender.cancel()
    await asyncio.wait([sender])
    assert sender.cancelled()
    assert held(shop) == 0
    await asyncio.sleep(1.5)
    assert held(shop) == 1


@pytest.mark.parametrize(("delay_s", "outcome"), [(4.9, Outcome.FILLED), (5.1, Outcome.UNKNOWN), (89, Outcome.UNKNOWN)])
async def test_the_caller_gives_up_and_the_packet_does_not(
    desk: InProcessBroker, shop: Venue, delay_s: float, outcome: Outcome
) -> None:
    """After its time-out the caller says UNKNOWN; the order is executed all the same, when it arrives (B6)."""
    desk.network.delay_request(delay_s)
    report = await desk.submit(an_entry())
    assert report.outcome is outcome
    if outcome is Outcome.UNKNOWN:
        assert (report.code, now(), held(shop)) == ("TIMEOUT", 5.0, D(0))
        assert (await desk.lookup(A, BTC)).outcome is Outcome.ABSENT
    await asyncio.sleep(delay_s)
    assert (await desk.lookup(A, BTC)).outcome is Outcome.FILLED
    assert held(shop) == 1


@pytest.mark.parametrize(("delay_s", "lots"), [(4.9, 1), (5.1, 0), (60, 0)])
async def test_the_receive_window_ends_every_doubt(shop: Venue, delay_s: float, lots: int) -> None:
    """A venue with a receive window never executes what was signed longer ago: finality may follow it."""
    broker = a_broker(shop)
    broker.network.delay_request(delay_s)
    await broker.submit(an_entry())
    await asyncio.sleep(100)
    assert held(shop) == lots


async def test_a_lost_request_and_a_lost_reply_look_the_same(desk: InProcessBroker, shop: Venue) -> None:
    """Both are UNKNOWN after the time-out; only asking tells them apart (B4, B5)."""
    desk.network.lose_request(Message.ENTRY)
    desk.network.lose_reply(Message.ENTRY)
    verdicts = []
    for name in ("a", "b"):
        began = now()
        report = await desk.submit(an_entry(name))
        verdicts.append((report.outcome, report.code, now() - began))
    assert verdicts == [(Outcome.UNKNOWN, "TIMEOUT", 5.0)] * 2
    found = [(await desk.lookup(ClientOrderId(name), BTC)).outcome for name in ("a", "b")]
    assert found == [Outcome.ABSENT, Outcome.FILLED]
    assert held(shop) == 1


async def test_a_loss_concerns_only_its_kind_of_call(desk: InProcessBroker) -> None:
    """What waits for an exit leaves entries and reads alone."""
    desk.network.lose_reply(Message.EXIT)
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED
    assert len(await desk.positions()) == 1
    assert (await desk.submit(an_exit())).outcome is Outcome.UNKNOWN
    assert await desk.positions() == []


async def test_a_reply_that_comes_twice_changes_nothing(desk: InProcessBroker, shop: Venue) -> None:
    """The caller takes the first (B7)."""
    desk.network.repeat_reply(1.0)
    report = await desk.submit(an_entry())
    await asyncio.sleep(5)
    assert (report.outcome, held(shop)) == (Outcome.FILLED, D(1))


@pytest.mark.parametrize("reply_s", [0.0, 3.0])
async def test_a_request_that_arrives_twice_is_executed_once(
    desk: InProcessBroker, shop: Venue, reply_s: float
) -> None:
    """The venue knows the id; whichever answer comes first, the caller learns of the one order."""
    desk.network.repeat_request(0.5)
    report = await desk.submit(an_entry())
    await asyncio.sleep(5)
    assert (report.outcome, held(shop), len(shop.orders("c01"))) == (Outcome.FILLED, D(1), 1)


async def test_packets_overtake_each_other(desk: InProcessBroker, shop: Venue) -> None:
    """The exit sent second arrives first and finds nothing to close."""
    desk.network.delay_request(1.0, Message.ENTRY)
    entry, exit_ = await asyncio.gather(desk.submit(an_entry()), desk.submit(an_exit()))
    assert (entry.outcome, exit_.outcome, exit_.code) == (Outcome.FILLED, Outcome.REJECTED, "NO_POSITION")
    assert held(shop) == 1


async def test_a_partition_lets_nothing_pass(desk: InProcessBroker, shop: Venue) -> None:
    """Reads fail after the time-out, orders are in doubt and do not arrive, also not afterwards (B22)."""
    desk.network.cut(12)
    with pytest.raises(BrokerUnreachable, match="TIMEOUT"):
        await desk.positions()
    assert now() == 5.0
    assert (await desk.submit(an_entry())).outcome is Outcome.UNKNOWN
    assert not reachable(desk)
    await asyncio.sleep(2.5)
    assert reachable(desk)
    assert await desk.positions() == []
    assert held(shop) == 0


async def test_what_is_under_way_when_the_line_is_cut_is_lost(desk: InProcessBroker, shop: Venue) -> None:
    """A request that left before the partition does not arrive in it; a reply neither."""
    desk.network.delay_request(1.0)
    desk.network.delay_reply(1.0)
    both = asyncio.gather(desk.submit(an_entry("a")), desk.submit(an_entry("b")))
    await asyncio.sleep(0.5)
    desk.network.cut(10)
    assert [report.outcome for report in await both] == [Outcome.UNKNOWN] * 2
    assert [order.ticket.link_id for order in shop.orders("c01")] == ["b"]


async def test_a_refused_connection_proves_that_nothing_was_sent(desk: InProcessBroker) -> None:
    """No listener or no DNS: BrokerUnreachable at once, the same id may go again."""
    desk.network.cut(3, refused=True)
    with pytest.raises(BrokerUnreachable, match="NO_CONNECTION"):
        await desk.submit(an_entry())
    assert now() == 0.0
    await asyncio.sleep(3)
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_delays_come_from_the_injected_generator_alone(shop: Venue, seed: int) -> None:
    """The same seed gives the same times, another seed others."""

    async def times(number: int) -> list[float]:
        broker = a_broker(shop, latency=LatencyModel.typical(random.Random(number)))
        told = []
        for _ in range(20):
            began = now()
            await broker.positions()
            told.append(round(now() - began, 9))
        return told

    first, again, other = await times(seed), await times(seed), await times(seed + 10)
    assert first == again != other
    assert all(D("0") < D(repr(value)) < 4 for value in first)

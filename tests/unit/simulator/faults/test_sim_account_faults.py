"""What the broker itself does wrong on one account, as the port's caller sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from adapters.ccxt_venue.outcomes import CLASS_VERDICTS, RET_CODES, Verdict
from simulator.inprocess import InProcessBroker
from simulator.inprocess_wire import NOT_AUTHORISED, NOTHING_HAPPENED, WORDS
from simulator.mischief import REFUSALS
from simulator.records import OrderTicket
from simulator.sight import Blindness, Read
from simulator.spells import Message
from simulator.terms import SimAccount
from simulator.venue import Venue
from srm_agent.domain.events import Heartbeat, Resync, StreamDown
from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.orders import BrokerPosition, Fill, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, NotAuthorised, OrderRefused
from tests.unit.simulator.faults.conftest import (
    BTC,
    POSITION,
    START,
    D,
    Ear,
    a_broker,
    an_entry,
    an_exit,
    held,
    move,
    now,
    reachable,
)

OWN_WORDS = {"REQUOTE", "REFUSED", "FIFO", "NO_LIQUIDITY", "INVALID_VOLUME", "POSITION_MODE", "NO_POSITION"}
"""Words that the code alone does not give: MetaTrader's, and those the ccxt adapter finds in Bybit's texts."""


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_definitive_and_the_id_stays_free(desk: InProcessBroker, shop: Venue, name: str) -> None:
    """REJECTED with its word, nothing happened, and the next order passes (B1, B2, B9, B12-B20, B28)."""
    desk.mischief.refuse(name)
    report = await desk.submit(an_entry())
    assert (report.outcome, report.code) == (Outcome.REJECTED, REFUSALS[name][1])
    assert held(shop) == 0
    assert shop.orders("c01") == []
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED


def test_words_are_those_of_the_ccxt_adapter() -> None:
    """A code means here what it means there; every other word is named as an addition."""
    for code, word in WORDS.items():
        judgement = RET_CODES[str(code)]
        assert judgement.verdict is Verdict.REJECTED
        assert judgement.code == word or code == 110017  # whose text decides
    for code, word in NOTHING_HAPPENED.items():
        assert (RET_CODES[str(code)].verdict, RET_CODES[str(code)].code) == (Verdict.NOTHING_HAPPENED, word)
    assert all(RET_CODES[str(code)].verdict is Verdict.AUTH for code in NOT_AUTHORISED)
    known = {item.code for item in (*RET_CODES.values(), *CLASS_VERDICTS.values())}
    assert {word for _, word, _ in REFUSALS.values()} - known <= OWN_WORDS


async def test_a_refusal_waits_for_its_kind_of_call(desk: InProcessBroker, shop: Venue) -> None:
    """A refused close leaves entries alone; a refused change of stops is OrderRefused (B20, B9)."""
    desk.mischief.refuse("off quotes", Message.EXIT, count=2)
    desk.mischief.refuse("frozen", Message.PROTECT)
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED
    assert [(await desk.submit(an_exit(name))).code for name in "xy"] == ["NO_LIQUIDITY"] * 2
    with pytest.raises(OrderRefused) as refused:
        await desk.protect(POSITION, BTC, D("96.0"), None)
    assert refused.value.code == "INVALID_STOPS"
    assert held(shop) == 1


def test_an_unknown_name_is_refused(desk: InProcessBroker) -> None:
    """A typing error is no silent peace."""
    with pytest.raises(KeyError):
        desk.mischief.refuse("requotes")


@pytest.mark.parametrize("acted", [True, False])
async def test_an_error_that_proves_nothing_is_unknown(desk: InProcessBroker, shop: Venue, acted: bool) -> None:
    """UNKNOWN at once, carried out or not; asking tells (B2, B3)."""
    desk.mischief.doubt(acted=acted)
    report = await desk.submit(an_entry())
    assert (report.outcome, report.code, now()) == (Outcome.UNKNOWN, "RET_10016", 0.0)
    assert held(shop) == (1 if acted else 0)
    found = await desk.lookup(ClientOrderId("a"), BTC)
    assert found.outcome is (Outcome.FILLED if acted else Outcome.ABSENT)


async def test_a_ban_refuses_everything_until_it_ends(desk: InProcessBroker) -> None:
    """Orders and reads are BrokerUnreachable for that long, and nothing is done (B15)."""
    desk.mischief.ban(3)
    for call in (lambda: desk.submit(an_entry()), desk.positions, desk.account):
        with pytest.raises(BrokerUnreachable, match="RATE_LIMIT"):
            await call()
    assert not reachable(desk)
    await asyncio.sleep(3)
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED


async def test_refused_time_stamps_prove_that_nothing_happened(desk: InProcessBroker) -> None:
    """So many calls are BrokerUnreachable for the clock, then the same id passes (B34)."""
    desk.mischief.skew_clock(2)
    with pytest.raises(BrokerUnreachable, match="CLOCK"):
        await desk.submit(an_entry())
    with pytest.raises(BrokerUnreachable, match="CLOCK"):
        await desk.positions()
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED


async def test_disabled_trading_still_reads(desk: InProcessBroker, shop: Venue) -> None:
    """Every write is NotAuthorised, reads work (B18)."""
    await desk.submit(an_entry())
    desk.mischief.disable_trading()
    for call in (desk.submit(an_exit()), desk.protect(POSITION, BTC, D("96.0"), None)):
        with pytest.raises(NotAuthorised):
            await call
    assert [position.lot for position in await desk.positions()] == [1]
    desk.mischief.enable_trading()
    assert (await desk.submit(an_exit())).outcome is Outcome.FILLED
    assert held(shop) == 0


async def test_a_read_only_account_stays_read_only_when_all_is_calm(shop: Venue) -> None:
    """`calm` ends trouble, not the account's terms."""
    account = SimAccount(account_id="c01", api_key="k", secret="s", balance=D(1), read_only=True)
    shop.accounts["c01"] = account
    broker = a_broker(shop)
    broker.calm()
    with pytest.raises(NotAuthorised):
        await broker.submit(an_entry())
    assert broker.capabilities.read_only


async def test_another_account_behind_the_credentials_is_noticed(desk: InProcessBroker, ear: Ear, shop: Venue) -> None:
    """Reads and writes are NotAuthorised, nothing is done there, and the stream waits for the right one (B33)."""
    await desk.submit(an_entry())
    desk.switch_account(10)
    for call in (desk.account(), desk.positions(), desk.submit(an_exit())):
        with pytest.raises(NotAuthorised, match="another one"):
            await call
    assert (held(shop), held(shop, "c02")) == (D(1), D(0))
    await asyncio.sleep(5)
    assert len(ear.of(Resync)) == 1
    await asyncio.sleep(10)
    assert [len(picture.positions) for picture in ear.of(Resync)] == [0, 1]


async def test_an_entry_may_lose_its_stop_without_a_word(desk: InProcessBroker) -> None:
    """The reply is FILLED; only reading the position back shows that there is no stop (B10, F10)."""
    desk.mischief.unstopped = 1
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED
    assert [position.stop_loss for position in await desk.positions()] == [None]
    await desk.submit(an_entry("b"))
    assert [position.stop_loss for position in await desk.positions()] == [D("95.0")]


async def test_a_change_of_a_stop_may_be_only_acknowledged(desk: InProcessBroker) -> None:
    """`protect` returns, and the stop is the old one until it is set again (B10)."""
    await desk.submit(an_entry())
    desk.mischief.deaf_protects = 1
    await desk.protect(POSITION, BTC, D("96.0"), None)
    assert [position.stop_loss for position in await desk.positions()] == [D("95.0")]
    await desk.protect(POSITION, BTC, D("96.0"), None)
    assert [position.stop_loss for position in await desk.positions()] == [D("96.0")]


async def test_fills_and_reports_may_be_told_twice(desk: InProcessBroker, ear: Ear) -> None:
    """The same fill id and the same order id come again; positions do not (B7)."""
    desk.mischief.echoes = 2
    await desk.submit(an_entry())
    await asyncio.sleep(0.1)
    assert len({fill.fill_id for fill in ear.of(Fill)}) == 1
    assert (len(ear.of(Fill)), len(ear.of(OrderReport)), len(ear.of(BrokerPosition))) == (2, 2, 1)


async def test_the_venue_may_sit_on_an_order(desk: InProcessBroker, shop: Venue) -> None:
    """The order is WORKING at once and for a minute, then executed at the price of then (B6)."""
    desk.hold_next(rest_after_s=60, exits=False)
    report = await desk.submit(an_entry(limit_price=None))
    assert (report.outcome, held(shop)) == (Outcome.WORKING, D(0))
    await asyncio.sleep(59)
    move(shop, "104.0")
    assert (await desk.lookup(ClientOrderId("a"), BTC)).outcome is Outcome.WORKING
    await asyncio.sleep(2)
    found = await desk.lookup(ClientOrderId("a"), BTC)
    assert (found.outcome, found.average_price, held(shop)) == (Outcome.FILLED, D("104.5"), D(1))
    assert [position.stop_loss for position in await desk.positions()] == [D("95.0")]


async def test_a_held_order_waits_for_the_open(desk: InProcessBroker, shop: Venue) -> None:
    """Released while the symbol is closed, it is executed after the open."""
    desk.hold_next(rest_after_s=1, exits=False)
    await desk.submit(an_entry())
    shop.suspend("BTCUSDT", True)
    await asyncio.sleep(10)
    assert held(shop) == 0
    shop.suspend("BTCUSDT", False)
    await asyncio.sleep(1.5)
    assert held(shop) == 1


async def test_the_rest_of_a_partial_fill_comes_later(desk: InProcessBroker, shop: Venue, ear: Ear) -> None:
    """First a part, with the stop on it; the order works on, and its rest is executed (B8, F11)."""
    desk.hold_next(fraction=D("0.3"), rest_after_s=20, exits=False)
    report = await desk.submit(an_entry())
    assert (report.outcome, report.filled_lot) == (Outcome.WORKING, D("0.3"))
    assert [(p.lot, p.stop_loss) for p in await desk.positions()] == [(D("0.3"), D("95.0"))]
    await asyncio.sleep(21)
    assert held(shop) == 1
    assert [fill.lot for fill in ear.of(Fill)] == [D("0.3"), D("0.7")]
    assert ear.of(OrderReport)[-1].outcome is Outcome.FILLED


async def test_the_rest_of_a_partial_fill_may_never_come(desk: InProcessBroker, shop: Venue) -> None:
    """FILLED with less, and that is all; of an exit too (B8)."""
    desk.hold_next(fraction=D("0.5"), rest_after_s=None, exits=False)
    report = await desk.submit(an_entry())
    assert (report.outcome, report.filled_lot) == (Outcome.FILLED, D("0.5"))
    desk.hold_next(fraction=D("0.5"), rest_after_s=None, exits=True)
    assert (await desk.submit(an_exit(lot="0.5"))).filled_lot == D("0.25")
    await asyncio.sleep(60)
    assert held(shop) == D("0.25")


async def test_a_held_exit_never_turns_the_position(desk: InProcessBroker, shop: Venue) -> None:
    """What was closed meanwhile is not closed again."""
    await desk.submit(an_entry())
    desk.hold_next(rest_after_s=5, exits=True)
    assert (await desk.submit(an_exit("late"))).outcome is Outcome.WORKING
    assert (await desk.submit(an_exit("soon"))).outcome is Outcome.FILLED
    await asyncio.sleep(6)
    assert held(shop) == 0
    gone = await desk.lookup(ClientOrderId("late"), BTC)
    assert (gone.outcome, gone.code) == (Outcome.REJECTED, "NO_POSITION")


async def test_a_held_order_can_be_withdrawn(desk: InProcessBroker, shop: Venue) -> None:
    """Cancelled before its release, it never executes."""
    desk.hold_next(rest_after_s=5, exits=False)
    await desk.submit(an_entry())
    assert (await desk.cancel(ClientOrderId("a"), BTC)).outcome is Outcome.REJECTED
    move(shop, "99.0")
    await asyncio.sleep(10)
    assert held(shop) == 0


# ---- reads -----------------------------------------------------------------------------------------------------------


def reads(broker: InProcessBroker) -> dict[Read, Callable[[], Awaitable[object]]]:
    """Every read of the port."""
    return {
        Read.POSITIONS: broker.positions,
        Read.OPEN_ORDERS: broker.open_orders,
        Read.LOOKUP: lambda: broker.lookup(ClientOrderId("a"), BTC),
        Read.FILLS: lambda: broker.fills(START),
        Read.CASH_FLOWS: lambda: broker.cash_flows(START),
        Read.ACCOUNT: broker.account,
    }


@pytest.mark.parametrize("read", Read)
async def test_a_failing_endpoint_raises_and_never_lies(desk: InProcessBroker, read: Read) -> None:
    """BrokerUnreachable for that read alone, until it ends (B26, INV-7)."""
    await desk.submit(an_entry())
    desk.sight.blind(read, Blindness.ERROR, 4)
    for kind, call in reads(desk).items():
        if kind is read:
            with pytest.raises(BrokerUnreachable):
                await call()
        else:
            await call()
    assert not reachable(desk)
    await asyncio.sleep(4)
    await reads(desk)[read]()
    assert reachable(desk)


async def test_an_endpoint_may_show_nothing_as_if_all_were_well(desk: InProcessBroker, shop: Venue) -> None:
    """Empty lists and ABSENT for three seconds, with the position there (B26)."""
    await desk.submit(an_entry())
    shop.deposit("c01", D(10), shop.market_ms)
    for read in (Read.POSITIONS, Read.FILLS, Read.LOOKUP, Read.CASH_FLOWS):
        desk.sight.blind(read, Blindness.EMPTY, 3)
    calls = reads(desk)
    assert [await calls[read]() for read in (Read.POSITIONS, Read.FILLS, Read.CASH_FLOWS)] == [[], [], []]
    assert (await desk.lookup(ClientOrderId("a"), BTC)).outcome is Outcome.ABSENT
    assert desk.sight.truthful_s == -3
    await asyncio.sleep(3)
    assert len(await desk.positions()) == len(await desk.fills(START)) == len(await desk.cash_flows(START)) == 1
    assert (await desk.lookup(ClientOrderId("a"), BTC)).outcome is Outcome.FILLED


async def test_an_empty_wallet_is_an_error(desk: InProcessBroker) -> None:
    """There is no account of which nothing is known (INV-13)."""
    desk.sight.blind(Read.ACCOUNT, Blindness.EMPTY, 3)
    with pytest.raises(BrokerUnreachable, match="exactly one account"):
        await desk.account()


async def test_a_list_may_be_cut_short(desk: InProcessBroker) -> None:
    """The first half of the executions is all that is shown (B26)."""
    for name in "abcd":
        await desk.submit(an_entry(name))
    desk.sight.blind(Read.FILLS, Blindness.TRUNCATED, 3)
    assert [fill.client_id for fill in await desk.fills(START)] == ["a", "b"]


async def test_a_replica_may_lag(desk: InProcessBroker, shop: Venue) -> None:
    """For three seconds reads tell what was true before: no order, no fill, no position, the old money (B26, F2)."""
    calls = reads(desk)
    before = await desk.account()
    for read in Read:
        desk.sight.blind(read, Blindness.STALE, 3)
    await desk.submit(an_entry())
    assert (await desk.lookup(ClientOrderId("a"), BTC)).outcome is Outcome.ABSENT
    assert [await calls[read]() for read in (Read.POSITIONS, Read.FILLS, Read.OPEN_ORDERS)] == [[], [], []]
    assert (await desk.account()).balance == before.balance
    await asyncio.sleep(3)
    assert (await desk.lookup(ClientOrderId("a"), BTC)).outcome is Outcome.FILLED
    assert (await desk.account()).balance < before.balance
    assert held(shop) == 1


async def test_a_lagging_lookup_has_the_fills_of_its_time(desk: InProcessBroker) -> None:
    """A part was filled when the replica stopped: volume and fills agree, though there is more by now."""
    desk.hold_next(fraction=D("0.4"), rest_after_s=1, exits=False)
    await desk.submit(an_entry())
    desk.sight.blind(Read.LOOKUP, Blindness.STALE, 3)
    await asyncio.sleep(2)
    old = await desk.lookup(ClientOrderId("a"), BTC)
    assert (old.outcome, old.filled_lot, [fill.lot for fill in old.fills]) == (Outcome.WORKING, D("0.4"), [D("0.4")])


# ---- streams ---------------------------------------------------------------------------------------------------------


async def test_a_half_open_stream_is_noticed_by_its_silence(desk: InProcessBroker, ear: Ear, shop: Venue) -> None:
    """No fill, no heartbeat, no word; after 5 s StreamDown, and the Resync tells what was missed (B22)."""
    await asyncio.sleep(2.5)
    beats = len(ear.of(Heartbeat))
    desk.mute_stream()
    assert not reachable(desk)
    await desk.submit(an_entry())
    await asyncio.sleep(4)
    assert (len(ear.of(Heartbeat)), ear.of(Fill), ear.of(StreamDown)) == (beats, [], [])
    await asyncio.sleep(2)
    assert ear.at(StreamDown) == [7.0]  # five silent seconds after the last heartbeat
    assert [len(picture.fills) for picture in ear.of(Resync)] == [0, 1]
    assert reachable(desk)


async def test_a_partition_breaks_the_stream_and_it_comes_back(desk: InProcessBroker, ear: Ear, shop: Venue) -> None:
    """Down within 6 s; back within seconds of the line, with a full picture first (B22: 30 s)."""
    desk.network.cut(20)
    shop.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D(2)))
    await asyncio.sleep(30)
    assert ear.at(StreamDown)[0] <= 6.1
    assert 20 <= ear.at(Resync)[1] <= 23
    assert [position.lot for position in ear.of(Resync)[1].positions] == [2]


async def test_a_killed_reader_leaves_nothing_behind(desk: InProcessBroker, shop: Venue) -> None:
    """A process that dies while it handles an event is no listener any more, and its silence is nobody's."""
    stuck = asyncio.Event()

    async def read() -> None:
        async for _ in desk.events():
            stuck.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await stuck.wait()
    desk.mute_stream()
    task.cancel()
    await asyncio.wait([task])
    assert reachable(desk)
    move(shop, "101.0")
    assert not shop._listeners


async def test_calm_ends_all_trouble_of_an_account(desk: InProcessBroker, shop: Venue) -> None:
    """After `calm` an order goes through and everything is seen."""
    desk.network.cut()
    desk.network.lose_request(count=5)
    desk.mischief.refuse("limits", count=5)
    desk.mischief.doubt(acted=False, count=5)
    desk.mischief.ban(1e9)
    desk.mischief.skew_clock(5)
    desk.mischief.disable_trading()
    desk.switch_account(1e9)
    desk.mischief.unstopped = desk.mischief.deaf_protects = desk.mischief.echoes = 5
    desk.sight.blind(Read.POSITIONS, Blindness.EMPTY, 1e9)
    desk.faults.add("v5/order/create", "http429", 5)
    desk.calm()
    assert reachable(desk)
    assert (await desk.submit(an_entry())).outcome is Outcome.FILLED
    assert [position.stop_loss for position in await desk.positions()] == [Decimal("95.0")]

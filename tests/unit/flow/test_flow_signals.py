"""From a committed message to orders and back: nothing twice, nothing lost, no exit held back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.orders import OrderIntent, OrderReport, OrderState
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.errors import OutcomeUnknown, StoreUnavailable
from tests.unit.execution.conftest import BTC, failing, until
from tests.unit.flow.conftest import C01, C02, World, agent

D = Decimal
AWAY = StoreUnavailable("away")


async def test_everything_is_committed_before_anything_is_sent(world: World) -> None:
    """At the moment of each submit the journal holds its intent and its leg (INV-2)."""
    seen: list[tuple[bool, bool]] = []

    async def submit(intent: OrderIntent) -> OrderReport:
        rows = await world.store.journal.unsettled(C01)
        legs = await world.store.journal.open_legs(C01)
        seen.append((intent.client_id in {row.intent.client_id for row in rows}, bool(legs)))
        report: OrderReport = await world.brokers[C01].real.submit(intent)
        return report

    world.brokers[C01].twists["submit"] = submit
    await world.opened()
    assert seen == [(True, True)]
    assert await world.unfinished() == []


async def test_a_store_that_does_not_commit_sends_nothing_and_frees_the_budget(world: World) -> None:
    """StoreUnavailable: no order, no leg, no decision shown; the same signal given again is taken."""
    world.journal.twists["record"] = failing(AWAY, then=world.store.journal.record)
    signal = world.open_signal()
    await world.store.signals.accept(signal, "0" * 64, "{}")
    with pytest.raises(StoreUnavailable):
        await world.flow.on_signal(signal)
    assert world.entries() == []
    assert not list(world.a.desk.open_legs())
    assert not world.a.desk.ledger.tickets
    assert world.witness.decisions == []
    await world.flow.on_signal(signal)
    await until(lambda: bool(world.lots()))
    assert len(world.entries()) == 1


async def test_a_repeat_after_half_a_signal_sends_only_the_other_half(tmp_path: Path) -> None:
    """The first follower's order was committed, sent, filled and stopped out; the second chunk failed: once each."""
    async with agent(tmp_path, first_chunk=1) as world:

        async def second_fails(*args: Any) -> None:
            if len(calls) == 1:
                await until(lambda: bool(world.entries() + world.entries("c02")))
                world.move("59000")
                await until(lambda: not world.held() and not world.held("c02"))
                world.move("60000")
                await asyncio.sleep(2)
            calls.append(1)
            if len(calls) == 2:
                raise AWAY
            await world.store.journal.record(*args)

        calls: list[int] = []
        world.journal.twists["record"] = second_fails
        signal = world.open_signal()
        await world.store.signals.accept(signal, "0" * 64, "{}")
        with pytest.raises(StoreUnavailable):
            await world.flow.on_signal(signal)
        await world.flow.on_signal(signal)
        await asyncio.sleep(3)
        assert [len(world.entries(account)) for account in ("c01", "c02")] == [1, 1]
        submits = [world.brokers[name].calls.count("submit") for name in (C01, C02)]
        assert submits == [1, 1]
        assert len(world.witness.decisions) == 2
        assert world.flow.counters["signals"] == 1


async def test_a_restart_does_not_repeat_what_was_sent(tmp_path: Path) -> None:
    """The signal was not marked finished, its leg has been stopped out since: the next process sends nothing."""
    async with agent(tmp_path) as world:
        signal = world.open_signal()
        world.signals.twists["finish"] = failing(*[AWAY] * 9, then=world.store.signals.finish)
        await world.store.signals.accept(signal, "0" * 64, "{}")
        with pytest.raises(StoreUnavailable):
            await world.flow.on_signal(signal)
        await until(lambda: bool(world.lots() and world.lots(C02)))
        world.move("59000")
        await until(lambda: not world.lots() and not world.lots(C02))
        world.move("60000")
        for account in world.flow.accounts.values():
            await account.desk.writer.drained()
        async with agent(tmp_path, venue=world.venue, store=world.store) as after:
            world.feeding = False
            assert await after.unfinished() == [signal.receipt.message_id]
            await after.flow.on_signal(signal)
            await asyncio.sleep(3)
            assert after.brokers[C01].calls.count("submit") == 0
            assert await after.unfinished() == []


async def test_a_commit_in_doubt_is_made_sure_with_the_same_rows(world: World) -> None:
    """The commit's reply is lost, then the store is away: the same decision is written until it is sure, sent once."""
    tried: list[Any] = []

    async def record(*args: Any) -> None:
        tried.append(args)
        if len(tried) == 1:
            await world.store.journal.record(*args)
            raise OutcomeUnknown("commit reply lost")
        if len(tried) == 2:
            raise AWAY
        await world.store.journal.record(*args)

    world.journal.twists["record"] = record
    await world.opened()
    assert tried[0] == tried[1] == tried[2]
    assert len(world.entries()) == 1


async def test_an_order_that_waited_too_long_for_its_commit_is_not_sent(world: World) -> None:
    """Ten seconds of doubt: the commit stands, the order is refused with its reason and frees its leg."""
    tries = [OutcomeUnknown("commit reply lost")] * 14
    world.journal.twists["record"] = failing(*tries, then=world.store.journal.record)
    await world.give(world.open_signal())
    await until(lambda: not list(world.a.desk.open_legs()))
    assert world.entries() == []
    assert {t.code for t in world.a.desk.ledger.tickets.values()} == {ReasonCode.NOT_SENT_IN_TIME}


async def test_a_close_is_finished_when_its_exits_have_worked(world: World) -> None:
    """The message stays unfinished while the exit is refused, so that a restart repeats it; done at once after."""
    await world.opened()
    for broker in world.brokers.values():
        broker.real.faults.add("v5/order/create", "http429", times=1000)
    close = world.close_signal()
    await world.give(close)
    await asyncio.sleep(20)
    assert await world.unfinished() == [close.receipt.message_id]
    for broker in world.brokers.values():
        broker.real.faults.clear()
    await until(lambda: not world.held() and not world.held("c02"))
    await asyncio.sleep(0.2)
    assert await world.unfinished() == []


async def test_a_part_close_closes_its_part_and_is_finished(world: World) -> None:
    """Half of the leg on the lot grid, then the message is done."""
    await world.opened()
    before = world.lots()
    await world.give(world.close_signal(fraction="0.5"))
    await until(lambda: world.lots() < before)
    await asyncio.sleep(0.2)
    assert before / 2 - D("0.001") <= world.lots() <= before / 2
    assert world.held() == world.lots()
    assert await world.unfinished() == []


async def test_two_providers_may_use_the_same_message_id(world: World) -> None:
    """A close is known by provider and message id: none is forgotten for another's."""
    await world.opened()
    mine = world.close_signal(message="same")
    theirs = replace(mine, provider=ProviderKey.parse("beta"), signal_id=replace(mine).signal_id)
    for signal in (mine, theirs):
        await world.give(signal)
    await until(lambda: not world.held() and not world.held("c02"))
    await asyncio.sleep(0.2)
    assert await world.unfinished() == []


async def test_exits_do_not_wait_for_a_store_that_is_away(world: World) -> None:
    """Modify and close act while nothing can be written, and are finished when the store is back (INV-10)."""
    await world.opened()
    for name in ("record", "update", "record_fills", "close_trade"):
        world.journal.twists[name] = failing(*[AWAY] * 200, then=getattr(world.store.journal, name))
    world.signals.twists["finish"] = failing(*[AWAY] * 5, then=world.store.signals.finish)
    await world.give(world.modify_signal("59700"))
    await until(lambda: (world.venue.positions("c01")[0].stop_loss or 0) > D(59_600), 3)
    await world.give(world.close_signal())
    assert await until(lambda: not world.held() and not world.held("c02")) < 3
    for name in ("record", "update", "record_fills", "close_trade"):
        del world.journal.twists[name]
    await asyncio.sleep(30)
    assert await world.unfinished() == []
    assert not await world.store.journal.open_legs(C01)


async def test_a_modify_is_finished_when_it_is_set(world: World) -> None:
    """A change that the broker has not taken yet is not forgotten by a restart."""
    await world.opened()
    for broker in world.brokers.values():
        broker.real.faults.add("v5/position/trading-stop", "http502_before", times=4)
    modify = world.modify_signal("59700")
    await world.give(modify)
    await asyncio.sleep(1)
    assert await world.unfinished() == [modify.receipt.message_id]
    await asyncio.sleep(20)
    assert await world.unfinished() == []
    assert (world.venue.positions("c01")[0].stop_loss or 0) > D(59_600)


async def test_a_close_that_overtakes_its_open_refuses_it(world: World) -> None:
    """Closed before open: nothing is sent, and the reason says so (S4)."""
    signal = world.open_signal()
    await world.give(world.close_signal())
    await world.give(signal)
    await asyncio.sleep(1)
    assert {d.reason for d in world.witness.decisions} == {ReasonCode.CLOSED_BEFORE_OPEN}
    assert world.entries() == []


async def test_a_cancel_between_decision_and_wire_stops_the_entry(world: World) -> None:
    """The gate asks again right before sending."""
    for broker in world.brokers.values():
        broker.real.faults.add("v5/order/create", "http429", times=2)
    await world.give(world.open_signal())
    await world.give(world.cancel_signal())
    await asyncio.sleep(3)
    assert world.entries() == []
    assert {t.code for t in world.a.desk.ledger.tickets.values()} == {ReasonCode.CLOSED_BEFORE_OPEN}


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        pytest.param(HaltScope.ALL, "", id="all"),
        pytest.param(HaltScope.CONNECTION, "c01", id="the connection"),
        pytest.param(HaltScope.PROVIDER, "channel_source:alpha", id="the provider"),
        pytest.param(HaltScope.SYMBOL, BTC, id="the symbol"),
    ],
)
async def test_a_halt_between_decision_and_wire_stops_the_entry(world: World, scope: HaltScope, key: str) -> None:
    """Whatever is halted, a queued entry does not leave any more (INV-8)."""
    world.brokers[C01].real.faults.add("v5/order/create", "http429", times=2)
    await world.give(world.open_signal())
    await world.control.halt(scope, key, "test", "ann")
    await asyncio.sleep(3)
    assert world.entries() == []
    assert {t.code for t in world.a.desk.ledger.tickets.values()} == {ReasonCode.HALTED_BEFORE_SEND}


async def test_draining_takes_no_entries_and_keeps_the_signal(world: World) -> None:
    """A signal that comes while the daemon stops stays for the next start; exits still go (F14)."""
    await world.opened()
    world.flow.draining = True
    late = world.open_signal("s2", symbol="EUR/USDT:USDT")
    await world.give(late)
    await world.give(world.close_signal())
    await until(lambda: not world.held())
    assert len(world.entries()) == 1
    await asyncio.sleep(0.2)
    assert await world.unfinished() == [late.receipt.message_id]


async def test_the_rest_of_an_entry_after_its_close_is_closed_too(world: World) -> None:
    """Part of the entry fills, the provider closes, then the other part is told: nobody is left with it."""
    await world.opened()
    await world.give(world.close_signal())
    await until(lambda: not world.held() and not world.lots())
    desk = world.a.desk
    (leg,) = desk.ledger.ended.values()
    (entry,) = [t for t in desk.ledger.tickets.values() if t.intent.purpose.value == "entry"]
    fill = next(iter(entry.fills.values()))
    desk.count(replace(fill, fill_id=fill.fill_id + "x", lot=D("0.01")))  # type: ignore[arg-type]
    assert desk.exits.pending(leg.leg_id, "late")


async def test_a_fill_that_comes_after_the_halt_is_closed(world: World) -> None:
    """The entry executes a second after its sending; meanwhile the account is halted: closed, and people are told."""

    async def late(intent: OrderIntent) -> OrderReport:
        await asyncio.sleep(1)
        report: OrderReport = await world.brokers[C01].real.submit(intent)
        return report

    world.brokers[C01].twists["submit"] = late
    await world.give(world.open_signal())
    await asyncio.sleep(0.5)
    await world.control.halt(HaltScope.CONNECTION, "c01", "test", "ann")
    await until(lambda: bool(world.a.desk.ledger.ended))
    (leg,) = world.a.desk.ledger.ended.values()
    assert (leg.state, leg.close_reason) == (LegState.CLOSED, CloseReason.EMERGENCY)
    assert not world.held()
    assert "late fill closed" in world.pages()


async def test_memory_does_not_grow_with_settled_orders(world: World) -> None:
    """Arrivals and open questions of settled signals are forgotten."""
    for number in range(5):
        await world.opened(f"s{number}")
        await world.give(world.close_signal(f"s{number}"))
        await until(lambda: not world.held() and not world.held("c02") and not world.lots())
        await asyncio.sleep(0.3)
    assert not world.flow._arrivals
    assert not world.flow._following
    assert not world.flow._decided
    assert {t.state for t in world.a.desk.ledger.tickets.values()} == {OrderState.FILLED}
    assert world.state() is ConnectionState.ACTIVE

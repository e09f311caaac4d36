"""Nobody is decided twice, nobody pays for another's defect, and what executes late is adopted or closed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.records import OrderTicket
from srm_agent.domain.ids import ClientOrderId, client_order_id
from srm_agent.domain.orders import OrderIntent, OrderReport, OrderState, Outcome
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import Side
from srm_agent.errors import StoreUnavailable
from srm_agent.fan_out import FanOut
from tests.unit.execution.conftest import failing, until
from tests.unit.flow.conftest import C01, C02, World, agent

D = Decimal


def poisoned(world: World, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The decision of these connections meets a defect."""
    healthy = FanOut._inputs

    def inputs(self: FanOut, signal: Any, account: Any, *args: Any, **options: Any) -> Any:
        if account.member.connection_id in names:
            raise ZeroDivisionError(f"defect of {account.member.connection_id}")
        return healthy(self, signal, account, *args, **options)

    monkeypatch.setattr(FanOut, "_inputs", inputs)


@pytest.mark.parametrize("verdict", ["refused", "accepted and rejected by the broker"])
async def test_a_restart_decides_nobody_twice(tmp_path: Path, verdict: str) -> None:
    """Committed, then a crash before the signal was finished: the next process neither decides nor sends again."""
    async with agent(tmp_path) as world:
        signal = world.open_signal(stop_loss=None if verdict == "refused" else world.mid - 600)

        async def reject(intent: OrderIntent) -> OrderReport:
            return OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code="INSUFFICIENT_MARGIN")

        for broker in world.brokers.values():
            broker.twists["submit"] = reject
        world.signals.twists["finish"] = failing(*[StoreUnavailable("away")] * 9, then=world.store.signals.finish)
        await world.store.signals.accept(signal, "0" * 64, "{}")
        with pytest.raises(StoreUnavailable):
            await world.flow.on_signal(signal)
        await asyncio.sleep(2)
        decided = len(world.witness.decisions)
        assert decided == 2
        for account in world.flow.accounts.values():
            await account.desk.writer.drained()
        async with agent(tmp_path, venue=world.venue, store=world.store) as after:
            world.feeding = False
            await after.flow.on_signal(signal)
            await asyncio.sleep(2)
            assert after.witness.decisions == []
            assert [after.brokers[name].calls.count("submit") for name in (C01, C02)] == [0, 0]
            assert await after.unfinished() == []


@pytest.mark.parametrize("poison", [C01, C02])
async def test_one_followers_defect_costs_the_others_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    """The other has its order; the signal is not finished; when the defect is gone the rest follows, once."""
    poisoned(world, monkeypatch, poison)
    signal = world.open_signal()
    await world.store.signals.accept(signal, "0" * 64, "{}")
    other = C02 if poison == C01 else C01
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await world.flow.on_signal(signal)
    await until(lambda: bool(world.lots(other)))
    assert not list(world.flow.accounts[C01 if poison == C01 else C02].desk.open_legs())
    monkeypatch.undo()
    await world.flow.on_signal(signal)
    await until(lambda: bool(world.lots(C01) and world.lots(C02)))
    assert [world.brokers[name].calls.count("submit") for name in (C01, C02)] == [1, 1]
    assert world.flow.counters["signals"] == 1
    assert await world.unfinished() == []


async def test_a_defect_between_decisions_leaves_no_reservation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something of all followers breaks after the first was decided: its reservation ends, nothing is sent."""
    healthy = FanOut.decide

    def decide(self: FanOut, *args: Any, **options: Any) -> Any:
        yield next(iter(healthy(self, *args, **options)))
        raise ZeroDivisionError("defect")

    monkeypatch.setattr(FanOut, "decide", decide)
    signal = world.open_signal()
    await world.store.signals.accept(signal, "0" * 64, "{}")
    with pytest.raises(ZeroDivisionError):
        await world.flow.on_signal(signal)
    for account in world.flow.accounts.values():
        assert not list(account.desk.open_legs())
        assert not account.desk.ledger.tickets
    assert world.witness.decisions == []


async def test_a_defect_in_the_commit_asks_the_journal_at_the_next_try(world: World) -> None:
    """It raises after it has committed: the next try finds the decisions there, and sends nothing on top of them."""

    async def record(*args: Any) -> None:
        await world.store.journal.record(*args)
        raise ZeroDivisionError("after the commit")

    world.journal.twists["record"] = record
    signal = world.open_signal()
    await world.store.signals.accept(signal, "0" * 64, "{}")
    with pytest.raises(ZeroDivisionError):
        await world.flow.on_signal(signal)
    del world.journal.twists["record"]
    await world.flow.on_signal(signal)
    await asyncio.sleep(3)
    assert [world.brokers[name].calls.count("submit") for name in (C01, C02)] == [0, 0]
    assert await world.unfinished() == []


def execute_late(world: World, client_id: ClientOrderId, lots: Decimal, stop: Decimal | None) -> None:
    """The venue takes the order after all."""
    ticket = OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=lots, link_id=client_id, stop_loss=stop)
    world.venue.place("c01", ticket)


async def an_entry_that_ended(world: World, how: OrderState) -> OrderIntent:
    """An entry of c01 that never reached the venue and is journalled as ended."""

    async def lost(intent: OrderIntent) -> OrderReport:
        outcome = Outcome.REJECTED if how is OrderState.REJECTED else Outcome.UNKNOWN
        return OrderReport(client_id=intent.client_id, outcome=outcome, code="X")

    world.brokers[C01].twists["submit"] = lost
    await world.give(world.open_signal())
    desk = world.a.desk
    await until(lambda: bool(desk.ledger.tickets) and not desk.ledger.unsettled(), 40)
    (ticket,) = desk.ledger.tickets.values()
    assert ticket.state is how
    del world.brokers[C01].twists["submit"]
    await desk.writer.drained()
    return ticket.intent


async def test_an_order_that_was_given_up_and_executes_soon_is_adopted(world: World) -> None:
    """ABANDONED, then executed within half a minute: adopted with its stop read back, and paged (B6, F7)."""
    intent = await an_entry_that_ended(world, OrderState.ABANDONED)
    execute_late(world, intent.client_id, intent.lot, None)
    await until(lambda: world.lots() == intent.lot, 5)
    await until(lambda: world.venue.positions("c01")[0].stop_loss == intent.stop_loss, 5)
    assert "late fill adopted" in world.pages()
    await asyncio.sleep(5)
    assert world.held() == intent.lot


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_order_that_was_refused_and_executes_is_closed(tmp_path: Path, restarted: bool) -> None:
    """REJECTED never executes; when it does, it is flattened and paged, also by the next process (INV-6)."""
    async with agent(tmp_path) as world:
        intent = await an_entry_that_ended(world, OrderState.REJECTED)
        if not restarted:
            execute_late(world, intent.client_id, intent.lot, intent.stop_loss)
            await until(lambda: "late fill closed" in world.pages() and not world.held() and not world.lots(), 5)
            assert len(world.entries()) == 1
            return
        async with agent(tmp_path, venue=world.venue, store=world.store) as after:
            world.feeding = False
            execute_late(after, intent.client_id, intent.lot, intent.stop_loss)
            await until(lambda: "late fill closed" in after.pages() and not after.held() and not after.lots(), 5)
            assert len(after.entries()) == 1
            (leg,) = after.a.desk.ledger.ended.values()
            assert (leg.state, leg.close_reason) == (LegState.CLOSED, CloseReason.EMERGENCY)


async def test_an_order_that_executes_an_hour_late_is_closed(world: World) -> None:
    """Whatever it was, its signal is long over (B6): by the wall clock too, which a restart does not set back."""
    intent = await an_entry_that_ended(world, OrderState.ABANDONED)
    desk = world.a.desk
    ticket = desk.ledger.tickets[intent.client_id]
    desk.ledger.tickets[intent.client_id] = replace(
        ticket, intent=replace(ticket.intent, created_at=ticket.intent.created_at - timedelta(hours=1), deadline=1e9)
    )
    execute_late(world, intent.client_id, intent.lot, intent.stop_loss)
    await until(lambda: "late fill closed" in world.pages() and not world.held() and not world.lots(), 5)
    assert len(world.entries()) == 1


async def test_a_late_fill_after_the_leg_was_stopped_out_is_closed(world: World) -> None:
    """The engine lives, and the position that nobody expects any more does not (F24)."""
    await world.opened()
    (leg,) = world.a.desk.ledger.legs.values()
    entry = client_order_id(C01, leg.signal_id, "entry")
    fill = next(iter(world.a.desk.ledger.tickets[entry].fills.values()))
    world.move("59000")
    await until(lambda: not world.lots())
    world.move("60000")
    await asyncio.sleep(1)
    world.a.desk.count(replace(fill, fill_id=fill.fill_id + "x", lot=D("0.01")))  # type: ignore[arg-type]
    assert world.a.desk.exits.pending(leg.leg_id, "late")
    assert "late fill closed" in world.pages()

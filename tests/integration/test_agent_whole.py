"""The daemon from webhook to fill and back, against the venue over sockets."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from simulator.records import OrderTicket
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.orders import OrderState
from srm_agent.domain.units import Side
from srm_agent.risk.explain import recompute
from srm_agent.store.store import Store

if TYPE_CHECKING:
    from srm_agent.store.reads import Reads
    from tests.integration.conftest import Running, World

C01, C02 = ConnectionId("c01"), ConnectionId("c02")


def reads_of(running: Running) -> Reads:
    """What commands read, of the database that the daemon writes."""
    storage = running.agent.storage
    assert isinstance(storage, Store)
    return storage.reads


async def test_a_signal_becomes_a_protected_position_and_a_scored_trade(world: World) -> None:
    """Open fills on both accounts with the stop attached; close ends the legs, the metrics and the score follow."""
    async with world.agent() as running:
        assert (await running.open())[0] == 202
        await running.until(lambda: bool(running.open_lots("c01") and running.open_lots("c02")))
        position = world.venue.positions("c01")[0]
        decision = (await reads_of(running).recent_decisions(1))[0]
        assert decision.lot is not None
        assert decision.stop_loss is not None
        assert position.stop_loss == decision.stop_loss <= Decimal(59400)
        assert position.lots == running.open_lots("c01")
        assert decision.steps[-1].lot_out == decision.lot
        assert all(recompute(step) == step.lot_out for step in decision.steps)
        world.move("60300")
        await running.send("m-close", action="close", signal_id="s-1")
        await running.until(lambda: running.agent.flow.counters["trades"] == 2)
        assert not world.venue.positions("c01")
        await running.agent.flow.accounts[C01].desk.writer.drained()
        metrics = await reads_of(running).provider_metrics("daily")
        assert [(row.total, row.winning) for row in metrics] == [(2, 2)]
        slippage = await reads_of(running).slippage()
        assert len(slippage) == 2
        assert all(row.latency_ms is not None and 0 < row.latency_ms < 5000 for row in slippage)


async def test_75_deliveries_with_edits_and_restarts_give_one_order_set(world: World) -> None:
    """The same webhook 75 times, a third edited, over three daemons of which one dies: one entry each (INV-1)."""
    answers = set()
    for generation in range(3):
        async with world.agent(abrupt=generation == 1) as running:
            calls = []
            for number in range(25):
                edited = {"lot": str(number + 1)} if number % 3 == 0 and (generation or number) else {}
                message = "m-1" if number % 2 == 0 else f"m-{generation}-{number}"
                calls.append(running.open(1, message, **edited))
            for status, answer in await asyncio.gather(*calls):
                assert status == 202
                answers.add(str(answer))
            await running.until(lambda running=running: bool(running.open_lots("c01") and running.open_lots("c02")))  # type: ignore[misc]
    assert len(answers) == 1
    assert [len(world.entries(account)) for account in ("c01", "c02")] == [1, 1]


async def test_a_stop_that_fills_at_a_gap_is_counted_with_its_slippage(world: World) -> None:
    """The venue executes the stop beyond its price; leg, trade and stop slippage say so."""
    async with world.agent() as running:
        await running.open()
        await running.until(lambda: bool(running.open_lots("c01")))
        world.move("59000")
        await running.until(lambda: running.agent.flow.counters["trades"] == 2)
        await running.agent.flow.accounts[C01].desk.writer.drained()
        trades = await running.agent.storage.history.closed_trades()
        assert {trade.close_reason.value for trade in trades} == {"stop_loss"}
        assert all(trade.stop_slippage is not None and trade.stop_slippage > 300 for trade in trades)
        assert all(trade.r_multiple < -1 for trade in trades)


async def test_a_lost_reply_is_asked_about_and_never_sent_again(world: World) -> None:
    """Each way to lose the reply of an accepted order ends in one position and a settled journal row (INV-1, INV-5)."""
    kinds = ("hang_after", "reset_after", "truncate_after", "http502_json_after", "garbage200_after")
    async with world.agent() as running:
        desk = running.agent.flow.accounts[C01].desk
        for number, kind in enumerate(kinds, 1):
            world.faults.add("v5/order/create", kind, times=2)
            await running.open(number)
            await running.until(lambda: bool(running.open_lots("c01") and running.open_lots("c02")), 15)
            await running.until(lambda: not desk.ledger.unsettled(), 15)
            await running.send(f"close-{number}", action="close", signal_id=f"s-{number}")
            await running.until(lambda: not world.venue.positions("c01") and not world.venue.positions("c02"))
            await running.until(lambda: not running.open_lots("c01") and not running.open_lots("c02"))
    assert len(world.entries("c01")) == len(kinds)


async def test_a_crash_with_an_open_position_is_recovered(world: World) -> None:
    """A dead daemon's leg is known to the next one, which closes it when the provider does."""
    async with world.agent(abrupt=True) as running:
        await running.open()
        await running.until(lambda: bool(running.open_lots("c01")))
        lots = running.open_lots("c01")
        await running.agent.flow.accounts[C01].desk.writer.drained()
    async with world.agent() as running:
        await running.until(lambda: running.open_lots("c01") == lots)
        await running.send("m-close", action="close", signal_id="s-1")
        await running.until(lambda: not world.venue.positions("c01"))
    assert len(world.entries("c01")) == 1


async def test_drawdown_latches_closes_and_survives_a_restart(world: World) -> None:
    """20 % below the mark: everything is closed, entries stay refused after a restart, only an operator resumes."""
    world.more = "max_risk = 0.5\nmax_open_risk = 0.9"
    async with world.agent() as running:
        await running.open(stop_loss="59900", take_profit="70000")
        await running.until(lambda: bool(running.open_lots("c01")))
        world.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=Decimal(0), take_profit=None)
        world.venue.withdraw("c01", Decimal(1), world.venue.market_ms)
        account = running.agent.flow.accounts[C01]
        loss_per_point = running.open_lots("c01")
        world.move(str(60_000 - int(Decimal(2100) / loss_per_point)))
        await running.until(lambda: account.state() is ConnectionState.HALTED)
        assert not world.venue.positions("c01")
        await asyncio.sleep(0.2)
        reasons = {halt.key: halt.reason for halt in await running.agent.storage.protection.halts()}
        assert "drawdown" in reasons["c01"]
    world.move("60000")
    async with world.agent() as running:
        account = running.agent.flow.accounts[C01]
        assert account.state() is ConnectionState.HALTED
        await running.open(2)
        await running.until(
            lambda: running.agent.flow.counters["refused"] + running.agent.flow.counters["accepted"] == 2
        )
        assert len(world.entries("c01")) == 1
        assert await running.agent.control.resume(HaltScope.CONNECTION, "c01", "ann")
        assert account.state() is ConnectionState.ACTIVE
        await running.open(3)
        await running.until(lambda: len(world.entries("c01")) == 2)


async def test_a_withdrawal_is_no_drawdown(world: World) -> None:
    """Taking out half the account halts nobody: the cash flow is read before the drawdown is judged (INV-13)."""
    async with world.agent() as running:
        account = running.agent.flow.accounts[C01]
        await running.until(lambda: account.drawdown() == 0)
        world.venue.withdraw("c01", Decimal(5000), world.venue.market_ms)
        await running.until(lambda: account.guard.mark is not None and account.guard.mark.high_water_mark == 5000)
        assert account.state() is ConnectionState.ACTIVE


async def test_an_operator_halt_stops_entries_and_not_exits(world: World) -> None:
    """HALT refuses new signals; a close of an open leg still goes out (INV-10)."""
    async with world.agent() as running:
        await running.open()
        await running.until(lambda: bool(running.open_lots("c01") and running.open_lots("c02")))
        await running.agent.control.halt(HaltScope.ALL, "", "test", "ann")
        await running.open(2, symbol="EUR/USDT:USDT", entry="1.1", stop_loss="1.09", take_profit="1.2")
        await running.until(lambda: running.agent.flow.counters["refused"] == 2)
        await running.send("m-close", action="close", signal_id="s-1")
        await running.until(lambda: not world.venue.positions("c01") and not world.venue.positions("c02"))


async def test_a_part_close_and_a_moved_stop_reach_the_broker(world: World) -> None:
    """A close of half halves the position on the lot grid; a tightened stop is set, a widened one is held."""
    async with world.agent() as running:
        await running.open()
        await running.until(lambda: bool(running.open_lots("c01")))
        before = running.open_lots("c01")
        await running.send("m-half", action="close", signal_id="s-1", fraction="0.5")
        await running.until(lambda: before / 2 <= before - running.open_lots("c01") <= before / 2 + Decimal("0.001"))
        await running.send("m-tight", action="modify", signal_id="s-1", stop_loss="59800")
        await running.until(lambda: (world.venue.positions("c01")[0].stop_loss or 0) > Decimal(59700))
        held = world.venue.positions("c01")[0].stop_loss
        await running.send("m-wide", action="modify", signal_id="s-1", stop_loss="58000")
        await asyncio.sleep(1)
        assert world.venue.positions("c01")[0].stop_loss == held


async def test_foreign_volume_is_reported_and_left_alone(world: World) -> None:
    """A position that is not ours halts its symbol for us and is not touched (INV-7)."""
    async with world.agent() as running:
        account = running.agent.flow.accounts[C01]
        world.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=Decimal("0.01")))
        account.desk.auditor.look_soon()
        await running.until(lambda: "BTC/USDT:USDT" in account.desk.halted_symbols)
        await running.open()
        await running.until(lambda: bool(running.open_lots("c02")))
        assert not world.entries("c01")
        assert world.venue.positions("c01")[0].lots == Decimal("0.01")


async def test_a_wrong_key_refuses_one_connection_and_the_others_run(world: World) -> None:
    """Bad credentials halt their own connection with a reason."""
    (world.home / "secrets" / "connection.c01.secret").write_text("wrong-secret-wrong")
    async with world.agent() as running:
        assert running.agent.flow.accounts[C01].state() is ConnectionState.HALTED
        await running.open()
        await running.until(lambda: bool(running.open_lots("c02")))
        assert not world.entries("c01")


async def test_a_broken_stream_is_brought_back_in_step(world: World) -> None:
    """After a dropped private stream a trade made in the gap is known, and entries go on."""
    async with world.agent() as running:
        await running.open()
        await running.until(lambda: bool(running.open_lots("c01")))
        world.server.drop_streams(private=True, public=False)
        world.move("59000")  # the stop fills while nobody listens
        await running.until(lambda: running.agent.flow.counters["trades"] == 2, 20)
        account = running.agent.flow.accounts[C01]
        await running.until(lambda: account.state() is ConnectionState.ACTIVE, 20)


@pytest.mark.parametrize("kind", ["reset_before", "http502_before", "http429"])
async def test_an_order_that_never_arrived_is_settled_without_a_position(world: World, kind: str) -> None:
    """Lost before the venue: sent once more only where that is provably safe, else abandoned after finality."""
    async with world.agent() as running:
        world.faults.add("v5/order/create", kind, times=2)
        await running.open()
        desk = running.agent.flow.accounts[C01].desk
        await running.until(lambda: bool(desk.ledger.tickets), 5)
        await running.until(lambda: not desk.ledger.unsettled(), 25)
        executed = len(world.entries("c01"))
        states = {ticket.state for ticket in desk.ledger.tickets.values()}
        assert executed in (0, 1)
        assert (OrderState.FILLED in states) == (executed == 1)

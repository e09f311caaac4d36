"""One guarded account: what moves its equity, what closes it, what brings it back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.records import OrderTicket
from srm_agent.domain.accounts import CashFlow, ConnectionState, EmergencyScope, HaltScope
from srm_agent.domain.ids import FillId
from srm_agent.domain.orders import Fill
from srm_agent.domain.trades import CloseReason
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, UsageError
from srm_agent.store.store import Store
from tests.unit.execution.conftest import BTC, LoopClock, build_venue, failing, until
from tests.unit.flow.conftest import C01, C02, World, agent

D = Decimal


def crash_price(world: World) -> str:
    """A price at which the position has lost more than a fifth of the account."""
    return str(world.mid - int(D(2300) / world.held()))


async def gamble(world: World, account: str = "c01", lots: str = "0.4") -> None:
    """A position of our own without a stop near: the account can lose a fifth."""
    world.venue.place(account, OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D(lots)))
    await asyncio.sleep(0.5)


async def test_a_breach_closes_everything_and_halts_once(world: World) -> None:
    """Latched, page told once, flat within the bar, then HALTED; the second account is not concerned."""
    await gamble(world)
    world.move(crash_price(world))
    assert await until(lambda: world.state() is ConnectionState.HALTED, 5) < 2
    assert not world.held()
    await asyncio.sleep(30)
    assert world.pages().count("emergency close") == 1
    assert world.witness.emergencies == [(C01, False), (C01, True)]
    assert world.flow.accounts[C02].state() is ConnectionState.ACTIVE
    halt = world.halts.find(HaltScope.CONNECTION, C01)
    assert halt is not None
    assert "drawdown" in halt.reason


async def test_our_legs_end_as_emergency_with_their_result(tmp_path: Path) -> None:
    """The fills of the emergency close find their legs: closed, scored, journalled."""
    async with agent(tmp_path) as world:
        await world.opened()
        await gamble(world, lots="0.3")
        world.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D(0))
        world.move(crash_price(world))
        await until(lambda: world.state() is ConnectionState.HALTED)
        await asyncio.sleep(1)
        (leg,) = world.a.desk.ledger.ended.values()
        assert leg.close_reason is CloseReason.EMERGENCY
        await world.a.desk.writer.drained()
        reasons = {trade.close_reason for trade in await world.store.history.closed_trades()}
        assert CloseReason.EMERGENCY in reasons


async def test_an_operators_halt_does_not_switch_the_guard_off(world: World) -> None:
    """Halted by a person with a position open: a fifth lost closes it all the same."""
    await gamble(world)
    await world.control.halt(HaltScope.CONNECTION, "c01", "holiday", "ann")
    world.move(crash_price(world))
    await until(lambda: not world.held(), 5)
    await until(lambda: world.state() is ConnectionState.HALTED)
    assert world.pages().count("emergency close") == 1
    await asyncio.sleep(30)
    assert world.pages().count("emergency close") == 1


async def test_a_resume_restarts_the_mark_only_after_a_breach(world: World) -> None:
    """After a breach drawdown is measured anew; after a plain halt the mark stays (INV-13)."""
    mark = world.a.guard.mark
    assert mark is not None
    await gamble(world, lots="0.1")
    world.move("55000")
    await asyncio.sleep(1)
    await world.control.halt(HaltScope.CONNECTION, "c01", "lunch", "ann")
    assert await world.control.resume(HaltScope.CONNECTION, "c01", "ann")
    assert world.a.guard.mark is not None
    assert world.a.guard.mark.high_water_mark == mark.high_water_mark
    world.move("37000")
    await until(lambda: world.state() is ConnectionState.HALTED)
    assert await world.control.resume(HaltScope.CONNECTION, "c01", "ann")
    assert world.a.guard.mark.high_water_mark < 8000
    await asyncio.sleep(10)
    assert world.state() is ConnectionState.ACTIVE


async def test_a_resume_right_after_a_restart_restarts_the_mark(tmp_path: Path) -> None:
    """The operator resumes before the first judgement of the new process: no second emergency."""
    async with agent(tmp_path) as world:
        await gamble(world)
        world.move(crash_price(world))
        await until(lambda: world.state() is ConnectionState.HALTED)
        await world.a.save(world.receipt().received_at)
        async with agent(tmp_path, venue=world.venue, store=world.store) as after:
            world.feeding = False
            after.a.verdict = None
            assert await after.control.resume(HaltScope.CONNECTION, "c01", "ann")
            await asyncio.sleep(10)
            assert after.state() is ConnectionState.ACTIVE
            assert "emergency close" not in after.pages()


async def test_flattening_is_not_resumed_and_survives_a_restart(tmp_path: Path) -> None:
    """An episode that cannot finish stays FLATTENING over a restart, and ends when it can (K5)."""
    async with agent(tmp_path) as world:
        await gamble(world)
        world.brokers[C01].real.faults.add("v5/order/create", "http429", times=10_000)
        world.move(crash_price(world))
        await until(lambda: world.state() is ConnectionState.FLATTENING)
        with pytest.raises(UsageError, match="being flattened"):
            await world.control.resume(HaltScope.CONNECTION, "c01", "ann")
        await asyncio.sleep(5)
        async with agent(tmp_path, venue=world.venue, store=world.store) as after:
            world.feeding = False
            await until(lambda: after.state() is ConnectionState.HALTED, 10)
            assert not after.held()


async def test_an_emergency_whose_task_died_is_taken_up_again(world: World) -> None:
    """Something kills the closing task: the timer starts it anew (P18)."""
    await gamble(world)
    world.brokers[C01].real.faults.add("v5/order/create", "http429", times=20)
    world.move(crash_price(world))
    await until(lambda: world.state() is ConnectionState.FLATTENING)
    assert world.a._emergency._pursuit is not None
    world.a._emergency._pursuit.cancel()
    await until(lambda: world.state() is ConnectionState.HALTED)
    assert not world.held()


async def test_own_scope_closes_ours_and_leaves_the_rest(tmp_path: Path) -> None:
    """Drawdown with foreign volume beside our leg: ours goes, theirs stays (INV-7)."""
    async with agent(tmp_path, scope=EmergencyScope.OWN) as world:
        await world.opened()
        ours = world.lots()
        await gamble(world, lots="0.3")
        world.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D(0))
        world.brokers[C01].twists["protect"] = _unreachable
        world.move(crash_price(world))
        await until(lambda: world.state() is ConnectionState.HALTED)
        assert ours > 0
        assert world.held() == D("0.3")


async def _unreachable(*_: Any) -> Any:
    raise BrokerUnreachable("down")


@pytest.mark.parametrize("failures", [pytest.param(0, id="at once"), pytest.param(3, id="after failed reads")])
async def test_a_withdrawal_is_doubt_and_then_no_drawdown(world: World, failures: int) -> None:
    """REDUCING while the cash flows are read, then ACTIVE on a lower mark; the flow is in the books."""
    real = world.brokers[C01].real.cash_flows
    world.brokers[C01].twists["cash_flows"] = failing(*[BrokerUnreachable("429")] * failures, then=real)
    states = []
    world.venue.withdraw("c01", D(5000), world.venue.market_ms)
    for _ in range(200):
        await asyncio.sleep(0.01)
        states.append(world.state())
    assert set(states) == ({ConnectionState.ACTIVE, ConnectionState.REDUCING} if failures else {ConnectionState.ACTIVE})
    assert world.a.guard.mark is not None
    assert world.a.guard.mark.high_water_mark == 5000
    await world.a.save(world.receipt().received_at)
    assert not world.witness.emergencies


async def test_a_fall_that_no_cash_flow_explains_is_judged_after_five_seconds(world: World) -> None:
    """The flows cannot be read: the doubt ends, and what looks like a loss is treated as one."""
    await gamble(world, lots="0.01")
    world.brokers[C01].twists["cash_flows"] = _unreachable
    world.venue.withdraw("c01", D(5000), world.venue.market_ms)
    assert 4.5 <= await until(lambda: not world.held(), 10) <= 7


async def test_a_withdrawal_in_another_coin_is_valued_at_the_jump_of_equity(world: World) -> None:
    """The log says -0.05 BTC: the mark falls by what equity fell, nobody is flattened, and a person is told."""
    real = world.brokers[C01].real.cash_flows

    async def in_bitcoin(since: datetime) -> list[CashFlow]:
        return [replace(flow, amount=D("-0.05"), currency="BTC") for flow in await real(since)]

    world.brokers[C01].twists["cash_flows"] = in_bitcoin
    world.venue.withdraw("c01", D(5000), world.venue.market_ms)
    await until(lambda: world.a.guard.mark is not None and world.a.guard.mark.high_water_mark == 5000)
    assert not world.witness.emergencies
    assert any("0.05 BTC" in alert.message for alert in world.notifier.recent)


async def test_a_deposit_lifts_the_mark_and_hides_no_loss(world: World) -> None:
    """Half is paid in: the mark rises by it, and a fifth of the new mark is the limit."""
    world.venue.deposit("c01", D(5000), world.venue.market_ms)
    await until(lambda: world.a.guard.mark is not None and world.a.guard.mark.high_water_mark == 15_000)
    assert world.state() is ConnectionState.ACTIVE


async def test_a_withdrawal_while_nobody_listened_is_no_drawdown(tmp_path: Path) -> None:
    """Half the account leaves between two lives of the daemon: the cash flows are read before anything is judged."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.a.save(world.receipt().received_at)
    venue.withdraw("c01", D(5000), venue.market_ms + 1000)
    # Two days pass, so that the withdrawal is not in the picture of a resync.
    venue.set_book("BTCUSDT", D("60000.0"), D("60000.5"), venue.market_ms + 2 * 86_400_000)
    venue.set_book("EURUSDT", D("1.10000"), D("1.10002"), venue.market_ms)
    async with agent(tmp_path, venue=venue, store=store) as world:
        await asyncio.sleep(5)
        assert world.state() is ConnectionState.ACTIVE
        assert world.a.guard.mark is not None
        assert world.a.guard.mark.high_water_mark == 5000
    await store.close()


async def test_a_drawdown_while_nobody_listened_is_one(tmp_path: Path) -> None:
    """Without a cash flow to explain it, the loss found at the start closes the account."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await gamble(world)
        await world.a.save(world.receipt().received_at)
        price = crash_price(world)
    venue.set_book("BTCUSDT", D(price), D(price) + 1, venue.market_ms + 60_000)
    async with agent(tmp_path, venue=venue, store=store) as world:
        world.move(price)
        await until(lambda: world.state() is ConnectionState.HALTED, 10)
        assert not world.held()
    await store.close()


async def test_a_dead_feed_does_not_blind_the_guard(world: World) -> None:
    """No quotes come any more; the broker's own figure is read, entries stop or not, but a fifth lost closes (K2)."""
    await gamble(world)
    world.feeding = False
    await asyncio.sleep(1)
    world.market._markets.clear()
    price = D(crash_price(world))
    hidden = list(world.venue._listeners)
    world.venue._listeners.clear()
    world.venue.set_book("BTCUSDT", price, price + 1, world.venue.market_ms + 1000)
    world.venue._listeners.extend(hidden)
    assert await until(lambda: world.state() is ConnectionState.HALTED, 30) < 15
    assert not world.held()


async def test_a_guard_that_cannot_see_says_so_once(world: World) -> None:
    """Neither quotes nor figures for minutes, with a position open: REDUCING, one page, no close (F18)."""
    await gamble(world)
    world.feeding = False
    world.brokers[C01].twists["account"] = _unreachable
    await asyncio.sleep(300)
    assert world.state() is ConnectionState.REDUCING
    assert world.pages().count("account is not guarded") == 1
    assert world.held()


async def test_a_breach_that_nobody_can_measure_is_closed_if_it_breaches_at_its_best(world: World) -> None:
    """Quotes show a fifth lost while the broker has not answered for half a minute: latched, closed on return (F13)."""
    await gamble(world)
    world.brokers[C01].real.network.cut()
    await until(lambda: world.state() is ConnectionState.REDUCING, 10)
    world.move(crash_price(world))
    await asyncio.sleep(20)
    assert world.state() is ConnectionState.REDUCING
    assert await until(lambda: world.state() is ConnectionState.FLATTENING, 60) < 15
    assert "account is not guarded" in world.pages()
    halt = world.halts.find(HaltScope.CONNECTION, C01)
    assert halt is not None
    assert "at its best" in halt.reason
    assert world.held()
    world.brokers[C01].real.network.restore()
    await until(lambda: world.state() is ConnectionState.HALTED, 10)
    assert not world.held()


async def test_one_frozen_symbol_is_no_drawdown(world: World) -> None:
    """Its quotes stop for ten minutes while the account is well: no close, no new position in it (F18)."""
    await world.opened()
    world.feeding = False
    await asyncio.sleep(600)
    assert world.held()
    assert world.witness.emergencies == []
    await world.give(world.open_signal("s2", symbol=BTC))
    assert world.witness.decisions[-1].accepted is False
    world.feeding = True
    await asyncio.sleep(5)
    assert world.state() is ConnectionState.ACTIVE


async def test_a_deposit_and_then_a_fifth_of_everything_is_a_breach(world: World) -> None:
    """Half as much again is paid in, then 20 % of the whole is lost, floating: closed (F17, F19)."""
    world.venue.deposit("c01", D(5000), world.venue.market_ms)
    await asyncio.sleep(10)
    assert world.a.guard.mark is not None
    assert abs(world.a.guard.mark.high_water_mark - 15_000) < 1
    await gamble(world)
    world.move(str(world.mid - int(D(2900) / world.held())))
    await asyncio.sleep(2)
    assert world.state() is ConnectionState.ACTIVE
    world.move(str(world.mid - int(D(200) / world.held())))
    await until(lambda: world.state() is ConnectionState.HALTED, 5)
    assert not world.held()


async def test_holdings_that_drifted_are_read_again(world: World) -> None:
    """A fill counted twice by a repeated stream: the broker's positions put it right within seconds."""
    await gamble(world)
    world.a.watch.on_fill(replace(await _last_fill(world), fill_id=FillId("twin")))
    assert world.a.watch.holdings[BTC] == D("0.8")
    await until(lambda: world.a.watch.holdings[BTC] == D("0.4"), 10)
    assert world.state() is ConnectionState.ACTIVE


async def _last_fill(world: World) -> Fill:
    fills = await world.brokers[C01].real.fills(datetime(2026, 1, 1, tzinfo=UTC))
    return fills[-1]  # type: ignore[no-any-return]


async def test_a_broken_stream_is_reducing_until_the_resync(world: World) -> None:
    """Between break and full picture no entries; fills from the gap are counted once."""
    await world.opened()
    before = world.a.watch.holdings[BTC]
    world.brokers[C01].real.drop_stream()
    await asyncio.sleep(5)
    assert world.state() is ConnectionState.ACTIVE
    assert world.a.watch.holdings[BTC] == before == world.held()


async def test_mark_and_flows_survive(world: World) -> None:
    """The saved mark is the one in force, and the equity curve has a point."""
    world.venue.deposit("c01", D(5000), world.venue.market_ms)
    await asyncio.sleep(1)
    await world.a.save(world.receipt().received_at)
    assert await world.store.protection.mark(C01) == world.a.guard.mark

"""Closes that are refused or cut off, money that moves, and what the broker closes: B20, B27, B28, B31, B32."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from simulator.simulation.cast import BRAVO
from simulator.simulation.scene import C01, C02, C03, Scene, act
from simulator.spells import Message
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.trades import CloseReason
from tests.faults.conftest import Measured
from tests.faults.helpers import broker, entry_calls, exit_calls, leg, leg_lots, state, stop, told, trades

EXIT = Message.EXIT
SYMBOLS = ("BTCUSDT", "ETHUSDT", "EURUSDT")


def flatten(scene: Scene, connection: ConnectionId = C01) -> None:
    """An operator wants everything of an account closed."""
    scene.agent.flow.accounts[connection].flatten("the operator wants out", "olga")


def flat(scene: Scene, connection: ConnectionId = C01) -> bool:
    """Nothing is held at the venue."""
    return not scene.venue.positions(connection)


async def three_positions(scene: Scene) -> None:
    """One on each symbol."""
    for number, symbol_id in enumerate(SYMBOLS):
        await scene.opened(f"s{number}", symbol_id=symbol_id)
    await asyncio.sleep(3)


def never_a_hedge(scene: Scene, connection: ConnectionId = C01) -> None:
    """Every order beside the entries names the position that it shrinks, and none has opened anything."""
    assert all(call.intent.reduce is not None for call in exit_calls(scene, connection))
    assert all(order.ticket.reduce_only for order in scene.orders(connection)[len(scene.entries(connection)) :])


# ---- B20


@pytest.mark.fault("B20", bound_s=5)
@pytest.mark.parametrize("name", ["position closed", "close exists", "fifo", "hedge prohibited"])
@pytest.mark.parametrize("emergency", [False, True])
def test_a_close_that_is_refused_is_decided_by_reading_back(measured: Measured, name: str, emergency: bool) -> None:
    """Whatever the broker says is in the way: the position is read, and while it is there it is closed."""

    async def play(scene: Scene) -> float:
        await three_positions(scene)
        broker(scene).mischief.refuse(name, EXIT, count=2)
        began = scene.now
        if emergency:
            flatten(scene)
        else:
            for number in range(3):
                await scene.send("close", f"s{number}")
        await scene.until(lambda: flat(scene), 5)
        seconds = scene.now - began
        await scene.until(lambda: leg(scene) is None, 5)
        never_a_hedge(scene)
        return seconds

    measured(act(play, peace_s=10))


@pytest.mark.fault("B20", bound_s=5)
def test_a_position_that_its_stop_has_closed_meanwhile_is_closed(measured: Measured) -> None:
    """Our close finds nothing to reduce: the trade ended by its stop, nothing is repeated, nothing is opened."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        broker(scene).mute_stream()
        scene.price("BTCUSDT", "59000")
        began = scene.now
        await scene.send("close", "s1")
        await scene.until(lambda: leg(scene) is None, 5)
        seconds = scene.now - began
        await asyncio.sleep(10)
        assert (await trades(scene))[-1].close_reason is CloseReason.STOP_LOSS
        assert len(exit_calls(scene)) <= 2
        assert flat(scene)
        return seconds

    measured(act(play, peace_s=10))


# ---- B27


@pytest.mark.fault("B27", bound_s=5)
@pytest.mark.parametrize("refused", [False, True])
def test_a_flatten_that_is_cut_off_goes_on_when_the_line_is_back(measured: Measured, refused: bool) -> None:
    """FLATTENING stands through the break, and INV-9's clock starts again with the reconnect."""

    async def play(scene: Scene) -> float:
        await three_positions(scene)
        flatten(scene)
        broker(scene).network.cut(12, refused=refused)
        cut = scene.now
        await asyncio.sleep(11.9)
        assert not flat(scene)
        assert state(scene) is ConnectionState.FLATTENING
        await scene.until(lambda: flat(scene), 10)
        seconds = scene.now - (cut + 12)
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 15)
        return seconds

    measured(act(play, peace_s=10))


@pytest.mark.fault("B27", bound_s=5)
def test_a_flatten_goes_on_after_a_restart(measured: Measured) -> None:
    """The process dies while the line is down: the next one closes what is left once it reaches the broker."""

    async def play(scene: Scene) -> float:
        await three_positions(scene)
        broker(scene).network.cut(10)
        flatten(scene)
        cut = scene.now
        await asyncio.sleep(2)
        scene.kill()
        await asyncio.sleep(1)
        scene.world.give_birth()
        await scene.until(lambda: flat(scene), 20)
        seconds = scene.now - (cut + 10)
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 15)
        never_a_hedge(scene)
        return seconds

    measured(act(play, peace_s=15))


# ---- B28


@pytest.mark.fault("B28", bound_s=5)
@pytest.mark.parametrize("emergency", [False, True])
def test_closes_refused_for_want_of_quotes_climb_the_ladder(measured: Measured, emergency: bool) -> None:
    """Refused three times: asked again by position, in an emergency as a wide limit in between; nothing is hedged."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(3)
        broker(scene).mischief.refuse("off quotes", EXIT, count=3)
        began = scene.now
        if emergency:
            flatten(scene)
        else:
            await scene.send("close", "s1")
        await scene.until(lambda: flat(scene), 5)
        seconds = scene.now - began
        await scene.until(lambda: leg(scene) is None, 5)
        if emergency:
            assert any(call.intent.limit_price is not None for call in exit_calls(scene))
            assert told(scene, "emergency close is stuck") == ["page"]
        never_a_hedge(scene)
        return seconds

    measured(act(play, peace_s=10))


@pytest.mark.fault("B28", bound_s=5)
@pytest.mark.parametrize("emergency", [False, True])
def test_a_close_whose_reply_is_lost_is_read_back(measured: Measured, emergency: bool) -> None:
    """It was done: the next reading shows it, and what is repeated finds nothing to close."""

    async def play(scene: Scene) -> float:
        await three_positions(scene)
        broker(scene).network.lose_reply(EXIT, count=2)
        began = scene.now
        if emergency:
            flatten(scene)
        else:
            for number in range(3):
                await scene.send("close", f"s{number}")
        await scene.until(lambda: flat(scene), 5)
        await scene.until(lambda: all(leg_lots(scene) == 0 for _ in SYMBOLS), 5)
        seconds = scene.now - began
        never_a_hedge(scene)
        return seconds

    measured(act(play, peace_s=15))


@pytest.mark.fault("B28", bound_s=5)
@pytest.mark.parametrize("scope", ["account", "own"])
def test_an_emergency_close_that_got_lost_is_sent_again_in_time(measured: Measured, scope: str) -> None:
    """Lost before the broker: given up after 2.5 s, and the next one closes the position within INV-9's 5 s."""

    async def play(scene: Scene) -> float:
        await three_positions(scene)
        broker(scene).network.lose_request(EXIT)
        began = scene.now
        flatten(scene)
        await scene.until(lambda: flat(scene), 5)
        seconds = scene.now - began
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 20)
        never_a_hedge(scene)
        return seconds

    measured(act(play, scope=scope, peace_s=10))


@pytest.mark.fault("B28", bound_s=7)
def test_a_close_that_got_lost_is_sent_again_by_position(measured: Measured) -> None:
    """Lost before the broker, it is known to be absent after the client's 5 s, and the next one closes the position."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(3)
        broker(scene).network.lose_request(EXIT)
        began = scene.now
        await scene.send("close", "s1")
        await scene.until(lambda: flat(scene), 7)
        never_a_hedge(scene)
        return scene.now - began

    measured(act(play, peace_s=10))


# ---- B31


@pytest.mark.fault("B31", bound_s=10)
@pytest.mark.parametrize("kind", ["deposit", "withdrawal"])
def test_money_paid_in_or_out_moves_the_mark_and_closes_nothing(measured: Measured, kind: str) -> None:
    """30 % out or 50 % in: drawdown is what it was, within 10 s, the flow is booked by its kind, nothing is closed."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(5)
        account = scene.agent.flow.accounts[C01]
        before = account.guard.mark
        assert before is not None
        amount = Decimal(5000) if kind == "deposit" else Decimal(3000)
        if kind == "deposit":
            scene.venue.deposit(C01, amount, scene.venue.market_ms)
        else:
            scene.venue.withdraw(C01, amount, scene.venue.market_ms)
        began, wanted = scene.now, before.high_water_mark + (amount if kind == "deposit" else -amount)

        def adjusted() -> bool:
            mark = account.guard.mark
            return (
                mark is not None and abs(mark.high_water_mark - wanted) < 50 and state(scene) is ConnectionState.ACTIVE
            )

        await scene.until(adjusted, 10)
        seconds = scene.now - began
        assert scene.lots() > 0
        drawdown = account.drawdown()
        assert drawdown is not None
        assert drawdown < Decimal("0.01")
        await asyncio.sleep(15)
        flows = [row for row in await scene.world.book.flows() if row.connection_id == C01]
        assert [(row.flow.kind, abs(row.flow.amount)) for row in flows] == [(kind, amount)]
        assert not exit_calls(scene)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B31", bound_s=10)
@pytest.mark.parametrize("kind", ["BONUS", "DIVIDEND", "SETTLEMENT"])
@pytest.mark.parametrize("sign", [1, -1])
def test_results_without_a_trade_are_no_deposits(measured: Measured, kind: str, sign: int) -> None:
    """A bonus, dividend or swap of 3 % is a result: equity is known again within 10 s, a loss counts as drawdown, and a
    gain raises the mark."""

    async def play(scene: Scene) -> float:
        await asyncio.sleep(5)
        account = scene.agent.flow.accounts[C01]
        scene.venue.mischief.book_cash(C01, kind, Decimal(300) * sign, scene.venue.market_ms)
        began, wanted = scene.now, Decimal(10_000 + 300 * sign)

        def known() -> bool:
            equity = account.equity()
            return equity is not None and abs(equity.value - wanted) < 1 and state(scene) is ConnectionState.ACTIVE

        await scene.until(known, 10)
        seconds = scene.now - began
        await asyncio.sleep(2)
        mark, drawdown = account.guard.mark, account.drawdown()
        assert mark is not None
        assert drawdown is not None
        assert mark.high_water_mark == (10_300 if sign > 0 else 10_000)
        assert abs(drawdown - (0 if sign > 0 else Decimal("0.03"))) < Decimal("0.001")
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B31", bound_s=10)
def test_a_loss_after_a_deposit_is_measured_from_the_money_that_is_there(measured: Measured) -> None:
    """50 % paid in, then a loss of more than a fifth of all: the account is closed (deposits hide no loss)."""

    async def play(scene: Scene) -> float:
        scene.venue.deposit(C03, Decimal(2500), scene.venue.market_ms)
        await asyncio.sleep(10)
        await scene.open("s1", provider=BRAVO)
        await scene.until(lambda: scene.lots(C03) > 0, 5)
        await asyncio.sleep(2)
        scene.venue.mischief.gap("BTCUSDT", Decimal("-0.03"))
        began = scene.now
        await scene.until(lambda: state(scene, C03) is ConnectionState.HALTED and flat(scene, C03), 10)
        return scene.now - began

    measured(act(play, peace_s=5))


# ---- B32


@pytest.mark.fault("B32", bound_s=10)
def test_a_stop_out_by_the_broker_is_adopted_and_counted(measured: Measured) -> None:
    """The broker closes everything: each leg is closed as LIQUIDATION within 10 s, counted, told, and nothing is opened
    or closed by us."""

    async def play(scene: Scene) -> float:
        await scene.opened("s0")
        await scene.opened("s1", symbol_id="ETHUSDT")
        await asyncio.sleep(3)
        scene.venue.mischief.stop_out(C01)
        began = scene.now
        await scene.until(lambda: not list(scene.agent.flow.accounts[C01].desk.open_legs()), 10)
        seconds = scene.now - began
        await asyncio.sleep(2)
        assert [trade.close_reason for trade in await trades(scene)] == [CloseReason.LIQUIDATION] * 2
        assert scene.agent.flow.status()["stop_outs"] == 2
        assert told(scene, "stopped out by the broker") == ["page", "page"]
        assert len(entry_calls(scene)) == 2
        assert scene.lots(C02) > 0
        return seconds

    measured(act(play, peace_s=10))


@pytest.mark.fault("B32", bound_s=10)
def test_a_stop_out_that_nobody_heard_is_found(measured: Measured) -> None:
    """It happened while the stream was deaf: history tells it within 10 s of the line's return."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(3)
        broker(scene).network.cut(8)
        await asyncio.sleep(1)
        scene.venue.mischief.stop_out(C01)
        back = scene.now + 7
        await scene.until(lambda: leg(scene) is None, 25)
        seconds = scene.now - back
        await asyncio.sleep(2)
        assert [trade.close_reason for trade in await trades(scene)] == [CloseReason.LIQUIDATION]
        assert stop(scene) is None
        return seconds

    measured(act(play, peace_s=10))

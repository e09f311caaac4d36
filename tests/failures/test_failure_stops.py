"""Stops of others that were refused, dropped, too small, or jumped over: F9, F10, F11, F23."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.inprocess import InProcessBroker
from simulator.simulation.scene import C01, C02, Scene, act
from simulator.spells import Message
from simulator.terms import SymbolState
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import PositionRef, Symbol
from srm_agent.domain.orders import BrokerPosition, OrderState
from srm_agent.domain.trades import CloseReason
from tests.faults.helpers import BTC, ETH, broker, entry_calls, entry_ticket, leg, leg_lots, state, stop, told, trades
from tests.mutation import Mutant

ENTRY, PROTECT = Message.ENTRY, Message.PROTECT


# ---- F9


@pytest.mark.failure(
    "F9",
    mutant=Mutant(
        name="each look at a position without its stop begins the half minute anew",
        path="execution/position_keeper.py",
        old="        bare = self._bare.setdefault(leg.leg_id, Bare(since=now, found=state))\n",
        new="        bare = self._bare[leg.leg_id] = Bare(since=now, found=state)\n",
    ),
)
def test_a_position_whose_stop_is_refused_is_closed_in_time() -> None:
    """Refused as invalid, or never answered, however often it is asked for: the process lives, and after 30 s the
    position is closed and people know. (The codes 10016 and -1013 at the wire: issue D.)"""

    async def play(scene: Scene, how: str) -> None:
        if how == "refused":
            broker(scene).mischief.refuse("invalid stops", PROTECT, count=1000)
        else:
            broker(scene).network.lose_request(PROTECT, count=1000)
        broker(scene).mischief.unstopped = 1
        await scene.open("s1")
        await scene.until(lambda: scene.lots() > 0, 5)
        await scene.until(lambda: bool(told(scene, "position without its stop is closed")), 36)
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        assert scene.process.alive

    for how in ("refused", "unanswered"):
        act(lambda scene, how=how: play(scene, how))  # type: ignore[misc]


# ---- F10


def zero_for_none(line: InProcessBroker) -> None:
    """A broker whose list says 0 where there is no stop, as MetaTrader's does."""
    positions = line.positions

    async def listed() -> Sequence[BrokerPosition]:
        return [replace(one, stop_loss=one.stop_loss or Decimal(0)) for one in await positions()]

    line.positions = listed  # type: ignore[method-assign]


@pytest.mark.failure(
    "F10",
    mutant=Mutant(
        name="a stop of 0 is a stop",
        path="execution/stop_rules.py",
        old="    if not position.stop_loss:\n        return Cover.MISSING\n",
        new="    if position.stop_loss is None:\n        return Cover.MISSING\n",
    ),
)
def test_a_stop_that_the_broker_dropped_is_found_by_reading_back() -> None:
    """The reply says yes, the list says 0: on either side of the market the leg's stop stands within 5 s, also where
    the first yes to setting it was a lie; an entry that failed gets neither stop nor target. (Success codes: D.)"""

    async def play(scene: Scene, side: str) -> None:
        zero_for_none(broker(scene))
        await scene.begin()
        broker(scene).mischief.unstopped = broker(scene).mischief.deaf_protects = 1
        await scene.open("s1", side=side)
        await scene.until(lambda: scene.lots() != 0, 5)
        await scene.until(lambda: stop(scene) is not None, 5)
        mine = leg(scene)
        assert mine is not None
        assert stop(scene) == mine.stop_loss == entry_calls(scene)[0].intent.stop_loss

        broker(scene).mischief.refuse("reject", ENTRY)
        await scene.open("s2", symbol_id="ETHUSDT", side=side)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 5)
        await asyncio.sleep(3)
        assert (C01, ETH) not in scene.world.seen.protects

    for side in ("buy", "sell"):
        act(lambda scene, side=side: play(scene, side), begun=False, peace_s=3)  # type: ignore[misc]


# ---- F11


class _StopOrders:
    """A broker whose stop is an order of its own, over the volume that was held when it was set."""

    def __init__(self, line: InProcessBroker) -> None:
        self.covered: dict[Symbol, Decimal] = {}
        self._read, self._set = line.positions, line.protect
        line.positions = self.positions  # type: ignore[method-assign]
        line.protect = self.protect  # type: ignore[method-assign]

    async def positions(self) -> Sequence[BrokerPosition]:
        """With the volume that the stop covers."""
        found = await self._read()
        return [replace(one, stop_lot=self.covered.setdefault(one.symbol, one.lot)) for one in found]

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        """A new stop, over what is held now."""
        await self._set(position, symbol, stop_loss, take_profit)
        self.covered.update({one.symbol: one.lot for one in await self._read()})


@pytest.mark.failure(
    "F11",
    mutant=Mutant(
        name="a stop that covers something covers the position",
        path="execution/stop_rules.py",
        old="    if position.stop_lot is not None and position.stop_lot < position.lot:\n",
        new="    if position.stop_lot is not None and position.stop_lot <= 0:\n",
    ),
)
def test_the_stop_is_as_large_as_the_position() -> None:
    """1 % or half of the entry is executed, the rest up to five minutes later: the leg is what the position is, and
    within 5 s of each fill the stop covers it whole."""

    async def play(scene: Scene, fraction: str, rest_s: float) -> None:
        stops = _StopOrders(broker(scene))
        await scene.begin()
        broker(scene).hold_next(fraction=Decimal(fraction), rest_after_s=rest_s, exits=False)
        await scene.open("s1")
        volume = Decimal(0)
        for within_s in (5, rest_s + 2):
            await scene.until(lambda volume=volume: scene.lots() > volume, within_s)  # type: ignore[misc]
            volume = scene.lots()
            await scene.until(lambda: leg_lots(scene) == scene.lots() == stops.covered.get(BTC), 5)
            assert stop(scene) is not None
        assert volume == entry_calls(scene)[0].intent.lot

    act(lambda scene: play(scene, "0.5", 20), begun=False, peace_s=3)
    act(lambda scene: play(scene, "0.01", 300), begun=False, peace_s=3)


# ---- F23


@pytest.mark.failure(
    "F23",
    mutant=Mutant(
        name="the pause after a refused close doubles without a bound",
        path="protection/close_ladder.py",
        old="                pause = min(FIRST_PAUSE_S * 2.0 ** min(refusals - 1, 10), LONGEST_PAUSE_S)\n",
        new="                pause = FIRST_PAUSE_S * 2.0 ** min(refusals - 1, 10)\n",
    ),
)
def test_a_weekend_gap_far_through_the_stop() -> None:
    """Both markets close with positions open, one opens 25 stops lower: what it cost is booked to the stop with its
    slippage, the breach is latched while they are closed, all is flat 5 s after the open, and nothing is entered; the
    follower who has lost less goes on. (An exposure cap before Friday's close does NOT exist: nothing to show.)"""
    both = ("BTCUSDT", "ETHUSDT")

    async def play(scene: Scene) -> None:
        for symbol_id in both:
            await scene.opened(f"s-{symbol_id}", symbol_id=symbol_id)
        await asyncio.sleep(3)
        planned = stop(scene)
        assert planned is not None
        for symbol_id in both:
            scene.venue.set_state(symbol_id, SymbolState.CLOSED)
        scene.price("BTCUSDT", "45000")
        await scene.until(lambda: state(scene) is ConnectionState.FLATTENING, 10)
        await asyncio.sleep(120)
        assert all(scene.lots(C01, symbol_id) > 0 for symbol_id in both)
        for symbol_id in both:
            scene.venue.set_state(symbol_id, SymbolState.TRADING)
        await scene.until(lambda: not scene.venue.positions(C01), 5)
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 10)
        await scene.until(lambda: scene.lots(C02) == 0 and leg(scene, C02) is None, 5)
        await asyncio.sleep(2)
        for name in (C01, C02):
            trade = next(one for one in await trades(scene, name) if one.symbol == BTC)
            assert trade.close_reason is CloseReason.STOP_LOSS
            assert trade.exit_price < 45_100
            assert trade.stop_slippage == planned - trade.exit_price
            assert trade.r_multiple < -10
        await scene.open("s9", symbol_id="EURUSDT")
        await scene.until(lambda: scene.reasons()[-1] == "CONNECTION_HALTED", 3)
        assert len(entry_calls(scene)) == 2
        assert state(scene, C02) is ConnectionState.ACTIVE

    act(play, peace_s=3)

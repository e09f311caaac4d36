"""Stops that are refused, dropped, moved, or jumped over by the price: B9, B10, B11, B21."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.simulation.cast import BRAVO, CONFIGURATION
from simulator.simulation.scene import C01, C03, Scene, act
from simulator.spells import Message
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.orders import OrderState
from srm_agent.domain.trades import CloseReason
from srm_agent.settings import load
from tests.faults.conftest import Measured
from tests.faults.helpers import (
    BTC,
    broker,
    entry_calls,
    entry_ticket,
    leg,
    market,
    state,
    stop,
    told,
    trades,
)

ENTRY, PROTECT = Message.ENTRY, Message.PROTECT


def levels(scene: Scene, *, stops: str = "0", freeze: str = "0") -> None:
    """The venue wants stops that far from the market, and freezes those nearer than that."""
    terms = scene.venue.instruments["BTCUSDT"]
    scene.venue.mischief.set_terms(replace(terms, stops_level=Decimal(stops), freeze_level=Decimal(freeze)))


def tamper(scene: Scene, stop_loss: str | None) -> None:
    """A human sets the stop of c01's position."""
    at = None if stop_loss is None else Decimal(stop_loss)
    scene.venue.mischief.tamper(C01, "BTCUSDT", stop_loss=at, take_profit=None)


# ---- B9


@pytest.mark.fault("B9", bound_s=5)
def test_a_stop_inside_the_brokers_level_is_no_entry() -> None:
    """The level is known: refused with STOP_TOO_CLOSE, nothing is sent; with a stop beyond it the entry goes."""

    async def play(scene: Scene) -> None:
        levels(scene, stops="900")
        await scene.begin()
        await scene.open("s1")
        await scene.until(lambda: scene.reasons() == ["STOP_TOO_CLOSE"], 3)
        assert entry_calls(scene) == []
        await scene.open("s2", stop="59000")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, begun=False, peace_s=5)


@pytest.mark.fault("B9", bound_s=5)
def test_a_level_raised_at_run_time_costs_one_entry_and_is_then_known(measured: Measured) -> None:
    """Refused as INVALID_STOPS and not repeated; the terms are read again, and the next such signal is not sent."""

    async def play(scene: Scene) -> float:
        levels(scene, stops="900")
        began = scene.now
        await scene.open("s1")
        await scene.until(lambda: market(scene).instruments[BTC].stops_distance == 900, 5)
        seconds = scene.now - began
        assert (entry_ticket(scene).state, entry_ticket(scene).code) == (OrderState.REJECTED, "INVALID_STOPS")
        await scene.open("s2", take_profit="61000")
        await scene.until(lambda: scene.reasons()[-1] == "STOP_TOO_CLOSE", 3)
        assert len(entry_calls(scene)) == 1
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B9", bound_s=5)
def test_a_stop_too_near_to_the_market_gets_a_stand_in_and_comes_back(measured: Measured) -> None:
    """Its own stop cannot be set: the nearest that the broker takes stands within 5 s, the leg's own when it can."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        own = stop(scene)
        assert own is not None
        levels(scene, stops="500")
        scene.price("BTCUSDT", f"{own + 200:f}")
        tamper(scene, None)
        lost = scene.now
        await scene.until(lambda: stop(scene) is not None, 5)
        seconds = scene.now - lost
        stand_in = stop(scene)
        assert stand_in is not None
        assert stand_in < own
        scene.price("BTCUSDT", "60000")
        await scene.until(lambda: stop(scene) == own, 10)
        assert scene.lots() > 0
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B9", bound_s=30)
def test_the_agent_watches_the_rest_of_the_way_to_a_stop_that_it_could_not_set(measured: Measured) -> None:
    """The market passes the leg's own stop while only a stand-in stands: closed at once by ourselves."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        own = stop(scene)
        assert own is not None
        levels(scene, stops="500")
        scene.price("BTCUSDT", f"{own + 200:f}")
        tamper(scene, None)
        await scene.until(lambda: stop(scene) is not None, 5)
        scene.price("BTCUSDT", f"{own - 5:f}")
        passed = scene.now
        await scene.until(lambda: scene.lots() == 0, 30)
        return scene.now - passed

    measured(act(play, peace_s=5))


@pytest.mark.fault("B9")
@pytest.mark.parametrize("name", ["invalid stops", "frozen"])
def test_a_position_whose_stop_is_refused_is_closed_after_half_a_minute(name: str) -> None:
    """However often it is asked for: 30 s without its stop, then it is closed, and people are told."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.refuse(name, PROTECT, count=1000)
        broker(scene).mischief.unstopped = 1
        await scene.open("s1")
        await scene.until(lambda: scene.lots() > 0, 5)
        opened = scene.now
        await scene.until(lambda: bool(told(scene, "position without its stop is closed")), 35)
        seconds = scene.now - opened
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        return seconds

    # It is tried for as long as it may be, and half a minute begins when the keeper first looks.
    assert 30 <= act(play, peace_s=5) <= 31


# ---- B10, B11


@pytest.mark.fault("B10", bound_s=5)
@pytest.mark.parametrize("deaf", [0, 1])
def test_a_stop_that_was_silently_dropped_is_found_and_set(measured: Measured, deaf: int) -> None:
    """The reply said yes: reading back shows that there is none, and it is set, also where one yes more was a lie."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.unstopped = 1
        broker(scene).mischief.deaf_protects = deaf
        await scene.open("s1")
        await scene.until(lambda: scene.lots() > 0, 5)
        opened = scene.now
        await scene.until(lambda: stop(scene) is not None, 5)
        found = leg(scene)
        assert found is not None
        assert stop(scene) == found.stop_loss
        return scene.now - opened

    measured(act(play, peace_s=5))


@pytest.mark.fault("B11", bound_s=10)
@pytest.mark.parametrize("to", [None, "58000"])
def test_a_stop_that_somebody_removed_or_loosened_is_restored(measured: Measured, to: str | None) -> None:
    """The leg's own stop stands again within 10 s, and people are told."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        own = stop(scene)
        await asyncio.sleep(5)
        tamper(scene, to)
        moved = scene.now
        await scene.until(lambda: stop(scene) == own, 10)
        seconds = scene.now - moved
        await scene.until(lambda: bool(told(scene, "stop set again")), 5)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B11", bound_s=10)
def test_a_stop_that_somebody_tightened_is_kept(measured: Measured) -> None:
    """Less is at risk: it is the leg's stop from then on, and people are told."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(5)
        tamper(scene, "59800")
        moved = scene.now

        def adopted() -> bool:
            found = leg(scene)
            return found is not None and found.stop_loss == Decimal(59800)

        await scene.until(adopted, 10)
        assert stop(scene) == Decimal(59800)
        assert told(scene, "tighter stop kept") == ["notice"]
        return scene.now - moved

    measured(act(play, peace_s=5))


@pytest.mark.fault("B11", bound_s=10)
def test_under_the_flag_policy_a_loosened_stop_is_told_and_left(measured: Measured) -> None:
    """The follower may decide himself: a page says so, and nobody moves the stop back."""

    async def play(scene: Scene) -> float:
        flag = {"stops": {"foreign_change": "flag"}}
        scene.world.settings = load(
            CONFIGURATION, {"protection": {"emergency_scope": "own"}, "policies": {"crypto": flag}}
        )
        await scene.begin()
        await scene.opened()
        await asyncio.sleep(5)
        tamper(scene, "58000")
        moved = scene.now
        await scene.until(lambda: bool(told(scene, "looser stop")), 10)
        seconds = scene.now - moved
        assert told(scene, "looser stop") == ["page"]
        await asyncio.sleep(5)
        assert stop(scene) == Decimal(58000)
        # The judges know the usual policy only: to them the follower's own risk is more than was planned.
        assert {one.invariant for one in scene.judge.violations} == {"INV-11"}
        return seconds

    measured(act(play, begun=False, lawful=False))


# ---- B21


@pytest.mark.fault("B21")
def test_a_gap_through_the_stop_is_recorded_and_opens_nothing() -> None:
    """Closed far beyond its stop: the loss is booked with its stop slippage, and no entry follows."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        planned = stop(scene)
        assert planned is not None
        scene.venue.mischief.gap("BTCUSDT", Decimal("-0.03"))
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 10)
        await asyncio.sleep(10)
        trade = (await trades(scene))[-1]
        assert trade.close_reason is CloseReason.STOP_LOSS
        assert trade.exit_price < planned
        assert trade.stop_slippage == planned - trade.exit_price
        assert trade.r_multiple < -2
        assert len(entry_calls(scene)) == 1

    act(play, peace_s=10)


@pytest.mark.fault("B21")
def test_a_gap_that_costs_more_than_the_limit_halts_the_account() -> None:
    """The loss of the gap counts as drawdown: the account is flat and halted, and takes no further entry."""

    async def play(scene: Scene) -> None:
        await scene.open("s1", provider=BRAVO)
        await scene.until(lambda: scene.lots(C03) > 0, 5)
        scene.venue.mischief.gap("BTCUSDT", Decimal("-0.03"))
        await scene.until(lambda: scene.lots(C03) == 0, 10)
        await scene.until(lambda: state(scene, C03) is ConnectionState.HALTED, 10)
        await scene.open("s2", provider=BRAVO, symbol_id="ETHUSDT")
        await scene.until(lambda: scene.reasons(C03)[-1] == "CONNECTION_HALTED", 3)
        assert len(entry_calls(scene, C03)) == 1

    act(play, peace_s=10)

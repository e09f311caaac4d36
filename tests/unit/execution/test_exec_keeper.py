"""No position without its stop at the broker (INV-4): read back, set again, closed when that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.venue import Venue
from srm_agent.domain.ids import PositionRef
from srm_agent.domain.orders import BrokerPosition
from srm_agent.domain.policies import ForeignStopChange, StopPolicy
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, OrderRefused
from srm_agent.execution.stop_rules import (
    Cover,
    cover,
    farthest_stop,
    frozen,
    nearest_stop,
    with_stop,
)
from tests.unit.execution.conftest import (
    BTC,
    START,
    Bench,
    Twisted,
    a_leg,
    an_instrument,
    desk_at_work,
    failing,
    move,
    until,
)

D = Decimal
TICK = D("0.1")


def an_open_leg(side: Side = Side.BUY, **changes: Any) -> Leg:
    """0.3 BTC at 60000, stop 1010 away."""
    sign = int(side)
    return replace(
        a_leg(
            side=side,
            state=LegState.OPEN,
            entry_price=D(60_000),
            opened_at=START,
            planned_stop=D(60_000) - sign * 1000,
            stop_loss=D(60_000) - sign * 1010,
        ),
        **changes,
    )


def a_position(stop: str | None, side: Side = Side.BUY, stop_lot: str | None = None) -> BrokerPosition:
    """What the broker holds."""
    return BrokerPosition(
        ref=PositionRef(f"{BTC}|0"),
        symbol=BTC,
        side=side,
        lot=D("0.3"),
        entry_price=D(60_000),
        stop_loss=None if stop is None else D(stop),
        take_profit=None,
        opened_at=START,
        stop_lot=None if stop_lot is None else D(stop_lot),
    )


def stop_at_venue(bench: Bench) -> Decimal | None:
    """The stop of the BTC position."""
    return bench.venue.positions("c01", "BTCUSDT")[0].stop_loss


def clear_stop(bench: Bench, to: str = "0") -> None:
    """A human sets the stop of the position by hand; 0 removes it."""
    bench.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D(to))


def twist(**twists: Callable[[Any], Callable[..., Any]]) -> Callable[[Any], Any]:
    """A broker some of whose calls are made from the real one."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)
        broker.twists |= {name: made(real) for name, made in twists.items()}
        return broker

    return wrap


# ---- pure rules


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(
    ("ahead", "stop_lot", "found"),
    [
        pytest.param("0", None, Cover.WHOLE, id="as it should be"),
        pytest.param("0.05", None, Cover.WHOLE, id="less than a tick away"),
        pytest.param("5", None, Cover.TIGHTER, id="nearer to the market"),
        pytest.param("-5", None, Cover.LOOSER, id="farther from the market"),
        pytest.param("0", "0.2", Cover.PARTIAL, id="for less than the position"),
        pytest.param("0", "0.3", Cover.WHOLE, id="for just the position"),
        pytest.param(None, None, Cover.MISSING, id="none"),
    ],
)
def test_what_the_brokers_stop_is_to_ours(side: Side, ahead: str | None, stop_lot: str | None, found: Cover) -> None:
    """Each way in which a stop can differ has its name, on both sides, and its volume counts (F11)."""
    leg = an_open_leg(side)
    assert leg.stop_loss is not None
    stop = None if ahead is None else str(leg.stop_loss + int(side) * D(ahead))
    assert cover(leg, a_position(stop, side, stop_lot), TICK) is found


@given(st.sampled_from(list(Side)), st.integers(0, 500), st.integers(1, 1_000_000))
def test_the_nearest_stop_keeps_the_stops_level(side: Side, level: int, ticks: int) -> None:
    """On the grid, at least the stops level and a tick away from the market, and less than a tick more than that."""
    instrument, touch = an_instrument(stops_distance=D(level) / 10), D(ticks) / 7 + 100
    room = int(side) * (touch - nearest_stop(side, touch, instrument))
    least = max(D(level) / 10, TICK)
    assert least <= room < least + TICK


@given(st.sampled_from(list(Side)), st.integers(1, 2000), st.integers(1, 300))
def test_a_widened_stop_never_risks_more_than_the_cap(side: Side, cap: int, thousandths: int) -> None:
    """Loss from entry at the farthest stop is within the cap, unless the stop in force risks more already (INV-11)."""
    leg = an_open_leg(side, lot=D(thousandths) / 1000)
    assert leg.stop_loss is not None
    farthest = farthest_stop(leg, an_instrument(), D(cap))
    assert farthest is not None
    assert int(side) * (farthest - leg.stop_loss) <= 0
    risk = int(side) * (D(60_000) - farthest) * leg.lot
    assert farthest == leg.stop_loss or risk <= cap
    assert with_stop(leg, farthest, D(1)).planned_risk >= leg.planned_risk


def test_nothing_is_widened_where_the_cap_is_not_known() -> None:
    """No equity, no cap: the stop in force is the farthest (INV-14)."""
    assert farthest_stop(an_open_leg(), an_instrument(), None) is None


def test_a_stop_within_the_freeze_level_is_not_touched() -> None:
    """Measured from the market; without a level, a stop or a quote nothing is frozen."""
    instrument = an_instrument(freeze_distance=D(10))
    assert frozen(Side.BUY, D(59_990), D(60_000), instrument)
    assert not frozen(Side.BUY, D(59_989), D(60_000), instrument)
    assert not frozen(Side.BUY, None, D(60_000), instrument)
    assert not frozen(Side.BUY, D(59_990), D(60_000), an_instrument())


# ---- read back


async def test_every_opening_is_read_back(tmp_path: Path) -> None:
    """A venue that fills, says OK and drops the stop (B10, F10): it stands within a second, nobody else asking."""

    def forgetful(real: Any) -> Any:
        async def submit(intent: Any) -> Any:
            return await real.submit(replace(intent, stop_loss=None))

        return submit

    async with desk_at_work(tmp_path, wrap=twist(submit=forgetful)) as bench:
        leg = await bench.enter()
        assert await until(lambda: stop_at_venue(bench) == leg.stop_loss) < 1


async def test_an_opening_is_read_back_whatever_the_stream_says(tmp_path: Path) -> None:
    """Reply and stream tell of a stop that is not there: the read after the opening shows it, before two seconds."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def submit(intent: Any) -> Any:
            return await real.submit(replace(intent, stop_loss=None))

        async def events() -> Any:
            async for event in real.events():
                lies = isinstance(event, BrokerPosition) and event.stop_loss is None
                yield replace(event, stop_loss=D(58_990)) if lies else event

        broker.twists |= {"submit": submit, "events": events}
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter()
        assert await until(lambda: stop_at_venue(bench) == leg.stop_loss) < 0.5


async def test_a_stop_removed_unheard_is_found_by_reading(bench: Bench) -> None:
    """The stream says nothing: the read of every two seconds does (B11)."""
    leg = await bench.enter()
    await asyncio.sleep(5)
    listeners = list(bench.venue._listeners)
    bench.venue._listeners.clear()
    clear_stop(bench)
    bench.venue._listeners.extend(listeners)
    assert await until(lambda: stop_at_venue(bench) == leg.stop_loss) < 3
    await asyncio.sleep(2)
    assert ("warning", "stop set again") in bench.ear.troubles


async def test_a_reply_that_lies_is_read_back_until_the_stop_stands(tmp_path: Path) -> None:
    """`protect` says OK five times and does nothing: each time the read shows it (B10)."""
    lies = 5

    def lying(real: Any) -> Any:
        async def protect(*args: Any) -> None:
            nonlocal lies
            lies -= 1
            if lies < 0:
                await real.protect(*args)

        return protect

    async with desk_at_work(tmp_path, wrap=twist(protect=lying)) as bench:
        leg = await bench.enter()
        clear_stop(bench)
        assert await until(lambda: stop_at_venue(bench) == leg.stop_loss) < 5


async def test_reads_are_saved_while_events_show_the_position_well(tmp_path: Path) -> None:
    """A minute with one open leg: a read every two seconds, none without a leg."""
    async with desk_at_work(tmp_path, wrap=Twisted) as bench:
        broker: Any = bench.desk.broker
        await asyncio.sleep(60)
        idle = broker.calls.count("positions")
        await bench.enter()
        broker.calls.clear()
        await asyncio.sleep(60)
        assert idle <= 11  # the auditor's own, every six seconds
        assert 25 <= broker.calls.count("positions") <= 40


async def test_a_looser_stop_is_set_back(bench: Bench) -> None:
    """Somebody moves the stop away from the market: as it was within seconds, and people are told (B11)."""
    leg = await bench.enter()
    await asyncio.sleep(3)
    clear_stop(bench, "50000")
    assert await until(lambda: stop_at_venue(bench) == leg.stop_loss) < 5
    await asyncio.sleep(2)
    assert ("warning", "stop set again") in bench.ear.troubles
    assert bench.leg(leg).stop_loss == leg.stop_loss


async def test_a_looser_stop_is_flagged_where_the_policy_says_so(tmp_path: Path) -> None:
    """`foreign_change = flag`: told once, left, and known as the leg's own with its greater risk; removal is mended."""
    async with desk_at_work(tmp_path) as bench:
        parts: Any = bench.desk._parts
        bench.desk._parts = replace(parts, stop_policy=lambda leg: StopPolicy(foreign_change=ForeignStopChange.FLAG))
        leg = await bench.enter()
        await asyncio.sleep(3)
        clear_stop(bench, "58000")
        await asyncio.sleep(10)
        assert stop_at_venue(bench) == bench.leg(leg).stop_loss == D(58_000)
        assert bench.leg(leg).planned_risk > leg.planned_risk
        assert bench.ear.troubles == [("page", "looser stop")]
        clear_stop(bench)
        assert await until(lambda: stop_at_venue(bench) == D(58_000)) < 5


async def test_a_tighter_stop_is_kept_and_told_once(bench: Bench) -> None:
    """A human tightens: that is the leg's stop from now on, in the journal too, and nothing moves it back."""
    leg = await bench.enter()
    await asyncio.sleep(3)
    clear_stop(bench, "59500")
    await asyncio.sleep(30)
    assert stop_at_venue(bench) == bench.leg(leg).stop_loss == D(59_500)
    assert bench.ear.troubles == [("notice", "tighter stop kept")]
    await bench.desk.writer.drained()
    (stored,) = await bench.journal.open_legs(leg.connection_id)
    assert (stored.stop_loss, stored.planned_risk) == (D(59_500), leg.planned_risk)


async def test_our_own_move_is_nobodys_meddling(tmp_path: Path) -> None:
    """The reply to a provider's move takes three seconds; what the reads show meanwhile is not told as a human's."""

    def slow(real: Any) -> Any:
        async def protect(*args: Any) -> None:
            await real.protect(*args)
            await asyncio.sleep(3)

        return protect

    async with desk_at_work(tmp_path, wrap=twist(protect=slow)) as bench:
        leg = await bench.enter()
        await asyncio.sleep(3)
        bench.desk.moves.want(leg, D(59_200), None)
        await asyncio.sleep(20)
        assert bench.leg(leg).stop_loss == stop_at_venue(bench) == D(59_190)
        assert bench.ear.troubles == []


# ---- what cannot be mended


async def test_a_stop_that_the_market_has_passed_closes_at_once(bench: Bench) -> None:
    """The stop is gone and the price is beyond it: setting it makes no sense any more."""
    leg = await bench.enter()
    clear_stop(bench)
    touch = bench.desk._parts.touch
    bench.desk._parts = replace(bench.desk._parts, touch=lambda symbol, side: D(58_000))
    assert touch(BTC, Side.SELL) == D(60_000)
    assert await until(lambda: not bench.held()) < 2
    assert bench.leg(leg).close_reason is CloseReason.EMERGENCY
    assert [title for _, title in bench.ear.troubles][-1] == "position without its stop is closed"


async def test_a_stop_too_near_to_the_market_gets_a_stand_in(tmp_path: Path) -> None:
    """Within the stops level the nearest allowed stop stands; when the market leaves, ours (B9, F9)."""
    async with desk_at_work(tmp_path, symbols={BTC: an_instrument(stops_distance=D(200))}) as bench:
        leg = await bench.enter()
        clear_stop(bench)
        bid = D(59_100)  # 110 above our stop of 58990
        bench.desk._parts = replace(bench.desk._parts, touch=lambda symbol, side: bid)
        await until(lambda: stop_at_venue(bench) is not None, 5)
        assert stop_at_venue(bench) == D(58_900)
        assert bench.leg(leg).stop_loss == D(58_990)
        bid = D(60_000)
        await until(lambda: stop_at_venue(bench) == D(58_990), 5)
        assert bench.held()


async def test_a_broker_that_does_not_tell_its_stops_level_is_felt_out(tmp_path: Path) -> None:
    """Stops nearer than 1300 are refused without saying so: within five seconds a wider one stands, closed at 30 s."""
    refused: list[Decimal] = []

    def picky(real: Any) -> Any:
        async def protect(ref: Any, symbol: Any, stop: Decimal | None, target: Decimal | None) -> None:
            if stop is not None and D(60_000) - stop < 1300:
                refused.append(stop)
                raise OrderRefused("INVALID_STOPS", "10016")
            await real.protect(ref, symbol, stop, target)

        return protect

    async with desk_at_work(tmp_path, wrap=twist(protect=picky)) as bench:
        leg = await bench.enter()
        began = asyncio.get_running_loop().time()
        clear_stop(bench)
        assert await until(lambda: stop_at_venue(bench) is not None) < 5
        stop = stop_at_venue(bench)
        assert refused[0] == leg.stop_loss
        assert stop is not None
        assert D(60_000) - stop <= 2 * D(1011)
        await until(lambda: not bench.held())
        assert 30 <= asyncio.get_running_loop().time() - began <= 32


async def test_the_clock_stands_while_the_broker_is_out_of_reach(tmp_path: Path) -> None:
    """Naked, then two minutes without an answer: afterwards the stop is set again, the position is not closed."""
    async with desk_at_work(tmp_path, wrap=Twisted) as bench:
        leg = await bench.enter()
        await asyncio.sleep(3)
        broker: Any = bench.desk.broker

        async def down(*_: Any) -> Any:
            raise BrokerUnreachable("cut")

        broker.twists["protect"] = down
        clear_stop(bench)
        await asyncio.sleep(5)
        broker.twists |= dict.fromkeys(("positions", "fills", "lookup", "submit"), down)
        await asyncio.sleep(120)
        broker.twists.clear()
        assert await until(lambda: stop_at_venue(bench) == leg.stop_loss) < 5
        await asyncio.sleep(5)
        assert bench.held() == D("0.3")


async def test_a_stop_of_less_volume_than_the_position_is_set_again(tmp_path: Path) -> None:
    """The broker's stop covers a part: the keeper sets it for the whole (B8, F11)."""
    partly = True

    def part(real: Any) -> Any:
        async def positions() -> list[BrokerPosition]:
            found = list(await real.positions())
            return [replace(p, stop_lot=p.lot / 2) for p in found] if partly else found

        return positions

    def whole(real: Any) -> Any:
        async def protect(*args: Any) -> None:
            nonlocal partly
            partly = False
            await real.protect(*args)

        return protect

    async with desk_at_work(tmp_path, wrap=twist(positions=part, protect=whole)) as bench:
        await bench.enter()
        await until(lambda: not partly, 5)
        await asyncio.sleep(40)
        assert bench.held() == D("0.3")


# ---- the provider's moves


async def test_a_move_beyond_the_market_is_set_as_near_as_allowed(tmp_path: Path) -> None:
    """The provider's stop lies past our market: the nearest allowed one, not a refusal that leaves the old (B9)."""
    async with desk_at_work(tmp_path, symbols={BTC: an_instrument(stops_distance=D(50))}) as bench:
        leg = await bench.enter()
        bench.desk.moves.want(leg, D(60_500), None)
        await until(lambda: not bench.desk.moves.pending(leg.leg_id))
        assert stop_at_venue(bench) == bench.leg(leg).stop_loss == D(59_950)


async def test_a_frozen_stop_is_moved_when_it_is_free(tmp_path: Path) -> None:
    """Within the freeze level nothing is sent; the wish waits and is carried out after it."""
    async with desk_at_work(tmp_path, wrap=Twisted, symbols={BTC: an_instrument(freeze_distance=D(2000))}) as bench:
        leg = await bench.enter()
        broker: Any = bench.desk.broker
        bench.desk.moves.want(leg, D(59_200), None)
        await asyncio.sleep(5)
        assert "protect" not in broker.calls
        assert bench.desk.moves.pending(leg.leg_id)
        instruments: Any = bench.desk._parts.instruments
        instruments[BTC] = an_instrument()
        await until(lambda: not bench.desk.moves.pending(leg.leg_id))
        assert stop_at_venue(bench) == D(59_190)


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        pytest.param(D(600), "58000.0", id="as asked, moved by the buffer"),
        pytest.param(D(450), "58500.0", id="as far as the cap allows"),
        pytest.param(None, "58990.0", id="not at all without a cap"),
    ],
)
async def test_widening_where_the_policy_allows_it(tmp_path: Path, cap: Decimal | None, expected: str) -> None:
    """A wider stop is granted up to the risk cap after the buffer (INV-11), and counts against compliance."""
    async with desk_at_work(tmp_path) as bench:
        bench.desk._parts = replace(
            bench.desk._parts, stop_policy=lambda leg: StopPolicy(allow_widening=True), risk_cap=lambda leg: cap
        )
        leg = await bench.enter()
        assert leg.entry_price == D("60000.5")
        bench.desk.moves.want(leg, D(58_010), None)
        await until(lambda: not bench.desk.moves.pending(leg.leg_id))
        stop = bench.leg(leg).stop_loss
        assert stop is not None
        assert abs(stop - D(expected)) <= 1
        assert not bench.leg(leg).stop_kept
        await asyncio.sleep(10)
        assert stop_at_venue(bench) == stop
        assert not bench.ear.troubles


async def test_errors_of_reading_are_not_the_end(tmp_path: Path) -> None:
    """Reads fail for a while: the keeper goes on, and mends what it then sees."""

    def flaky(real: Any) -> Any:
        return failing(*[BrokerUnreachable("502")] * 10, then=real.positions)

    async with desk_at_work(tmp_path, wrap=twist(positions=flaky)) as bench:
        leg = await bench.enter()
        clear_stop(bench)
        await until(lambda: stop_at_venue(bench) == leg.stop_loss, 20)


async def test_a_stopped_out_position_is_left_to_its_fill(bench: Bench) -> None:
    """The stop does its work: no mending, no trouble, the leg closed as stopped out."""
    leg = await bench.enter()
    venue: Venue = bench.venue
    move(venue, "58900")
    await until(lambda: bench.leg(leg).state is LegState.CLOSED)
    await asyncio.sleep(10)
    assert bench.leg(leg).close_reason is CloseReason.STOP_LOSS
    assert not bench.ear.troubles

"""Journal against broker: what is ours is mended, what is not is left alone, a failed read is not flat."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.records import OrderTicket
from srm_agent.domain.accounts import AccountSnapshot
from srm_agent.domain.ids import PositionRef
from srm_agent.domain.orders import BrokerPosition
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.errors import BrokerUnreachable, NotAuthorised, OrderRefused
from srm_agent.execution.reconcile import Finding, compare
from srm_agent.execution.stop_rules import loosens, moved_stop
from tests.unit.execution.conftest import (
    BTC,
    START,
    Bench,
    Twisted,
    a_leg,
    an_entry,
    desk_at_work,
    failing,
    move,
    until,
)

D = Decimal


def an_open_leg(**changes: Any) -> Leg:
    """0.3 BTC bought at 60000, stop 58990."""
    return replace(a_leg(state=LegState.OPEN, entry_price=D(60_000), opened_at=START), **changes)


def a_position(lot: str, side: Side = Side.BUY, stop: str | None = "58990") -> BrokerPosition:
    """What the broker holds."""
    return BrokerPosition(
        ref=PositionRef(f"{BTC}|0"),
        symbol=BTC,
        side=side,
        lot=D(lot),
        entry_price=D(60_000),
        stop_loss=None if stop is None else D(stop),
        take_profit=None,
        opened_at=START,
    )


@pytest.mark.parametrize(
    ("legs", "positions", "finding"),
    [
        pytest.param(["0.3"], [a_position("0.3")], None, id="agree"),
        pytest.param(["0.3"], [a_position("0.3", stop=None)], None, id="its stop is the keeper's business"),
        pytest.param(["0.3"], [a_position("0.2")], Finding.MISSING, id="the broker holds less"),
        pytest.param(["0.3"], [], Finding.MISSING, id="the broker holds nothing"),
        pytest.param(["0.3"], [a_position("0.4")], Finding.FOREIGN, id="the broker holds more"),
        pytest.param(["0.3"], [a_position("0.3", Side.SELL)], Finding.FOREIGN, id="the other side"),
        pytest.param([], [a_position("0.3")], Finding.FOREIGN, id="nothing of it is ours"),
        pytest.param([], [], None, id="flat"),
    ],
)
def test_what_a_comparison_shows(legs: list[str], positions: list[BrokerPosition], finding: Finding | None) -> None:
    """Each way in which journal and broker can differ has its name; a symbol in doubt has none."""
    ours = [an_open_leg(lot=D(lot)) for lot in legs]
    assert [found.finding for found in compare(ours, positions, frozenset())] == ([finding] if finding else [])
    assert compare(ours, positions, frozenset([BTC])) == []


def test_an_opening_leg_is_not_expected_at_the_broker() -> None:
    """Before its fill nothing is missing."""
    assert compare([a_leg()], [], frozenset()) == []


async def test_a_failed_read_is_not_flat(tmp_path: Path) -> None:
    """Positions cannot be read for ten minutes: no leg is given up (INV-7)."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        bench.broker.faults.add("v5/position/list", "http502_before", times=10_000)
        for _ in range(600):
            bench.desk.auditor.look_soon()
            await asyncio.sleep(1)
        assert bench.leg(leg).state is LegState.OPEN
        assert not bench.ear.differences


async def test_positions_listed_three_seconds_late_lose_no_leg(tmp_path: Path) -> None:
    """The positions endpoint runs 3 s behind (B26): an entry just filled is not given up."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)
        seen: list[tuple[float, list[BrokerPosition]]] = []

        async def positions() -> list[BrokerPosition]:
            now = asyncio.get_running_loop().time()
            seen.append((now, list(await real.positions())))
            return next((old for at, old in reversed(seen) if at <= now - 3), [])

        broker.twists["positions"] = positions
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter()
        for _ in range(100):
            bench.desk.auditor.look_soon()
            await asyncio.sleep(0.1)
        assert bench.leg(leg).state is LegState.OPEN


def nothing_is_there(real: Any, *, margin_too: bool) -> Any:
    """A broker that lists neither positions nor fills, and (or) says that no margin is in use."""
    broker = Twisted(real)

    async def nothing(*_: Any) -> list[Any]:
        return []

    async def free() -> AccountSnapshot:
        told: AccountSnapshot = await real.account()
        return replace(told, margin_used=ZERO)

    broker.twists |= {"positions": nothing, "fills": nothing}
    if margin_too:
        broker.twists["account"] = free
    return broker


async def test_a_leg_whose_position_is_not_listed_while_margin_is_in_use_is_not_given_up(tmp_path: Path) -> None:
    """An empty list by error (B26): the leg stays for a minute, a person is told, and then it is given up."""
    async with desk_at_work(tmp_path, wrap=lambda real: nothing_is_there(real, margin_too=False)) as bench:
        leg = await bench.enter()
        bench.desk.auditor.look_soon()
        await asyncio.sleep(50)
        assert bench.leg(leg).state is LegState.OPEN
        assert ("page", "no position is listed, but margin is in use") in bench.ear.troubles
        await until(lambda: bench.leg(leg).state is LegState.CLOSED, 20)


async def test_a_leg_whose_position_is_gone_without_a_trace_is_closed_without_a_result(tmp_path: Path) -> None:
    """No fill explains it in several looks: FOREIGN, told once, and the journal agrees within ten seconds (INV-7)."""
    async with desk_at_work(tmp_path, wrap=lambda real: nothing_is_there(real, margin_too=True)) as bench:
        leg = await bench.enter()
        bench.desk.auditor.look_soon()
        assert await until(lambda: bench.leg(leg).state is LegState.CLOSED) < 10
        assert bench.leg(leg).close_reason is CloseReason.FOREIGN
        assert [found.finding for found in bench.ear.differences] == [Finding.MISSING]
        await bench.desk.writer.drained()
        assert not await bench.journal.open_legs(leg.connection_id)


async def test_a_stop_that_filled_unheard_is_found_with_its_result(tmp_path: Path) -> None:
    """The stream is silent about a stop; the audit reads history first and closes the leg with its result (F4)."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        unsubscribed = list(bench.venue._listeners)
        bench.venue._listeners.clear()
        move(bench.venue, "58900")
        bench.venue._listeners.extend(unsubscribed)
        bench.desk.auditor.look_soon()
        await until(lambda: bench.leg(leg).state is LegState.CLOSED, 5)
        assert bench.leg(leg).close_reason is CloseReason.STOP_LOSS
        assert bench.leg(leg).realised_pnl < -300


async def test_foreign_volume_is_told_once_and_left_alone(bench: Bench) -> None:
    """For an hour: one page, few reads, the symbol halted; when it is gone the symbol is free again."""
    bench.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.1")))
    bench.desk.auditor.look_soon()
    await asyncio.sleep(3600)
    assert [found.finding for found in bench.ear.differences] == [Finding.FOREIGN]
    assert BTC in bench.desk.halted_symbols
    assert bench.held() == D("0.1")
    bench.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.SELL, lots=D("0.1")))
    await until(lambda: BTC not in bench.desk.halted_symbols)


async def test_a_dropped_stop_is_restored_within_seconds(bench: Bench) -> None:
    """Somebody clears the stop: it is back within five seconds (INV-4, B10, B11)."""
    await bench.enter()
    bench.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D(0))
    assert await until(lambda: bench.venue.positions("c01")[0].stop_loss == D(58_990)) < 5


@pytest.mark.parametrize(
    ("error", "closed_after"),
    [
        pytest.param(OrderRefused("INVALID_STOPS"), (30, 32), id="whatever the refusal"),
        pytest.param(BrokerUnreachable("down"), (30, 32), id="stops cannot be set, positions can be read"),
    ],
)
async def test_a_position_that_stays_naked_is_closed(
    tmp_path: Path, error: Exception, closed_after: tuple[float, float]
) -> None:
    """A stop that cannot be set ends in a close, neither at the first hiccup nor never (INV-4)."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def refuse(*_: Any) -> None:
            raise error

        broker.twists["protect"] = refuse
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter()
        bench.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D(0))
        took = await until(lambda: not bench.held())
        assert closed_after[0] <= took <= closed_after[1]
        assert bench.leg(leg).close_reason is CloseReason.EMERGENCY


async def test_a_move_waits_for_its_leg_and_the_newest_wins(bench: Bench) -> None:
    """Stops asked for while the entry is under way are set when it is open; only the last one."""
    leg = await bench.enter(wait=False)
    bench.desk.moves.want(leg, D(59_200), D(61_000))
    bench.desk.moves.want(leg, D(59_500), None)
    assert bench.desk.moves.pending(leg.leg_id)
    await until(lambda: not bench.desk.moves.pending(leg.leg_id))
    position = bench.venue.positions("c01")[0]
    assert (position.stop_loss, position.take_profit) == (D(59_490), D(61_000))
    assert bench.leg(leg).stop_loss == D(59_490)
    await bench.desk.writer.drained()
    (stored,) = await bench.journal.open_legs(leg.connection_id)
    assert (stored.stop_loss, stored.stop_kept) == (D(59_490), True)


async def test_the_buffer_outlives_the_first_move(bench: Bench) -> None:
    """A second tightening keeps the leg's buffer too."""
    leg = await bench.enter()
    for asked in (D(59_200), D(59_500)):
        bench.desk.moves.want(bench.leg(leg), asked, None)
        await until(lambda: not bench.desk.moves.pending(leg.leg_id))
        assert bench.leg(leg).stop_loss == asked - 10


async def test_a_looser_stop_is_held_and_noted(bench: Bench) -> None:
    """The provider asks for a wider stop: not granted, and it counts against its compliance."""
    leg = await bench.enter()
    bench.desk.moves.want(leg, D(50_000), None)
    await until(lambda: not bench.desk.moves.pending(leg.leg_id))
    assert bench.venue.positions("c01")[0].stop_loss == D(58_990)
    assert not bench.leg(leg).stop_kept


@pytest.mark.parametrize(
    ("errors", "refusals", "moved"),
    [
        pytest.param([BrokerUnreachable("down")] * 3, 0, True, id="unreachable: tried again"),
        pytest.param([OrderRefused("INVALID_STOPS")], 0, False, id="refused: given up"),
        pytest.param([NotAuthorised("10005")], 1, False, id="not authorised: told, and the desk lives"),
    ],
)
async def test_errors_of_a_move(tmp_path: Path, errors: list[BaseException], refusals: int, moved: bool) -> None:
    """No answer to a move ends the desk."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)
        broker.twists["protect"] = failing(*errors, then=real.protect)
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter()
        bench.desk.moves.want(leg, D(59_200), None)
        await until(lambda: not bench.desk.moves.pending(leg.leg_id))
        assert len(bench.ear.refusals) == refusals
        assert (bench.venue.positions("c01")[0].stop_loss == D(59_190)) is moved
        await asyncio.sleep(1)


@pytest.mark.parametrize("side", list(Side))
def test_a_moved_stop_never_loosens(side: Side) -> None:
    """For any asked price the stop set is at or nearer than the one in force, on the grid."""
    sign = int(side)
    leg = an_open_leg(side=side, planned_stop=D(60_000) - sign * 1000, stop_loss=D(60_000) - sign * 1010)
    assert leg.stop_loss is not None
    for offset in range(-3000, 3001, 77):
        asked = D(60_000) + D(offset) / 3
        stop = moved_stop(leg, asked, D("0.1"), D(10))
        assert sign * (stop - leg.stop_loss) >= 0
        assert stop % D("0.1") == 0
        assert loosens(leg, asked) == (sign * (asked - leg.planned_stop) < 0)


async def test_a_stream_that_ends_ends_the_desk(tmp_path: Path) -> None:
    """A deaf desk does not go on as if nothing had happened (P18)."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def ends() -> Any:
            async for event in real.events():
                yield event
                return

        broker.twists["events"] = ends
        return broker

    with pytest.raises(BaseExceptionGroup) as caught:
        async with desk_at_work(tmp_path, wrap=wrap):
            await asyncio.sleep(1)
    assert caught.group_contains(RuntimeError, match="account stream of c01 ended")


async def test_a_restart_knows_everything_and_adds_nothing(tmp_path: Path) -> None:
    """Ten restarts without market activity: same leg, same fills, no order, no new rows (F8)."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        bench.desk.close(leg, D("0.4"), CloseReason.PROVIDER, "close:m1")
        await until(lambda: bench.leg(leg).open_lot == D("0.18"))
        await bench.desk.writer.drained()
        before, orders = bench.leg(leg), bench.orders()
        for _ in range(10):
            async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as next_life:
                await asyncio.sleep(5)
                assert next_life.leg(leg) == replace(before, closing_as=next_life.leg(leg).closing_as)
                assert next_life.orders() == orders
                assert not next_life.ear.differences


async def test_a_crash_between_commit_and_wire_abandons_the_entry(tmp_path: Path) -> None:
    """The intent is in the journal, nothing at the broker: asked about, abandoned, never sent (INV-5)."""
    async with desk_at_work(tmp_path) as bench:
        leg = a_leg()
        await bench.journal.record([], [an_entry(leg)], [leg])
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as next_life:
            assert next_life.desk.ledger.open_leg(BTC) is not None
            await until(lambda: not next_life.desk.ledger.unsettled())
            assert next_life.leg(leg).state is LegState.NEVER_OPENED
            assert next_life.orders() == []


async def test_yesterdays_trades_do_not_close_todays_leg_after_a_restart(tmp_path: Path) -> None:
    """The venue's history holds a stop-out from hours before: today's leg survives the restart."""
    async with desk_at_work(tmp_path) as bench:
        old = await bench.enter("old")
        move(bench.venue, "58900")
        await until(lambda: bench.leg(old).state is LegState.CLOSED)
        move(bench.venue, "60000", after_ms=6 * 3600 * 1000)
        leg = await bench.enter("new")
        await bench.desk.writer.drained()
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as next_life:
            await asyncio.sleep(60)
            assert next_life.leg(leg).open_lot == D("0.3")
            assert not next_life.ear.differences


async def test_a_stop_missing_at_start_is_restored_within_five_seconds(tmp_path: Path) -> None:
    """The first picture shows a naked position: it is looked at again at once, not in half a minute (INV-4)."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        bench.desk.synced = False
        bench.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D(0), take_profit=None)
        bench.broker.drop_stream()
        began = asyncio.get_running_loop().time()
        await until(lambda: bench.venue.positions("c01")[0].stop_loss == leg.stop_loss, 60)
        assert asyncio.get_running_loop().time() - began < 5

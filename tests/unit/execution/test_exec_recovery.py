"""What a process knows of the one before: spilt exits, targets of closes, orders that ended, and no row more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from simulator.records import OrderTicket
from srm_agent.domain.ids import ClientOrderId, ConnectionId, DecisionId, LegId, PositionRef, SignalId, Symbol
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport, OrderState, Outcome
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import Side
from srm_agent.errors import StoreUnavailable
from srm_agent.execution.reconcile import Finding
from srm_agent.execution.spill import SpillFile, Spilt
from srm_agent.ports import OrderUpdate
from srm_agent.store.names import STANDALONE
from srm_agent.store.schema import tables_of
from srm_agent.store.store import Store
from tests.unit.execution.conftest import (
    BTC,
    C01,
    START,
    Bench,
    Twisted,
    a_leg,
    an_entry,
    an_instrument,
    desk_at_work,
    move,
    until,
)

D = Decimal
ENTRY = an_entry(a_leg())


async def counts(store: Store) -> dict[str, int]:
    """Rows of every table."""

    def count(connection: Connection) -> dict[str, int]:
        tables = tables_of(STANDALONE).metadata.sorted_tables
        return {t.name: connection.execute(select(func.count()).select_from(t)).scalar() or 0 for t in tables}

    return await store.runner.read(count)


def journal_that(**twists: Callable[[Store], Callable[..., Any]]) -> Callable[[Store], Any]:
    """A journal some of whose calls are made from the store."""

    def make(store: Store) -> Any:
        journal = Twisted(store.journal)
        journal.twists |= {name: made(store) for name, made in twists.items()}
        return journal

    return make


# ---- the spill file

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
money = st.none() | st.decimals(0, 10**9, places=10)


@given(
    words, words, st.sampled_from(list(Side)), money, money, st.lists(words, max_size=3),
    st.sampled_from(list(OrderPurpose)), st.booleans(),
)  # fmt: skip
def test_a_spilt_exit_comes_back_whole(
    name: str,
    reason: str,
    side: Side,
    price: Decimal | None,
    target: Decimal | None,
    requests: list[str],
    purpose: OrderPurpose,
    known: bool,
) -> None:
    """Whatever an intent holds, its line holds."""
    files = MemoryFiles()
    intent = OrderIntent(
        client_id=ClientOrderId(name),
        connection_id=C01,
        leg_id=LegId(name) if known else None,
        signal_id=SignalId(name) if known else None,
        decision_id=DecisionId(name) if known else None,
        purpose=purpose,
        symbol=Symbol(reason),
        side=side,
        lot=D("0.30"),
        limit_price=price,
        stop_loss=price,
        take_profit=price,
        reduce=PositionRef(name) if known else None,
        reason=reason,
        created_at=START,
        deadline=1002.5,
        fence=7,
        target=target,
        requests=tuple(requests),
    )
    SpillFile(files, C01).write(intent)
    assert SpillFile(files, C01).read() == Spilt((intent,))


class MemoryFiles:
    """Files in a dictionary; `torn` bytes of the next line are written before the disk is full."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.torn: int | None = None

    def read(self, name: str) -> str | None:
        """The text."""
        return self.texts.get(name)

    def replace(self, name: str, text: str) -> None:
        """All of it."""
        self.texts[name] = text

    def append(self, name: str, line: str) -> None:
        """A line, or the beginning of one."""
        torn, self.torn = self.torn, None
        self.texts[name] = self.texts.get(name, "") + (line + "\n" if torn is None else line[:torn])
        if torn is not None:
            raise OSError(28, "No space left on device")

    def remove(self, name: str) -> None:
        """Gone."""
        self.texts.pop(name, None)

    def where(self, name: str) -> str:
        """Its name."""
        return name


@given(st.integers(0, 400))
def test_a_torn_line_costs_no_other(torn: int) -> None:
    """The disk is full in the middle of the second of three lines: the first and the third come back."""
    files = MemoryFiles()
    spill = SpillFile(files, C01)
    first, second, third = (replace(ENTRY, client_id=ClientOrderId(f"srm1{n}")) for n in range(3))
    spill.write(first)
    files.torn = torn
    with pytest.raises(OSError, match="No space"):
        spill.write(second)
    spill.write(third)
    spilt = SpillFile(files, C01).read()
    assert [intent.client_id for intent in spilt.intents if intent != second] == ["srm10", "srm12"]
    assert len(spilt.damaged) <= 1


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "null", '{"client_id": 7}', '{"at": "yesterday"}', "\x00\x00"],
)
def test_a_line_that_is_no_exit_is_skipped(line: str) -> None:
    """Anything may stand in a damaged file; what is whole is read."""
    files = MemoryFiles()
    files.append("exits.c01.jsonl", line)
    SpillFile(files, C01).write(ENTRY)
    assert SpillFile(files, C01).read().intents == (ENTRY,)


async def crash_with_a_spilt_exit(folder: Path, bench: Bench) -> None:
    """The database hangs, a close goes out and its reply never comes; then the process dies."""

    async def hang(*_: Any) -> None:
        await asyncio.sleep(1e6)

    journal: Any = bench.desk._parts.journal
    journal.twists |= {"record": hang, "update": hang, "record_fills": hang}
    bench.broker.faults.add("v5/order/create", "reset_after")
    (leg,) = bench.desk.ledger.legs.values()
    bench.desk.close(leg, D(1), CloseReason.PROVIDER, "close:m1")
    await until(lambda: (folder / "exits.c01.jsonl").exists(), 5)
    await asyncio.sleep(0.05)


async def test_spilt_exits_are_journalled_and_asked_about_at_the_next_start(tmp_path: Path) -> None:
    """The exit has executed unknown to the journal: the next start finds it, closes the leg, removes the file."""
    async with desk_at_work(tmp_path, journal=journal_that()) as bench:
        leg = await bench.enter()
        await bench.desk.writer.drained()
        await crash_with_a_spilt_exit(tmp_path, bench)
        assert len(await bench.store.journal.orders_of([leg.leg_id])) == 1
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
            await until(lambda: after.leg(leg).state is LegState.CLOSED, 5)
            assert after.leg(leg).close_reason is CloseReason.PROVIDER
            assert not (tmp_path / "exits.c01.jsonl").exists()
            await after.desk.writer.drained()
            rows = await after.store.journal.orders_of([leg.leg_id])
            assert [row.state for row in rows] == [OrderState.FILLED, OrderState.FILLED]
            assert rows[1].intent.requests == ("close:m1",)


async def test_the_spill_file_stays_until_the_journal_has_it(tmp_path: Path) -> None:
    """The database is away at the start: nothing is removed, and the next try takes it up."""
    async with desk_at_work(tmp_path, journal=journal_that()) as bench:
        await bench.enter()
        await bench.desk.writer.drained()
        await crash_with_a_spilt_exit(tmp_path, bench)

        def away(store: Store) -> Any:
            async def record(*_: Any) -> None:
                raise StoreUnavailable("away")

            return record

        with pytest.raises(StoreUnavailable):
            async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store, journal=journal_that(record=away)):
                pass
        assert (tmp_path / "exits.c01.jsonl").exists()
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
            await until(lambda: not after.desk.ledger.legs, 5)


async def test_a_torn_spill_line_is_told_and_the_start_goes_on(tmp_path: Path) -> None:
    """A crash while appending: people are paged, the whole lines are taken."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        await bench.desk.writer.drained()
        (tmp_path / "exits.c01.jsonl").write_text('{"at": "2026-01-0')
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
            assert ("page", "damaged spill file") in after.ear.troubles
            assert after.leg(leg).state is LegState.OPEN
            assert not (tmp_path / "exits.c01.jsonl").exists()


async def test_a_spill_file_of_garbage_does_not_stop_the_start(tmp_path: Path) -> None:
    """Not even text: told, left for a person, and positions are watched all the same (F25)."""
    (tmp_path / "exits.c01.jsonl").write_bytes(b"\xff\xfe\xff")
    async with desk_at_work(tmp_path) as bench:
        assert ("page", "damaged spill file") in bench.ear.troubles
        assert (tmp_path / "exits.c01.jsonl").exists()


# ---- closes that a crash repeats


async def half_close(bench: Bench, label: str = "close:m1") -> None:
    """The flow gives the same message again."""
    for leg in list(bench.desk.ledger.legs.values()):
        bench.desk.close(leg, D("0.5"), CloseReason.PROVIDER, label)


async def test_ten_restarts_add_no_row_and_no_order(tmp_path: Path) -> None:
    """Each start repeats a part close, a change of the stop and an audit: every table stays as it was (F8, INV-8d)."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        bench.desk.moves.want(leg, D(59_200), None)
        await half_close(bench)
        await until(lambda: bench.leg(leg).open_lot == D("0.15") and not bench.desk.moves.pending(leg.leg_id))
        await asyncio.sleep(3)
        await bench.desk.writer.drained()
        before, orders, rows = bench.leg(leg), bench.orders(), await counts(bench.store)
        for _ in range(10):
            async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
                await half_close(after)
                after.desk.moves.want(after.leg(leg), D(59_200), None)
                await asyncio.sleep(12)
                await after.desk.writer.drained()
                assert after.leg(leg) == replace(before, closing_as=after.leg(leg).closing_as)
                assert after.orders() == orders
                assert not after.ear.differences
                assert not after.ear.troubles
                assert await counts(after.store) == rows
        assert rows["srm_orders"] == 2


async def test_a_part_close_repeated_after_a_crash_closes_no_more(tmp_path: Path) -> None:
    """The crash comes in the last milliseconds: the exit has executed, its fill is not in the journal yet."""

    def silent(store: Store) -> Any:
        async def nothing(*_: Any) -> None:
            await asyncio.sleep(1e6)

        return nothing

    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        await bench.desk.writer.drained()
        hung = journal_that(update=silent, record_fills=silent)
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store, journal=hung) as dying:
            await half_close(dying)
            await until(lambda: dying.held() == D("0.15"))
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
            await half_close(after)
            await asyncio.sleep(20)
            assert after.held() == after.leg(leg).open_lot == D("0.15")


async def test_two_part_closes_repeated_together_keep_their_order(tmp_path: Path) -> None:
    """Half, and half of the rest, both unfinished at the crash: a quarter stays, also when they were sent as one."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter(lot=D("0.4"))
        await half_close(bench, "close:m1")
        await half_close(bench, "close:m2")
        await until(lambda: bench.leg(leg).open_lot == D("0.1"))
        await bench.desk.writer.drained()
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
            await half_close(after, "close:m1")
            await half_close(after, "close:m2")
            assert not after.desk.exits.pending(leg.leg_id, "close:m1")
            await asyncio.sleep(10)
            assert after.held() == D("0.1")
            await half_close(after, "close:m3")
            await until(lambda: after.held() == D("0.05"))


async def test_a_full_close_whose_request_was_lost_is_repeated_in_seconds(tmp_path: Path) -> None:
    """Finality is two minutes; the second look-up that says ABSENT is enough to close a second time (C.3)."""

    class Slow(Twisted):
        """Its venue needs two minutes for the truth."""

        @property
        def capabilities(self) -> Any:
            """As the real one's, but for the finality time."""
            return replace(self.real.capabilities, finality_s=120.0)

    async with desk_at_work(tmp_path, wrap=Slow) as bench:
        leg = await bench.enter()
        bench.broker.faults.add("v5/order/create", "reset_before")
        bench.desk.close(leg, D(1), CloseReason.PROVIDER, "close:m1")
        assert await until(lambda: not bench.held()) < 2


async def test_a_part_close_in_doubt_waits_for_its_end(tmp_path: Path) -> None:
    """A part close whose request was lost goes again only when it is certain that it was."""
    async with desk_at_work(tmp_path) as bench:
        await bench.enter()
        finality = bench.desk.broker.capabilities.finality_s
        bench.broker.faults.add("v5/order/create", "reset_before")
        await half_close(bench)
        took = await until(lambda: bench.held() == D("0.15"))
        assert finality <= took <= finality + 6


async def test_a_full_close_beside_volume_of_others_waits_for_its_end(tmp_path: Path) -> None:
    """The account holds more than our leg: a second close could take what is not ours."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        bench.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.2")))
        finality = bench.desk.broker.capabilities.finality_s
        bench.broker.faults.add("v5/order/create", "reset_before")
        bench.desk.close(leg, D(1), CloseReason.PROVIDER, "close:m1")
        took = await until(lambda: bench.held() == D("0.2"))
        assert finality <= took
        await asyncio.sleep(10)
        assert bench.held() == D("0.2")


async def test_no_entry_while_an_exit_may_still_execute(bench: Bench) -> None:
    """The leg is gone, a first close of it is still in doubt: the symbol is busy until the doubt is over (C.3)."""
    leg = await bench.enter()
    bench.broker.faults.add("v5/order/create", "reset_before")
    bench.desk.close(leg, D(1), CloseReason.PROVIDER, "close:m1")
    await until(lambda: bench.leg(leg).state is LegState.CLOSED)
    assert bench.desk.ledger.open_leg(BTC) is None
    assert bench.desk.ledger.busy(BTC)
    await until(lambda: not bench.desk.ledger.unsettled())
    assert not bench.desk.ledger.busy(BTC)


# ---- dust


@pytest.mark.parametrize("takes_dust", [True, False])
async def test_a_rest_below_the_smallest_order(tmp_path: Path, takes_dust: bool) -> None:
    """It is closed exactly where the venue allows it; else people are told once and nothing loops."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def submit(intent: OrderIntent) -> OrderReport:
            if intent.purpose is not OrderPurpose.ENTRY and intent.lot < D("0.02") and not takes_dust:
                return OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code="INVALID_VOLUME")
            report: OrderReport = await real.submit(intent)
            return report

        broker.twists["submit"] = submit
        return broker

    async with desk_at_work(tmp_path, wrap=wrap, symbols={BTC: an_instrument(lot_min=D("0.02"))}) as bench:
        leg = await bench.enter(lot=D("0.013"))
        bench.desk.close(leg, D(1), CloseReason.PROVIDER, "close:m1")
        await asyncio.sleep(60)
        exits = [row for row in await bench.journal.orders_of([leg.leg_id]) if row.intent.reduce is not None]
        assert [row.intent.lot for row in exits] == [D("0.013")]
        assert bench.held() == (0 if takes_dust else D("0.013"))
        told = [("page", "a rest too small to be closed")]
        assert bench.ear.troubles == ([] if takes_dust else told)
        assert not bench.desk.exits.pending(leg.leg_id, "close:m1")


# ---- orders that execute after they had ended


async def an_ended_entry(store: Store, state: OrderState, at: datetime = START) -> None:
    """An earlier process has journalled the entry as ended, its leg as never opened."""
    leg = a_leg()
    await store.journal.record([], [an_entry(leg)], [leg])
    await store.journal.update(
        [
            OrderUpdate(
                client_id=ENTRY.client_id,
                state=state,
                filled_lot=D(0),
                average_price=None,
                broker_order_id=None,
                code="ABSENT",
                detail="",
                absences=5,
                at=at,
                leg=replace(leg, state=LegState.NEVER_OPENED, lot=D(0)),
            )
        ]
    )


@pytest.mark.parametrize("state", [OrderState.ABANDONED, OrderState.REJECTED])
@pytest.mark.parametrize("heard", [True, False], ids=["by the stream", "by nobody"])
async def test_a_late_fill_after_a_restart_is_ours(tmp_path: Path, state: OrderState, heard: bool) -> None:
    """Journalled as ended, process restarted, executed all the same: the leg lives, with its stop (INV-6, F7, F24)."""
    async with desk_at_work(tmp_path) as first:
        await an_ended_entry(first.store, state)
        async with desk_at_work(tmp_path, venue=first.venue, store=first.store) as bench:
            listeners = list(bench.venue._listeners)
            if not heard:
                bench.venue._listeners.clear()
            bench.venue.place(
                "c01",
                OrderTicket(
                    symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.3"), link_id=ENTRY.client_id, stop_loss=D(58_990)
                ),
            )
            bench.venue._listeners[:] = listeners
            took = await until(lambda: bool(bench.desk.ledger.legs), 10)
            assert took < (1 if heard else 10)
            (leg,) = bench.desk.ledger.legs.values()
            assert (leg.state, leg.lot, leg.planned_risk) == (LegState.OPEN, D("0.3"), D(303))
            change = next(change for change in bench.ear.changes if change.opened)
            assert (change.late, change.refused) == (True, state is OrderState.REJECTED)
            await asyncio.sleep(10)
            assert not [found for found in bench.ear.differences if found.finding is Finding.FOREIGN]
            await bench.desk.writer.drained()
            (stored,) = await bench.journal.open_legs(C01)
            assert stored.lot == D("0.3")
            (row,) = await bench.journal.orders_of([leg.leg_id])
            assert (row.state, row.code, row.filled_lot) == (state, "LATE_FILL", D("0.3"))


async def test_yesterdays_refusal_is_forgotten(tmp_path: Path) -> None:
    """More than a day old: what then comes under its id is foreign, reported and left alone."""
    async with desk_at_work(tmp_path) as first:
        await an_ended_entry(first.store, OrderState.REJECTED, at=START - timedelta(hours=25))
        async with desk_at_work(tmp_path, venue=first.venue, store=first.store) as bench:
            assert ENTRY.client_id not in bench.desk.ledger.tickets


async def test_todays_trades_told_again_open_nothing(tmp_path: Path) -> None:
    """Legs of the day are known with their fills: a resync that repeats a day of history changes nothing."""
    async with desk_at_work(tmp_path) as bench:
        done = await bench.enter("done")
        move(bench.venue, "58900")
        await until(lambda: bench.leg(done).state is LegState.CLOSED)
        move(bench.venue, "60000", after_ms=20 * 3600 * 1000)
        leg = await bench.enter("now")
        await bench.desk.writer.drained()
        rows = await counts(bench.store)
        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store) as after:
            after.broker.drop_stream()
            await asyncio.sleep(30)
            assert list(after.desk.ledger.legs) == [leg.leg_id]
            assert not after.ear.changes
            await after.desk.writer.drained()
            assert await counts(after.store) == rows


async def test_a_late_close_of_an_ended_leg_takes_from_the_leg_that_is_open(bench: Bench) -> None:
    """One net position per symbol: whose order it was does not matter to the volume."""
    old = await bench.enter("old")
    bench.desk.close(old, D(1), CloseReason.PROVIDER, "close:m1")
    await until(lambda: bench.leg(old).state is LegState.CLOSED)
    leg = await bench.enter("new")
    (ticket,) = [t for t in bench.desk.ledger.tickets.values() if t.intent.leg_id == old.leg_id and t.intent.reduce]
    fill = next(iter(ticket.fills.values()))
    at = bench.leg(leg).opened_at
    assert at is not None
    bench.desk.count(replace(fill, fill_id=fill.fill_id + "x", lot=D("0.1"), at=at))  # type: ignore[arg-type]
    assert bench.leg(leg).open_lot == D("0.2")


async def test_history_is_read_before_positions(tmp_path: Path) -> None:
    """In every pass of the audit; a trade between the two reads then shows in both (F4)."""
    async with desk_at_work(tmp_path, wrap=Twisted) as bench:
        await bench.enter()
        broker: Any = bench.desk.broker
        broker.calls.clear()
        await bench.desk.auditor._read()
        assert broker.calls == ["fills", "positions"]


async def test_a_trade_between_the_two_reads_is_no_difference(tmp_path: Path) -> None:
    """The position closes after the history was read and before the positions are: the result is kept."""
    between = True

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def positions() -> Any:
            nonlocal between
            if between and holder and holder[0].desk.ledger.legs:
                between = False
                listeners = list(holder[0].venue._listeners)
                holder[0].venue._listeners.clear()
                move(holder[0].venue, "58900")
                holder[0].venue._listeners[:] = listeners
            return await real.positions()

        broker.twists["positions"] = positions
        return broker

    holder: list[Bench] = []
    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        holder.append(bench)
        leg = await bench.enter(wait=False)
        await until(lambda: bench.leg(leg).state is LegState.CLOSED, 10)
        assert bench.leg(leg).close_reason is CloseReason.STOP_LOSS
        assert not [found for found in bench.ear.differences if found.finding is Finding.FOREIGN]


def test_the_connection_names_its_own_file() -> None:
    """Lines of another connection are not taken up."""
    files = MemoryFiles()
    SpillFile(files, C01).write(replace(ENTRY, connection_id=ConnectionId("c02")))
    assert SpillFile(files, C01).read().intents == ()

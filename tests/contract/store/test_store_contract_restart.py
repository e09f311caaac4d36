"""What outlives the daemon, on every store that does."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

import pytest

from simulator.memory_store.store import MemoryStore
from srm_agent.clock import ManualClock
from srm_agent.domain.orders import OrderPurpose, OrderState
from srm_agent.errors import LeaseLost, StoreUnavailable
from srm_agent.ports import Storage
from tests.contract.store.conftest import C1, KeptStore, Lasting, Values
from tests.contract.store.test_store_contract_journal import everything


async def filled_store(store: KeptStore, a: Values) -> None:
    """Something in every table."""
    await store.leases.acquire(C1, "one", 10)
    for signal in (a.close("s9", "m9"), a.open(), a.open("s2", "m2")):
        await store.signals.accept(signal, "h", f"answer {signal.receipt.message_id}")
    await store.signals.finish(a.alpha, "m1", a.start)
    names = ("s1", "s2")
    await store.journal.record(
        [a.decision(s) for s in names], [a.intent(s, fence=1) for s in names], [a.leg(s) for s in names]
    )
    await store.journal.update([a.filled(), a.update(leg=a.closed_leg())])
    await store.journal.close_trade(a.trade(), a.score())
    await store.protection.save_mark(a.mark())
    await store.protection.save_halt(a.halt())
    await store.protection.record_equity(C1, a.start, Decimal(1), Decimal(2), Decimal(0))
    await store.protection.record_flows(C1, [a.flow()])


async def test_everything_outlives_the_daemon(lasting: Lasting, a: Values) -> None:
    """After a restart every table reads as before it, and every port answers from it."""
    await filled_store(lasting.store, a)
    before = await everything(lasting.store)
    assert all(before)
    store = await lasting.restart()
    assert await everything(store) == before
    assert [row.intent for row in await store.journal.unsettled(C1)] == [a.intent("s2", fence=1)]
    assert list(await store.journal.open_legs(C1)) == [a.leg("s2")]
    assert await store.journal.known_fills(C1, a.start) == {"f1": a.leg().leg_id}
    assert list(await store.signals.unfinished()) == [a.close("s9", "m9"), a.open("s2", "m2")]
    assert await store.signals.closed_before_open(a.open("s9").signal_id)
    assert await store.signals.opening(a.open().signal_id) == a.open()
    assert await store.protection.mark(C1) == a.mark()
    assert list(await store.protection.halts()) == [a.halt()]
    assert list(await store.history.closed_trades()) == [a.trade()]
    assert list(await store.history.recent_measures(1)) == [a.measure()]


async def test_ten_restarts_add_no_row(lasting: Lasting, a: Values) -> None:
    """A daemon that writes the same things again after each of ten restarts changes nothing (INV-8, F8)."""
    await filled_store(lasting.store, a)
    before = await everything(lasting.store)
    for _ in range(10):
        await filled_store(await lasting.restart(), a)
    assert await everything(lasting.store) == before


async def test_the_first_answer_outlives_the_daemon(lasting: Lasting, a: Values) -> None:
    """A message acknowledged before the restart gets its first answer after it, and an opening id stays taken."""
    await lasting.store.signals.accept(a.open(), "h", "first")
    store = await lasting.restart()
    assert (await store.signals.accept(a.open(), "h", "second")).answer == "first"
    assert not (await store.signals.accept(a.open(message="m2"), "h", "second")).fresh


async def test_an_order_goes_on_after_the_restart(lasting: Lasting, a: Values) -> None:
    """An order recorded by one daemon is settled by the next, and new rows come after the old ones."""
    await lasting.store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await lasting.store.journal.update([a.update(OrderState.UNKNOWN, code="TIMEOUT", absences=2)])
    store = await lasting.restart()
    await store.journal.record([a.decision("s0")], [a.intent("s0")], [a.leg("s0")])
    rows = await store.journal.unsettled(C1)
    assert [(row.intent, row.state, row.absences) for row in rows] == [
        (a.intent(), OrderState.UNKNOWN, 2), (a.intent("s0"), OrderState.INTENT, 0),
    ]  # fmt: skip
    await store.journal.update([a.filled()])
    assert [row.intent for row in await store.journal.unsettled(C1)] == [a.intent("s0")]


async def test_a_second_daemon_fences_the_first(lasting: Lasting, a: Values, clock: ManualClock) -> None:
    """The token outlives the daemon: after the next one took the lease, entries under the old token are refused."""
    assert await lasting.store.leases.acquire(C1, "one", 10) == 1
    store = await lasting.restart()
    assert await store.leases.acquire(C1, "two", 10) is None
    clock.advance(10)
    assert await store.leases.acquire(C1, "two", 10) == 2
    with pytest.raises(LeaseLost):
        await store.journal.record([], [a.intent(fence=1)], [])
    await store.journal.record([], [a.intent(leg="close:1", purpose=OrderPurpose.EXIT, fence=1)], [])
    assert len(await store.journal.unsettled(C1)) == 1


async def test_a_closed_store_is_unavailable(lasting: Lasting, a: Values) -> None:
    """Whoever holds a closed store gets StoreUnavailable from every kind of call, and changes nothing."""
    before = lasting.store
    await before.close()
    calls = [
        before.journal.record([a.decision()], [a.intent()], [a.leg()]),
        before.journal.update([]),
        before.journal.unsettled(C1),
        before.journal.known_fills(C1, a.start),
        before.journal.close_trade(a.trade(), a.score()),
        before.signals.accept(a.open(), "h", "ok"),
        before.signals.unfinished(),
        before.protection.save_halt(a.halt()),
        before.protection.mark(C1),
        before.history.closed_trades(),
        before.leases.acquire(C1, "one", 10),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            await call
    store = await lasting.restart()
    assert not any(await everything(store))
    clock_later = a.start + timedelta(seconds=1)
    await store.signals.finish(a.alpha, "m1", clock_later)
    with pytest.raises(StoreUnavailable):
        await before.signals.finish(a.alpha, "m1", clock_later)


def test_the_dictionaries_are_a_storage_without_sql() -> None:
    """The whole port is there (mypy proves it here), and a process that uses it loads no database library."""
    storage: Storage = MemoryStore(ManualClock(Values.start))
    assert storage.journal is not None
    code = "import sys, simulator.memory_store.store; print('sqlalchemy' in sys.modules, 'sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

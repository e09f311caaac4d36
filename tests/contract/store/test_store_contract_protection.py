"""Marks, halts, equity, cash flows and leases through their ports, on every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.errors import StoreBroken
from srm_agent.ports import Leases, ProtectionStore
from tests.contract.store.conftest import C1, C2, KeptStore, Values

NAIVE = datetime(2026, 1, 5)


async def test_a_mark_is_replaced(store: KeptStore, a: Values) -> None:
    """The connection's mark is the last one saved, exactly, and unknown before the first."""
    protection: ProtectionStore = store.protection
    assert await protection.mark(C1) is None
    later = a.mark(day="2026-01-06", last_flow_at=a.start)
    for saved in (a.mark(), a.mark(), later):
        await protection.save_mark(saved)
        assert await protection.mark(C1) == saved
    await protection.save_mark(a.mark(connection_id=C2, high_water_mark=Decimal(1) / 3))
    assert await protection.mark(C1) == later
    assert [str(mark.high_water_mark) for mark in await store.book.marks()] == ["10250.1234567891", "0.3333333333"]


async def test_a_mark_that_cannot_be_stored_leaves_the_old_one(store: KeptStore, a: Values) -> None:
    """A mark with NaN, or an instant without zone, is refused and the mark in force stays."""
    await store.protection.save_mark(a.mark())
    for bad in (a.mark(day_base=Decimal("NaN")), a.mark(updated_at=NAIVE), a.mark(last_flow_at=NAIVE)):
        with pytest.raises(StoreBroken):
            await store.protection.save_mark(bad)
    assert await store.protection.mark(C1) == a.mark()


async def test_a_halt_latches_and_only_advances(store: KeptStore, a: Values) -> None:
    """FLATTENING advances to HALTED; a replay of the earlier state or an older halt changes nothing (INV-8)."""
    flattening, halted = a.halt(), a.halt(state=ConnectionState.HALTED)
    older = a.halt(set_at=a.start - timedelta(seconds=1), reason="older")
    for halt in (flattening, flattening, halted, flattening, older):
        await store.protection.save_halt(halt)
    assert list(await store.protection.halts()) == [halted]
    assert [(row.action, row.operator, row.detail) for row in await store.book.audit()] == [
        ("halt", "drawdown_guard", "FLATTENING: drawdown 0.21"),
        ("halt", "drawdown_guard", "HALTED: drawdown 0.21"),
    ]


async def test_a_new_danger_replaces_a_halt(store: KeptStore, a: Values) -> None:
    """A halted connection that must be flattened anew is FLATTENING again."""
    again = a.halt(set_at=a.start + timedelta(minutes=1))
    for halt in (a.halt(state=ConnectionState.HALTED), again):
        await store.protection.save_halt(halt)
    assert list(await store.protection.halts()) == list(await store.book.halts()) == [again]


async def test_halts_are_told_oldest_first(store: KeptStore, a: Values) -> None:
    """Halts of several scopes stand beside each other, by the instant they were set, then by scope and key."""
    second = a.start + timedelta(seconds=1)
    halts = [
        a.halt(scope=HaltScope.SYMBOL, key="EUR/USD", set_at=second),
        a.halt(scope=HaltScope.ALL, key="", set_at=second),
        a.halt(scope=HaltScope.PROVIDER, key="b"),
        a.halt(scope=HaltScope.PROVIDER, key="a"),
        a.halt(),
    ]
    for halt in halts:
        await store.protection.save_halt(halt)
    assert list(await store.protection.halts()) == [halts[4], halts[3], halts[2], halts[1], halts[0]]


async def test_only_a_named_operator_clears(store: KeptStore, a: Values) -> None:
    """Clearing removes the halt once and the audit log says who did it; clearing nothing logs nothing."""
    await store.protection.save_halt(a.halt())
    with pytest.raises(StoreBroken):
        await store.protection.clear_halt(HaltScope.CONNECTION, "c1", "nobody", NAIVE)
    assert list(await store.protection.halts()) == [a.halt()]
    assert await store.protection.clear_halt(HaltScope.CONNECTION, "c1", "ann", a.start)
    assert not await store.protection.clear_halt(HaltScope.CONNECTION, "c1", "bob", a.start)
    assert not await store.protection.clear_halt(HaltScope.ALL, "c1", "bob", a.start)
    assert await store.protection.halts() == []
    assert [(row.operator, row.action, row.scope, row.key, row.detail) for row in await store.book.audit()] == [
        ("drawdown_guard", "halt", "connection", "c1", "FLATTENING: drawdown 0.21"),
        ("ann", "resume", "connection", "c1", "was FLATTENING: drawdown 0.21"),
    ]
    await store.protection.save_halt(a.halt())
    assert list(await store.protection.halts()) == [a.halt()]


async def test_equity_is_recorded_once_an_instant(store: KeptStore, a: Values) -> None:
    """One point of the curve per connection and instant, the first one standing."""
    for connection, second, equity in ((C1, 0, "9000.5"), (C1, 0, "1"), (C2, 0, "7"), (C1, 1, "9000.5")):
        at = a.start + timedelta(seconds=second)
        await store.protection.record_equity(connection, at, Decimal(equity), Decimal(9100), Decimal(1) / 3)
    found = [(mark.connection_id, mark.at - a.start, mark.equity) for mark in await store.book.equity()]
    assert found == [
        (C1, timedelta(0), Decimal("9000.5")),
        (C2, timedelta(0), Decimal(7)),
        (C1, timedelta(seconds=1), Decimal("9000.5")),
    ]
    assert (await store.book.equity())[0].drawdown == Decimal("0.3333333333")
    for at, bad in ((NAIVE, Decimal(1)), (a.start + timedelta(9), Decimal("NaN"))):
        with pytest.raises(StoreBroken):
            await store.protection.record_equity(C1, at, bad, Decimal(1), Decimal(0))
    assert len(await store.book.equity()) == 3


async def test_cash_flows_are_recorded_once(store: KeptStore, a: Values) -> None:
    """One cash flow per connection and id, however often it is told; one bad flow keeps all of its call out."""
    await store.protection.record_flows(C1, [])
    for _ in range(2):
        await store.protection.record_flows(C1, [a.flow(), a.flow()])
    await store.protection.record_flows(C1, [a.flow(amount=Decimal(9)), a.flow(flow_id="d2", amount=Decimal(-1))])
    await store.protection.record_flows(C2, [a.flow()])
    with pytest.raises(StoreBroken):
        await store.protection.record_flows(C2, [a.flow(flow_id="d3"), a.flow(flow_id="d4", amount=Decimal("NaN"))])
    found = [(record.connection_id, record.flow) for record in await store.book.flows()]
    assert found == [(C1, a.flow()), (C1, a.flow(flow_id="d2", amount=Decimal(-1))), (C2, a.flow())]


async def test_one_writer_per_connection(store: KeptStore, clock: ManualClock) -> None:
    """The lease is exclusive until it ends, and its fencing token grows with every new holder (INV-17)."""
    leases: Leases = store.leases
    assert await leases.acquire(C1, "one", 10) == 1
    assert await leases.acquire(C1, "one", 10) == 1
    assert await leases.acquire(C1, "two", 10) is None
    assert await leases.acquire(C2, "two", 10) == 1
    clock.advance(5)
    assert await leases.renew(C1, "one", 1, 10)
    clock.advance(9)
    assert not await leases.renew(C1, "two", 1, 10)
    assert not await leases.renew(C1, "one", 2, 10)
    clock.advance(1)
    assert not await leases.renew(C1, "one", 1, 10)
    assert await leases.acquire(C1, "two", 10) == 2
    assert not await leases.release(C1, "one", 1)
    assert not await leases.release(C1, "two", 1)
    assert await leases.release(C1, "two", 2)
    assert not await leases.release(C1, "two", 2)
    assert await leases.acquire(C1, "one", 10) == 3


async def test_a_stranger_holds_no_lease(store: KeptStore, clock: ManualClock) -> None:
    """A connection that was never leased cannot be renewed or released; a released row keeps its token."""
    assert not await store.leases.renew(C1, "one", 0, 10)
    assert not await store.leases.release(C1, "one", 0)
    assert await store.book.leases() == []
    assert await store.leases.acquire(C1, "one", 10) == 1
    await store.leases.release(C1, "one", 1)
    (row,) = await store.book.leases()
    assert (row.connection_id, row.owner, row.fence, row.expires_at) == (C1, "", 1, clock.wall())


async def test_whoever_held_it_last_gets_a_new_token_after_it_ran_out(store: KeptStore, clock: ManualClock) -> None:
    """An owner whose lease ended is a new holder: what it wrote under the old token is told apart."""
    assert await store.leases.acquire(C1, "one", 10) == 1
    clock.advance(10)
    assert await store.leases.acquire(C1, "one", 10) == 2
    assert replace((await store.book.leases())[0], expires_at=clock.wall()).fence == 2

"""Marks, halts, equity, cash flows and leases, over both runners."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import CashFlow, ConnectionState, Halt, HaltScope, ProtectionMark
from srm_agent.ports import ProtectionStore
from srm_agent.store.store import Store


async def test_a_mark_is_replaced(store: Store, a: Any) -> None:
    """The connection's mark is the last one saved, exactly, and unknown before the first."""
    protection: ProtectionStore = store.protection
    assert await protection.mark(a.connection) is None
    mark = ProtectionMark(
        connection_id=a.connection,
        high_water_mark=Decimal("10250.1234567891"),
        start_equity=Decimal(10000),
        day="2026-01-05",
        day_base=Decimal("10100.5"),
        last_flow_at=None,
        updated_at=a.start,
    )
    later = replace(mark, day="2026-01-06", last_flow_at=a.start)
    for saved in (mark, mark, later):
        await protection.save_mark(saved)
        assert await protection.mark(a.connection) == saved


def _halt(a: Any, **changes: Any) -> Halt:
    value = Halt(
        scope=HaltScope.CONNECTION,
        key="c1",
        state=ConnectionState.FLATTENING,
        reason="drawdown 0.21",
        set_at=a.start,
        set_by="drawdown_guard",
    )
    return replace(value, **changes)


async def test_a_halt_latches_and_only_advances(store: Store, a: Any) -> None:
    """FLATTENING advances to HALTED; a replay of the earlier state or an older halt changes nothing (INV-8)."""
    flattening, halted = _halt(a), _halt(a, state=ConnectionState.HALTED)
    older = _halt(a, set_at=a.start - timedelta(seconds=1), reason="older")
    for halt in (flattening, flattening, halted, flattening, older):
        await store.protection.save_halt(halt)
    assert list(await store.protection.halts()) == [halted]
    assert [row.action for row in await store.reads.audit()] == ["halt", "halt"]


async def test_a_new_danger_replaces_a_halt(store: Store, a: Any) -> None:
    """A halted connection that must be flattened anew is FLATTENING again."""
    again = _halt(a, set_at=a.start + timedelta(minutes=1))
    for halt in (_halt(a, state=ConnectionState.HALTED), again):
        await store.protection.save_halt(halt)
    assert await store.reads.halts() == [again]


async def test_only_a_named_operator_clears(store: Store, a: Any) -> None:
    """Clearing removes the halt once and the audit log says who did it; clearing nothing logs nothing."""
    await store.protection.save_halt(_halt(a))
    assert await store.protection.clear_halt(HaltScope.CONNECTION, "c1", "ann", a.start)
    assert not await store.protection.clear_halt(HaltScope.CONNECTION, "c1", "bob", a.start)
    assert await store.protection.halts() == []
    audit = await store.reads.audit()
    assert [(row.operator, row.action) for row in audit] == [("ann", "resume"), ("drawdown_guard", "halt")]


async def test_equity_and_flows_are_recorded_once(store: Store, a: Any, rows: Any) -> None:
    """One equity row per instant and one cash flow per id, however often they are told."""
    flow = CashFlow(flow_id="d1", kind="deposit", amount=Decimal("500.00"), currency="USD", at=a.start)
    for second in (0, 0, 1):
        at = a.start + timedelta(seconds=second)
        await store.protection.record_equity(a.connection, at, Decimal("9000.5"), Decimal(9100), Decimal("0.1"))
        await store.protection.record_flows(a.connection, [flow, flow])
    marks = await store.reads.equity_marks(a.connection)
    assert [mark.at - a.start for mark in marks] == [timedelta(0), timedelta(seconds=1)]
    assert marks[0].equity == Decimal("9000.5")
    assert await store.reads.connections() == [a.connection]
    assert [row["amount"] for row in await rows("srm_cash_flows")] == [Decimal(500)]


async def test_one_writer_per_connection(store: Store, a: Any, clock: ManualClock) -> None:
    """The lease is exclusive until it ends, and its fencing token grows with every new holder."""
    leases = store.leases
    assert await leases.acquire(a.connection, "one", 10) == 1
    assert await leases.acquire(a.connection, "one", 10) == 1
    assert await leases.acquire(a.connection, "two", 10) is None
    clock.advance(5)
    assert await leases.renew(a.connection, "one", 1, 10)
    clock.advance(9)
    assert not await leases.renew(a.connection, "two", 1, 10)
    clock.advance(1)
    assert not await leases.renew(a.connection, "one", 1, 10)
    assert await leases.acquire(a.connection, "two", 10) == 2
    assert not await leases.release(a.connection, "one", 1)
    assert await leases.release(a.connection, "two", 2)
    assert await leases.acquire(a.connection, "one", 10) == 3

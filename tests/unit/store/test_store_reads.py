"""What commands and reports ask of the database alone; the ports are proved in tests/contract/store."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.orders import OrderPurpose
from srm_agent.store.store import Store


async def test_decisions_are_found_by_id_or_its_start(store: Store, a: Any) -> None:
    """A whole id finds its decision, a start finds all with it by id, and the last ones come newest first."""
    made = [a.decision(name) for name in ("s1", "s2", "s0")]
    await store.journal.record(made, [], [])
    assert await store.reads.find_decisions(made[1].decision_id) == [made[1]]
    assert await store.reads.find_decisions("d", limit=2) == sorted(made, key=lambda d: str(d.decision_id))[:2]
    assert await store.reads.find_decisions("nothing") == []
    assert await store.reads.recent_decisions(2) == [made[2], made[1]]
    record = await store.reads.decision_record(made[0].decision_id)
    assert record is not None
    assert (record["decision_id"], record["lot"]) == (made[0].decision_id, "0.05")
    assert await store.reads.decision_record("nothing") is None


async def test_orders_are_found_by_what_they_are_for(store: Store, a: Any) -> None:
    """Orders of a decision, exits included, and orders of emergency closes come oldest first."""
    emergency = a.intent(leg="flatten:1", purpose=OrderPurpose.EMERGENCY, decision_id=None)
    way_out = a.intent(leg="close:1", purpose=OrderPurpose.EXIT)
    await store.journal.record([a.decision()], [a.intent(), emergency, way_out], [a.leg()])
    found = await store.reads.orders_of(a.decision().decision_id)
    assert [row.intent for row in found] == [a.intent(), way_out]
    assert [row.intent for row in await store.reads.emergency_orders()] == [emergency]


async def test_the_curve_and_its_connections(store: Store, a: Any) -> None:
    """The last points of a curve come oldest first, and connections with a curve by name."""
    for connection in ("c2", "c1"):
        for second in (0, 1, 2):
            at = a.start + timedelta(seconds=second)
            await store.protection.record_equity(
                ConnectionId(connection), at, Decimal("9000.5"), Decimal(9100), Decimal("0.1")
            )
    marks = await store.reads.equity_marks(a.connection, 2)
    assert [mark.at - a.start for mark in marks] == [timedelta(seconds=1), timedelta(seconds=2)]
    assert marks[0].equity == Decimal("9000.5")
    assert await store.reads.connections() == ["c1", "c2"]


async def test_halts_and_who_touched_them(store: Store, a: Any) -> None:
    """Halts in force, and the audit log newest first."""
    halt = Halt(
        scope=HaltScope.CONNECTION, key="c1", state=ConnectionState.FLATTENING, reason="drawdown 0.21",
        set_at=a.start, set_by="drawdown_guard",
    )  # fmt: skip
    await store.protection.save_halt(halt)
    assert await store.reads.halts() == [halt]
    assert await store.protection.clear_halt(HaltScope.CONNECTION, "c1", "ann", a.start)
    audit = await store.reads.audit()
    assert [(row.operator, row.action) for row in audit] == [("ann", "resume"), ("drawdown_guard", "halt")]
    assert [row.action for row in await store.reads.audit(1)] == ["resume"]

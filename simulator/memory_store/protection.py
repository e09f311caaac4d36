"""Marks, halts, the audit log, the equity curve and cash flows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from simulator.memory_store.exact import Columns, instant, known, measured
from simulator.memory_store.tables import Session, Tables
from srm_agent.domain.accounts import CashFlow, ConnectionState, Halt, HaltScope, ProtectionMark
from srm_agent.domain.ids import ConnectionId
from srm_agent.store.records import AuditRow, EquityMark, FlowRecord

_MARK = Columns[ProtectionMark](
    {
        **dict.fromkeys(("high_water_mark", "start_equity", "day_base"), measured),
        "last_flow_at": known(instant),
        "updated_at": instant,
    }
)
_HALT = Columns[Halt]({"set_at": instant})
_FLOW = Columns[CashFlow]({"amount": measured, "at": instant})
_STAGE = {
    ConnectionState.ACTIVE: 0,
    ConnectionState.REDUCING: 1,
    ConnectionState.FLATTENING: 2,
    ConnectionState.HALTED: 3,
}


class MemoryProtection:
    """`ports.ProtectionStore`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def mark(self, connection: ConnectionId) -> ProtectionMark | None:
        """See the port."""
        return self._session.reading().marks.get(connection)

    async def save_mark(self, mark: ProtectionMark) -> None:
        """See the port."""
        with self._session.writing() as tables:
            tables.marks.put(mark.connection_id, _MARK.stored(mark))

    async def halts(self) -> Sequence[Halt]:
        """See the port; oldest first."""
        return halts_of(self._session.reading())

    async def save_halt(self, halt: Halt) -> None:
        """See the port. An older halt, or an earlier state of the same one, changes nothing (INV-8)."""
        with self._session.writing() as tables:
            key = (halt.scope, halt.key)
            stands = tables.halts.get(key)
            if stands is not None and (
                halt == stands or (halt.set_at, _STAGE[halt.state]) < (stands.set_at, _STAGE[stands.state])
            ):
                return
            stored = _HALT.stored(halt)
            tables.halts.put(key, stored)
            _audit(tables, stored.set_at, halt.set_by, "halt", halt, f"{halt.state.value}: {halt.reason}")

    async def clear_halt(self, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        """See the port."""
        with self._session.writing() as tables:
            halt = tables.halts.get((scope, key))
            if halt is None:
                return False
            tables.halts.drop((scope, key))
            _audit(tables, instant(at), operator, "resume", halt, f"was {halt.state.value}: {halt.reason}")
            return True

    async def record_equity(
        self, connection: ConnectionId, at: datetime, equity: Decimal, balance: Decimal, drawdown: Decimal
    ) -> None:
        """See the port; the first one of an instant stands."""
        with self._session.writing() as tables:
            key = (connection, instant(at))
            if key not in tables.equity:
                row = EquityMark(
                    connection_id=connection,
                    at=key[1],
                    equity=measured(equity),
                    balance=measured(balance),
                    drawdown=measured(drawdown),
                )
                tables.equity.put(key, row)

    async def record_flows(self, connection: ConnectionId, flows: Sequence[CashFlow]) -> None:
        """See the port."""
        with self._session.writing() as tables:
            new = {flow.flow_id: flow for flow in flows if (connection, flow.flow_id) not in tables.flows}
            for flow in new.values():
                row = FlowRecord(connection_id=connection, flow=_FLOW.stored(flow))
                tables.flows.put((connection, flow.flow_id), row)


def halts_of(tables: Tables) -> list[Halt]:
    """All halts in force, oldest first."""
    return sorted(tables.halts.values(), key=lambda halt: (halt.set_at, halt.scope.value, halt.key))


def _audit(tables: Tables, at: datetime, operator: str, action: str, halt: Halt, detail: str) -> None:
    row = AuditRow(at=at, operator=operator, action=action, scope=halt.scope.value, key=halt.key, detail=detail)
    tables.audit.put(len(tables.audit), row)

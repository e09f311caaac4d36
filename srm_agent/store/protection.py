"""Marks, halts, the audit log, the equity curve and cash flows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select, update

from srm_agent.domain.accounts import CashFlow, ConnectionState, Halt, HaltScope, ProtectionMark
from srm_agent.domain.ids import ConnectionId
from srm_agent.store.schema import Tables
from srm_agent.store.statements import insert_all, many

_ORDER = {
    ConnectionState.ACTIVE: 0,
    ConnectionState.REDUCING: 1,
    ConnectionState.FLATTENING: 2,
    ConnectionState.HALTED: 3,
}
_MARK = ("connection_id", "high_water_mark", "start_equity", "day", "day_base", "last_flow_at", "updated_at")


class Protection:
    """What protection must remember over a restart."""

    def __init__(self, tables: Tables) -> None:
        marks, halts, flows = tables.protection_marks, tables.halts, tables.cash_flows
        self._tables = tables
        self._mark = select(marks).where(marks.c.connection_id == bindparam("of"))
        self._replace_mark = (
            update(marks)
            .where(marks.c.connection_id == bindparam("of"))
            .values({name: bindparam(f"new_{name}") for name in _MARK[1:]})
        )
        self._halts = select(halts).order_by(halts.c.set_at, halts.c.scope, halts.c.key)
        the_halt = (halts.c.scope == bindparam("of_scope"), halts.c.key == bindparam("of_key"))
        self._halt = select(halts).where(*the_halt)
        self._clear = delete(halts).where(*the_halt)
        self._replace_halt = (
            update(halts)
            .where(*the_halt)
            .values({name: bindparam(f"new_{name}") for name in ("state", "reason", "set_at", "set_by")})
        )
        equity = tables.equity_marks
        self._equity = select(equity.c.id).where(
            equity.c.connection_id == bindparam("of"), equity.c.at == bindparam("moment")
        )
        self._flows = select(flows.c.flow_id).where(
            flows.c.connection_id == bindparam("of"), flows.c.flow_id.in_(many())
        )

    def mark(self, connection: Connection, of: ConnectionId) -> ProtectionMark | None:
        """The connection's mark."""
        row = connection.execute(self._mark, {"of": of}).mappings().first()
        return None if row is None else mark_of(row)

    def save_mark(self, connection: Connection, mark: ProtectionMark) -> None:
        """Insert or replace."""
        row = {name: getattr(mark, name) for name in _MARK}
        if self.mark(connection, mark.connection_id) is None:
            connection.execute(insert(self._tables.protection_marks), row)
        else:
            values = {f"new_{name}": row[name] for name in _MARK[1:]}
            connection.execute(self._replace_mark, values | {"of": mark.connection_id})

    def halts(self, connection: Connection) -> list[Halt]:
        """All halts in force, oldest first."""
        return [halt_of(row) for row in connection.execute(self._halts).mappings()]

    def save_halt(self, connection: Connection, halt: Halt) -> None:
        """Latch, or advance. An older halt, or an earlier state of the same one (a replay), changes nothing.

        Each change leaves an audit row.
        """
        which = {"of_scope": halt.scope.value, "of_key": halt.key}
        found = connection.execute(self._halt, which).mappings().first()
        if found is None:
            connection.execute(
                insert(self._tables.halts),
                {
                    "scope": halt.scope.value,
                    "key": halt.key,
                    "state": halt.state.value,
                    "reason": halt.reason,
                    "set_at": halt.set_at,
                    "set_by": halt.set_by,
                },
            )
        else:
            stands = halt_of(found)
            if halt == stands or (halt.set_at, _ORDER[halt.state]) < (stands.set_at, _ORDER[stands.state]):
                return
            connection.execute(
                self._replace_halt,
                which
                | {
                    "new_state": halt.state.value,
                    "new_reason": halt.reason,
                    "new_set_at": halt.set_at,
                    "new_set_by": halt.set_by,
                },
            )
        self._audit(connection, halt.set_at, halt.set_by, "halt", halt, f"{halt.state.value}: {halt.reason}")

    def clear_halt(self, connection: Connection, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        """Remove and write who did it; False if there was none."""
        which = {"of_scope": scope.value, "of_key": key}
        found = connection.execute(self._halt, which).mappings().first()
        if found is None:
            return False
        halt = halt_of(found)
        connection.execute(self._clear, which)
        self._audit(connection, at, operator, "resume", halt, f"was {halt.state.value}: {halt.reason}")
        return True

    def _audit(self, connection: Connection, at: datetime, operator: str, action: str, halt: Halt, detail: str) -> None:
        connection.execute(
            insert(self._tables.audit_log),
            {
                "at": at,
                "operator": operator,
                "action": action,
                "scope": halt.scope.value,
                "key": halt.key,
                "detail": detail,
            },
        )

    def add_equity(
        self,
        connection: Connection,
        of: ConnectionId,
        at: datetime,
        equity: Decimal,
        balance: Decimal,
        drawdown: Decimal,
    ) -> None:
        """One point of the curve; the first one of an instant stands."""
        if connection.execute(self._equity, {"of": of, "moment": at}).first() is None:
            connection.execute(
                insert(self._tables.equity_marks),
                {"connection_id": of, "at": at, "equity": equity, "balance": balance, "drawdown": drawdown},
            )

    def add_flows(self, connection: Connection, of: ConnectionId, flows: Sequence[CashFlow]) -> None:
        """Insert those that are not there yet."""
        if not flows:
            return
        new = {flow.flow_id: flow for flow in flows}
        there = frozenset(connection.execute(self._flows, {"of": of, "keys": list(new)}).scalars())
        rows = [
            {
                "connection_id": of,
                "flow_id": flow.flow_id,
                "kind": flow.kind,
                "amount": flow.amount,
                "currency": flow.currency,
                "at": flow.at,
            }
            for flow in new.values()
            if flow.flow_id not in there
        ]
        insert_all(connection, self._tables.cash_flows, rows)


def mark_of(row: RowMapping) -> ProtectionMark:
    """A mark from its row."""
    return ProtectionMark(**{name: row[name] for name in _MARK})


def halt_of(row: RowMapping) -> Halt:
    """A halt from its row."""
    return Halt(
        scope=HaltScope(row["scope"]),
        key=row["key"],
        state=ConnectionState(row["state"]),
        reason=row["reason"],
        set_at=row["set_at"],
        set_by=row["set_by"],
    )

"""Decisions: the whole record as text, with columns to ask by."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select

from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import ConnectionId, SignalId
from srm_agent.store.codec import decision_text, parse_decision
from srm_agent.store.schema import Tables
from srm_agent.store.statements import insert_all, known, known_statement


class Decisions:
    """Rows are written once and never change."""

    def __init__(self, tables: Tables) -> None:
        self._table = table = tables.decisions
        self._known = known_statement(table.c.decision_id)
        self._get = select(table.c.record).where(table.c.decision_id == bindparam("id"))
        self._recent = select(table.c.record).order_by(table.c.id.desc()).limit(bindparam("count"))
        self._decided = select(table.c.connection_id).where(table.c.signal_id == bindparam("of"))
        self._reasons = select(table.c.reason, func.count()).group_by(table.c.reason).order_by(table.c.reason)

    def add(self, connection: Connection, decisions: Sequence[Decision]) -> None:
        """Insert those that are not there yet."""
        there = known(connection, self._known, (decision.decision_id for decision in decisions))
        new = {decision.decision_id: decision for decision in decisions if decision.decision_id not in there}
        insert_all(connection, self._table, [_row(decision) for decision in new.values()])

    def decided(self, connection: Connection, signal: SignalId) -> tuple[ConnectionId, ...]:
        """Connections with a decision on this signal, by id."""
        # Sorted here: databases collate differently.
        return tuple(sorted(ConnectionId(of) for of in connection.execute(self._decided, {"of": signal}).scalars()))

    def get(self, connection: Connection, decision_id: str) -> Decision | None:
        """One decision by its full id."""
        record = connection.execute(self._get, {"id": decision_id}).scalar()
        return None if record is None else parse_decision(record)

    def find(self, connection: Connection, prefix: str, count: int) -> list[Decision]:
        """Decisions whose id starts so, by id; the one of exactly that id alone."""
        exact = self.get(connection, prefix)
        if exact is not None:
            return [exact]
        column = self._table.c.decision_id
        statement = (
            select(self._table.c.record).where(column.startswith(prefix, autoescape=True)).order_by(column).limit(count)
        )
        return [parse_decision(record) for record in connection.execute(statement).scalars()]

    def recent(self, connection: Connection, count: int) -> list[Decision]:
        """The last ones, newest first."""
        return [parse_decision(record) for record in connection.execute(self._recent, {"count": count}).scalars()]

    def reasons(self, connection: Connection) -> dict[str, int]:
        """How many decisions ended in each reason code, by code."""
        return {str(reason): int(count) for reason, count in connection.execute(self._reasons)}


def _row(decision: Decision) -> dict[str, object]:
    return {
        "decision_id": decision.decision_id,
        "signal_id": decision.signal_id,
        "connection_id": decision.connection_id,
        "provider": str(decision.provider),
        "symbol": decision.symbol,
        "accepted": decision.accepted,
        "reason": decision.reason.value,
        "lot": decision.lot,
        "policy_version": decision.policy_version,
        "arm": decision.arm,
        "session": decision.inputs.get("session"),
        "market_at": _instant(decision.inputs.get("market_at")),
        "decided_at": decision.decided_at,
        "record": decision_text(decision),
    }


def _instant(text: str | None) -> datetime | None:
    """An instant of the inputs; unknown where it is no aware ISO text (the record keeps the text)."""
    if text is not None:
        with suppress(ValueError):
            instant = datetime.fromisoformat(text)
            return instant if instant.tzinfo is not None else None
    return None

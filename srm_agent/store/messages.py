"""Accepted webhook messages and the tombstones of signals that were closed before they opened."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.signals import CancelSignal, CloseSignal, OpenSignal, Signal
from srm_agent.domain.units import ONE
from srm_agent.ports import IntakeResult
from srm_agent.store.codec import action, parse_signal, signal_text
from srm_agent.store.schema import Tables


class Messages:
    """Each delivery id once per provider, each opening signal id once."""

    def __init__(self, tables: Tables) -> None:
        table, tombs = tables.messages, tables.tombstones
        self._insert, self._bury = insert(table), insert(tombs)
        self._by_message = select(table.c.answer).where(
            table.c.provider == bindparam("provider"), table.c.message_id == bindparam("message")
        )
        self._opened = select(table.c.answer, table.c.finished_at).where(table.c.opening_signal_id == bindparam("id"))
        self._opening = select(table.c.signal).where(table.c.opening_signal_id == bindparam("id"))
        self._unfinished = select(table.c.signal).where(table.c.finished_at.is_(None)).order_by(table.c.id)
        self._finish = (
            update(table)
            .where(
                table.c.provider == bindparam("of"),
                table.c.message_id == bindparam("which"),
                table.c.finished_at.is_(None),
            )
            .values(finished_at=bindparam("at"))
        )
        self._tombstone = select(tombs.c.signal_id).where(tombs.c.signal_id == bindparam("id"))

    def accept(self, connection: Connection, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """Insert, or the first answer. A full close or a cancel of what is not opened yet leaves a tombstone.

        Not opened yet is also an open that waits for its turn: the close overtakes it, and has nothing to close.
        """
        provider, message = str(signal.provider), signal.receipt.message_id
        first = connection.execute(self._by_message, {"provider": provider, "message": message}).scalar()
        opening = connection.execute(self._opened, {"id": signal.signal_id}).first()
        if first is None and isinstance(signal, OpenSignal) and opening is not None:
            first = opening.answer
        if first is not None:
            return IntakeResult(fresh=False, answer=first)
        row = {
            "provider": provider,
            "message_id": message,
            "signal_id": signal.signal_id,
            "received_at": signal.receipt.received_at,
        }
        waits = opening is None or opening.finished_at is None
        if waits and _ends(signal) and not self.closed_before_open(connection, signal.signal_id):
            connection.execute(self._bury, row)
        connection.execute(
            self._insert,
            row
            | {
                "action": action(signal),
                "opening_signal_id": signal.signal_id if isinstance(signal, OpenSignal) else None,
                "signal": signal_text(signal),
                "body_sha256": body_sha256,
                "answer": answer,
                "issued_at": signal.receipt.issued_at,
            },
        )
        return IntakeResult(fresh=True, answer=answer)

    def unfinished(self, connection: Connection) -> list[Signal]:
        """Not processed to the end, oldest first."""
        return [parse_signal(text) for text in connection.execute(self._unfinished).scalars()]

    def finish(self, connection: Connection, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """Processed to the end; the first time stands."""
        connection.execute(self._finish, {"of": str(provider), "which": message_id, "at": at})

    def opening(self, connection: Connection, signal_id: SignalId) -> OpenSignal | None:
        """The opening signal of that id."""
        found = connection.execute(self._opening, {"id": signal_id}).scalar()
        if found is None:
            return None
        signal = parse_signal(found)
        return signal if isinstance(signal, OpenSignal) else None

    def closed_before_open(self, connection: Connection, signal_id: SignalId) -> bool:
        """Whether a tombstone stands."""
        return connection.execute(self._tombstone, {"id": signal_id}).scalar() is not None


def _ends(signal: Signal) -> bool:
    return isinstance(signal, CancelSignal) or (isinstance(signal, CloseSignal) and signal.fraction >= ONE)

"""Accepted messages and the tombstones of signals that were closed before they opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import isfinite

from simulator.memory_store.exact import instant, written
from simulator.memory_store.tables import Session
from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Signal
from srm_agent.domain.units import ONE
from srm_agent.ports import IntakeResult
from srm_agent.store.records import MessageRecord


class MemorySignalLog:
    """`ports.SignalLog`: each delivery id once per provider, each opening signal id once."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """See the port. A full close or a cancel of what is not opened yet leaves a tombstone."""
        with self._session.writing() as tables:
            key, opened = (signal.provider, signal.receipt.message_id), tables.openings.get(signal.signal_id)
            known = key if key in tables.messages else opened if isinstance(signal, OpenSignal) else None
            first = None if known is None else tables.messages.get(known)
            if first is not None:
                return IntakeResult(fresh=False, answer=first.answer)
            kept = _stored(signal)
            waits = opened is None or opened in tables.unfinished
            if waits and _ends(signal) and signal.signal_id not in tables.tombstones:
                tables.tombstones.put(signal.signal_id, key)
            tables.unfinished.put(key, len(tables.messages))
            if isinstance(signal, OpenSignal):
                tables.openings.put(signal.signal_id, key)
            tables.messages.put(
                key, MessageRecord(signal=kept, body_sha256=body_sha256, answer=answer, finished_at=None)
            )
            return IntakeResult(fresh=True, answer=answer)

    async def unfinished(self) -> Sequence[Signal]:
        """See the port."""
        tables = self._session.reading()
        keys = [key for key, _ in sorted(tables.unfinished.items(), key=lambda item: item[1])]
        return [record.signal for record in map(tables.messages.get, keys) if record is not None]

    async def finish(self, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """See the port; the first time stands."""
        with self._session.writing() as tables:
            key, when = (provider, message_id), instant(at)
            record = tables.messages.get(key)
            if record is not None and record.finished_at is None:
                tables.messages.put(key, replace(record, finished_at=when))
                tables.unfinished.drop(key)

    async def opening(self, signal_id: SignalId) -> OpenSignal | None:
        """See the port."""
        tables = self._session.reading()
        key = tables.openings.get(signal_id)
        record = None if key is None else tables.messages.get(key)
        return record.signal if record is not None and isinstance(record.signal, OpenSignal) else None

    async def closed_before_open(self, signal_id: SignalId) -> bool:
        """See the port."""
        return signal_id in self._session.reading().tombstones


def _stored(signal: Signal) -> Signal:
    """The signal as its canonical text gives it back. Raises ValueError for a number that JSON has no word for."""
    receipt = signal.receipt
    if not isfinite(receipt.received):
        raise ValueError("Out of range float values are not JSON compliant")
    receipt = replace(receipt, received_at=instant(receipt.received_at), issued_at=instant(receipt.issued_at))
    values: Mapping[str, object] = {}
    match signal:
        case OpenSignal():
            values = {
                name: getattr(signal, name) for name in ("signal_price", "stop_loss", "take_profit", "provider_lot")
            }
        case ModifySignal():
            values = {"stop_loss": signal.stop_loss, "take_profit": signal.take_profit}
        case CloseSignal():
            values = {"fraction": signal.fraction}
        case CancelSignal():
            pass
    numbers = {name: None if value is None else written(value) for name, value in values.items()}
    return replace(signal, receipt=receipt, **numbers)  # type: ignore[arg-type]  # the fields of this very signal


def _ends(signal: Signal) -> bool:
    return isinstance(signal, CancelSignal) or (isinstance(signal, CloseSignal) and signal.fraction >= ONE)

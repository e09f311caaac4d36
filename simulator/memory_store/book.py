"""Everything that was written, in the order of writing: what the auditor of the simulation reads, on both stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from simulator.memory_store.metrics import metrics_of
from simulator.memory_store.protection import halts_of
from simulator.memory_store.tables import Tables
from srm_agent.domain.accounts import Halt, ProtectionMark
from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import ClientOrderId, SignalId
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.ports import JournalRow
from srm_agent.store.records import (
    AuditRow,
    EquityMark,
    FillRecord,
    FlowRecord,
    LeaseRecord,
    MeasureRecord,
    MessageRecord,
    ProviderMetrics,
    ScoreRecord,
)


class StoreBook(Protocol):
    """Whole tables as values. `srm_agent.store.book.SqlBook` is the twin over SQL."""

    async def orders(self) -> Sequence[JournalRow]:
        """The journal, oldest first."""
        ...

    async def details(self) -> Mapping[ClientOrderId, str]:
        """What the last change of each order told, empty for nothing."""
        ...

    async def decisions(self) -> Sequence[Decision]:
        """All decisions, oldest first."""
        ...

    async def legs(self) -> Sequence[Leg]:
        """All legs, oldest first."""
        ...

    async def fills(self) -> Sequence[FillRecord]:
        """All executions in the order of recording."""
        ...

    async def measures(self) -> Sequence[MeasureRecord]:
        """What orders cost, in the order of first measuring."""
        ...

    async def messages(self) -> Sequence[MessageRecord]:
        """Accepted messages, oldest first."""
        ...

    async def tombstones(self) -> Sequence[SignalId]:
        """Signals that ended before they opened, by id."""
        ...

    async def trades(self) -> Sequence[ClosedTrade]:
        """Closed trades in the order of recording."""
        ...

    async def scores(self) -> Sequence[ScoreRecord]:
        """The score after each closed trade, in the order of recording."""
        ...

    async def metrics(self) -> Sequence[ProviderMetrics]:
        """Provider metrics by provider, kind of period and period."""
        ...

    async def marks(self) -> Sequence[ProtectionMark]:
        """Protection marks by connection."""
        ...

    async def halts(self) -> Sequence[Halt]:
        """Halts in force, oldest first."""
        ...

    async def audit(self) -> Sequence[AuditRow]:
        """The audit log, oldest first."""
        ...

    async def equity(self) -> Sequence[EquityMark]:
        """Equity curves of all connections in the order of recording."""
        ...

    async def flows(self) -> Sequence[FlowRecord]:
        """Cash flows in the order of recording."""
        ...

    async def leases(self) -> Sequence[LeaseRecord]:
        """Leases by connection."""
        ...


class MemoryBook:
    """`StoreBook` over the tables; it stays readable when the daemon has closed its store."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def orders(self) -> Sequence[JournalRow]:
        """See StoreBook."""
        return [entry.row for entry in self._tables.orders.values()]

    async def details(self) -> Mapping[ClientOrderId, str]:
        """See StoreBook."""
        return {client_id: entry.detail for client_id, entry in self._tables.orders.items()}

    async def decisions(self) -> Sequence[Decision]:
        """See StoreBook."""
        return [own_copy(decision) for decision in self._tables.decisions.values()]

    async def legs(self) -> Sequence[Leg]:
        """See StoreBook."""
        return [entry.leg for entry in self._tables.legs.values()]

    async def fills(self) -> Sequence[FillRecord]:
        """See StoreBook."""
        return self._tables.fills.values()

    async def measures(self) -> Sequence[MeasureRecord]:
        """See StoreBook."""
        return self._tables.measures.values()

    async def messages(self) -> Sequence[MessageRecord]:
        """See StoreBook."""
        return self._tables.messages.values()

    async def tombstones(self) -> Sequence[SignalId]:
        """See StoreBook."""
        return sorted(self._tables.tombstones.keys())

    async def trades(self) -> Sequence[ClosedTrade]:
        """See StoreBook."""
        return self._tables.trades.values()

    async def scores(self) -> Sequence[ScoreRecord]:
        """See StoreBook."""
        return [ScoreRecord(leg_id=leg_id, score=score) for leg_id, score in self._tables.scores.items()]

    async def metrics(self) -> Sequence[ProviderMetrics]:
        """See StoreBook."""
        rows = [metrics_of(period, sums) for period, sums in self._tables.sums.items()]
        return sorted(
            rows, key=lambda row: (row.provider.kind.value, row.provider.id, row.period_type, row.period_start)
        )

    async def marks(self) -> Sequence[ProtectionMark]:
        """See StoreBook."""
        return sorted(self._tables.marks.values(), key=lambda mark: mark.connection_id)

    async def halts(self) -> Sequence[Halt]:
        """See StoreBook."""
        return halts_of(self._tables)

    async def audit(self) -> Sequence[AuditRow]:
        """See StoreBook."""
        return self._tables.audit.values()

    async def equity(self) -> Sequence[EquityMark]:
        """See StoreBook."""
        return self._tables.equity.values()

    async def flows(self) -> Sequence[FlowRecord]:
        """See StoreBook."""
        return self._tables.flows.values()

    async def leases(self) -> Sequence[LeaseRecord]:
        """See StoreBook."""
        return sorted(self._tables.leases.values(), key=lambda lease: lease.connection_id)


def own_copy(decision: Decision) -> Decision:
    """A decision whose mappings are the reader's to change."""
    steps = tuple(replace(step, inputs=dict(step.inputs)) for step in decision.steps)
    return replace(
        decision,
        numbers=dict(decision.numbers),
        inputs=dict(decision.inputs),
        model_versions=dict(decision.model_versions),
        steps=steps,
    )

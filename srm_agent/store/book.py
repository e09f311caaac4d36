"""Everything that was written, in the order of writing: what auditors and the contract suite read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection, RowMapping, Select, select

from srm_agent.domain.accounts import CashFlow, Halt, ProtectionMark
from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, SignalId
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.ports import JournalRow
from srm_agent.store.codec import parse_decision, parse_signal
from srm_agent.store.protection import halt_of, mark_of
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
from srm_agent.store.rows import fill_of, journal_row, leg_of, measure_of, metrics_of, score_of, trade_of
from srm_agent.store.runner import StoreRunner
from srm_agent.store.schema import Tables

T = TypeVar("T")


class SqlBook:
    """Whole tables as values; each call is one read transaction. Not for the hot path."""

    def __init__(self, runner: StoreRunner, tables: Tables) -> None:
        self._runner, self._tables = runner, tables

    async def _all(self, statement: Select[*tuple[object, ...]], parse: Callable[[RowMapping], T]) -> list[T]:
        def read(connection: Connection) -> list[T]:
            return [parse(row) for row in connection.execute(statement).mappings()]

        return await self._runner.read(read)

    async def orders(self) -> Sequence[JournalRow]:
        """The journal, oldest first."""
        table = self._tables.orders
        return await self._all(select(table).order_by(table.c.id), journal_row)

    async def details(self) -> Mapping[ClientOrderId, str]:
        """What the last change of each order told, empty for nothing."""
        table = self._tables.orders
        statement = select(table.c.client_id, table.c.detail).order_by(table.c.id)
        return dict(await self._all(statement, lambda row: (ClientOrderId(row["client_id"]), str(row["detail"]))))

    async def decisions(self) -> Sequence[Decision]:
        """All decisions, oldest first."""
        table = self._tables.decisions
        return await self._all(select(table.c.record).order_by(table.c.id), lambda row: parse_decision(row["record"]))

    async def legs(self) -> Sequence[Leg]:
        """All legs, oldest first."""
        table = self._tables.legs
        return await self._all(select(table).order_by(table.c.id), leg_of)

    async def fills(self) -> Sequence[FillRecord]:
        """All executions in the order of recording."""
        table = self._tables.fills
        return await self._all(select(table).order_by(table.c.id), fill_of)

    async def measures(self) -> Sequence[MeasureRecord]:
        """What orders cost, in the order of first measuring."""
        table = self._tables.measures
        return await self._all(select(table).order_by(table.c.id), _measure)

    async def messages(self) -> Sequence[MessageRecord]:
        """Accepted messages, oldest first."""
        table = self._tables.messages
        return await self._all(select(table).order_by(table.c.id), _message)

    async def tombstones(self) -> Sequence[SignalId]:
        """Signals that ended before they opened, by id."""
        column = self._tables.tombstones.c.signal_id
        return await self._all(select(column).order_by(column), lambda row: SignalId(row["signal_id"]))

    async def trades(self) -> Sequence[ClosedTrade]:
        """Closed trades in the order of recording."""
        table = self._tables.closed_trades
        return await self._all(select(table).order_by(table.c.id), trade_of)

    async def scores(self) -> Sequence[ScoreRecord]:
        """The score after each closed trade, in the order of recording."""
        table = self._tables.provider_scores
        return await self._all(
            select(table).order_by(table.c.id),
            lambda row: ScoreRecord(leg_id=LegId(row["leg_id"]), score=score_of(row)),
        )

    async def metrics(self) -> Sequence[ProviderMetrics]:
        """Provider metrics by provider, kind of period and period."""
        c = self._tables.metrics.c
        order = (c.signal_provider_type, c.signal_provider_id, c.period_type, c.period_start)
        return await self._all(select(self._tables.metrics).order_by(*order), metrics_of)

    async def marks(self) -> Sequence[ProtectionMark]:
        """Protection marks by connection."""
        table = self._tables.protection_marks
        return await self._all(select(table).order_by(table.c.connection_id), mark_of)

    async def halts(self) -> Sequence[Halt]:
        """Halts in force, oldest first."""
        table = self._tables.halts
        return await self._all(select(table).order_by(table.c.set_at, table.c.scope, table.c.key), halt_of)

    async def audit(self) -> Sequence[AuditRow]:
        """The audit log, oldest first."""
        table = self._tables.audit_log
        return await self._all(select(table).order_by(table.c.id), _audit)

    async def equity(self) -> Sequence[EquityMark]:
        """Equity curves of all connections in the order of recording."""
        table = self._tables.equity_marks
        return await self._all(select(table).order_by(table.c.id), _equity)

    async def flows(self) -> Sequence[FlowRecord]:
        """Cash flows in the order of recording."""
        table = self._tables.cash_flows
        return await self._all(select(table).order_by(table.c.id), _flow)

    async def leases(self) -> Sequence[LeaseRecord]:
        """Leases by connection."""
        table = self._tables.leases
        return await self._all(select(table).order_by(table.c.connection_id), lambda row: LeaseRecord(**row))


def _measure(row: RowMapping) -> MeasureRecord:
    return MeasureRecord(
        client_id=ClientOrderId(row["client_id"]),
        leg_id=row["leg_id"],
        purpose=OrderPurpose(row["purpose"]),
        measure=measure_of(row),
    )


def _message(row: RowMapping) -> MessageRecord:
    names = ("body_sha256", "answer", "finished_at")
    return MessageRecord(signal=parse_signal(row["signal"]), **{name: row[name] for name in names})


def _audit(row: RowMapping) -> AuditRow:
    return AuditRow(**{name: row[name] for name in ("at", "operator", "action", "scope", "key", "detail")})


def _equity(row: RowMapping) -> EquityMark:
    return EquityMark(**{name: row[name] for name in ("connection_id", "at", "equity", "balance", "drawdown")})


def _flow(row: RowMapping) -> FlowRecord:
    flow = CashFlow(**{name: row[name] for name in ("flow_id", "kind", "amount", "currency", "at")})
    return FlowRecord(connection_id=ConnectionId(row["connection_id"]), flow=flow)

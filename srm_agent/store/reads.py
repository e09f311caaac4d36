"""What `explain`, `status`, the report and the dashboard ask: reads only, no lock taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Connection, Table, bindparam, func, select

from srm_agent.domain.accounts import Halt
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ProviderScore
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.domain.orders import OrderPurpose
from srm_agent.ports import JournalRow
from srm_agent.store.codec import decision_record
from srm_agent.store.decisions import Decisions
from srm_agent.store.journal import LATE_FILL
from srm_agent.store.protection import Protection
from srm_agent.store.records import AuditRow, EquityMark, ProviderMetrics
from srm_agent.store.rows import journal_row, metrics_of, score_of
from srm_agent.store.runner import StoreRunner
from srm_agent.store.schema import Tables


@dataclass(frozen=True, slots=True, kw_only=True)
class SlippageRow:
    """One measured entry. None: not measurable (`censored` says why), or the instrument has no pip."""

    symbol: str
    session: str | None
    """None where the decision did not know it."""
    provider: ProviderKey
    connection_id: ConnectionId
    pips: Decimal | None
    bps: Decimal | None
    money: Decimal | None
    latency_ms: Decimal | None
    censored: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSizes:
    """Bytes on disk (0 in memory) and rows per table, by the table's name in this database."""

    file_bytes: int
    wal_bytes: int
    rows: Mapping[str, int]


class Reads:
    """Questions about what happened."""

    def __init__(self, runner: StoreRunner, tables: Tables, path: Path | None) -> None:
        self._runner, self._tables, self._path = runner, tables, path
        self._decisions, self._protection = Decisions(tables), Protection(tables)

    async def find_decisions(self, prefix: str, limit: int = 10) -> list[Decision]:
        """The decision of exactly that id, else those whose id starts so, by id."""
        return await self._runner.read(self._decisions.find, prefix, limit)

    async def decision_record(self, decision_id: str) -> Mapping[str, object] | None:
        """The whole record as plain JSON values, None if there is no such id."""
        found = await self._runner.read(self._decisions.get, decision_id)
        return None if found is None else decision_record(found)

    async def recent_decisions(self, count: int) -> list[Decision]:
        """The last ones, newest first."""
        return await self._runner.read(self._decisions.recent, count)

    async def decisions_by_reason(self) -> dict[str, int]:
        """How many decisions ended in each reason code (`ACCEPTED` included)."""
        return await self._runner.read(self._decisions.reasons)

    async def orders_of(self, decision_id: str) -> list[JournalRow]:
        """Orders that follow from a decision, oldest first (exits too)."""
        return await self._runner.read(self._orders, "decision_id", decision_id)

    async def emergency_orders(self) -> list[JournalRow]:
        """Orders of emergency closes, oldest first."""
        return await self._runner.read(self._orders, "purpose", OrderPurpose.EMERGENCY.value)

    async def late_fills(self) -> list[JournalRow]:
        """Orders that executed after they were settled as refused or abandoned."""
        return await self._runner.read(self._orders, "code", LATE_FILL)

    def _orders(self, connection: Connection, column: str, value: str) -> list[JournalRow]:
        table = self._tables.orders
        statement = select(table).where(table.c[column] == bindparam("value")).order_by(table.c.id)
        return [journal_row(row) for row in connection.execute(statement, {"value": value}).mappings()]

    async def slippage(self) -> list[SlippageRow]:
        """All measured entries by symbol and session, then in the order of measuring."""
        return await self._runner.read(self._slippage)

    def _slippage(self, connection: Connection) -> list[SlippageRow]:
        measures, orders, decisions = self._tables.measures, self._tables.orders, self._tables.decisions
        statement = (
            select(measures, decisions.c.session)
            .outerjoin(orders, orders.c.client_id == measures.c.client_id)
            .outerjoin(decisions, decisions.c.decision_id == orders.c.decision_id)
            .where(measures.c.purpose == OrderPurpose.ENTRY.value)
            .order_by(measures.c.symbol, decisions.c.session, measures.c.id)
        )
        return [
            SlippageRow(
                symbol=row.symbol,
                session=row.session,
                provider=ProviderKey.parse(row.provider),
                connection_id=ConnectionId(row.connection_id),
                pips=row.slippage_pips,
                bps=row.slippage_bps,
                money=row.slippage_money,
                latency_ms=row.latency_ms,
                censored=row.censored,
            )
            for row in connection.execute(statement)
        ]

    async def latest_scores(self) -> dict[ProviderKey, ProviderScore]:
        """The score in force per provider, by provider."""
        return await self._runner.read(self._scores)

    def _scores(self, connection: Connection) -> dict[ProviderKey, ProviderScore]:
        table = self._tables.provider_scores
        last = select(func.max(table.c.id)).group_by(table.c.provider)
        statement = select(table).where(table.c.id.in_(last)).order_by(table.c.provider)
        scores = [score_of(row) for row in connection.execute(statement).mappings()]
        return {score.provider: score for score in scores}

    async def provider_metrics(self, period_type: str = "daily") -> list[ProviderMetrics]:
        """Rows of `signal_provider_metrics` by provider and period."""
        return await self._runner.read(self._metrics, period_type)

    def _metrics(self, connection: Connection, period_type: str) -> list[ProviderMetrics]:
        table = self._tables.metrics
        statement = (
            select(table)
            .where(table.c.period_type == bindparam("kind"))
            .order_by(table.c.signal_provider_type, table.c.signal_provider_id, table.c.period_start)
        )
        return [metrics_of(row) for row in connection.execute(statement, {"kind": period_type}).mappings()]

    async def equity_marks(self, connection_id: ConnectionId, count: int = 1000) -> list[EquityMark]:
        """The last points of a connection's curve, oldest first."""
        return await self._runner.read(self._equity, connection_id, count)

    def _equity(self, connection: Connection, of: str, count: int) -> list[EquityMark]:
        table = self._tables.equity_marks
        names = ("connection_id", "at", "equity", "balance", "drawdown")
        statement = (
            select(*(table.c[name] for name in names))
            .where(table.c.connection_id == bindparam("of"))
            .order_by(table.c.at.desc())
            .limit(bindparam("count"))
        )
        rows = connection.execute(statement, {"of": of, "count": count}).mappings().all()
        return [EquityMark(**row) for row in reversed(rows)]

    async def connections(self) -> list[ConnectionId]:
        """Connections that have an equity curve, by name."""
        return await self._runner.read(self._connections)

    def _connections(self, connection: Connection) -> list[ConnectionId]:
        column = self._tables.equity_marks.c.connection_id
        return [
            ConnectionId(found) for found in connection.execute(select(column).distinct().order_by(column)).scalars()
        ]

    async def halts(self) -> list[Halt]:
        """All halts in force, oldest first."""
        return await self._runner.read(self._protection.halts)

    async def audit(self, count: int = 100) -> list[AuditRow]:
        """The last entries of the audit log, newest first."""
        return await self._runner.read(self._audit, count)

    def _audit(self, connection: Connection, count: int) -> list[AuditRow]:
        table = self._tables.audit_log
        names = ("at", "operator", "action", "scope", "key", "detail")
        statement = select(*(table.c[name] for name in names)).order_by(table.c.id.desc()).limit(bindparam("count"))
        return [AuditRow(**row) for row in connection.execute(statement, {"count": count}).mappings()]

    async def sizes(self) -> StorageSizes:
        """How large everything has grown."""
        rows = await self._runner.read(self._counts)
        return StorageSizes(file_bytes=_bytes(self._path, ""), wal_bytes=_bytes(self._path, "-wal"), rows=rows)

    def _counts(self, connection: Connection) -> dict[str, int]:
        def count(table: Table) -> int:
            return int(connection.execute(select(func.count()).select_from(table)).scalar_one())

        return {table.name: count(table) for table in self._tables.metadata.sorted_tables}


def _bytes(path: Path | None, suffix: str) -> int:
    if path is None:
        return 0
    try:
        return Path(f"{path}{suffix}").stat().st_size
    except FileNotFoundError:
        return 0

"""What learning is rebuilt from: closed trades in market order, and the last entries measured."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.trades import ClosedTrade
from srm_agent.store.rows import measure_of, trade_of
from srm_agent.store.schema import Tables


class TradeHistory:
    """Reads only."""

    def __init__(self, tables: Tables) -> None:
        trades, measures = tables.closed_trades, tables.measures
        self._trades = select(trades).order_by(trades.c.closed_at, trades.c.leg_id)
        self._measures = (
            select(measures)
            .where(measures.c.purpose == OrderPurpose.ENTRY.value)
            .order_by(measures.c.id.desc())
            .limit(bindparam("count"))
        )

    def closed_trades(self, connection: Connection) -> list[ClosedTrade]:
        """All, by market close, ties by leg id."""
        return [trade_of(row) for row in connection.execute(self._trades).mappings()]

    def recent_measures(self, connection: Connection, count: int) -> list[ExecutionMeasure]:
        """The last entries measured, oldest first."""
        rows = connection.execute(self._measures, {"count": count}).mappings().all()
        return [measure_of(row) for row in reversed(rows)]

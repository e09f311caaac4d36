"""What learning is rebuilt from: closed trades in market order, and the last entries measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from simulator.memory_store.tables import Session
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.trades import ClosedTrade


class MemoryHistory:
    """`ports.History`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def closed_trades(self) -> Sequence[ClosedTrade]:
        """See the port."""
        return sorted(self._session.reading().trades.values(), key=lambda trade: (trade.closed_at, trade.leg_id))

    async def recent_measures(self, count: int) -> Sequence[ExecutionMeasure]:
        """See the port."""
        rows = self._session.reading().measures.newest_first()
        entries = (row.measure for row in rows if row.purpose is OrderPurpose.ENTRY)
        return list(islice(entries, count))[::-1]

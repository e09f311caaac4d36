"""How many trades in a row an account has lost: a brake on its next lots, not a judgement of anybody (learning.md 2.4).

Forgetting faster in a losing streak makes scores worse; taking less risk for a while costs little. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from srm_agent.domain.ids import ConnectionId, LegId
from srm_agent.domain.trades import ClosedTrade
from srm_agent.domain.units import ZERO


class LossStreak:
    """One connection. Unknown until the journal's trades have been read once."""

    def __init__(self, connection: ConnectionId) -> None:
        self._connection = connection
        self._known = False
        self._lost: dict[LegId, datetime] = {}
        """Legs lost since the last win, with their close; by leg, so that a trade told twice counts once."""

    def restore(self, trades: Iterable[ClosedTrade]) -> None:
        """All trades of the journal, those of other connections too, in the order of their close."""
        self._known = True
        for trade in trades:
            self.observe(trade)

    def observe(self, trade: ClosedTrade) -> None:
        """One closed trade: a loss lengthens the streak, a win ends it, neither changes nothing."""
        if trade.connection_id != self._connection:
            return
        if trade.net_pnl > ZERO:
            self._lost.clear()
        elif trade.net_pnl < ZERO:
            self._lost[trade.leg_id] = trade.closed_at

    def losses(self, market_now: datetime, days: int) -> int | None:
        """Losses in a row as of that market time; None: not known.

        `days` without a loss end a streak like a win: what lies before such a gap does not count.
        """
        if not self._known:
            return None
        count, later = 0, market_now
        for closed_at in sorted(self._lost.values(), reverse=True):
            if later - closed_at >= timedelta(days=days):
                break
            count, later = count + 1, closed_at
        return count

"""Bars of one timeframe from mid prices, in market time.

A bar exists only where quotes fell into it: a gap (a weekend, a broken stream) leaves no invented bars, so the bar
after a gap follows the last real one and its true range holds the gap. Bars start at multiples of the timeframe in
UTC, as brokers' do.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from srm_agent.domain.market import Bar


class BarBuilder:
    """Builds one timeframe. `start`, `high`, `low`, `close` describe the forming bar, valid once `forming`."""

    def __init__(self, timeframe_s: int) -> None:
        if timeframe_s <= 0:
            raise ValueError(f"timeframe must be positive seconds, was {timeframe_s}")
        self._timeframe_s = timeframe_s
        self._start = 0.0
        self._end = float("-inf")
        self._open = 0.0
        self.high = 0.0
        self.low = 0.0
        self.close = 0.0
        self.forming = False

    def seed(self, bars: Sequence[Bar]) -> Sequence[Bar]:
        """Take broker history, oldest first; answers the bars that are closed for good.

        The last one is held as the forming bar: if the first quotes fall into it (some brokers include the running
        bar) they extend it, else it closes with the next quote.
        """
        if not bars:
            return ()
        last = bars[-1]
        self._start = last.start.timestamp()
        self._end = self._start + self._timeframe_s
        self._open, self.high, self.low, self.close = last.open, last.high, last.low, last.close
        self.forming = True
        return bars[:-1]

    def add(self, at: float, mid: float) -> Bar | None:
        """One mid price at market time `at` (POSIX seconds); the bar it closed, if any.

        A price older than the forming bar (a corrected venue clock) counts into it: closed bars never change.
        """
        if at < self._end:
            self.close = mid
            if mid > self.high:
                self.high = mid
            elif mid < self.low:
                self.low = mid
            return None
        closed = self._closed() if self.forming else None
        self._start = at - at % self._timeframe_s
        self._end = self._start + self._timeframe_s
        self._open = self.high = self.low = self.close = mid
        self.forming = True
        return closed

    def _closed(self) -> Bar:
        return Bar(datetime.fromtimestamp(self._start, UTC), self._open, self.high, self.low, self.close)

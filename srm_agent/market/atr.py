"""Average true range after Wilder (New Concepts in Technical Trading Systems, 1978), streaming.

Convention, as TA-Lib `ATR`: the first bar has no true range (no previous close); the first value is the plain mean of
the next `period` true ranges, so it comes with bar number `period` + 1; then ATR = (ATR x (period - 1) + TR) / period.
The operations and their order are TA-Lib's, so the floats are equal, but for the last bit where TA-Lib's compiler fused
a multiplication with an addition.
"""

from __future__ import annotations


def true_range(high: float, low: float, previous_close: float) -> float:
    """Largest of high - low, |high - previous close|, |low - previous close|; price units."""
    return max(high - low, abs(previous_close - high), abs(previous_close - low))


class WilderAtr:
    """Streaming ATR of closed bars, O(1) a bar. `value` in price units, None until `period` + 1 bars."""

    def __init__(self, period: int = 14) -> None:
        if period < 1:
            raise ValueError(f"period must be at least 1, was {period}")
        self._period = period
        self._previous_close: float | None = None
        self._sum = 0.0
        self._count = 0
        self.value: float | None = None

    def update(self, high: float, low: float, close: float) -> float | None:
        """Take a closed bar; the new value."""
        self.value = self.live(high, low, close)
        if self._previous_close is not None and self._count < self._period:
            self._sum += true_range(high, low, self._previous_close)
            self._count += 1
        self._previous_close = close
        return self.value

    def live(self, high: float, low: float, close: float) -> float | None:
        """What `update` would answer if the forming bar closed now; changes nothing.

        `close` does not enter a bar's own true range; it is taken so that both calls read alike.
        """
        if self._previous_close is None:
            return None
        now = true_range(high, low, self._previous_close)
        if self.value is not None:
            return (self.value * (self._period - 1) + now) / self._period
        if self._count + 1 < self._period:
            return None
        return (self._sum + now) / self._period

"""One-minute bars of the mid price, built as the market moves, and longer bars made of them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

MINUTE_MS = 60_000
DAY_MINUTES = 1440
MAX_FLAT = DAY_MINUTES
"""Minutes without any price that are filled with flat bars (Bybit fills them too); a longer silence leaves a hole."""

BarRow = tuple[int, Decimal | float, Decimal | float, Decimal | float, Decimal | float]
"""(start_ms, open, high, low, close)."""


class Kline(NamedTuple):
    """One bar; `closed` False while its time runs."""

    start_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    closed: bool


class KlineSeries:
    """The minutes of one symbol, oldest first; the last one is still open."""

    def __init__(self, tick_size: Decimal) -> None:
        self._tick = tick_size
        self._bars: list[Kline] = []
        self._day: tuple[int, Kline] | None = None

    def seed(self, rows: Iterable[BarRow]) -> None:
        """History of closed minutes, oldest first; floats are rounded to the nearest tick.

        Raises ValueError when live prices came before it, or when the rows are not in order.
        """
        if self._bars:
            raise ValueError("history must come before the first price")
        for start_ms, *prices in rows:
            if self._bars and start_ms <= self._bars[-1].start_ms:
                raise ValueError(f"bars must be oldest first, was {start_ms} after {self._bars[-1].start_ms}")
            opened, high, low, close = (self._on_grid(price) for price in prices)
            self._bars.append(Kline(start_ms, opened, high, low, close, True))

    def update(self, price: Decimal, at_ms: int) -> None:
        """Take one price in."""
        start = at_ms - at_ms % MINUTE_MS
        if self._bars and self._bars[-1].start_ms == start:
            last = self._bars[-1]
            self._bars[-1] = Kline(start, last.open, max(last.high, price), min(last.low, price), price, False)
            return
        if self._bars:
            last = self._bars[-1] = self._bars[-1]._replace(closed=True)
            missing = range(last.start_ms + MINUTE_MS, start, MINUTE_MS)
            for minute in missing if len(missing) <= MAX_FLAT else ():
                self._bars.append(Kline(minute, last.close, last.close, last.close, last.close, True))
        self._bars.append(Kline(start, price, price, price, price, False))

    def last(self, interval_s: int, limit: int, *, closed_only: bool) -> list[Kline]:
        """The last `limit` bars of `interval_s` seconds (a multiple of 60), oldest first."""
        if interval_s <= 0 or interval_s % 60:
            raise ValueError(f"interval must be a multiple of 60 s, was {interval_s}")
        interval_ms, minutes = interval_s * 1000, interval_s // 60
        # Two whole bars more than asked: the first of a cut slice may be incomplete, the last may be open.
        tail = self._bars[-(limit + 2) * minutes :]
        bars: list[Kline] = []
        for bar in tail:
            start = bar.start_ms - bar.start_ms % interval_ms
            ends = bar.closed and bar.start_ms + MINUTE_MS >= start + interval_ms
            if bars and bars[-1].start_ms == start:
                first = bars[-1]
                bars[-1] = Kline(start, first.open, max(first.high, bar.high), min(first.low, bar.low), bar.close, ends)
                continue
            if bars:
                bars[-1] = bars[-1]._replace(closed=True)
            bars.append(bar._replace(start_ms=start, closed=ends))
        if closed_only and bars and not bars[-1].closed:
            bars.pop()
        return bars[-limit:]

    def day(self) -> Kline | None:
        """The last 24 h of minutes as one bar, None before any price; brought up to date once a minute."""
        if not self._bars:
            return None
        if self._day is None or self._day[0] != len(self._bars):
            tail = self._bars[-DAY_MINUTES:]
            high, low = max(bar.high for bar in tail), min(bar.low for bar in tail)
            self._day = (len(self._bars), Kline(tail[0].start_ms, tail[0].open, high, low, tail[-1].close, False))
        return self._day[1]

    def _on_grid(self, price: Decimal | float) -> Decimal:
        number = price if isinstance(price, Decimal) else Decimal(repr(float(price)))
        return (number / self._tick).to_integral_value(ROUND_HALF_EVEN) * self._tick

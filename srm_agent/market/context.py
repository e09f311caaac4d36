"""One symbol's market: believed quotes in, the context of a decision out. The hottest path of the agent."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from decimal import Decimal

from srm_agent.domain.ids import Symbol
from srm_agent.domain.market import Bar, MarketContext, Quote
from srm_agent.domain.units import from_float
from srm_agent.market.atr import WilderAtr
from srm_agent.market.bars import BarBuilder
from srm_agent.market.hygiene import Dropped, DropReason, HygieneSettings, QuoteGate
from srm_agent.market.sessions import SessionClock
from srm_agent.market.volatility import Volatility


class SpreadMedian:
    """Median spread of the last 20 minutes of market time, one sample each 5 s; exact price units."""

    WINDOW_S = 1200.0
    STEP_S = 5.0
    MINIMUM = 12

    def __init__(self) -> None:
        self._due = float("-inf")
        self._samples: deque[tuple[float, Decimal]] = deque()
        self._sorted: list[Decimal] = []

    def add(self, at: float, quote: Quote) -> None:
        """Take a sample if one is due at market second `at`."""
        if at < self._due and at > self._due - self.WINDOW_S:
            return
        self._due = at - at % self.STEP_S + self.STEP_S
        while self._samples and not 0.0 <= at - self._samples[0][0] <= self.WINDOW_S:
            _, old = self._samples.popleft()
            del self._sorted[bisect_left(self._sorted, old)]
        spread = quote.spread
        self._samples.append((at, spread))
        insort(self._sorted, spread)

    def value(self) -> Decimal | None:
        """The median, None until a minute of samples is there."""
        count = len(self._sorted)
        if count < self.MINIMUM:
            return None
        middle = count // 2
        return self._sorted[middle] if count % 2 else (self._sorted[middle - 1] + self._sorted[middle]) / 2


class SymbolMarket:
    """Everything known of one symbol, from its quotes and the broker's history.

    Prices become floats once, here (indicators only); what a context carries is Decimal again.
    """

    def __init__(
        self,
        symbol: Symbol,
        *,
        atr_period: int = 14,
        atr_timeframe_s: int = 900,
        hygiene: HygieneSettings | None = None,
    ) -> None:
        self.symbol = symbol
        self._atr_period = atr_period
        self._atr_timeframe_s = atr_timeframe_s
        self._gate = QuoteGate(hygiene)
        self._bars = BarBuilder(atr_timeframe_s)
        self._atr = WilderAtr(atr_period)
        self._volatility = Volatility()
        self._spreads = SpreadMedian()
        self._sessions = SessionClock()
        self._quote: Quote | None = None

    def seed(self, bars_timeframe: Sequence[Bar], bars_1m: Sequence[Bar]) -> None:
        """Start over from broker history, each list oldest first and ending now.

        The last close becomes the price that the first quotes are judged against; a symbol whose quotes were all
        absurd recovers by being seeded again. There is no context until the next quote.
        """
        self._bars = BarBuilder(self._atr_timeframe_s)
        self._atr = WilderAtr(self._atr_period)
        self._volatility = Volatility()
        for bar in self._bars.seed(bars_timeframe):
            self._atr.update(bar.high, bar.low, bar.close)
        self._volatility.seed(bars_1m)
        latest = bars_1m[-1] if bars_1m else bars_timeframe[-1] if bars_timeframe else None
        if latest is not None:
            self._gate.anchor(latest.close)
        self._quote = None

    def on_quote(self, quote: Quote) -> Quote | Dropped:
        """Take a quote: the quote if believed, else why not (then nothing has changed but a counter)."""
        gate = self._gate
        reason = gate.judge(quote)
        if reason is not None:
            return Dropped(reason)
        at = gate.at
        mid = gate.mid
        closed = self._bars.add(at, mid)
        if closed is not None:
            self._atr.update(closed.high, closed.low, closed.close)
        self._volatility.add(at, mid)
        self._spreads.add(at, quote)
        self._quote = quote
        return quote

    def context(self) -> MarketContext | None:
        """What is known at the last believed quote, None before the first."""
        quote = self._quote
        if quote is None:
            return None
        session, weekday = self._sessions.at(self._gate.at)
        bars = self._bars
        return MarketContext(
            symbol=self.symbol,
            at=quote.at,
            session=session,
            iso_weekday=weekday,
            spread=quote.spread,
            spread_median=self._spreads.value(),
            atr=_decimal(self._atr.live(bars.high, bars.low, bars.close)),
            atr_period=self._atr_period,
            atr_timeframe_s=self._atr_timeframe_s,
            volatility_index=_decimal(self._volatility.index()),
            volatility_per_root_second=_decimal(self._volatility.per_root_second()),
        )

    @property
    def last_quote(self) -> Quote | None:
        """The last believed quote."""
        return self._quote

    @property
    def dropped(self) -> Mapping[DropReason, int]:
        """How many quotes were dropped, by reason."""
        return self._gate.dropped

    def stale(self, now_monotonic: float) -> bool:
        """See `QuoteGate.stale`: such a symbol takes no entries."""
        return self._gate.stale(now_monotonic)


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else from_float(value)

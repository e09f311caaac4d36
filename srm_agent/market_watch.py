"""Quotes of one venue turned into contexts: where the feed (I/O) meets `market/` (pure)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.events import StreamDown
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import MarketContext, Quote
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerError, UnknownInstrument
from srm_agent.market.context import SymbolMarket
from srm_agent.market.hygiene import Dropped
from srm_agent.ports import MarketFeed
from srm_agent.terms_watch import TermsWatch

log = structlog.get_logger()

SEED_BARS = 300
SEED_MINUTES = 5 * 24 * 60
RETRY_S = 2.0


class MarketWatch:
    """All symbols of one venue. A symbol the venue does not know is absent here, and entries on it are refused."""

    def __init__(self, name: str, feed: MarketFeed, clock: Clock, *, atr_period: int, atr_timeframe_s: int) -> None:
        self.name = name
        self.feed = feed
        self.instruments: dict[Symbol, Instrument] = {}
        self.terms = TermsWatch(feed, self.instruments, clock)
        self.market_now: datetime | None = None
        """The newest venue time seen: decides sessions and trading days."""
        self.streaming = False
        self._clock = clock
        self._atr_period = atr_period
        self._atr_timeframe_s = atr_timeframe_s
        self._markets: dict[Symbol, SymbolMarket] = {}
        self._believed_after = float("-inf")

    async def open(self, symbols: Sequence[Symbol], held: Sequence[Symbol] = ()) -> None:
        """Connect, load terms, seed the indicators. Raises BrokerUnreachable if the venue cannot be reached at all.

        `held`: symbols of legs that are open, also where the configuration has dropped them since: no entries on those.
        """
        await self.feed.open()
        for symbol in dict.fromkeys([*symbols, *held]):
            try:
                self.instruments[symbol] = await self.feed.instrument(symbol)
                if symbol not in symbols:
                    self.terms.forbid(symbol)
            except UnknownInstrument:
                log.warning("the venue does not know this symbol: signals on it are refused", symbol=symbol)
        await asyncio.gather(*(self._seed(symbol) for symbol in self.instruments))

    async def _seed(self, symbol: Symbol) -> None:
        market = SymbolMarket(symbol, atr_period=self._atr_period, atr_timeframe_s=self._atr_timeframe_s)
        self._markets[symbol] = market
        try:
            bars = await self.feed.bars(symbol, self._atr_timeframe_s, SEED_BARS)
            minutes = await self.feed.bars(symbol, 60, SEED_MINUTES)
        except BrokerError as error:
            # Without history ATR and volatility start unknown, which selects the conservative policy.
            log.warning("no history for this symbol yet", symbol=symbol, error=str(error))
            return
        market.seed(bars, minutes)

    async def run(self, on_quote: Callable[[MarketWatch, Quote], None]) -> None:
        """Pass every believed quote on, for ever."""
        async for event in self.feed.events(list(self.instruments)):
            if isinstance(event, StreamDown):
                self.streaming = False
                log.info("quotes interrupted", venue=self.name, reason=event.reason)
                continue
            self.streaming = True
            market = self._markets.get(event.symbol)
            if market is None:
                continue
            quote = market.on_quote(event)
            if isinstance(quote, Dropped):
                continue
            if self.market_now is None or quote.at > self.market_now:
                self.market_now = quote.at
            on_quote(self, quote)

    def quote(self, symbol: Symbol) -> Quote | None:
        """The last believed quote; None while there is none."""
        market = self._markets.get(symbol)
        quote = None if market is None else market.last_quote
        return None if quote is None or quote.received <= self._believed_after else quote

    def distrust(self) -> None:
        """The process or its host stood still: quotes received until now say nothing any more, whatever their age.

        A suspended host's monotonic clock stands still too, so that their age does not show it (P6).
        """
        self._believed_after = self._clock.monotonic()

    def fresh_quote(self, symbol: Symbol) -> Quote | None:
        """The last believed quote, None when the symbol is STALE: no entries on it (B23, B24)."""
        market = self._markets.get(symbol)
        if market is None or market.stale(self._clock.monotonic()):
            return None
        return self.quote(symbol)

    def touch(self, symbol: Symbol, side: Side) -> Decimal | None:
        """The price an order of that side would meet now."""
        quote = self.quote(symbol)
        return None if quote is None else quote.touch(side)

    def context(self, symbol: Symbol) -> MarketContext | None:
        """What a decision may know of the symbol."""
        market = self._markets.get(symbol)
        return None if market is None else market.context()

    def dropped(self) -> dict[str, int]:
        """Quotes not believed, by reason, over all symbols."""
        counts: dict[str, int] = {}
        for market in self._markets.values():
            for reason, count in market.dropped.items():
                counts[reason.value] = counts.get(reason.value, 0) + count
        return counts

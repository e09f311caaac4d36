"""Market data of one venue: instruments, bars and quotes (port `MarketFeed`)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime

import structlog

from adapters.ccxt_venue.budget import Priority, RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed
from adapters.ccxt_venue.outcomes import read_error
from adapters.ccxt_venue.parse import parse_bar, parse_book, parse_instrument, parse_quote
from adapters.ccxt_venue.rows import BadRow, as_row, to_ms
from adapters.ccxt_venue.settings import CcxtVenueSettings
from adapters.ccxt_venue.streams import Hooks, StreamSupervisor, Watch
from adapters.ccxt_venue.unified import parse_unified_instrument
from srm_agent.clock import Clock
from srm_agent.domain.events import FeedEvent, StreamDown
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import Bar, Quote
from srm_agent.errors import BrokerUnreachable, UnknownInstrument

log = structlog.get_logger()

_TIMEFRAMES: Mapping[int, str] = {
    60: "1m", 180: "3m", 300: "5m", 900: "15m", 1800: "30m", 3600: "1h", 7200: "2h", 14400: "4h", 86400: "1d",
}  # fmt: skip
_PAGE = 1000
"""Most candles in one reply (Bybit)."""


class CcxtFeed:
    """One ccxt instance for public data, shared by all accounts of the venue."""

    def __init__(self, settings: CcxtVenueSettings, clock: Clock, rng: random.Random) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._client: VenueClient | None = None
        self._instruments: dict[Symbol, Instrument] = {}
        self._market_now: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._budget = RequestBudget(rate=settings.requests_per_s, burst=settings.request_burst, reserve=0, clock=clock)

    @property
    def venue(self) -> str:
        """The ccxt class name."""
        return self._settings.exchange

    @property
    def client(self) -> VenueClient:
        """The instance behind the feed; accounts take its instruments. Raises BrokerUnreachable before `open`."""
        if self._client is None:
            raise BrokerUnreachable(f"{self.venue}: the feed is not open")
        return self._client

    async def open(self) -> None:
        """Load instruments. Raises BrokerUnreachable, ConfigurationError for an unknown class."""
        if self._client is not None:
            return
        client = VenueClient(self._settings, None)
        try:
            await client.load_markets()
        except CallFailed as failed:
            await client.close()
            raise read_error(failed.failure, "instruments") from failed
        self._client = client

    async def close(self) -> None:
        """Release the sockets and end the reader's loop; idempotent."""
        await self._stop()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def instrument(self, symbol: Symbol) -> Instrument:
        """Contract terms as loaded. Raises UnknownInstrument, also for terms that are not understood (INV-14)."""
        known = self._instruments.get(symbol)
        if known is not None:
            return known
        market = self.client.markets().get(symbol)
        if market is None:
            raise UnknownInstrument(symbol)
        try:
            parse = parse_instrument if self.venue == "bybit" else parse_unified_instrument
            parsed = parse(market, self._settings.asset_classes, self._settings.pip_sizes)
        except BadRow as error:
            log.warning("instrument not understood", symbol=symbol, reason=str(error))
            raise UnknownInstrument(symbol) from error
        self._instruments[symbol] = parsed
        return parsed

    async def quote(self, symbol: Symbol) -> Quote:
        """Best bid and ask from one order book read, whose time is the venue's own. Raises BrokerUnreachable."""
        self._require(symbol)
        book = await self._read("fetch_order_book", symbol, 1)
        try:
            quote = parse_book(as_row(book, "order book"), symbol, self._clock.monotonic())
        except BadRow as error:
            raise BrokerUnreachable(f"quote of {symbol}: {error}") from error
        self._market_now = quote.at
        return quote

    async def bars(self, symbol: Symbol, timeframe_s: int, count: int) -> Sequence[Bar]:
        """The last `count` closed bars, oldest first; fewer where the venue has no more.

        The newest candle of the first page is the one still forming, which is left out.
        Raises BrokerUnreachable, ValueError for a timeframe that the venue has not.
        """
        timeframe = _TIMEFRAMES.get(timeframe_s)
        if timeframe is None:
            raise ValueError(f"timeframe_s must be one of {sorted(_TIMEFRAMES)}, was {timeframe_s}")
        self._require(symbol)
        found: list[Bar] = []
        params: dict[str, object] = {}
        while len(found) < count + 1:
            limit = min(_PAGE, count + 1 - len(found))
            page = await self._bar_page(symbol, timeframe, limit, params)
            fresh = [bar for bar in page if not found or bar.start < found[0].start]
            found = fresh + found
            if len(fresh) < limit:
                break
            params = {"until": to_ms(found[0].start) - 1}
        return found[:-1][-count:] if count > 0 else []

    async def _bar_page(self, symbol: Symbol, timeframe: str, limit: int, params: Mapping[str, object]) -> list[Bar]:
        candles = await self._read("fetch_ohlcv", symbol, timeframe, None, limit, dict(params))
        if not isinstance(candles, list):
            raise BrokerUnreachable(f"bars of {symbol}: reply is no list")
        try:
            return sorted((parse_bar(candle) for candle in candles), key=lambda bar: bar.start)
        except BadRow as error:
            raise BrokerUnreachable(f"bars of {symbol}: {error}") from error

    async def market_now(self) -> datetime:
        """The venue's (market) time: of the newest quote seen, else of a quote read now. Raises BrokerUnreachable."""
        if self._market_now is None:
            symbol = next(iter(self._settings.symbols), None) or next(iter(self.client.markets()), None)
            if symbol is None:
                raise BrokerUnreachable(f"{self.venue}: no instruments loaded")
            return (await self.quote(Symbol(symbol))).at
        return self._market_now

    async def events(self, symbols: Sequence[Symbol]) -> AsyncGenerator[FeedEvent, None]:
        """Quotes as they come, the latest per symbol if the reader is slow; StreamDown after each break.

        One reader at a time. Raises UnknownInstrument for a symbol that the venue has not.
        """
        if self._task is not None:
            raise RuntimeError("the feed has a reader already: fan quotes out behind it")
        for symbol in symbols:
            self._require(symbol)
        mailbox = QuoteMailbox()
        supervisor = self._supervisor(tuple(symbols), mailbox)
        self._task = asyncio.create_task(supervisor.run(), name=f"{self.venue}/feed")
        self._task.add_done_callback(mailbox.ended)
        self._refresher = asyncio.create_task(self._refresh_terms(), name=f"{self.venue}/terms")
        try:
            while (events := await mailbox.take()) is not None:
                for event in events:
                    yield event
        finally:
            await self._stop()

    async def _stop(self) -> None:
        tasks = [task for task in (self._task, self._refresher) if task is not None]
        self._task = self._refresher = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh_terms(self) -> None:
        while True:
            await asyncio.sleep(self._settings.terms_refresh_s)
            await self._budget.take(Priority.READ)
            try:
                await self.client.load_markets()
            except CallFailed as failed:
                # The terms in force are the best known; an order that breaks newer ones is refused by the venue.
                log.warning("contract terms not refreshed", venue=self.venue, reason=str(failed))
                continue
            self._instruments.clear()

    def _supervisor(self, symbols: tuple[Symbol, ...], mailbox: QuoteMailbox) -> StreamSupervisor:
        quotes = _QuoteWatch(self.client, symbols, self._clock, mailbox, self._settings.quote_silence_s)

        def seen(down: str) -> None:
            quotes.restart()
            mailbox.put(StreamDown("quotes", down))

        def deliver(_: object) -> None:
            newest = quotes.deliver()
            if newest is not None:
                self._market_now = newest

        return StreamSupervisor(
            name=f"{self.venue}/quotes",
            client=self.client,
            watches=[Watch(name="quotes", wait=quotes.wait, deliver=deliver)],
            hooks=Hooks(
                subscribed=lambda: True, synchronise=None, down=seen, alive=lambda _: None, silent=quotes.silent
            ),
            settings=self._settings,
            clock=self._clock,
            rng=self._rng,
        )

    def _require(self, symbol: Symbol) -> None:
        if symbol not in self.client.markets():
            raise UnknownInstrument(symbol)

    async def _read(self, method: str, *arguments: object) -> object:
        await self._budget.take(Priority.READ)
        try:
            return await self.client.unified(method, *arguments)
        except CallFailed as failed:
            raise read_error(failed.failure, method) from failed


class QuoteMailbox:
    """Bounded by the number of symbols: a newer quote replaces an unread older one; breaks are kept in order."""

    def __init__(self) -> None:
        self._quotes: dict[Symbol, Quote] = {}
        self._downs: list[StreamDown] = []
        self._filled = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, event: FeedEvent) -> None:
        """Never suspends."""
        match event:
            case Quote():
                self._quotes[event.symbol] = event
            case StreamDown():
                # Quotes from before the break count no more.
                self._quotes.clear()
                self._downs.append(event)
        self._filled.set()

    def ended(self, task: asyncio.Task[None]) -> None:
        """The writer is gone: by a defect, of which the reader must hear, or because the feed was closed."""
        self._closed = True
        self._error = None if task.cancelled() else task.exception()
        self._filled.set()

    async def take(self) -> Sequence[FeedEvent] | None:
        """All that is unread: breaks first, then one quote per symbol; None at the end. Raises the writer's defect."""
        await self._filled.wait()
        self._filled.clear()
        if self._error is not None:
            raise self._error
        if self._closed:
            return None
        events: list[FeedEvent] = [*self._downs, *self._quotes.values()]
        self._downs.clear()
        self._quotes.clear()
        return events


class _QuoteWatch:
    """The bids-and-asks stream of several symbols.

    ccxt wakes one waiter per message, so what it returns may miss symbols that moved meanwhile (A.3-1); its cache
    holds the latest of each, and a row that was delivered is recognised by identity. `watch_order_book` is never used
    beside it: both share one book object and the bid would be the worst one (A.3-9).
    """

    def __init__(
        self,
        client: VenueClient,
        symbols: tuple[Symbol, ...],
        clock: Clock,
        mailbox: QuoteMailbox,
        silence_s: float,
    ) -> None:
        self._client = client
        self._symbols = symbols
        self._clock = clock
        self._mailbox = mailbox
        self._silence_s = silence_s
        self._delivered: dict[Symbol, object] = {}
        self._last = clock.monotonic()

    async def wait(self) -> object:
        return await self._client.watch("watch_bids_asks", list(self._symbols))

    def restart(self) -> None:
        self._delivered.clear()
        self._last = self._clock.monotonic()

    def deliver(self) -> datetime | None:
        """Pass on every symbol's new quote; the newest market time among them."""
        cache = self._client.cached("bidsasks")
        newest: datetime | None = None
        received = self._clock.monotonic()
        for symbol in self._symbols:
            row = cache.get(symbol) if isinstance(cache, Mapping) else None
            if row is None or row is self._delivered.get(symbol):
                continue
            self._delivered[symbol] = row
            self._last = received
            try:
                quote = parse_quote(as_row(row, "quote"), symbol, received)
            except BadRow as error:
                log.warning("quote not understood", symbol=symbol, reason=str(error))
                continue
            if quote is not None:
                self._mailbox.put(quote)
                newest = quote.at if newest is None else max(newest, quote.at)
        return newest

    def silent(self, now: float) -> str | None:
        """The reason to subscribe again although the socket answers pings."""
        quiet = now - self._last
        return f"no quote of any symbol for {quiet:.0f} s" if quiet > self._silence_s else None

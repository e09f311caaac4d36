"""`ports.MarketFeed` directly on the venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from math import inf

from simulator import inprocess_values as values
from simulator.feed_mischief import FeedMischief
from simulator.inprocess_stream import STALE_S
from simulator.latency import LatencyModel
from simulator.network import Network
from simulator.records import BookMoved, VenueEvent
from simulator.terms import SymbolState
from simulator.venue import Venue
from srm_agent.clock import Clock
from srm_agent.domain.events import FeedEvent, StreamDown
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import AssetClass, Instrument, standard_pip
from srm_agent.domain.market import Bar, Quote
from srm_agent.domain.units import ONE
from srm_agent.errors import BrokerUnreachable, ConfigurationError, UnknownInstrument

TRADABLE = frozenset({SymbolState.TRADING, SymbolState.LONG_ONLY, SymbolState.SHORT_ONLY})
SILENCE_S = 30.0
"""No quote of any symbol for this long: subscribe again, although the socket answers pings."""
LOOK_S = 0.25


class InProcessFeed:
    """`ports.MarketFeed` on the venue. What goes wrong is told to `network` (the line) and `mischief` (the quotes).

    Reads have no latency: nothing waits for them.
    """

    def __init__(
        self,
        venue: Venue,
        clock: Clock,
        *,
        asset_classes: Mapping[Symbol, AssetClass],
        pip_sizes: Mapping[Symbol, Decimal],
        client_timeout_s: float = 5.0,
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._asset_classes = asset_classes
        self._pip_sizes = pip_sizes
        self._ids = {Symbol(terms.symbol): terms.symbol_id for terms in venue.instruments.values()}
        self._breaks = 0
        self._readers: list[asyncio.Event] = []
        self._client_timeout_s = client_timeout_s
        self.network = Network(LatencyModel.none())
        self.network.on_cut(self._wake)
        self.mischief = FeedMischief(self._wake)

    @property
    def venue(self) -> str:
        """Always `simulator`."""
        return "simulator"

    async def open(self) -> None:
        """Raises BrokerUnreachable while the line is cut."""
        await self._ask("instruments")

    async def close(self) -> None:
        """Nothing to release."""

    async def instrument(self, symbol: Symbol) -> Instrument:
        """Contract terms. Raises UnknownInstrument, and ConfigurationError when its asset class was not given."""
        symbol_id = self._id(symbol)
        await self._ask("instrument")
        terms = self._venue.instruments[symbol_id]
        asset_class = self._asset_classes.get(symbol)
        if asset_class is None:
            raise ConfigurationError(f"asset class of {symbol} is missing: give it in the venue's instruments")
        return Instrument(
            symbol=symbol,
            asset_class=asset_class,
            base_currency=terms.base,
            quote_currency=terms.quote,
            settle_currency=self.mischief.settle_currency(symbol, terms.quote),
            tick_size=terms.tick_size,
            pip_size=self._pip_sizes.get(symbol) or standard_pip(asset_class, terms.base, terms.quote),
            lot_min=terms.lot_min,
            lot_max=min(terms.lot_max, terms.max_market_lot),
            lot_step=terms.lot_step,
            contract_size=ONE,
            min_notional=terms.min_notional,
            stops_distance=terms.stops_level,
            freeze_distance=terms.freeze_level,
            max_leverage=terms.max_leverage,
            tradable=self._venue.state_of(terms.symbol_id) in TRADABLE,
        )

    async def quote(self, symbol: Symbol) -> Quote:
        """Best bid and ask now. Raises BrokerUnreachable before the first price."""
        symbol_id = self._id(symbol)
        await self._ask("quote")
        if not self._venue.priced(symbol_id):
            raise BrokerUnreachable(f"no price of {symbol} yet")
        quote = values.quote(self._venue.touch(symbol_id), symbol, self._clock.monotonic())
        return self.mischief.told(quote)[-1]

    async def bars(self, symbol: Symbol, timeframe_s: int, count: int) -> Sequence[Bar]:
        """The last closed bars, oldest first."""
        symbol_id = self._id(symbol)
        await self._ask("bars")
        found = self._venue.bars(symbol_id, timeframe_s, count, closed_only=True)
        return [
            Bar(values.moment(bar.start_ms), float(bar.open), float(bar.high), float(bar.low), float(bar.close))
            for bar in found
        ]

    def drop_stream(self) -> None:
        """Break the streams: their readers get StreamDown, then the quotes of now."""
        self._breaks += 1
        self._wake()

    async def events(self, symbols: Sequence[Symbol]) -> AsyncIterator[FeedEvent]:
        """Quotes as they come; a slow reader gets the newest of each symbol, not the backlog."""
        wanted = {self._id(symbol): symbol for symbol in symbols}
        newest: dict[str, BookMoved] = {}
        arrived = asyncio.Event()
        reader = asyncio.current_task()

        def hear(event: VenueEvent) -> None:
            if reader is not None and reader.cancelled():
                stop()  # killed while he handled a quote: nobody runs this generator's clean-up in good time
            elif isinstance(event, BookMoved) and event.symbol_id in wanted and not self._silent:
                newest[event.symbol_id] = event
                arrived.set()

        unsubscribe = self._venue.subscribe(hear)
        self._readers.append(arrived)

        def stop() -> None:
            if arrived in self._readers:
                unsubscribe()
                self._readers.remove(arrived)

        try:
            while True:
                await self._until(lambda: not self._silent, inf)
                seen_breaks = self._breaks
                for symbol_id in wanted:
                    if self._venue.priced(symbol_id):
                        hear(self._venue.touch(symbol_id))
                while True:
                    reader = asyncio.current_task()
                    await arrived.wait()
                    arrived.clear()
                    if (reason := await self._broken(seen_breaks)) is not None:
                        break
                    batch, newest = newest, {}
                    for symbol_id, event in batch.items():
                        quote = values.quote(event, wanted[symbol_id], self._clock.monotonic())
                        for told in self.mischief.told(quote):
                            yield told
                yield StreamDown("quotes", reason)
        finally:
            stop()

    @property
    def _silent(self) -> bool:
        return self.network.down or self.mischief.muted

    def _wake(self) -> None:
        for arrived in self._readers:
            arrived.set()

    async def _broken(self, seen_breaks: int) -> str | None:
        """Why the stream has to be opened again; None where it goes on, maybe after a silence that was short enough."""
        if self._breaks != seen_breaks:
            return "dropped by the simulator"
        if self._silent:
            patience = STALE_S if self.network.down else SILENCE_S
            if not await self._until(lambda: not self._silent, patience):
                return f"silent for {patience:g} s"
        return None

    async def _until(self, condition: Callable[[], bool], patience: float) -> bool:
        """Wait for it, at most so long; whether it came true."""
        waited = 0.0
        while not condition():
            if waited >= patience:
                return False
            await asyncio.sleep(LOOK_S)
            waited += LOOK_S
        return True

    async def _ask(self, what: str) -> None:
        """The round trip of a read. Raises BrokerUnreachable, after the client's time-out where the line is cut."""
        if self.network.refusing:
            raise BrokerUnreachable(f"{what}: NO_CONNECTION: connection refused")
        if self.network.down:
            await asyncio.sleep(self._client_timeout_s)
            raise BrokerUnreachable(f"{what}: no answer within {self._client_timeout_s:g} s")

    def _id(self, symbol: Symbol) -> str:
        symbol_id = self._ids.get(symbol)
        if symbol_id is None:
            raise UnknownInstrument(symbol)
        return symbol_id

"""`ports.MarketFeed` directly on the venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal

from simulator import inprocess_values as values
from simulator.records import BookMoved, VenueEvent
from simulator.venue import Venue
from srm_agent.clock import Clock
from srm_agent.domain.events import FeedEvent, StreamDown
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import AssetClass, Instrument, standard_pip
from srm_agent.domain.market import Bar, Quote
from srm_agent.domain.units import ONE, ZERO
from srm_agent.errors import BrokerUnreachable, ConfigurationError, UnknownInstrument


class InProcessFeed:
    """`ports.MarketFeed` on the venue."""

    def __init__(
        self,
        venue: Venue,
        clock: Clock,
        *,
        asset_classes: Mapping[Symbol, AssetClass],
        pip_sizes: Mapping[Symbol, Decimal],
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._asset_classes = asset_classes
        self._pip_sizes = pip_sizes
        self._ids = {Symbol(terms.symbol): terms.symbol_id for terms in venue.instruments.values()}
        self._breaks = 0
        self._readers: list[asyncio.Event] = []

    @property
    def venue(self) -> str:
        """Always `simulator`."""
        return "simulator"

    async def open(self) -> None:
        """Nothing to connect."""

    async def close(self) -> None:
        """Nothing to release."""

    async def instrument(self, symbol: Symbol) -> Instrument:
        """Contract terms. Raises UnknownInstrument, and ConfigurationError when its asset class was not given."""
        terms = self._venue.instruments[self._id(symbol)]
        asset_class = self._asset_classes.get(symbol)
        if asset_class is None:
            raise ConfigurationError(f"asset class of {symbol} is missing: give it in the venue's instruments")
        return Instrument(
            symbol=symbol,
            asset_class=asset_class,
            base_currency=terms.base,
            quote_currency=terms.quote,
            settle_currency=terms.quote,
            tick_size=terms.tick_size,
            pip_size=self._pip_sizes.get(symbol) or standard_pip(asset_class, terms.base, terms.quote),
            lot_min=terms.lot_min,
            lot_max=min(terms.lot_max, terms.max_market_lot),
            lot_step=terms.lot_step,
            contract_size=ONE,
            min_notional=terms.min_notional,
            stops_distance=ZERO,
            max_leverage=terms.max_leverage,
            tradable=not self._venue.suspended(terms.symbol_id),
        )

    async def quote(self, symbol: Symbol) -> Quote:
        """Best bid and ask now. Raises BrokerUnreachable before the first price."""
        symbol_id = self._id(symbol)
        if not self._venue.priced(symbol_id):
            raise BrokerUnreachable(f"no price of {symbol} yet")
        return values.quote(self._venue.touch(symbol_id), symbol, self._clock.monotonic())

    async def bars(self, symbol: Symbol, timeframe_s: int, count: int) -> Sequence[Bar]:
        """The last closed bars, oldest first."""
        found = self._venue.bars(self._id(symbol), timeframe_s, count, closed_only=True)
        return [
            Bar(values.moment(bar.start_ms), float(bar.open), float(bar.high), float(bar.low), float(bar.close))
            for bar in found
        ]

    def drop_stream(self) -> None:
        """Break the streams: their readers get StreamDown, then the quotes of now."""
        self._breaks += 1
        for arrived in self._readers:
            arrived.set()

    async def events(self, symbols: Sequence[Symbol]) -> AsyncIterator[FeedEvent]:
        """Quotes as they come; a slow reader gets the newest of each symbol, not the backlog."""
        wanted = {self._id(symbol): symbol for symbol in symbols}
        newest: dict[str, BookMoved] = {}
        arrived = asyncio.Event()
        seen_breaks = self._breaks

        def hear(event: VenueEvent) -> None:
            if isinstance(event, BookMoved) and event.symbol_id in wanted:
                newest[event.symbol_id] = event
                arrived.set()

        unsubscribe = self._venue.subscribe(hear)
        self._readers.append(arrived)
        try:
            while True:
                for symbol_id in wanted:
                    if self._venue.priced(symbol_id):
                        hear(self._venue.touch(symbol_id))
                while True:
                    await arrived.wait()
                    arrived.clear()
                    if self._breaks != seen_breaks:
                        break
                    batch, newest = newest, {}
                    for symbol_id, event in batch.items():
                        yield values.quote(event, wanted[symbol_id], self._clock.monotonic())
                seen_breaks = self._breaks
                yield StreamDown("quotes", "dropped by the simulator")
        finally:
            unsubscribe()
            self._readers.remove(arrived)

    def _id(self, symbol: Symbol) -> str:
        symbol_id = self._ids.get(symbol)
        if symbol_id is None:
            raise UnknownInstrument(symbol)
        return symbol_id

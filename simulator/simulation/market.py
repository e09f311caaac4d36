"""Prices of the simulated days: light, restless and seeded; market time runs faster than the loop's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from simulator.klines import BarRow
from simulator.terms import SimInstrument
from simulator.venue import Venue

STEP_S = 0.4
"""Virtual seconds between two quotes of a symbol."""
HISTORY_MINUTES = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How a symbol moves. `volatility` per square root of a market minute, `spread` in ticks, `start` a price."""

    symbol_id: str
    start: float
    volatility: float
    spread: int


class Prices:
    """A random walk per symbol with bursts of volatility, and gaps where somebody declares one."""

    def __init__(self, venue: Venue, walks: tuple[Walk, ...], rng: Random, *, start_ms: int, speed: float) -> None:
        self._venue, self._walks, self._rng = venue, walks, rng
        self._start_ms, self._speed = start_ms, speed
        self._mid = {walk.symbol_id: walk.start for walk in walks}
        self._burst = dict.fromkeys(self._mid, 1.0)
        self._shut: dict[str, float] = {}

    def open(self) -> None:
        """Seed the history and set the first prices."""
        for walk in self._walks:
            self._venue.seed_bars(walk.symbol_id, self._history(walk))
        self.step(0.0)

    def market_ms(self, now_s: float) -> int:
        """Market time at a second of the loop."""
        return self._start_ms + round(now_s * self._speed * 1000)

    def gap(self, symbol_id: str, relative: float) -> None:
        """The next quote stands that much higher or lower (B21)."""
        self._mid[symbol_id] *= 1.0 + relative

    def step(self, now_s: float) -> None:
        """Move every symbol once."""
        at_ms = self.market_ms(now_s)
        minutes = STEP_S * self._speed / 60
        for walk in self._walks:
            name = walk.symbol_id
            if self._rng.random() < 0.004:
                self._burst[name] = self._rng.choice((1.0, 1.0, 2.0, 4.0))
            scale = walk.volatility * self._burst[name] * math.sqrt(minutes)
            self._mid[name] *= math.exp(self._rng.gauss(0.0, scale))
            bid, ask = self._touch(walk)
            self._venue.set_book(name, bid, ask, at_ms, depth=self._rng.choice((0.5, 1.0, 2.0)))

    def _touch(self, walk: Walk) -> tuple[Decimal, Decimal]:
        tick = self._venue.instruments[walk.symbol_id].tick_size
        ticks = round(self._mid[walk.symbol_id] / float(tick))
        wide = walk.spread * (1 + int(self._burst[walk.symbol_id]))
        low = max(1, ticks - wide // 2)
        return low * tick, (low + max(1, wide)) * tick

    def _history(self, walk: Walk) -> list[BarRow]:
        price, rows = walk.start, list[BarRow]()
        minute = self._start_ms // 60_000
        for number in range(1, HISTORY_MINUTES + 1):  # backwards, so that it ends where the present begins
            closed = price
            price *= math.exp(self._rng.gauss(0.0, walk.volatility))
            wing = price * walk.volatility * abs(self._rng.gauss(0.0, 0.5))
            at_ms = (minute - number) * 60_000
            rows.append((at_ms, price, max(closed, price) + wing, min(closed, price) - wing, closed))
        rows.reverse()
        return rows


def three_instruments() -> tuple[SimInstrument, ...]:
    """Two coins and a currency pair quoted like one, as the demo has them."""
    return (
        _instrument("BTC", tick="0.1", step="0.001", most="100", level="0.8"),
        _instrument("ETH", tick="0.01", step="0.01", most="1000", level="12"),
        _instrument("EUR", tick="0.00001", step="1", most="500000", level="20000"),
    )


def three_walks() -> tuple[Walk, ...]:
    """How they move: a coin's minute is some 0.06 % wide, a currency's 0.01 %."""
    return (
        Walk(symbol_id="BTCUSDT", start=60_000.0, volatility=0.0006, spread=4),
        Walk(symbol_id="ETHUSDT", start=3_000.0, volatility=0.0008, spread=3),
        Walk(symbol_id="EURUSDT", start=1.10, volatility=0.0001, spread=2),
    )


def _instrument(base: str, *, tick: str, step: str, most: str, level: str) -> SimInstrument:
    return SimInstrument(
        symbol_id=f"{base}USDT",
        base=base,
        tick_size=Decimal(tick),
        lot_step=Decimal(step),
        lot_min=Decimal(step),
        lot_max=Decimal(most),
        max_market_lot=Decimal(most),
        level_lots=Decimal(level),
    )

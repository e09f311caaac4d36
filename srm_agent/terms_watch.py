"""Contract terms while they are traded: read again, taken over, and too large a change halts the symbol (B29)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.units import plain
from srm_agent.errors import BrokerError, UnknownInstrument
from srm_agent.ports import MarketFeed

log = structlog.get_logger()

EVERY_S = 60.0
"""Between two readings of all terms; also how soon a symbol that opens again is noticed."""
LEAST_S = 1.0
"""Between two readings, however many refusals ask for one."""
LARGE = Decimal("0.2")
"""Share by which a unit of size or price may change before what was computed with the old one is worth nothing."""
UNITS = ("contract_size", "tick_size", "lot_step", "pip_size")
NAMES = ("base_currency", "quote_currency")
OTHERS = (
    "settle_currency",
    *("lot_min", "lot_max", "min_notional", "stops_distance", "freeze_distance", "max_leverage", "tradable"),
)
"""Taken over: limits only bound the next order, and money that nobody can convert blocks entries by itself (B30)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsChange:
    """One symbol's terms became others. `large`: nobody may open there until a person has looked."""

    symbol: Symbol
    text: str
    large: bool


class TermsWatch:
    """The terms of one venue's symbols. `known` is shared with everybody who computes with them."""

    def __init__(self, feed: MarketFeed, known: dict[Symbol, Instrument], clock: Clock) -> None:
        self._feed = feed
        self._known = known
        self._clock = clock
        self._closed: dict[Symbol, None] = {}
        self._read_at = float("-inf")
        self._wake = asyncio.Event()

    def forbid(self, symbol: Symbol) -> None:
        """No entries on it, whatever the venue says (held, and no longer configured)."""
        self._closed[symbol] = None
        self._known[symbol] = replace(self._known[symbol], tradable=False)

    def look_soon(self) -> None:
        """An order was refused: the terms may be others by now."""
        self._wake.set()

    async def run(self, on_change: Callable[[TermsChange], None]) -> None:
        """Read for ever; what changed is in force before it is told."""
        while True:
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(max(0.0, self._read_at + LEAST_S - self._clock.monotonic()))
            self._wake.clear()
            self._read_at = self._clock.monotonic()
            for symbol in list(self._known):
                change = await self._read(symbol)
                if change is not None:
                    on_change(change)

    async def _read(self, symbol: Symbol) -> TermsChange | None:
        before = self._known[symbol]
        try:
            now = await self._feed.instrument(symbol)
        except UnknownInstrument:
            now = replace(before, tradable=False)  # gone from the list: delisted
        except BrokerError as error:
            log.info("terms could not be read again", symbol=symbol, error=str(error))
            return None
        if symbol in self._closed:
            now = replace(now, tradable=False)
        change = difference(before, now)
        if change is not None:
            self._known[symbol] = now
        return change


def difference(before: Instrument, now: Instrument) -> TermsChange | None:
    """What changed, in words; None where nothing did. Large: a unit by more than 20 %, or what is traded."""
    changed = [name for name in (*NAMES, *UNITS, *OTHERS) if getattr(before, name) != getattr(now, name)]
    if not changed:
        return None
    large = any(name in NAMES or (name in UNITS and _much(before, now, name)) for name in changed)
    text = ", ".join(f"{name} {_said(getattr(before, name))} -> {_said(getattr(now, name))}" for name in changed)
    return TermsChange(symbol=now.symbol, text=text, large=large)


def _much(before: Instrument, now: Instrument, name: str) -> bool:
    old, new = getattr(before, name), getattr(now, name)
    if old is None or new is None:
        return True
    return abs(Decimal(new) - Decimal(old)) > LARGE * abs(Decimal(old))


def _said(value: object) -> str:
    return plain(value) if isinstance(value, Decimal) else str(value)

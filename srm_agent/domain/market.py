"""What the market says: quotes, bars, and the context of a decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import Symbol
from srm_agent.domain.units import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Best bid and ask. `at` is the venue's own (market) time, `received` our monotonic second."""

    symbol: Symbol
    bid: Decimal
    ask: Decimal
    at: datetime
    received: float
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None

    def touch(self, side: Side) -> Decimal:
        """The price an order of `side` meets: a buy is measured at the ask, a sell at the bid."""
        return self.ask if side is Side.BUY else self.bid

    @property
    def mid(self) -> Decimal:
        """Middle of bid and ask."""
        return (self.bid + self.ask) / 2

    @property
    def spread(self) -> Decimal:
        """ask - bid."""
        return self.ask - self.bid


@dataclass(frozen=True, slots=True)
class Bar:
    """A closed bar of mid (or broker) prices, floats: indicator arithmetic only. `start` is market time, UTC."""

    start: datetime
    open: float
    high: float
    low: float
    close: float


class TradingSession(StrEnum):
    """Which market sets the tone (design.md section 4 gives hours, zones and precedence)."""

    TOKYO = "TOKYO"
    LONDON = "LONDON"
    NEW_YORK = "NEW_YORK"
    OVERLAP = "OVERLAP"
    ASIAN = "ASIAN"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketContext:
    """What is known of a symbol at a moment. None means unknown, never a default.

    `atr` and `spread_median` in price units; `volatility_index` 0-100 (50 = usual for the symbol itself);
    `volatility_per_root_second` is the realised volatility of the last 300 s, price units per sqrt(second).
    """

    symbol: Symbol
    at: datetime
    session: TradingSession
    iso_weekday: int
    spread: Decimal
    spread_median: Decimal | None
    atr: Decimal | None
    atr_period: int
    atr_timeframe_s: int
    volatility_index: Decimal | None
    volatility_per_root_second: Decimal | None

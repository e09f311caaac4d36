"""Exact arithmetic: directions of rounding, and the distance type that every threshold accepts."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_UP, Decimal, InvalidOperation
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from srm_agent.domain.instrument import Instrument

ZERO = Decimal(0)
ONE = Decimal(1)
STORED = Decimal("1e-10")
"""The finest step the store keeps: DECIMAL(28,10)."""


class Side(IntEnum):
    """+1 buy, -1 sell: prices and results multiply by it."""

    BUY = 1
    SELL = -1

    @property
    def opposite(self) -> Side:
        """The side that closes this one."""
        return Side.SELL if self is Side.BUY else Side.BUY

    @property
    def word(self) -> str:
        """`buy` or `sell`."""
        return "buy" if self is Side.BUY else "sell"


def floor_to_step(value: Decimal, step: Decimal) -> Decimal:
    """Largest multiple of `step` not above `value` (lots: down, never up; INV-12)."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def ceil_to_step(value: Decimal, step: Decimal) -> Decimal:
    """Smallest multiple of `step` not below `value` (buffers: up)."""
    return (value / step).to_integral_value(ROUND_CEILING) * step


def stored_down(value: Decimal) -> Decimal:
    """Towards zero to what the store keeps exactly, so that a recomputation is bit for bit."""
    return value.quantize(STORED, ROUND_DOWN)


def stored_up(value: Decimal) -> Decimal:
    """Away from zero to what the store keeps exactly."""
    return value.quantize(STORED, ROUND_UP)


def stored(value: Decimal) -> Decimal:
    """Nearest value the store keeps exactly (measurements, not limits)."""
    return value.quantize(STORED, ROUND_HALF_EVEN)


def stop_away(price: Decimal, side: Side, tick: Decimal) -> Decimal:
    """Round a stop of a position of `side` to the tick grid, away from entry."""
    return floor_to_step(price, tick) if side is Side.BUY else ceil_to_step(price, tick)


def limit_inside(price: Decimal, side: Side, tick: Decimal) -> Decimal:
    """Round an order's price cap to the tick grid, never beyond the cap."""
    return floor_to_step(price, tick) if side is Side.BUY else ceil_to_step(price, tick)


def plain(value: Decimal) -> str:
    """Decimal as text without exponent or trailing zeros: `0.03`, `1200`, `0`. Raises InvalidOperation for sNaN."""
    if value.is_snan():
        raise InvalidOperation("a signalling NaN is no number")
    return _plain(value)


@lru_cache(maxsize=16384)
def _plain(value: Decimal) -> str:
    # Remembered, because the followers of a signal share most of the numbers in their records.
    if value == 0:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def from_float(value: float) -> Decimal:
    """The named border from indicator arithmetic (float) to money (Decimal): shortest repr, stored scale.

    Raises ValueError for NaN and infinity.
    """
    number = Decimal(repr(float(value)))
    if not number.is_finite():
        raise ValueError(f"not a finite number, was {value!r}")
    return stored(number)


@dataclass(frozen=True, slots=True)
class InPips:
    """A distance in pips of the instrument."""

    pips: Decimal


@dataclass(frozen=True, slots=True)
class InBps:
    """A distance in basis points (1/10,000) of the price."""

    bps: Decimal


@dataclass(frozen=True, slots=True)
class InAtr:
    """A distance in multiples of the live ATR."""

    atr: Decimal


Distance = InPips | InBps | InAtr


def distance_in_price(
    distance: Distance, instrument: Instrument, price: Decimal, atr: Decimal | None
) -> Decimal | None:
    """The distance in price units, or None where its truth is unknown (no pip size, no ATR yet).

    None is never replaced by a default here: the caller decides what unknown means for it.
    """
    match distance:
        case InPips(pips):
            return None if instrument.pip_size is None else stored(pips * instrument.pip_size)
        case InBps(bps):
            return stored(bps * price / 10_000)
        case InAtr(multiple):
            return None if atr is None else stored(multiple * atr)
    assert_never(distance)


def distance_text(distance: Distance) -> str:
    """`5 pips`, `5 bps`, `0.2 ATR`."""
    match distance:
        case InPips(pips):
            return f"{plain(pips)} pips"
        case InBps(bps):
            return f"{plain(bps)} bps"
        case InAtr(multiple):
            return f"{plain(multiple)} ATR"
    assert_never(distance)

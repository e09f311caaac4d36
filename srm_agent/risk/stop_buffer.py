"""The stop buffer: a stop a little further away, so that a spread or a slip does not end a trade the provider keeps.

Rule of learning.md 4.2: b = clip(max(q90 stop slippage, share x median spread), minimum, maximum), rounded up to the
tick; more than `max_share` of the stop distance: no buffer. The lot shrinks for it in `slippage_factor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from srm_agent.domain.forecasts import SlippageForecast
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import MarketContext
from srm_agent.domain.policies import BufferPolicy
from srm_agent.domain.units import ZERO, Side, ceil_to_step, distance_in_price, floor_to_step, stop_away

USUAL_VOLATILITY = Decimal(50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """Why the stop moved, or why it did not: `buffer` in price units, >= 0.

    `why` is a stable word: `needed`, `minimum`, `maximum`, `need_unknown`, `bounds_unknown`, `calm`, `stop_too_near`,
    `no_room`.
    """

    buffer: Decimal
    why: str


def buffer_stop(
    *,
    side: Side,
    stop: Decimal,
    distance: Decimal,
    price: Decimal,
    instrument: Instrument,
    context: MarketContext | None,
    forecast: SlippageForecast | None,
    policy: BufferPolicy,
) -> tuple[Decimal, Adjustment | None]:
    """The stop to send (on the tick grid, at or beyond `stop`, away from entry) and what was done; None: nothing.

    `side` of the position, `distance` = |touch - stop|, `price` the touch. A stop that would end at or below zero
    keeps its planned place.
    """
    planned = stop_away(stop, side, instrument.tick_size)
    adjustment = _buffer(distance, price, instrument, context, forecast, policy)
    if adjustment is None or adjustment.buffer == 0:
        return planned, adjustment
    buffered = stop_away(stop - side * adjustment.buffer, side, instrument.tick_size)
    if buffered <= 0:
        return planned, Adjustment(buffer=ZERO, why="no_room")
    return buffered, adjustment


def _buffer(
    distance: Decimal,
    price: Decimal,
    instrument: Instrument,
    context: MarketContext | None,
    forecast: SlippageForecast | None,
    policy: BufferPolicy,
) -> Adjustment | None:
    atr = None if context is None else context.atr
    minimum = distance_in_price(policy.minimum, instrument, price, atr)
    maximum = distance_in_price(policy.maximum, instrument, price, atr)
    if maximum == 0:
        return None
    room = policy.max_share * distance
    need = _need(context, forecast, policy)
    if maximum is None:
        # Without a ceiling of its own the share of the stop distance is the ceiling.
        size, why = (room if need is None else min(need, room)), "bounds_unknown"
        return Adjustment(buffer=max(floor_to_step(size, instrument.tick_size), ZERO), why=why)
    if need is None:
        size, why = maximum, "need_unknown"
    elif minimum is None:
        size, why = maximum, "bounds_unknown"
    elif policy.calm_is_zero and need < minimum and _calm(context):
        return Adjustment(buffer=ZERO, why="calm")
    elif need > maximum:
        size, why = maximum, "maximum"
    else:
        size, why = max(need, min(minimum, maximum)), "minimum" if need < minimum else "needed"
    size = ceil_to_step(size, instrument.tick_size)
    if size > maximum:
        size = floor_to_step(maximum, instrument.tick_size)
    return Adjustment(buffer=ZERO, why="stop_too_near") if size > room else Adjustment(buffer=size, why=why)


def _need(context: MarketContext | None, forecast: SlippageForecast | None, policy: BufferPolicy) -> Decimal | None:
    """What the stop may slip, price units; None without a forecast: the cautious end of the bounds then."""
    if forecast is None:
        return None
    median = None if context is None else context.spread_median
    return max(forecast.stop_upper, ZERO if median is None else policy.spread_share * median)


def _calm(context: MarketContext | None) -> bool:
    index = None if context is None else context.volatility_index
    return index is not None and index <= USUAL_VOLATILITY

"""Where a stop may stand, and what the broker's stop is to ours. Pure arithmetic on prices, exact.

Everything is measured with the side of the position: a number is "ahead" when it lies farther in its favour.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import BrokerPosition
from srm_agent.domain.trades import Leg
from srm_agent.domain.units import ZERO, Side, ceil_to_step, floor_to_step, stop_away, stored


class Cover(StrEnum):
    """What the broker's stop is to the leg's."""

    WHOLE = "whole"
    """As it should be, to the tick."""
    MISSING = "missing"
    PARTIAL = "partial"
    """It covers less than the position."""
    LOOSER = "looser"
    """Farther from the market than the leg's: more is at risk than was planned."""
    TIGHTER = "tighter"


def wanted_stop(leg: Leg) -> Decimal:
    """The stop that should stand at the broker."""
    return leg.planned_stop if leg.stop_loss is None else leg.stop_loss


def cover(leg: Leg, position: BrokerPosition, tick: Decimal) -> Cover:
    """How the broker covers a position that holds this leg. Less than a tick of difference is none."""
    if not position.stop_loss:
        return Cover.MISSING
    if position.stop_lot is not None and position.stop_lot < position.lot:
        return Cover.PARTIAL
    ahead = int(leg.side) * (position.stop_loss - wanted_stop(leg))
    if abs(ahead) < tick:
        return Cover.WHOLE
    return Cover.TIGHTER if ahead > 0 else Cover.LOOSER


def room_to(side: Side, stop: Decimal, touch: Decimal) -> Decimal:
    """How far the market is from a stop of a position of `side`; 0 or less: it has passed it.

    `touch` is the price at which the position could be closed.
    """
    return int(side) * (touch - stop)


def nearest_stop(side: Side, touch: Decimal, instrument: Instrument, least: Decimal = ZERO) -> Decimal:
    """The nearest stop to the market that may be set: the stops level away, `least` at least, a tick in any case."""
    room = max(instrument.stops_distance, least, instrument.tick_size)
    return stop_away(touch - int(side) * room, side, instrument.tick_size)


def frozen(side: Side, stop: Decimal | None, touch: Decimal | None, instrument: Instrument) -> bool:
    """Whether the stop in force is too near to the market to be changed (freeze level)."""
    if not instrument.freeze_distance or stop is None or touch is None:
        return False
    return room_to(side, stop, touch) <= instrument.freeze_distance


def buffer_of(leg: Leg) -> Decimal:
    """How far the stop in force lies beyond the stated one, price units, >= 0."""
    return ZERO if leg.stop_loss is None else max(ZERO, int(leg.side) * (leg.planned_stop - leg.stop_loss))


def moved_stop(leg: Leg, asked: Decimal, tick: Decimal, buffer: Decimal, *, farthest: Decimal | None = None) -> Decimal:
    """The stop to set: what was asked, moved away by the leg's own buffer, never farther than `farthest`.

    `farthest` None is the stop in force (the platform's compliance guard: learning.md 4.2). Rounded away from entry.
    """
    side = int(leg.side)
    limit = leg.stop_loss if farthest is None else farthest
    wanted = stop_away(asked - side * buffer, leg.side, tick)
    if limit is None:
        return wanted
    return max(wanted, limit) if side > 0 else min(wanted, limit)


def loosens(leg: Leg, asked: Decimal) -> bool:
    """Whether the provider asks for a stop farther from entry than the one it stated, or than the one in force."""
    side = int(leg.side)
    nearest = leg.planned_stop if leg.stop_loss is None else max(side * leg.planned_stop, side * leg.stop_loss) * side
    return side * asked < side * nearest


def farthest_stop(leg: Leg, instrument: Instrument, cap: Decimal | None) -> Decimal | None:
    """The loosest stop whose loss from entry stays within `cap` money (INV-11), never tighter than the one in force.

    None where that is not known (no cap, no entry price, no stop): then nothing may be widened (INV-14).
    """
    if cap is None or leg.entry_price is None or leg.stop_loss is None or leg.open_lot <= 0:
        return None
    side = int(leg.side)
    edge = leg.entry_price - side * cap / (leg.open_lot * instrument.contract_size)
    step = ceil_to_step if side > 0 else floor_to_step  # towards entry: the cap is a ceiling
    on_grid = step(edge, instrument.tick_size)
    return min(on_grid, leg.stop_loss) if side > 0 else max(on_grid, leg.stop_loss)


def with_stop(leg: Leg, stop: Decimal, contract_size: Decimal) -> Leg:
    """The leg with that stop in force. A wider stop raises the money at risk; a tighter one leaves it as planned."""
    if leg.entry_price is None:
        return replace(leg, stop_loss=stop)
    at_risk = stored(max(ZERO, int(leg.side) * (leg.entry_price - stop)) * leg.lot * contract_size)
    looser = leg.stop_loss is not None and int(leg.side) * (stop - leg.stop_loss) < 0
    return replace(leg, stop_loss=stop, planned_risk=max(leg.planned_risk, at_risk) if looser else leg.planned_risk)

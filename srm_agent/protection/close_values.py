"""What a position is worth and how far a limit may reach, from what is known of an instrument. Pure."""

from __future__ import annotations

from decimal import Decimal

from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import BrokerPosition
from srm_agent.domain.units import ONE, Side, limit_inside

WIDE = Decimal("0.05")
"""Share of the last price by which a closing limit order reaches beyond it: it must fill, not be pretty."""


def notional(position: BrokerPosition, instrument: Instrument | None, touch: Decimal | None) -> Decimal:
    """Lot x price x contract size, settle currency: at the entry price without a quote, with size 1 without terms.

    It only orders closes, so a guess costs a place in the line and nothing else.
    """
    size = ONE if instrument is None else instrument.contract_size
    return position.lot * (position.entry_price if touch is None else touch) * size


def wide_limit(instrument: Instrument | None, touch: Decimal | None, side: Side) -> Decimal | None:
    """Touch + side x 5 %, on the tick grid; None where terms or price are unknown."""
    if instrument is None or touch is None:
        return None
    return max(limit_inside(touch * (ONE + side * WIDE), side, instrument.tick_size), instrument.tick_size)

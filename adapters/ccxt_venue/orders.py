"""An order as it will be put on the wire (pure): local checks, exact texts, and what an unsent order means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import OrderIntent
from srm_agent.domain.units import ZERO, Side, floor_to_step, limit_inside, plain

MAX_CLIENT_ID = 36
"""Bybit's longest orderLinkId."""


_VENUE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def order_names(client_id: ClientOrderId) -> tuple[str, ...]:
    """The request fields under which the venue may know an order, likeliest first.

    Orders of others without an own id go by the venue's order id (a UUID), which none of ours looks like.
    """
    return ("orderId", "orderLinkId") if _VENUE_ID.fullmatch(client_id) else ("orderLinkId",)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireOrder:
    """Arguments of ccxt's `create_order`, numbers as texts so that nothing passes through a float."""

    kind: str
    side: str
    amount: str
    price: str | None
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refused here, before anything was sent."""

    code: str
    detail: str


def wire_order(intent: OrderIntent, instrument: Instrument) -> WireOrder | Refusal:
    """The request for an intent. Lots round down to the grid, price caps towards the cap, never beyond it.

    An exit larger than one order may be is cut to the largest (the caller loops until flat); an entry is refused. What
    an exit has below the smallest order goes out exactly as it is: whether dust may be closed is the venue's to say.
    """
    lot = floor_to_step(intent.lot, instrument.lot_step)
    if intent.reduce is not None:
        lot = min(lot, floor_to_step(instrument.lot_max, instrument.lot_step))
        lot = lot if lot >= instrument.lot_min else intent.lot
    refusal = _refused(intent, instrument, lot)
    if refusal is not None:
        return refusal
    price = None if intent.limit_price is None else limit_inside(intent.limit_price, intent.side, instrument.tick_size)
    params: dict[str, object] = {"clientOrderId": intent.client_id, "positionIdx": 0}
    if price is not None:
        params["timeInForce"] = "IOC"
    if intent.reduce is not None:
        params["reduceOnly"] = True
    for name, level in (("stopLoss", intent.stop_loss), ("takeProfit", intent.take_profit)):
        if level is not None:
            # Attached to the entry itself: there is no moment without a stop (brokers.md A.2).
            params[name] = {"triggerPrice": plain(level)}
            params["tpslMode"] = "Full"
    return WireOrder(
        kind="market" if price is None else "limit",
        side=intent.side.word,
        amount=plain(lot),
        price=None if price is None else plain(price),
        params=params,
    )


def _refused(intent: OrderIntent, instrument: Instrument, lot: Decimal) -> Refusal | None:
    if not 0 < len(intent.client_id) <= MAX_CLIENT_ID:
        return Refusal(
            "INVALID_REQUEST", f"client id must have 1 to {MAX_CLIENT_ID} characters, was {intent.client_id!r}"
        )
    least = ZERO if intent.reduce is not None else instrument.lot_min
    if lot <= ZERO or lot < least or lot > instrument.lot_max:
        return Refusal(
            "INVALID_VOLUME",
            f"lot must be {plain(instrument.lot_min)} to {plain(instrument.lot_max)}, was {plain(intent.lot)}",
        )
    if intent.limit_price is not None and intent.limit_price < instrument.tick_size:
        return Refusal("INVALID_PRICE", f"limit price must be positive, was {plain(intent.limit_price)}")
    for name, level in (("stop", intent.stop_loss), ("target", intent.take_profit)):
        if level is not None and (level <= ZERO or level % instrument.tick_size != ZERO):
            return Refusal(
                "INVALID_STOPS",
                f"{name} must be a positive multiple of {plain(instrument.tick_size)}, was {plain(level)}",
            )
    return _wrong_side(intent)


def _wrong_side(intent: OrderIntent) -> Refusal | None:
    if intent.limit_price is None:
        return None
    beyond = (
        ("stop", intent.stop_loss, intent.side),
        ("target", intent.take_profit, intent.side.opposite),
    )
    for name, level, side in beyond:
        # A buy's stop lies below its price cap, a sell's above it; targets the other way round.
        if level is not None and (intent.limit_price - level) * side <= ZERO:
            where = "below" if side is Side.BUY else "above"
            return Refusal("INVALID_STOPS", f"{name} must be {where} {plain(intent.limit_price)}, was {plain(level)}")
    return None

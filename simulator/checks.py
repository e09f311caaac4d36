"""What an order must satisfy before it may touch the book. Pure; each refusal is a `VenueRefused`."""

from __future__ import annotations

from decimal import Decimal

from simulator import terms as refuse
from simulator.accounts import AccountState
from simulator.book import Book
from simulator.records import OrderTicket
from simulator.terms import SimInstrument
from srm_agent.domain.units import Side


def check_lots(terms: SimInstrument, lots: Decimal, *, market: bool) -> None:
    """On the grid and within the limits; market orders have their own maximum."""
    if lots < terms.lot_min:
        raise refuse.invalid_volume(f"The number of contracts is below minimum limit {terms.lot_min}, was {lots:f}")
    if lots % terms.lot_step:
        raise refuse.invalid_volume(f"Qty invalid: must be a multiple of {terms.lot_step}, was {lots:f}")
    most = terms.max_market_lot if market else terms.lot_max
    if lots > most:
        raise refuse.invalid_volume(
            f"The number of contracts exceeds maximum limit allowed: too large, order qty {lots:f} > {most}"
        )


def check_price(terms: SimInstrument, price: Decimal) -> None:
    """Positive and on the tick grid."""
    if price <= 0 or price % terms.tick_size:
        raise refuse.invalid_price(f"price invalid: must be a positive multiple of {terms.tick_size}, was {price:f}")


def check_stops(
    terms: SimInstrument, side: Side, base: Decimal, stop_loss: Decimal | None, take_profit: Decimal | None
) -> None:
    """A stop below and a target above `base` for a long position of `side`; mirrored for a short one."""
    word = "Buy" if side is Side.BUY else "Sell"
    for name, value, sign in (("StopLoss", stop_loss, -side), ("TakeProfit", take_profit, side)):
        if value is None:
            continue
        if value <= 0 or value % terms.tick_size:
            raise refuse.invalid_stops(f"{name} must be a positive multiple of {terms.tick_size}, was {value:f}")
        if (value - base) * sign <= 0:
            relation = "higher" if sign > 0 else "lower"
            raise refuse.invalid_stops(
                f"{name}:{value:f} set for {word} position should be {relation} than base_price:{base:f}"
            )
        if abs(value - base) < terms.stops_level:
            raise refuse.invalid_stops(
                f"{name}:{value:f} must be at least {terms.stops_level:f} away from base_price:{base:f}"
            )


def check_frozen(terms: SimInstrument, base: Decimal, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
    """Stops in force, as far as they are to be changed, are not within the freeze level of `base`."""
    for name, value in (("StopLoss", stop_loss), ("TakeProfit", take_profit)):
        if value is not None and abs(value - base) < terms.freeze_level:
            raise refuse.frozen_stops(name, value, base, terms.freeze_level)


def check_ticket(terms: SimInstrument, book: Book, state: AccountState, ticket: OrderTicket) -> None:
    """Everything that is refused at once with a retCode: id, size, prices, stops, reduce-only, margin."""
    if ticket.link_id and ticket.link_id in state.links:
        raise refuse.duplicate_link()
    held = abs(state.holding(ticket.symbol_id).lots)
    if not (ticket.reduce_only and 0 < held <= ticket.lots < terms.lot_min):
        # A whole position may always be closed, however small the rest is and whatever the terms are by now.
        check_lots(terms, ticket.lots, market=ticket.price is None)
    for price in (ticket.price, ticket.trigger_price):
        if price is not None:
            check_price(terms, price)
    base = ticket.price or ticket.trigger_price or book.touch(ticket.side.opposite)
    check_stops(terms, ticket.side, base, ticket.stop_loss, ticket.take_profit)
    if ticket.reduce_only:
        if state.holding(ticket.symbol_id).lots * ticket.side >= 0:
            raise refuse.no_position_to_reduce()
        return
    worst = ticket.price if ticket.price is not None else book.touch(ticket.side)
    if ticket.lots * worst < terms.min_notional:
        raise refuse.below_min_notional(ticket.lots * worst, terms.min_notional)
    if terms.max_position is not None:
        would_be = abs(state.holding(ticket.symbol_id).lots + ticket.side * ticket.lots)
        if would_be > terms.max_position and state.opening_lots(ticket, ticket.lots):
            raise refuse.position_limit(terms.max_position, would_be)
    check_margin(terms, state, ticket, worst)


def check_margin(terms: SimInstrument, state: AccountState, ticket: OrderTicket, price: Decimal) -> None:
    """Free margin covers initial margin and fee of what the order opens (reducing never needs any).

    What a flip closes gives its margin back first.
    """
    opening = state.opening_lots(ticket, ticket.lots)
    if not opening:
        return
    needed = opening * price * (1 / state.leverage(ticket.symbol_id) + terms.taker_fee)
    wallet = state.wallet()
    released = state.initial_margin(ticket.symbol_id) if opening < ticket.lots else Decimal(0)
    if needed > wallet.equity - wallet.initial_margin + released:
        raise refuse.insufficient_margin()

"""The order desk: what an account asks for is checked, then handed to the matching."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal

from simulator import terms as refuse
from simulator.accounts import AccountState
from simulator.book import Book
from simulator.checks import check_frozen, check_lots, check_margin, check_price, check_stops, check_ticket
from simulator.matching import Matching
from simulator.records import Cause, OrderChanged, OrderStatus, OrderTicket, PositionChanged, PositionView, SimOrder
from simulator.settlement import Settlement
from simulator.terms import SimInstrument, SymbolState, VenueRefused


class Desk:
    """Writes of accounts. `open_book` raises VenueRefused for a symbol that nobody may trade now."""

    def __init__(
        self,
        instruments: Mapping[str, SimInstrument],
        open_book: Callable[[str], Book],
        state_of: Callable[[str], SymbolState],
        matching: Matching,
        settlement: Settlement,
    ) -> None:
        self._instruments = instruments
        self._open_book = open_book
        self._state_of = state_of
        self._matching = matching
        self._settlement = settlement

    def place(self, state: AccountState, ticket: OrderTicket, at_ms: int) -> SimOrder:
        """Check and enter an order; the answer is its state after matching. Raises VenueRefused."""
        book = self._open_book(ticket.symbol_id)
        terms = self._instruments[ticket.symbol_id]
        symbol_state = self._state_of(ticket.symbol_id)
        if not symbol_state.allows_opening(ticket.side) and state.opening_lots(ticket, ticket.lots):
            raise refuse.opening_not_allowed(ticket.symbol_id, symbol_state)
        check_ticket(terms, book, state, ticket)
        return self._matching.enter(state, ticket, at_ms)

    def amend(
        self,
        state: AccountState,
        at_ms: int,
        *,
        order_id: str = "",
        link_id: str = "",
        price: Decimal | None = None,
        lots: Decimal | None = None,
        trigger_price: Decimal | None = None,
    ) -> SimOrder:
        """Change a working order; None keeps. `lots` counts what was executed already. Raises VenueRefused."""
        order = self._working(state, order_id, link_id, "replace")
        book = self._open_book(order.ticket.symbol_id)
        terms = self._instruments[order.ticket.symbol_id]
        for value in (price, trigger_price):
            if value is not None:
                check_price(terms, value)
        if lots is not None:
            check_lots(terms, lots, market=order.price is None)
            if lots <= order.filled:
                raise refuse.invalid_volume(f"Qty must be above what is executed ({order.filled:f}), was {lots:f}")
        changed = replace(
            order,
            price=order.price if price is None else price,
            lots=order.lots if lots is None else lots,
            trigger_price=order.trigger_price if trigger_price is None else trigger_price,
            updated_ms=at_ms,
        )
        state.working.pop(order.order_id)
        try:
            worst = changed.price or changed.trigger_price or book.touch(order.ticket.side)
            check_margin(terms, state, replace(order.ticket, lots=changed.leaves), worst)
        except VenueRefused:
            state.keep(order)
            raise
        self._settlement.emit(OrderChanged(state.keep(changed)))
        if changed.status is OrderStatus.UNTRIGGERED:
            return changed
        return self._matching.execute(state, changed, at_ms)

    def cancel(self, state: AccountState, at_ms: int, *, order_id: str = "", link_id: str = "") -> SimOrder:
        """Withdraw a working order. Raises VenueRefused (110001) when there is none."""
        order = self._working(state, order_id, link_id, "cancel")
        return self._settlement.withdraw(state, order, Cause.BY_USER, at_ms)

    def set_trading_stop(
        self,
        state: AccountState,
        symbol_id: str,
        at_ms: int,
        *,
        stop_loss: Decimal | None = None,
        take_profit: Decimal | None = None,
    ) -> PositionView:
        """Set a position's stop and target to values: None keeps, 0 clears. Raises VenueRefused (34040: no change)."""
        book = self._open_book(symbol_id)
        terms = self._instruments[symbol_id]
        holding = state.holding(symbol_id)
        if holding.side is None:
            raise refuse.no_position_to_protect()
        new_stop = holding.stop_loss if stop_loss is None else stop_loss or None
        new_target = holding.take_profit if take_profit is None else take_profit or None
        if (new_stop, new_target) == (holding.stop_loss, holding.take_profit):
            raise refuse.not_modified()
        base = book.touch(holding.side.opposite)
        check_frozen(
            terms,
            base,
            None if new_stop == holding.stop_loss else holding.stop_loss,
            None if new_target == holding.take_profit else holding.take_profit,
        )
        check_stops(terms, holding.side, base, stop_loss or None, take_profit or None)
        holding.stop_loss, holding.take_profit, holding.updated_ms = new_stop, new_target, at_ms
        view = state.view(symbol_id, self._settlement.next_sequence())
        self._settlement.emit(PositionChanged(view))
        return view

    def set_leverage(self, state: AccountState, symbol_id: str, leverage: Decimal) -> None:
        """Set the leverage of a symbol. Raises VenueRefused (110043: no change; 10001: outside 1..max)."""
        terms = self._instruments[symbol_id]
        if not 1 <= leverage <= terms.max_leverage:
            raise VenueRefused(10001, "LIMITS", f"leverage must be 1..{terms.max_leverage}, was {leverage:f}")
        if leverage == state.leverage(symbol_id):
            raise refuse.leverage_not_modified()
        state.set_leverage(symbol_id, leverage)

    def _working(self, state: AccountState, order_id: str, link_id: str, action: str) -> SimOrder:
        order = state.find(order_id, link_id)
        if order is None or not order.status.working:
            raise refuse.unknown_order(action)
        return order

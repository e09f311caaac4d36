"""Orders meet the book: what can be executed is, the rest waits or is withdrawn. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from simulator.accounts import AccountState
from simulator.book import Book
from simulator.holds import Holds
from simulator.records import (
    Cause,
    OrderChanged,
    OrderStatus,
    OrderTicket,
    SimOrder,
    StopKind,
    TimeInForce,
)
from simulator.settlement import Settlement
from srm_agent.domain.units import ZERO


class Matching:
    """Executes orders of all accounts against the books."""

    def __init__(self, books: Mapping[str, Book], settlement: Settlement) -> None:
        self._books = books
        self._settlement = settlement
        self.holds = Holds()

    def enter(
        self, state: AccountState, ticket: OrderTicket, at_ms: int, stop_kind: StopKind = StopKind.NONE
    ) -> SimOrder:
        """Take a checked order: execute what can be, rest or cancel the rest. Reduce-only lots are trimmed first."""
        lots = ticket.lots
        if ticket.reduce_only:
            lots = min(lots, abs(state.holding(ticket.symbol_id).lots))
        order = SimOrder(
            order_id=self._settlement.new_id(),
            account_id=state.terms.account_id,
            ticket=ticket,
            lots=lots,
            price=ticket.price,
            status=OrderStatus.NEW,
            created_ms=at_ms,
            updated_ms=at_ms,
            stop_kind=stop_kind,
            trigger_price=ticket.trigger_price,
        )
        if ticket.link_id:
            state.links[ticket.link_id] = order.order_id
        if ticket.trigger_price is not None and stop_kind is StopKind.NONE:
            order = state.keep(replace(order, status=OrderStatus.UNTRIGGERED, stop_kind=StopKind.STOP))
            self._settlement.emit(OrderChanged(order))
            return order
        return self.match(state, state.keep(order), at_ms)

    def match(self, state: AccountState, order: SimOrder, at_ms: int) -> SimOrder:
        """Let a fresh order loose: immediate ones end here, the others may rest."""
        time_in_force = order.ticket.time_in_force
        book = self._books[order.ticket.symbol_id]
        hold = self.holds.take(order)
        if hold is not None:
            part = hold.part(order.leaves, book.lot_step)
            order = self.execute(state, order, at_ms, most=part) if part else order
            if hold.on_held is None:
                return self._settlement.withdraw(state, order, Cause.NO_LIQUIDITY, at_ms)
            self.holds.keep(order)
            self._settlement.emit(OrderChanged(order))
            hold.on_held(order)
            return order
        if time_in_force is TimeInForce.POST_ONLY and order.price is not None:
            if (order.price - book.touch(order.ticket.side)) * order.ticket.side >= 0:
                return self._settlement.withdraw(state, order, Cause.POST_ONLY, at_ms)
        else:
            order = self.execute(state, order, at_ms, whole=time_in_force is TimeInForce.FOK)
        if order.leaves and order.ticket.immediate:
            return self._settlement.withdraw(state, order, Cause.NO_LIQUIDITY, at_ms)
        if not order.filled:
            self._settlement.emit(OrderChanged(order))
        return order

    def release(self, state: AccountState, order: SimOrder, at_ms: int) -> SimOrder:
        """Let go of an order that the venue sat on: it meets the book of now, as far as there is still a position."""
        self.holds.let_go(order.order_id)
        if order.ticket.reduce_only:
            held = state.holding(order.ticket.symbol_id).lots
            if held * order.ticket.side >= 0:
                return self._settlement.withdraw(state, order, Cause.REDUCE_ONLY, at_ms)
            order = state.keep(replace(order, lots=min(order.lots, order.filled + abs(held))))
        return self.match(state, order, at_ms)

    def execute(
        self,
        state: AccountState,
        order: SimOrder,
        at_ms: int,
        *,
        whole: bool = False,
        maker: bool = False,
        most: Decimal | None = None,
    ) -> SimOrder:
        """Walk the ladder as far as the order may; a resting order (`maker`) is filled at its own price.

        `most`: not more lots than this, though the book has them.
        """
        symbol_id, side = order.ticket.symbol_id, order.ticket.side
        book = self._books[symbol_id]
        plan = book.walk(side, order.leaves if most is None else most, order.price)
        total = sum((lots for _, lots in plan), ZERO)
        if not plan or (whole and total < order.leaves):
            return order
        book.take(side, total)
        for price, lots in plan:
            paid = order.price if maker and order.price is not None else price
            order = self._settlement.fill(state, order, paid, lots, at_ms, maker=maker)
        self._settlement.protect(state, order, at_ms)
        self._settlement.announce(state, order, at_ms)
        return order

"""What a new price sets off in an account: resting orders, conditional orders, stops at the gap, liquidation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from simulator.accounts import AccountState
from simulator.book import Book
from simulator.matching import Matching
from simulator.records import (
    Cause,
    ExecType,
    OrderStatus,
    OrderTicket,
    SimOrder,
    StopKind,
)
from simulator.settlement import Settlement


class Triggers:
    """Reactions to the market, in this order for each account."""

    def __init__(self, books: Mapping[str, Book], matching: Matching, settlement: Settlement) -> None:
        self._books = books
        self._matching = matching
        self._settlement = settlement

    def on_market(self, state: AccountState, symbol_id: str, at_ms: int) -> None:
        """Let one account feel the new book: resting orders, conditional orders, stops, then the margin check."""
        for order in [item for item in state.working.values() if item.ticket.symbol_id == symbol_id]:
            if not self._matching.holds.holds(order.order_id):
                self._on_market_order(state, order, at_ms)
        self._check_stops(state, symbol_id, at_ms)
        wallet = state.wallet() if state.holding(symbol_id).lots else None
        if wallet is not None and wallet.equity <= wallet.maintenance_margin:
            self.liquidate(state, at_ms)

    def _on_market_order(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        ticket = order.ticket
        held = state.holding(ticket.symbol_id).lots
        if ticket.reduce_only and order.status is not OrderStatus.UNTRIGGERED:
            if held * ticket.side >= 0:
                self._settlement.withdraw(state, order, Cause.REDUCE_ONLY, at_ms)
                return
            order = replace(order, lots=min(order.lots, order.filled + abs(held)))
        if order.status is OrderStatus.UNTRIGGERED:
            if self._triggered(order):
                self._release(state, order, at_ms)
            return
        self._matching.execute(state, order, at_ms, maker=True)

    def _triggered(self, order: SimOrder) -> bool:
        touch = self._books[order.ticket.symbol_id].touch(order.ticket.side)
        if order.trigger_price is None:
            return False
        rising = order.ticket.trigger_direction == 1
        return touch >= order.trigger_price if rising else touch <= order.trigger_price

    def _release(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        held = state.holding(order.ticket.symbol_id).lots
        order = replace(order, status=OrderStatus.NEW, updated_ms=at_ms)
        if order.ticket.reduce_only:
            if held * order.ticket.side >= 0:
                self._settlement.withdraw(state, order, Cause.REDUCE_ONLY, at_ms)
                return
            order = replace(order, lots=min(order.lots, abs(held)))
        self._matching.match(state, state.keep(order), at_ms)

    def _check_stops(self, state: AccountState, symbol_id: str, at_ms: int) -> None:
        """Stop and target on touch: a long one at the bid, a short one at the ask; filled where the book is."""
        holding = state.holding(symbol_id)
        side = holding.side
        if side is None:
            return
        touch = self._books[symbol_id].touch(side.opposite)
        kind, trigger = StopKind.NONE, None
        if holding.stop_loss is not None and (touch - holding.stop_loss) * side <= 0:
            kind, trigger = StopKind.STOP_LOSS, holding.stop_loss
        elif holding.take_profit is not None and (touch - holding.take_profit) * side >= 0:
            kind, trigger = StopKind.TAKE_PROFIT, holding.take_profit
        if trigger is not None:
            ticket = OrderTicket(
                symbol_id=symbol_id,
                side=side.opposite,
                lots=abs(holding.lots),
                reduce_only=True,
                trigger_price=trigger,
                trigger_direction=1 if touch >= trigger else 2,
            )
            # What the book cannot take stays protected: the stop is still there and fires again with the next price.
            self._matching.enter(state, ticket, at_ms, kind)

    def liquidate(self, state: AccountState, at_ms: int) -> None:
        """The venue cancels all orders and takes all positions at the touch, as for want of maintenance margin.

        What that leaves below zero stays as a negative balance (no insurance fund here).
        """
        for order in list(state.working.values()):
            self._settlement.withdraw(state, order, Cause.BUST, at_ms)
        for symbol_id, holding in state.holdings.items():
            side = holding.side
            if side is None:
                continue
            lots = abs(holding.lots)
            order = SimOrder(
                order_id=self._settlement.new_id(),
                account_id=state.terms.account_id,
                ticket=OrderTicket(symbol_id=symbol_id, side=side.opposite, lots=lots, reduce_only=True),
                lots=lots,
                price=None,
                status=OrderStatus.NEW,
                created_ms=at_ms,
                updated_ms=at_ms,
            )
            touch = self._books[symbol_id].touch(side.opposite)
            order = self._settlement.fill(state, state.keep(order), touch, lots, at_ms, exec_type=ExecType.BUST)
            self._settlement.announce(state, order, at_ms)

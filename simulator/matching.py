"""Orders meet the book: fills, resting orders, stops that fill at the gap, liquidation. No clock, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import ROUND_UP, Decimal
from uuid import UUID

from simulator.accounts import AccountState
from simulator.book import Book
from simulator.checks import checked_time_in_force, crosses
from simulator.records import (
    Cause,
    ExecType,
    Executed,
    Execution,
    LedgerRow,
    OrderChanged,
    OrderStatus,
    OrderTicket,
    PositionChanged,
    SimOrder,
    StopKind,
    TimeInForce,
    VenueEvent,
    WalletChanged,
)
from simulator.terms import SimInstrument
from srm_agent.domain.units import ZERO, Side

FEE_STEP = Decimal("1e-8")


class Matching:
    """Executes orders of all accounts against the books and tells `emit` what happened, in order."""

    def __init__(
        self,
        instruments: Mapping[str, SimInstrument],
        books: Mapping[str, Book],
        rng: random.Random,
        emit: Callable[[VenueEvent], None],
    ) -> None:
        self._instruments = instruments
        self._books = books
        self._rng = rng
        self._emit = emit
        self._sequence = 0

    def new_id(self) -> str:
        """A UUID from the injected generator."""
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    def next_sequence(self) -> int:
        """Increases by one with everything that happens."""
        self._sequence += 1
        return self._sequence

    def enter(
        self, state: AccountState, ticket: OrderTicket, at_ms: int, stop_kind: StopKind = StopKind.NONE
    ) -> SimOrder:
        """Take a checked order: execute what can be, rest or cancel the rest. Reduce-only lots are trimmed first."""
        lots = ticket.lots
        if ticket.reduce_only:
            lots = min(lots, abs(state.holding(ticket.symbol_id).lots))
        order = SimOrder(
            order_id=self.new_id(),
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
            self._emit(OrderChanged(order))
            return order
        return self._match_new(state, state.keep(order), at_ms)

    def _match_new(self, state: AccountState, order: SimOrder, at_ms: int) -> SimOrder:
        time_in_force = checked_time_in_force(order.ticket)
        book = self._books[order.ticket.symbol_id]
        if time_in_force is TimeInForce.POST_ONLY and order.price is not None:
            if crosses(book, order.ticket.side, order.price):
                return self.withdraw(state, order, Cause.POST_ONLY, at_ms)
        else:
            order = self._execute(state, order, at_ms, whole=time_in_force is TimeInForce.FOK)
        if order.leaves and time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            return self.withdraw(state, order, Cause.NO_LIQUIDITY, at_ms)
        if not order.filled:
            self._emit(OrderChanged(order))
        return order

    def _execute(
        self, state: AccountState, order: SimOrder, at_ms: int, *, whole: bool = False, maker: bool = False
    ) -> SimOrder:
        """Walk the ladder as far as the order may; a resting order (`maker`) is filled at its own price."""
        symbol_id, side = order.ticket.symbol_id, order.ticket.side
        book = self._books[symbol_id]
        plan = book.walk(side, order.leaves, order.price)
        total = sum((lots for _, lots in plan), ZERO)
        if not plan or (whole and total < order.leaves):
            return order
        book.take(side, total)
        for price, lots in plan:
            paid = order.price if maker and order.price is not None else price
            order = self._fill(state, order, paid, lots, at_ms, maker=maker)
        self._protect(state, order, at_ms)
        self._announce(state, order, at_ms)
        return order

    def _fill(
        self,
        state: AccountState,
        order: SimOrder,
        price: Decimal,
        lots: Decimal,
        at_ms: int,
        *,
        maker: bool = False,
        exec_type: ExecType = ExecType.TRADE,
    ) -> SimOrder:
        symbol_id, side = order.ticket.symbol_id, order.ticket.side
        terms = self._instruments[symbol_id]
        rate = terms.maker_fee if maker else terms.taker_fee
        fee = (lots * price * rate).quantize(FEE_STEP, ROUND_UP)
        closed, realised = state.holding(symbol_id).apply(side, lots, price, at_ms)
        state.balance += realised - fee
        filled = order.filled + lots
        order = state.keep(
            replace(
                order,
                filled=filled,
                value=order.value + lots * price,
                fee=order.fee + fee,
                status=OrderStatus.FILLED if filled == order.lots else OrderStatus.PARTIALLY_FILLED,
                updated_ms=at_ms,
            )
        )
        execution = Execution(
            exec_id=self.new_id(),
            account_id=state.terms.account_id,
            order=order,
            side=side,
            lots=lots,
            price=price,
            fee=fee,
            fee_rate=rate,
            maker=maker,
            closed=closed,
            realised=realised,
            mark=self._books[symbol_id].mark,
            exec_type=exec_type,
            at_ms=at_ms,
            sequence=self.next_sequence(),
        )
        state.executions.append(execution)
        state.ledger.append(
            LedgerRow(
                row_id=self.new_id(),
                account_id=state.terms.account_id,
                kind="TRADE",
                change=realised - fee,
                balance=state.balance,
                at_ms=at_ms,
                execution=execution,
            )
        )
        self._emit(Executed(execution))
        return order

    def _protect(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        # tpslMode Full: what an entry carries becomes the whole position's stop and target.
        ticket = order.ticket
        holding = state.holding(ticket.symbol_id)
        if ticket.reduce_only or holding.side is not ticket.side:
            return
        if ticket.stop_loss is not None:
            holding.stop_loss = ticket.stop_loss
        if ticket.take_profit is not None:
            holding.take_profit = ticket.take_profit
        holding.updated_ms = at_ms

    def _announce(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        # Bybit's usual order on the private stream: execution, position, order, wallet.
        self._emit(PositionChanged(state.view(order.ticket.symbol_id, self.next_sequence())))
        if not order.leaves or checked_time_in_force(order.ticket) in (TimeInForce.GTC, TimeInForce.POST_ONLY):
            self._emit(OrderChanged(order))
        self._emit(WalletChanged(state.wallet(), at_ms))

    def withdraw(self, state: AccountState, order: SimOrder, cause: Cause, at_ms: int) -> SimOrder:
        """Cancel what is left of an order."""
        order = state.keep(replace(order, status=OrderStatus.CANCELLED, cause=cause, updated_ms=at_ms))
        self._emit(OrderChanged(order))
        return order

    def on_market(self, state: AccountState, symbol_id: str, at_ms: int) -> None:
        """Let one account feel the new book: resting orders, conditional orders, stops, then the margin check."""
        for order in [item for item in state.working.values() if item.ticket.symbol_id == symbol_id]:
            self._on_market_order(state, order, at_ms)
        self._check_stops(state, symbol_id, at_ms)
        wallet = state.wallet() if state.holding(symbol_id).lots else None
        if wallet is not None and wallet.equity <= wallet.maintenance_margin:
            self._liquidate(state, at_ms)

    def rest(self, state: AccountState, order: SimOrder, at_ms: int) -> SimOrder:
        """Match a working order that was amended: across the touch it executes as a taker."""
        return self._execute(state, order, at_ms)

    def _on_market_order(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        ticket = order.ticket
        held = state.holding(ticket.symbol_id).lots
        if ticket.reduce_only and order.status is not OrderStatus.UNTRIGGERED:
            if held * ticket.side >= 0:
                self.withdraw(state, order, Cause.REDUCE_ONLY, at_ms)
                return
            order = replace(order, lots=min(order.lots, order.filled + abs(held)))
        if order.status is OrderStatus.UNTRIGGERED:
            if self._triggered(order):
                self._release(state, order, at_ms)
            return
        self._execute(state, order, at_ms, maker=True)

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
                self.withdraw(state, order, Cause.REDUCE_ONLY, at_ms)
                return
            order = replace(order, lots=min(order.lots, abs(held)))
        self._match_new(state, state.keep(order), at_ms)

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
            self.enter(state, ticket, at_ms, kind)

    def _liquidate(self, state: AccountState, at_ms: int) -> None:
        """Equity is at or below maintenance margin: the venue cancels all orders and takes all positions at the touch.

        What that leaves below zero stays as a negative balance (no insurance fund here).
        """
        for order in list(state.working.values()):
            self.withdraw(state, order, Cause.BUST, at_ms)
        for symbol_id, holding in state.holdings.items():
            side = holding.side
            if side is None:
                continue
            lots = abs(holding.lots)
            order = SimOrder(
                order_id=self.new_id(),
                account_id=state.terms.account_id,
                ticket=OrderTicket(symbol_id=symbol_id, side=side.opposite, lots=lots, reduce_only=True),
                lots=lots,
                price=None,
                status=OrderStatus.NEW,
                created_ms=at_ms,
                updated_ms=at_ms,
            )
            touch = self._books[symbol_id].touch(Side(side.opposite))
            order = self._fill(state, state.keep(order), touch, lots, at_ms, exec_type=ExecType.BUST)
            self._announce(state, order, at_ms)

"""What a fill does to an account's books: position, money, ledger, and who is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import ROUND_UP, Decimal
from uuid import UUID

from simulator.accounts import AccountState
from simulator.book import Book
from simulator.records import (
    Cause,
    ExecType,
    Executed,
    Execution,
    LedgerRow,
    OrderChanged,
    OrderStatus,
    PositionChanged,
    SimOrder,
    VenueEvent,
    WalletChanged,
)
from simulator.terms import SimInstrument

FEE_STEP = Decimal("1e-8")


class Settlement:
    """Books fills and cancellations and tells `emit`, in order. Ids are drawn from `rng`."""

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
        self.emit = emit
        self._sequence = 0

    def new_id(self) -> str:
        """A UUID from the injected generator."""
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    def next_sequence(self) -> int:
        """Increases by one with everything that happens."""
        self._sequence += 1
        return self._sequence

    def fill(
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
        """Book one execution; the order as it is afterwards. The fee is rounded up to 1e-8."""
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
        state.record(execution)
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
        self.emit(Executed(execution))
        return order

    def protect(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        """What an entry carries becomes the whole position's stop and target (Bybit's tpslMode Full)."""
        ticket = order.ticket
        holding = state.holding(ticket.symbol_id)
        if ticket.reduce_only or holding.side is not ticket.side:
            return
        if ticket.stop_loss is not None:
            holding.stop_loss = ticket.stop_loss
        if ticket.take_profit is not None:
            holding.take_profit = ticket.take_profit
        holding.updated_ms = at_ms

    def announce(self, state: AccountState, order: SimOrder, at_ms: int) -> None:
        """Tell position, order and wallet after the executions, in Bybit's usual order.

        An immediate order with lots left is told by the cancellation that follows.
        """
        self.emit(PositionChanged(state.view(order.ticket.symbol_id, self.next_sequence())))
        if not order.leaves or not order.ticket.immediate:
            self.emit(OrderChanged(order))
        self.emit(WalletChanged(state.wallet(), at_ms))

    def withdraw(self, state: AccountState, order: SimOrder, cause: Cause, at_ms: int) -> SimOrder:
        """Cancel what is left of an order."""
        order = state.keep(replace(order, status=OrderStatus.CANCELLED, cause=cause, updated_ms=at_ms))
        self.emit(OrderChanged(order))
        return order

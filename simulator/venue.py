"""The venue: books, accounts and matching behind one door.

Sans I/O: no clock (market time comes with `set_book`), no sockets, randomness injected (it only draws ids). The same
calls in the same order give the same story, ids included. Listeners are called at once, in the order of events.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from simulator import terms as refuse
from simulator.accounts import AccountState
from simulator.book import Book
from simulator.desk import Desk
from simulator.klines import BarRow, Kline, KlineSeries
from simulator.matching import Matching
from simulator.records import (
    BookMoved,
    Execution,
    LedgerRow,
    OrderTicket,
    PositionView,
    SimOrder,
    VenueEvent,
    Wallet,
    WalletChanged,
)
from simulator.settlement import Settlement
from simulator.terms import SimAccount, SimInstrument, SymbolState, VenueRefused
from simulator.triggers import Triggers
from simulator.venue_mischief import VenueMischief
from srm_agent.domain.units import Side

__all__ = ["SimAccount", "SimInstrument", "SymbolState", "Venue", "VenueRefused"]

NO_MATCHING = frozenset({SymbolState.CLOSED})
NO_ORDERS = frozenset({SymbolState.CLOSED, SymbolState.DISABLED})


class Venue:
    """One-way (netting) linear perpetuals, several accounts, cross margin. All times are market milliseconds."""

    def __init__(
        self, instruments: Sequence[SimInstrument], accounts: Sequence[SimAccount], rng: random.Random
    ) -> None:
        self.instruments = {item.symbol_id: item for item in instruments}
        self.accounts = {item.account_id: item for item in accounts}
        self.market_ms = 0
        """The latest market time seen on any symbol."""
        self._books = {item.symbol_id: Book(item) for item in instruments}
        self._klines = {item.symbol_id: KlineSeries(item.tick_size) for item in instruments}
        self._states = {
            item.account_id: AccountState(item, self.instruments, lambda symbol_id: self._books[symbol_id].mark)
            for item in accounts
        }
        self._symbol_states = dict.fromkeys(self.instruments, SymbolState.TRADING)
        self._listeners: list[Callable[[VenueEvent], None]] = []
        self._settlement = Settlement(self.instruments, self._books, rng, self._emit)
        matching = Matching(self._books, self._settlement)
        self._triggers = Triggers(self._books, matching, self._settlement)
        self._desk = Desk(self.instruments, self._open_book, self.state_of, matching, self._settlement)
        self.mischief = VenueMischief(self, self._books, self._states, matching, self._triggers, self._settlement)

    # The market

    def set_book(self, symbol_id: str, bid: Decimal, ask: Decimal, at_ms: int, depth: float = 1.0) -> None:
        """Move the market at market time `at_ms`; resting orders, stops and margins react at once.

        Raises ValueError for a crossed or off-grid book and for time that goes back.
        """
        book = self._book(symbol_id)
        bid, ask = self.mischief.shifted(symbol_id, bid, ask)
        book.move(bid, ask, at_ms, depth)
        self.market_ms = max(self.market_ms, at_ms)
        self._klines[symbol_id].update(book.mark, at_ms)
        self._emit(self.touch(symbol_id))
        if not self.suspended(symbol_id):
            for state in self._states.values():
                self._triggers.on_market(state, symbol_id, self.market_ms)

    def touch(self, symbol_id: str) -> BookMoved:
        """Best bid and ask as they were last announced, with the lots still there. Raises VenueRefused (no price)."""
        book = self._book(symbol_id)
        if not book.open:
            raise refuse.market_closed(symbol_id)
        return BookMoved(
            symbol_id=symbol_id,
            bid=book.bid,
            ask=book.ask,
            bid_lots=book.touch_lots(Side.SELL),
            ask_lots=book.touch_lots(Side.BUY),
            at_ms=book.at_ms,
            sequence=self._settlement.next_sequence(),
        )

    def priced(self, symbol_id: str) -> bool:
        """A price of the symbol is known."""
        return self._book(symbol_id).open

    def seed_bars(self, symbol_id: str, bars: Iterable[BarRow]) -> None:
        """History of closed one-minute bars, oldest first, before the first price."""
        self._book(symbol_id)
        self._klines[symbol_id].seed(bars)

    def bars(self, symbol_id: str, interval_s: int, limit: int, *, closed_only: bool = False) -> list[Kline]:
        """The last bars of `interval_s` seconds, oldest first; the running one is the last unless `closed_only`."""
        self._book(symbol_id)
        return self._klines[symbol_id].last(interval_s, limit, closed_only=closed_only)

    def day(self, symbol_id: str) -> Kline | None:
        """The last 24 h as one bar, up to date to the minute; None before any price."""
        return self._klines[symbol_id].day()

    def suspend(self, symbol_id: str, suspended: bool) -> None:
        """Stop (or resume) matching of a symbol: orders are refused and stops sleep, prices still come."""
        self.set_state(symbol_id, SymbolState.CLOSED if suspended else SymbolState.TRADING)

    def suspended(self, symbol_id: str) -> bool:
        """No matching at present."""
        return self._symbol_states[symbol_id] in NO_MATCHING

    def set_state(self, symbol_id: str, state: SymbolState) -> None:
        """What may be done with a symbol from now on (B12, B13)."""
        self._book(symbol_id)
        self._symbol_states[symbol_id] = state

    def state_of(self, symbol_id: str) -> SymbolState:
        """What may be done with a symbol now."""
        self._terms(symbol_id)
        return self._symbol_states[symbol_id]

    def subscribe(self, listener: Callable[[VenueEvent], None]) -> Callable[[], None]:
        """Hear every event from now on, synchronously; the answer unsubscribes."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # Orders

    def place(self, account_id: str, ticket: OrderTicket) -> SimOrder:
        """Check and enter an order; the answer is its state after matching. Raises VenueRefused."""
        return self._desk.place(self._states[account_id], ticket, self.market_ms)

    def amend(
        self,
        account_id: str,
        *,
        order_id: str = "",
        link_id: str = "",
        price: Decimal | None = None,
        lots: Decimal | None = None,
        trigger_price: Decimal | None = None,
    ) -> SimOrder:
        """Change a working order; None keeps. `lots` counts what was executed already. Raises VenueRefused."""
        return self._desk.amend(
            self._states[account_id],
            self.market_ms,
            order_id=order_id,
            link_id=link_id,
            price=price,
            lots=lots,
            trigger_price=trigger_price,
        )

    def cancel(self, account_id: str, *, order_id: str = "", link_id: str = "") -> SimOrder:
        """Withdraw a working order. Raises VenueRefused (110001) when there is none."""
        return self._desk.cancel(self._states[account_id], self.market_ms, order_id=order_id, link_id=link_id)

    def set_trading_stop(
        self, account_id: str, symbol_id: str, *, stop_loss: Decimal | None = None, take_profit: Decimal | None = None
    ) -> PositionView:
        """Set a position's stop and target to values: None keeps, 0 clears. Raises VenueRefused (34040: no change)."""
        return self._desk.set_trading_stop(
            self._states[account_id], symbol_id, self.market_ms, stop_loss=stop_loss, take_profit=take_profit
        )

    def set_leverage(self, account_id: str, symbol_id: str, leverage: Decimal) -> None:
        """Set the leverage of a symbol. Raises VenueRefused (110043: no change; 10001: outside 1..max)."""
        self._terms(symbol_id)
        self._desk.set_leverage(self._states[account_id], symbol_id, leverage)

    # Money

    def deposit(self, account_id: str, amount: Decimal, at_ms: int) -> LedgerRow:
        """Add money at market time `at_ms`."""
        if amount <= 0:
            raise ValueError(f"a deposit must be > 0, was {amount}")
        return self.transfer(account_id, "TRANSFER_IN", amount, at_ms)

    def withdraw(self, account_id: str, amount: Decimal, at_ms: int) -> LedgerRow:
        """Take money out at market time `at_ms`. Raises ValueError above what is available."""
        available = self.wallet(account_id).available
        if not 0 < amount <= available:
            raise ValueError(f"a withdrawal must be > 0 and at most {available}, was {amount}")
        return self.transfer(account_id, "TRANSFER_OUT", -amount, at_ms)

    def transfer(self, account_id: str, kind: str, change: Decimal, at_ms: int) -> LedgerRow:
        """Book money that moves without a trade, unchecked, under any `kind` of the transaction log."""
        state = self._states[account_id]
        self.market_ms = max(self.market_ms, at_ms)
        state.balance += change
        row = LedgerRow(
            row_id=self._settlement.new_id(),
            account_id=account_id,
            kind=kind,
            change=change,
            balance=state.balance,
            at_ms=at_ms,
        )
        state.ledger.append(row)
        self._emit(WalletChanged(state.wallet(), at_ms))
        return row

    # Reads

    def positions(self, account_id: str, symbol_id: str | None = None) -> list[PositionView]:
        """Open positions; with a symbol, that one even when flat."""
        state, sequence = self._states[account_id], self._settlement.next_sequence()
        if symbol_id is not None:
            self._terms(symbol_id)
            return [state.view(symbol_id, sequence)]
        return [state.view(key, sequence) for key, holding in state.holdings.items() if holding.lots]

    def leverage(self, account_id: str, symbol_id: str) -> Decimal:
        """In force for that account and symbol."""
        return self._states[account_id].leverage(symbol_id)

    def wallet(self, account_id: str) -> Wallet:
        """Money at mark prices."""
        return self._states[account_id].wallet()

    def order(self, account_id: str, *, order_id: str = "", link_id: str = "") -> SimOrder | None:
        """One order, None if the account never had it."""
        return self._states[account_id].find(order_id, link_id)

    def orders(self, account_id: str, *, working: bool | None = None, symbol_id: str | None = None) -> list[SimOrder]:
        """Orders, oldest first: all, only working ones, or (False) only finished ones."""
        state = self._states[account_id]
        pool = state.working if working else state.orders
        return [
            order
            for order in pool.values()
            if (working is None or order.status.working is working) and symbol_id in (None, order.ticket.symbol_id)
        ]

    def executions(
        self, account_id: str, *, since_ms: int = 0, order_id: str = "", link_id: str = ""
    ) -> list[Execution]:
        """Fills since a market time, oldest first, of all orders or of one."""
        state = self._states[account_id]
        if order_id or link_id:
            order = state.find(order_id, link_id)
            found = state.executions_of.get(order.order_id, []) if order else []
        else:
            found = state.executions
        return [item for item in found if item.at_ms >= since_ms]

    def ledger(self, account_id: str, *, since_ms: int = 0) -> list[LedgerRow]:
        """The transaction log since a market time, oldest first."""
        return [row for row in self._states[account_id].ledger if row.at_ms >= since_ms]

    # Inside

    def _emit(self, event: VenueEvent) -> None:
        for listener in tuple(self._listeners):
            listener(event)

    def _terms(self, symbol_id: str) -> SimInstrument:
        terms = self.instruments.get(symbol_id)
        if terms is None:
            raise refuse.unknown_symbol(symbol_id)
        return terms

    def _book(self, symbol_id: str) -> Book:
        self._terms(symbol_id)
        return self._books[symbol_id]

    def _open_book(self, symbol_id: str) -> Book:
        book = self._book(symbol_id)
        if not book.open or self._symbol_states[symbol_id] in NO_ORDERS:
            raise refuse.market_closed(symbol_id)
        return book

"""One account's books: money, net positions, orders, executions, ledger, and the margin they need.

Exact by construction: a position remembers its entry *value*; a part that is closed takes its share of that value with
it (rounded once, to 1e-10), so `balance - entry value` equals deposits - cost of all fills - fees, to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from simulator.records import Execution, LedgerRow, OrderTicket, PositionView, SimOrder, Wallet
from simulator.terms import SimAccount, SimInstrument
from srm_agent.domain.units import ZERO, Side, stored


@dataclass(slots=True)
class Holding:
    """A net position while it lives; `lots` and `entry_value` are signed (short: negative)."""

    lots: Decimal = ZERO
    entry_value: Decimal = ZERO
    realised: Decimal = ZERO
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    opened_ms: int = 0
    updated_ms: int = 0

    @property
    def side(self) -> Side | None:
        """None when flat."""
        if not self.lots:
            return None
        return Side.BUY if self.lots > 0 else Side.SELL

    @property
    def entry_price(self) -> Decimal:
        """Average entry, 0 when flat."""
        return self.entry_value / self.lots if self.lots else ZERO

    def apply(self, side: Side, lots: Decimal, price: Decimal, at_ms: int) -> tuple[Decimal, Decimal]:
        """Book one fill: same side adds, opposite reduces and may flip. Returns (lots closed, profit before fees)."""
        closed = min(lots, abs(self.lots)) if self.lots * side < 0 else ZERO
        profit = ZERO
        if closed:
            share = self.entry_value if closed == abs(self.lots) else stored(self.entry_value * closed / abs(self.lots))
            profit = -side * closed * price - share
            self.entry_value -= share
            self.lots += side * closed
            self.realised += profit
            if not self.lots:
                self.stop_loss = self.take_profit = None
        opened = lots - closed
        if opened:
            if not self.lots:
                self.opened_ms = at_ms
            self.lots += side * opened
            self.entry_value += side * opened * price
        self.updated_ms = at_ms
        return closed, profit

    def unrealised(self, mark: Decimal) -> Decimal:
        """Open profit at `mark`."""
        return self.lots * mark - self.entry_value


class AccountState:
    """Everything the venue knows of one account."""

    def __init__(
        self, terms: SimAccount, instruments: Mapping[str, SimInstrument], mark: Callable[[str], Decimal]
    ) -> None:
        self.terms = terms
        self.balance = terms.balance
        self.holdings: dict[str, Holding] = {}
        self.orders: dict[str, SimOrder] = {}
        self.working: dict[str, SimOrder] = {}
        self.links: dict[str, str] = {}
        self.executions: list[Execution] = []
        self.executions_of: dict[str, list[Execution]] = {}
        self.ledger: list[LedgerRow] = []
        self._leverage: dict[str, Decimal] = {}
        self._instruments = instruments
        self._mark = mark

    def holding(self, symbol_id: str) -> Holding:
        """The position of a symbol, flat if there never was one."""
        return self.holdings.setdefault(symbol_id, Holding())

    def leverage(self, symbol_id: str) -> Decimal:
        """In force for a symbol: what was set, else the account's, never above the instrument's."""
        most = self._instruments[symbol_id].max_leverage
        return self._leverage.get(symbol_id, min(self.terms.leverage, most))

    def set_leverage(self, symbol_id: str, leverage: Decimal) -> None:
        """For new and open positions of a symbol."""
        self._leverage[symbol_id] = leverage

    def keep(self, order: SimOrder) -> SimOrder:
        """Store the newest picture of an order."""
        self.orders[order.order_id] = order
        if order.status.working:
            self.working[order.order_id] = order
        else:
            self.working.pop(order.order_id, None)
        return order

    def record(self, execution: Execution) -> None:
        """Add a fill, in order of time."""
        self.executions.append(execution)
        self.executions_of.setdefault(execution.order.order_id, []).append(execution)

    def find(self, order_id: str, link_id: str) -> SimOrder | None:
        """By the venue's id, else by the account's own."""
        return self.orders.get(order_id or self.links.get(link_id, ""))

    def initial_margin(self, symbol_id: str) -> Decimal:
        """Of the open position: value at mark / leverage."""
        lots = self.holding(symbol_id).lots
        return abs(lots) * self._mark(symbol_id) / self.leverage(symbol_id) if lots else ZERO

    def maintenance_margin(self, symbol_id: str) -> Decimal:
        """Of the open position: value at mark * maintenance rate."""
        lots = self.holding(symbol_id).lots
        return abs(lots) * self._mark(symbol_id) * self._instruments[symbol_id].maintenance_rate if lots else ZERO

    def opening_lots(self, ticket: OrderTicket, lots: Decimal) -> Decimal:
        """The part of an order that would add to exposure."""
        held = self.holding(ticket.symbol_id).lots
        if ticket.reduce_only:
            return ZERO
        return lots if held * ticket.side >= 0 else max(lots - abs(held), ZERO)

    def order_margin(self) -> Decimal:
        """Reserved for working limit orders."""
        total = ZERO
        for order in self.working.values():
            price = order.price if order.price is not None else order.trigger_price
            if price is not None:
                lots = self.opening_lots(order.ticket, order.leaves)
                total += lots * price / self.leverage(order.ticket.symbol_id)
        return total

    def wallet(self) -> Wallet:
        """Money now, at mark."""
        unrealised = position_margin = maintenance = realised = ZERO
        for symbol_id, holding in self.holdings.items():
            realised += holding.realised
            if holding.lots:
                unrealised += holding.unrealised(self._mark(symbol_id))
                position_margin += self.initial_margin(symbol_id)
                maintenance += self.maintenance_margin(symbol_id)
        return Wallet(
            account_id=self.terms.account_id,
            currency="USDT",
            balance=self.balance,
            equity=self.balance + unrealised,
            unrealised=unrealised,
            realised=realised,
            position_margin=position_margin,
            order_margin=self.order_margin(),
            maintenance_margin=maintenance,
        )

    def view(self, symbol_id: str, sequence: int) -> PositionView:
        """The position of a symbol now, flat ones included."""
        holding = self.holding(symbol_id)
        mark = self._mark(symbol_id)
        return PositionView(
            account_id=self.terms.account_id,
            symbol_id=symbol_id,
            side=holding.side,
            lots=abs(holding.lots),
            entry_price=holding.entry_price,
            mark=mark,
            unrealised=holding.unrealised(mark),
            realised=holding.realised,
            leverage=self.leverage(symbol_id),
            initial_margin=self.initial_margin(symbol_id),
            maintenance_margin=self.maintenance_margin(symbol_id),
            stop_loss=holding.stop_loss,
            take_profit=holding.take_profit,
            opened_ms=holding.opened_ms,
            updated_ms=holding.updated_ms,
            sequence=sequence,
        )

"""What happens at the venue that no order asked for: gaps, other terms, orders it sits on, hands of others."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from simulator.accounts import AccountState
from simulator.book import Book
from simulator.holds import Hold
from simulator.matching import Matching
from simulator.records import LedgerRow, PositionChanged, PositionView
from simulator.settlement import Settlement
from simulator.terms import SimInstrument
from simulator.triggers import Triggers
from srm_agent.domain.units import floor_to_step

if TYPE_CHECKING:
    from simulator.venue import Venue


class VenueMischief:
    """One method a kind of event. Nothing here is random, and nothing happens by itself."""

    def __init__(
        self,
        venue: Venue,
        books: Mapping[str, Book],
        states: Mapping[str, AccountState],
        matching: Matching,
        triggers: Triggers,
        settlement: Settlement,
    ) -> None:
        self._venue = venue
        self._books = books
        self._states = states
        self._matching = matching
        self._triggers = triggers
        self._settlement = settlement
        self._shifts: dict[str, Decimal] = {}
        self._originals = dict(venue.instruments)

    # ---- the market

    def gap(self, symbol_id: str, size: Decimal) -> None:
        """The price jumps by the signed fraction `size` at once, and all later prices are as much higher or lower.

        Raises ValueError at -1 or below, VenueRefused before the first price.
        """
        if size <= -1:
            raise ValueError(f"a gap must be above -1, was {size}")
        touch = self._venue.touch(symbol_id)
        earlier = self._shifts.get(symbol_id, Decimal(1))
        self._shifts[symbol_id] = earlier * (1 + size)
        self._venue.set_book(symbol_id, touch.bid / earlier, touch.ask / earlier, self._venue.market_ms)

    def set_terms(self, terms: SimInstrument) -> None:
        """The contract changes while it is traded (B29). Raises ValueError where prices would be off the grid."""
        self._books[terms.symbol_id].set_terms(terms)
        self._venue.instruments[terms.symbol_id] = terms

    def original_terms(self, symbol_id: str) -> SimInstrument:
        """The contract as it was at the beginning."""
        return self._originals[symbol_id]

    def shifted(self, symbol_id: str, bid: Decimal, ask: Decimal) -> tuple[Decimal, Decimal]:
        """A price of the world after the gaps so far, on the grid, never crossed; unchanged where there was none."""
        shift = self._shifts.get(symbol_id)
        if shift is None:
            return bid, ask
        tick = self._venue.instruments[symbol_id].tick_size
        low = max(floor_to_step(bid * shift, tick), tick)
        return low, max(floor_to_step(ask * shift, tick), low + tick)

    # ---- accounts

    def hold_next(self, account_id: str, hold: Hold) -> None:
        """Sit on the account's next order of that kind (B6, B8)."""
        self._states[account_id]
        self._matching.holds.plan(account_id, hold)

    def release(self, account_id: str, order_id: str) -> bool:
        """Let a held order go on, at the prices of now; False while its symbol is not matched (try again)."""
        state = self._states[account_id]
        order = state.working.get(order_id)
        if order is None:
            self._matching.holds.let_go(order_id)
            return True
        if self._venue.suspended(order.ticket.symbol_id):
            return False
        self._matching.release(state, order, self._venue.market_ms)
        return True

    def release_all(self) -> None:
        """Let every held order go on, where its symbol is matched."""
        for account_id, state in self._states.items():
            for order in list(state.working.values()):
                if self._matching.holds.holds(order.order_id):
                    self.release(account_id, order.order_id)

    def tamper(
        self, account_id: str, symbol_id: str, *, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> PositionView:
        """Stop and target of a position become these, unchecked: a human or the broker did it (B10, B11)."""
        state = self._states[account_id]
        holding = state.holding(symbol_id)
        holding.stop_loss, holding.take_profit, holding.updated_ms = stop_loss, take_profit, self._venue.market_ms
        view = state.view(symbol_id, self._settlement.next_sequence())
        self._settlement.emit(PositionChanged(view))
        return view

    def stop_out(self, account_id: str) -> None:
        """The broker withdraws all orders and closes all positions of the account by itself (B32)."""
        self._triggers.liquidate(self._states[account_id], self._venue.market_ms)

    def book_cash(self, account_id: str, kind: str, change: Decimal, at_ms: int) -> LedgerRow:
        """Any other money that moves without a trade (B31): `SETTLEMENT` (swap, funding), `BONUS`, `DIVIDEND`, ..."""
        return self._venue.transfer(account_id, kind, change, at_ms)

    def calm(self) -> None:
        """No more plans for orders to come; those held go on when they are released."""
        self._matching.holds.forget_plans()

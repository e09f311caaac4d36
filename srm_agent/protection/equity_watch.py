"""What an account is worth right now (INV-13): the broker's own figure, marked to market between its updates.

Between two broker figures equity is linear in prices: `cash + sum(net lot x contract x mark)`, where each fill moves
`-side x lot x price - fee` into cash. The mark is the side on which the position would be closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from srm_agent.domain.accounts import AccountSnapshot, Equity
from srm_agent.domain.ids import FillId, Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill
from srm_agent.domain.units import ZERO

REMEMBERED_FILLS = 2000


@dataclass(frozen=True, slots=True)
class Anchored:
    """What a broker figure showed. `jump` = its equity - ours just before, None where ours was not known."""

    jump: Decimal | None


class EquityWatch:
    """One account. Prices and instruments are asked for, so that every account of a venue shares them."""

    def __init__(
        self,
        quote: Callable[[Symbol], Quote | None],
        instrument: Callable[[Symbol], Instrument | None],
    ) -> None:
        self._quote = quote
        self._instrument = instrument
        self._net: dict[Symbol, Decimal] = {}
        self._cash: Decimal | None = None
        self._pending: tuple[Decimal, Decimal] | None = None
        self._balance = ZERO
        self._heard: float | None = None
        self._seen: dict[FillId, None] = {}
        self.snapshot: AccountSnapshot | None = None

    @property
    def symbols(self) -> Iterable[Symbol]:
        """Symbols the account holds."""
        return self._net.keys()

    def holds(self, symbol: Symbol) -> bool:
        """Whether a quote of this symbol changes the account's equity."""
        return symbol in self._net

    def on_positions(self, positions: Iterable[BrokerPosition]) -> None:
        """A full picture of the account's positions; call `on_account` with the figure read beside it."""
        self._net = {p.symbol: int(p.side) * p.lot for p in positions if p.lot}
        self._cash = None

    def on_fill(self, fill: Fill) -> None:
        """An execution on the account, ours or not; repeats are ignored."""
        if fill.fill_id in self._seen:
            return
        self._seen[fill.fill_id] = None
        if len(self._seen) > REMEMBERED_FILLS:
            del self._seen[next(iter(self._seen))]
        instrument = self._instrument(fill.symbol)
        signed = int(fill.side) * fill.lot
        net = self._net.get(fill.symbol, ZERO) + signed
        if net:
            self._net[fill.symbol] = net
        else:
            self._net.pop(fill.symbol, None)
        if self._cash is not None and instrument is not None:
            self._cash -= signed * fill.price * instrument.contract_size + fill.fee
        elif instrument is None:
            self._cash = None

    def on_account(self, snapshot: AccountSnapshot) -> Anchored:
        """The broker's figure: the new anchor. Without an equity in it, equity stays incomplete."""
        before = self._value()
        self.snapshot = snapshot
        self._heard = snapshot.received
        if snapshot.equity is None:
            self._cash = None
            return Anchored(None)
        worth = self._holdings()
        self._cash = None if worth is None else snapshot.equity - worth
        return Anchored(None if before is None else snapshot.equity - before)

    def on_heartbeat(self, received: float) -> None:
        """The account stream is alive at that monotonic second: an idle account is not stale."""
        if self._heard is None or received > self._heard:
            self._heard = received

    def equity(self, now: float) -> Equity | None:
        """Equity and how old its oldest part is, None before the first broker figure."""
        if self.snapshot is None or self._heard is None:
            return None
        value = self._value()
        complete = value is not None
        if value is None:
            value = self.snapshot.equity if self.snapshot.equity is not None else self.snapshot.balance
        ages = [now - self._heard]
        for symbol in self._net:
            quote = self._quote(symbol)
            if quote is not None:
                ages.append(now - quote.received)
        return Equity(value=value, complete=complete, age_s=max(ages))

    def _value(self) -> Decimal | None:
        if self._cash is None and self.snapshot is not None and self.snapshot.equity is not None:
            # The anchor came before the first quote of something held: anchor on the first chance.
            worth = self._holdings()
            if worth is None:
                return None
            self._cash = self.snapshot.equity - worth
        worth = self._holdings()
        return None if self._cash is None or worth is None else self._cash + worth

    def _holdings(self) -> Decimal | None:
        worth = ZERO
        for symbol, net in self._net.items():
            quote, instrument = self._quote(symbol), self._instrument(symbol)
            if quote is None or instrument is None:
                return None
            worth += net * (quote.bid if net > 0 else quote.ask) * instrument.contract_size
        return worth

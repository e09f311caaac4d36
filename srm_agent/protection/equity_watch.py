"""What an account is worth right now (INV-13): the broker's own figure, marked to market between its updates.

Between two broker figures equity is linear in prices: `cash + sum(net lot x contract x mark)`, where each fill moves
`-side x lot x price - fee` into cash. The mark is the side on which the position would be closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from srm_agent.domain.accounts import AccountSnapshot, Equity
from srm_agent.domain.ids import FillId, Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill
from srm_agent.domain.units import ZERO

REMEMBERED_FILLS = 2000
FAVOUR = Decimal("0.05")
"""How much better than last seen a price may be that nobody quotes any more; beyond it, an account would be in doubt
for ever and never be closed."""


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
        """At the last broker figure; None until everything held then has had a price."""
        self._at_figure: dict[Symbol, Decimal] | None = None
        """Net lots at the last broker figure."""
        self._moved = ZERO
        """Cash that fills have moved since the last broker figure."""
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

    @property
    def holdings(self) -> Mapping[Symbol, Decimal]:
        """Signed lots by symbol, as far as positions and fills have told."""
        return self._net

    def on_positions(self, positions: Iterable[BrokerPosition], fills: Iterable[Fill] = ()) -> None:
        """A full picture of the account's positions; call `on_account` with the figure read beside it.

        `fills` are executions that the picture contains: told again later they change nothing.
        """
        self._net = {p.symbol: int(p.side) * p.lot for p in positions if p.lot}
        self._cash = self._at_figure = None
        for fill in fills:
            self._first_time(fill)

    def on_fill(self, fill: Fill) -> None:
        """An execution on the account, ours or not; repeats are ignored."""
        if not self._first_time(fill):
            return
        instrument = self._instrument(fill.symbol)
        signed = int(fill.side) * fill.lot
        net = self._net.get(fill.symbol, ZERO) + signed
        if net:
            self._net[fill.symbol] = net
        else:
            self._net.pop(fill.symbol, None)
        if instrument is None:
            self._cash = self._at_figure = None  # what it moved is not known: the broker's next figure is
        else:
            self._moved -= signed * fill.price * instrument.contract_size + fill.fee

    def on_account(self, snapshot: AccountSnapshot) -> Anchored:
        """The broker's figure: the new anchor. Without an equity in it, equity stays incomplete."""
        before = self._value()
        self.snapshot = snapshot
        self._heard = snapshot.received if self._heard is None else max(self._heard, snapshot.received)
        self._cash, self._moved = None, ZERO
        self._at_figure = None if snapshot.equity is None else dict(self._net)
        if snapshot.equity is None:
            return Anchored(None)
        self._value()
        return Anchored(None if before is None else snapshot.equity - before)

    def on_heartbeat(self, received: float) -> None:
        """The account stream is alive at that monotonic second: an idle account is not stale."""
        if self._heard is None or received > self._heard:
            self._heard = received

    def equity(self, now: float) -> Equity | None:
        """Equity and how old its oldest part is, None before the first broker figure.

        A broker figure is complete by itself, as old as it is: so an account with something that nobody quotes is
        guarded as long as its figure is read again and again.
        """
        if self.snapshot is None or self._heard is None:
            return None
        value, told = self._value(), self.snapshot.equity
        if value is None:
            if told is None:
                return Equity(value=self.snapshot.balance, complete=False, age_s=now - self._heard)
            return Equity(value=told, complete=True, age_s=now - self.snapshot.received)
        ages = [now - self._heard]
        for symbol in self._net:
            quote = self._quote(symbol)
            if quote is not None:
                ages.append(now - quote.received)
        age_s = max(ages)
        return Equity(
            value=value, complete=True, age_s=age_s if told is None else min(age_s, now - self.snapshot.received)
        )

    def at_best(
        self, now: float, max_age_s: float, exits: Mapping[Symbol, tuple[Decimal | None, Decimal | None]]
    ) -> Decimal | None:
        """The most that equity can be while parts of it are not known; None where not even that can be said.

        A symbol whose quote is older than `max_age_s` is taken 5 % better than last seen. A position may also have
        been closed at its stop or target without our hearing of it (`exits`: stop and target by symbol).
        """
        best = self._value()
        if best is None:
            return None
        for symbol, net in self._net.items():
            quote, instrument = self._quote(symbol), self._instrument(symbol)
            if quote is None or instrument is None:
                return None
            side = 1 if net > 0 else -1
            mark = quote.bid if net > 0 else quote.ask
            hoped = mark * (1 + side * FAVOUR) if now - quote.received > max_age_s else mark
            prices = [hoped, *(price for price in exits.get(symbol, ()) if price is not None)]
            gain = max(side * (price - mark) for price in prices)
            best += max(gain, ZERO) * abs(net) * instrument.contract_size
        return best

    def remembered(self) -> int:
        """How many fill ids are kept."""
        return len(self._seen)

    def _first_time(self, fill: Fill) -> bool:
        if fill.fill_id in self._seen:
            return False
        self._seen[fill.fill_id] = None
        if len(self._seen) > REMEMBERED_FILLS:
            del self._seen[next(iter(self._seen))]
        return True

    def _value(self) -> Decimal | None:
        if self._cash is None and self._at_figure is not None and self.snapshot is not None:
            # The figure may have come before the first price of something held: anchored on the first chance.
            then = self._worth(self._at_figure)
            self._cash = None if then is None or self.snapshot.equity is None else self.snapshot.equity - then
        worth = self._worth(self._net)
        return None if self._cash is None or worth is None else self._cash + self._moved + worth

    def _worth(self, holdings: Mapping[Symbol, Decimal]) -> Decimal | None:
        worth = ZERO
        for symbol, net in holdings.items():
            quote, instrument = self._quote(symbol), self._instrument(symbol)
            if quote is None or instrument is None:
                return None
            worth += net * (quote.bid if net > 0 else quote.ask) * instrument.contract_size
        return worth

"""What an account is worth between the broker's figures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srm_agent.domain.accounts import AccountSnapshot
from srm_agent.domain.ids import FillId, PositionRef, Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill
from srm_agent.domain.units import ZERO, Side
from srm_agent.protection.equity_watch import EquityWatch
from tests.unit.execution.conftest import BTC, START, a_fill, an_instrument

D = Decimal
EUR = Symbol("EUR/USDT:USDT")
ODD = Symbol("ODD/USDT:USDT")
SIZES = {BTC: D(1), EUR: D(100_000)}


@dataclass(slots=True)
class Exchange:
    """A venue's books of one account: exact cash and net lots, equity on the closing side, and a watch beside it."""

    now: float = 1000.0
    cash: Decimal = Decimal(10_000)
    net: dict[Symbol, Decimal] = field(default_factory=dict)
    quotes: dict[Symbol, Quote] = field(default_factory=dict)
    fills: int = 0
    last: Fill | None = None
    watch: EquityWatch = field(init=False)

    def __post_init__(self) -> None:
        """The watch knows BTC and EUR."""
        self.watch = EquityWatch(self.quotes.get, self.instrument)

    @staticmethod
    def instrument(symbol: Symbol) -> Instrument | None:
        """Terms of the symbols that are known."""
        return an_instrument(symbol=symbol, contract_size=SIZES[symbol]) if symbol in SIZES else None

    def quote(self, symbol: Symbol, bid: str, ask: str | None = None) -> None:
        """A price."""
        self.quotes[symbol] = Quote(symbol=symbol, bid=D(bid), ask=D(ask or bid), at=START, received=self.now)

    def trade(self, symbol: Symbol, side: Side, lot: str, price: str, fee: str = "1") -> Fill:
        """Something executes at the venue; the fill, not yet told."""
        self.fills += 1
        self.cash -= int(side) * D(lot) * D(price) * SIZES.get(symbol, D(1)) + D(fee)
        self.net[symbol] = self.net.get(symbol, ZERO) + int(side) * D(lot)
        self.last = a_fill(self.fills, lot, price, symbol=symbol, side=side, fee=D(fee))
        return self.last

    def equity(self) -> Decimal:
        """The venue's own figure."""
        worth = ZERO
        for symbol, lots in self.net.items():
            quote = self.quotes.get(symbol)
            price = ZERO if quote is None else quote.bid if lots > 0 else quote.ask
            worth += lots * price * SIZES.get(symbol, D(1))
        return self.cash + worth

    def figure(self, equity: Decimal | None = None) -> AccountSnapshot:
        """What the venue tells of the account now."""
        return AccountSnapshot(
            currency="USDT",
            balance=self.cash,
            equity=self.equity() if equity is None else equity,
            margin_used=ZERO,
            margin_free=self.cash,
            at=START,
            received=self.now,
        )

    def value(self) -> Decimal | None:
        """Equity as the watch knows it, if complete."""
        found = self.watch.equity(self.now)
        return found.value if found is not None and found.complete else None


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("quote"), st.sampled_from([BTC, EUR]), st.integers(1, 10**6), st.integers(0, 50)),
        st.tuples(st.just("trade"), st.sampled_from([BTC, EUR]), st.integers(1, 10**6), st.integers(-50, 50)),
        st.tuples(st.just("figure"), st.just(BTC), st.just(0), st.just(0)),
        st.tuples(st.just("repeat"), st.just(BTC), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_equity_is_the_venues_own_for_any_story(actions: list[tuple[str, Symbol, int, int]]) -> None:
    """After each fill (told once or twice), quote and figure, ours equals the venue's to the last digit."""
    venue = Exchange()
    venue.quote(BTC, "60000", "60001")
    venue.quote(EUR, "1.1", "1.2")
    venue.watch.on_positions(())
    venue.watch.on_account(venue.figure())
    for kind, symbol, price, number in actions:
        if kind == "quote":
            venue.quote(symbol, str(D(price) / 10), str(D(price + number) / 10))
        elif kind == "trade" and number:
            side = Side.BUY if number > 0 else Side.SELL
            venue.watch.on_fill(venue.trade(symbol, side, str(D(abs(number)) / 100), str(D(price) / 10)))
        elif kind == "figure":
            anchored = venue.watch.on_account(venue.figure())
            assert anchored.jump == 0
        elif kind == "repeat" and venue.last is not None:
            venue.watch.on_fill(venue.last)
        assert venue.value() == venue.equity()


def test_an_anchor_before_the_first_price_is_exact_too() -> None:
    """The figure comes, then a trade in something else, then the first price of what is held: nothing is lost."""
    venue = Exchange()
    venue.trade(EUR, Side.BUY, "0.1", "1.1")
    venue.quotes[BTC] = Quote(symbol=BTC, bid=D(60_000), ask=D(60_001), at=START, received=1000.0)
    venue.watch.on_positions([_position(EUR, "0.1")])
    told = venue.cash + D("0.1") * D("1.1") * SIZES[EUR]
    venue.watch.on_account(venue.figure(told))
    venue.watch.on_fill(venue.trade(BTC, Side.BUY, "0.5", "59000", fee="30"))
    venue.quote(EUR, "1.1")
    assert venue.value() == venue.equity()


def _position(symbol: Symbol, lot: str, side: Side = Side.BUY) -> BrokerPosition:
    return BrokerPosition(
        ref=PositionRef("p"), symbol=symbol, side=side, lot=D(lot), entry_price=D(1), stop_loss=None,
        take_profit=None, opened_at=None,
    )  # fmt: skip


def test_fills_told_again_after_a_full_picture_do_not_count_twice() -> None:
    """What the picture contained and the stream had kept back changes nothing: no phantom exposure."""
    venue = Exchange()
    venue.quote(BTC, "60000")
    fill = venue.trade(BTC, Side.BUY, "0.5", "60000")
    venue.watch.on_positions([_position(BTC, "0.5")], [fill])
    venue.watch.on_account(venue.figure())
    venue.watch.on_fill(fill)
    venue.quote(BTC, "50000")
    assert venue.value() == venue.equity() == D(4999)


def test_a_figure_shows_what_trades_do_not_explain() -> None:
    """A withdrawal appears as a negative jump, a deposit as a positive one."""
    venue = Exchange()
    venue.watch.on_positions(())
    assert venue.watch.on_account(venue.figure()).jump is None
    venue.cash -= 3000
    assert venue.watch.on_account(venue.figure()).jump == -3000
    venue.cash += 500
    assert venue.watch.on_account(venue.figure()).jump == 500


def test_a_figure_that_contains_the_fill_already_heard_shows_no_jump() -> None:
    """Trades are explained by their fills."""
    venue = Exchange()
    venue.quote(BTC, "60000", "60010")
    venue.watch.on_positions(())
    venue.watch.on_account(venue.figure())
    venue.watch.on_fill(venue.trade(BTC, Side.SELL, "0.5", "60000", fee="33"))
    assert venue.watch.on_account(venue.figure()).jump == 0


def test_a_frozen_feed_ages_equity_and_a_fresh_figure_makes_it_young() -> None:
    """Age is the oldest part's: a held symbol without quotes for ten minutes is not known (F18), a figure helps."""
    venue = Exchange()
    venue.quote(BTC, "60000")
    venue.watch.on_positions([_position(BTC, "0.1")])
    venue.watch.on_account(venue.figure())
    venue.now += 600
    venue.watch.on_heartbeat(venue.now)
    found = venue.watch.equity(venue.now)
    assert found is not None
    assert found.age_s == 600
    venue.watch.on_account(venue.figure(D(9000)))
    found = venue.watch.equity(venue.now + 1)
    assert found is not None
    assert (found.value, found.complete, found.age_s) == (D(9000), True, 1)


def test_an_idle_account_is_not_stale() -> None:
    """Nothing held: the heartbeat alone keeps equity young; an old quote of a symbol not held does not matter."""
    venue = Exchange()
    venue.quote(BTC, "60000")
    venue.watch.on_positions(())
    venue.watch.on_account(venue.figure())
    venue.watch.on_heartbeat(1600.0)
    found = venue.watch.equity(1601.0)
    assert found is not None
    assert (found.complete, found.age_s) == (True, 1)


def test_something_nobody_quotes_leaves_the_brokers_figure() -> None:
    """A foreign position on an unknown symbol: equity is the broker's figure, as old as that is; never invented."""
    venue = Exchange()
    venue.watch.on_positions([_position(ODD, "3")])
    venue.watch.on_account(venue.figure(D(8000)))
    found = venue.watch.equity(venue.now + 2)
    assert found is not None
    assert (found.value, found.complete, found.age_s) == (D(8000), True, 2)
    venue.watch.on_fill(venue.trade(ODD, Side.BUY, "1", "5"))
    venue.now += 10
    venue.watch.on_heartbeat(venue.now)
    found = venue.watch.equity(venue.now)
    assert found is not None
    assert found.age_s == 10


def test_without_any_figure_equity_is_unknown() -> None:
    """None before the first figure; incomplete where the broker does not say an equity."""
    venue = Exchange()
    assert venue.watch.equity(1.0) is None
    venue.watch.on_positions(())
    venue.watch.on_account(replace(venue.figure(), equity=None))
    found = venue.watch.equity(venue.now)
    assert found is not None
    assert not found.complete


def test_remembered_fills_are_bounded() -> None:
    """Ten thousand fills leave two thousand ids."""
    venue = Exchange()
    venue.quote(BTC, "1")
    venue.watch.on_positions(())
    venue.watch.on_account(venue.figure())
    for number in range(10_000):
        side = Side.BUY if number % 2 else Side.SELL
        venue.watch.on_fill(a_fill(number, "1", "1", side=side, fill_id=FillId(f"x{number}")))
    assert venue.watch.remembered() == 2000


@pytest.mark.parametrize("when", [timedelta(0), timedelta(seconds=-1)])
def test_the_clock_of_a_fill_does_not_matter(when: timedelta) -> None:
    """Fills count by id, in the order in which they are heard."""
    venue = Exchange()
    venue.quote(BTC, "60000")
    venue.watch.on_positions(())
    venue.watch.on_account(venue.figure())
    fill = venue.trade(BTC, Side.BUY, "0.5", "59000")
    venue.watch.on_fill(replace(fill, at=fill.at + when))
    assert venue.value() == venue.equity()


@pytest.mark.parametrize(
    ("age", "exits", "best"),
    [
        pytest.param(1, (None, None), "9000", id="a fresh quote is what it is worth"),
        pytest.param(60, (None, None), "11950", id="an old one is taken 5 % better"),
        pytest.param(1, (D(59_500), None), "9500", id="it may have been stopped out before the fall"),
        pytest.param(1, (D(58_000), None), "9000", id="a stop below the price helps nobody"),
        pytest.param(1, (None, D(61_000)), "11000", id="or have reached its target"),
        pytest.param(60, (D(59_500), D(70_000)), "20000", id="whatever is best"),
    ],
)
def test_the_most_that_an_unknown_equity_can_be(
    age: float, exits: tuple[Decimal | None, Decimal | None], best: str
) -> None:
    """One BTC bought at 60,000 with 10,000, last seen at 59,000: what it is worth at the very best (INV-13)."""
    venue = Exchange()
    venue.quotes[BTC] = Quote(symbol=BTC, bid=D(60_000), ask=D(60_000), at=START, received=1000.0)
    venue.watch.on_positions([_position(BTC, "1")])
    venue.watch.on_account(venue.figure(D(10_000)))
    venue.quotes[BTC] = Quote(symbol=BTC, bid=D(59_000), ask=D(59_000), at=START, received=1000.0)
    assert venue.watch.at_best(1000.0 + age, 5.0, {BTC: exits}) == D(best)


def test_the_most_of_a_short_position_is_the_mirror() -> None:
    """Sold one at 60,000, last seen at 61,000 a minute ago: 5 % lower at best, or at its stop if that was nearer."""
    venue = Exchange()
    venue.quotes[BTC] = Quote(symbol=BTC, bid=D(60_000), ask=D(60_000), at=START, received=1000.0)
    venue.watch.on_positions([_position(BTC, "1", Side.SELL)])
    venue.watch.on_account(venue.figure(D(10_000)))
    venue.quotes[BTC] = Quote(symbol=BTC, bid=D(61_000), ask=D(61_000), at=START, received=1000.0)
    assert venue.watch.at_best(1001.0, 5.0, {}) == D(9_000)
    assert venue.watch.at_best(1001.0, 5.0, {BTC: (D(60_500), None)}) == D(9_500)
    assert venue.watch.at_best(1060.0, 5.0, {}) == D(9_000) + D(61_000) * D("0.05")


def test_without_a_price_nothing_is_the_most() -> None:
    """A position that nobody quotes, or no broker's figure at all: no bound, so nothing is closed by it."""
    venue = Exchange()
    venue.watch.on_positions([_position(BTC, "1")])
    assert venue.watch.at_best(1000.0, 5.0, {}) is None
    venue.watch.on_account(venue.figure(D(10_000)))
    assert venue.watch.at_best(1000.0, 5.0, {}) is None

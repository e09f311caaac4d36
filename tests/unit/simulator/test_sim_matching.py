"""Matching: depth, reduce-only, stops at the gap, margin, liquidation, exact books."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.records import (
    BookMoved,
    Cause,
    ExecType,
    Executed,
    OrderChanged,
    OrderStatus,
    OrderTicket,
    PositionChanged,
    StopKind,
    TimeInForce,
    VenueEvent,
    WalletChanged,
)
from simulator.venue import Venue, VenueRefused
from srm_agent.domain.units import ZERO, Side

START_MS = 1_767_610_800_000
D = Decimal


def market(side: Side, lots: str, **changes: object) -> OrderTicket:
    """A market order on the one symbol."""
    return OrderTicket(symbol_id="BTCUSDT", side=side, lots=D(lots), **changes)  # type: ignore[arg-type]


def limit(
    side: Side, lots: str, price: str, time_in_force: TimeInForce = TimeInForce.GTC, **changes: object
) -> OrderTicket:
    """A limit order on the one symbol."""
    return market(side, lots, price=D(price), time_in_force=time_in_force, **changes)


def move(venue: Venue, bid: str, ask: str, seconds: int = 1) -> None:
    """A new book, that much later."""
    venue.set_book("BTCUSDT", D(bid), D(ask), venue.market_ms + seconds * 1000)


def test_a_large_order_walks_the_ladder(venue: Venue) -> None:
    """2.5 lots take three levels of one lot each, at three prices."""
    order = venue.place("c01", market(Side.BUY, "2.5", link_id="a"))
    fills = venue.executions("c01", link_id="a")
    assert [(fill.price, fill.lots) for fill in fills] == [(D("100.5"), 1), (D("101.0"), 1), (D("101.5"), D("0.5"))]
    assert (order.status, order.average_price) == (OrderStatus.FILLED, D("100.9"))


def test_depth_recovers_with_the_next_price(venue: Venue) -> None:
    """What one account took is missing for the next until the market moves."""
    venue.place("c01", market(Side.BUY, "1"))
    assert venue.place("c02", market(Side.BUY, "1")).average_price == D("101.0")
    move(venue, "100.0", "100.5")
    assert venue.place("c02", market(Side.BUY, "1")).average_price == D("100.5")


def test_an_ioc_remainder_is_cancelled(venue: Venue) -> None:
    """A capped entry takes what the cap allows; the order ends Cancelled with executed lots."""
    order = venue.place("c01", limit(Side.BUY, "5", "101.0", TimeInForce.IOC))
    assert (order.status, order.filled, order.cause) == (OrderStatus.CANCELLED, D(2), Cause.NO_LIQUIDITY)


def test_an_ioc_below_the_touch_gets_nothing(venue: Venue) -> None:
    """A missed price executes nothing and leaves no position."""
    order = venue.place("c01", limit(Side.BUY, "1", "100.4", TimeInForce.IOC))
    assert (order.status, order.filled) == (OrderStatus.CANCELLED, ZERO)
    assert venue.positions("c01") == []


def test_fok_is_all_or_nothing(venue: Venue) -> None:
    """Fill-or-kill does not take a part."""
    assert venue.place("c01", limit(Side.BUY, "3", "101.0", TimeInForce.FOK)).filled == 0
    assert venue.place("c01", limit(Side.BUY, "2", "101.0", TimeInForce.FOK)).status is OrderStatus.FILLED


def test_a_resting_order_fills_at_its_price_as_maker(venue: Venue) -> None:
    """When the touch reaches a resting limit it fills at its own price for the maker fee."""
    order = venue.place("c01", limit(Side.BUY, "1", "99.0"))
    assert order.status is OrderStatus.NEW
    move(venue, "98.0", "98.5")
    fill = venue.executions("c01")[0]
    assert (fill.price, fill.maker, fill.fee) == (D("99.0"), True, D("0.0198"))


def test_a_post_only_order_never_takes(venue: Venue) -> None:
    """A post-only order that would execute at once is cancelled."""
    order = venue.place("c01", limit(Side.BUY, "1", "100.5", TimeInForce.POST_ONLY))
    assert (order.status, order.cause) == (OrderStatus.CANCELLED, Cause.POST_ONLY)


def test_the_stop_fills_at_the_gap(venue: Venue) -> None:
    """A stop at 99 with the bid gapping to 90 fills from 90 downwards, as a reduce-only order nobody sent."""
    venue.place("c01", market(Side.BUY, "2", stop_loss=D("99.0")))
    move(venue, "90.0", "90.5")
    stops = [fill for fill in venue.executions("c01") if fill.order.stop_kind is StopKind.STOP_LOSS]
    assert [(fill.price, fill.lots) for fill in stops] == [(D("90.0"), D(1)), (D("89.5"), D(1))]
    assert (stops[0].order.ticket.link_id, stops[0].order.ticket.reduce_only) == ("", True)
    assert venue.positions("c01") == []


def test_a_stop_larger_than_the_book_stays_in_force(venue: Venue) -> None:
    """What a thin ladder (400 levels of 0.01 lots) cannot take remains protected and goes with the next price."""
    venue.place("c01", market(Side.BUY, "10", stop_loss=D("99.0")))
    venue.set_book("BTCUSDT", D("98.0"), D("98.5"), venue.market_ms + 1, 0.001)
    left = venue.positions("c01")[0]
    taken = venue.executions("c01")[10:]
    assert left.lots == 10 - sum(fill.lots for fill in taken) > 0
    assert left.stop_loss == D("99.0")
    move(venue, "97.0", "97.5")
    assert venue.positions("c01") == []


@pytest.mark.parametrize(
    ("side", "stop", "bid", "ask"),
    [
        pytest.param(Side.BUY, "99.0", "99.0", "99.5", id="a long stop is touched by the bid"),
        pytest.param(Side.SELL, "102.0", "101.5", "102.0", id="a short stop is touched by the ask"),
    ],
)
def test_stops_trigger_on_touch(venue: Venue, side: Side, stop: str, bid: str, ask: str) -> None:
    """Reaching the stop's price is enough; one tick before is not."""
    venue.place("c01", market(side, "1", stop_loss=D(stop)))
    move(venue, str(D(bid) + side * D("0.1")), str(D(ask) + side * D("0.1")))
    assert len(venue.positions("c01")) == 1
    move(venue, bid, ask)
    assert venue.positions("c01") == []


def test_a_target_closes_the_position(venue: Venue) -> None:
    """A long position's target is met at the bid."""
    venue.place("c01", market(Side.BUY, "1", take_profit=D("105.0")))
    move(venue, "105.5", "106.0")
    assert venue.executions("c01")[-1].order.stop_kind is StopKind.TAKE_PROFIT


def test_a_conditional_order_waits_for_its_trigger(venue: Venue) -> None:
    """A buy stop enters when the ask has risen to it."""
    venue.place("c01", market(Side.BUY, "1", trigger_price=D("103.0"), trigger_direction=1, link_id="t"))
    move(venue, "102.0", "102.5")
    assert venue.positions("c01") == []
    move(venue, "103.0", "103.5")
    assert venue.positions("c01")[0].entry_price == D("103.5")


def test_netting_flips_with_one_average(venue: Venue) -> None:
    """The opposite side reduces first; the rest opens the other way at its own price."""
    venue.place("c01", market(Side.BUY, "1", stop_loss=D("95.0")))
    venue.place("c01", limit(Side.SELL, "2", "99.0", TimeInForce.IOC))
    position = venue.positions("c01")[0]
    assert (position.side, position.lots, position.entry_price) == (Side.SELL, D(1), D("99.5"))
    assert position.stop_loss is None


REFUSALS = [
    pytest.param(market(Side.BUY, "0.001"), 10001, "INVALID_VOLUME", id="too few lots"),
    pytest.param(market(Side.BUY, "0.015"), 10001, "INVALID_VOLUME", id="off the lot grid"),
    pytest.param(market(Side.BUY, "501"), 10001, "INVALID_VOLUME", id="above the market maximum"),
    pytest.param(market(Side.BUY, "0.04"), 110094, "INVALID_VOLUME", id="worth too little"),
    pytest.param(limit(Side.BUY, "1", "99.05"), 10001, "INVALID_PRICE", id="off the tick grid"),
    pytest.param(market(Side.BUY, "1", stop_loss=D("100.0")), 10001, "INVALID_STOPS", id="long stop at the bid"),
    pytest.param(market(Side.SELL, "1", stop_loss=D("100.0")), 10001, "INVALID_STOPS", id="short stop below"),
    pytest.param(market(Side.BUY, "1", take_profit=D("99.0")), 10001, "INVALID_STOPS", id="long target below"),
    pytest.param(market(Side.BUY, "1", reduce_only=True), 110017, "NO_POSITION", id="nothing to reduce"),
    pytest.param(limit(Side.BUY, "950", "120.0"), 110007, "INSUFFICIENT_MARGIN", id="no margin for it"),
    pytest.param(
        OrderTicket(symbol_id="XYZUSDT", side=Side.BUY, lots=D(1)), 10001, "UNKNOWN_SYMBOL", id="no such symbol"
    ),
]


@pytest.mark.parametrize(("ticket", "code", "word"), REFUSALS)
def test_refusals_change_nothing(venue: Venue, ticket: OrderTicket, code: int, word: str) -> None:
    """A refused order has Bybit's code, a stable word, and leaves no trace."""
    with pytest.raises(VenueRefused) as refusal:
        venue.place("c01", ticket)
    assert (refusal.value.code, refusal.value.word) == (code, word)
    assert venue.orders("c01") == []


def test_a_client_id_is_good_for_one_order(venue: Venue) -> None:
    """The second use of an id is refused even after the first order ended; another account may use it."""
    venue.place("c01", market(Side.BUY, "1", link_id="x"))
    with pytest.raises(VenueRefused) as refusal:
        venue.place("c01", market(Side.BUY, "1", link_id="x"))
    assert refusal.value.code == 110072
    assert venue.place("c02", market(Side.BUY, "1", link_id="x")).filled == 1


def test_a_suspended_symbol_refuses_and_its_stops_sleep(venue: Venue) -> None:
    """During a suspension nothing matches; the stop fires with the first price after it."""
    venue.place("c01", market(Side.BUY, "1", stop_loss=D("99.0")))
    venue.suspend("BTCUSDT", True)
    with pytest.raises(VenueRefused) as refusal:
        venue.place("c01", market(Side.BUY, "1"))
    assert refusal.value.word == "MARKET_CLOSED"
    move(venue, "90.0", "90.5")
    assert len(venue.positions("c01")) == 1
    venue.suspend("BTCUSDT", False)
    move(venue, "91.0", "91.5")
    assert venue.executions("c01")[-1].price == D("91.0")


def test_trading_stop_is_set_to_value(venue: Venue) -> None:
    """None keeps, 0 clears, no change is 34040, a wrong side is refused, a flat account has nothing to protect."""
    with pytest.raises(VenueRefused, match="zero position"):
        venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D("99.0"))
    venue.place("c01", market(Side.BUY, "1", stop_loss=D("95.0"), take_profit=D("110.0")))
    view = venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D("96.0"))
    assert (view.stop_loss, view.take_profit) == (D("96.0"), D("110.0"))
    with pytest.raises(VenueRefused) as refusal:
        venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D("96.0"))
    assert refusal.value.code == 34040
    with pytest.raises(VenueRefused, match="should be lower"):
        venue.set_trading_stop("c01", "BTCUSDT", stop_loss=D("100.0"))
    assert venue.set_trading_stop("c01", "BTCUSDT", take_profit=ZERO).take_profit is None


def test_amend_and_cancel(venue: Venue) -> None:
    """A working order can be changed and withdrawn once; afterwards it is unknown to both."""
    order = venue.place("c01", limit(Side.BUY, "1", "99.0", link_id="w"))
    assert venue.amend("c01", link_id="w", price=D("98.0"), lots=D("2")).price == D("98.0")
    assert venue.cancel("c01", order_id=order.order_id).cause is Cause.BY_USER
    with pytest.raises(VenueRefused, match="too late to cancel"):
        venue.cancel("c01", link_id="w")
    with pytest.raises(VenueRefused, match="too late to replace"):
        venue.amend("c01", link_id="w", price=D("97.0"))


def test_an_amended_order_across_the_touch_executes(venue: Venue) -> None:
    """Moving a resting buy above the ask takes liquidity at the ask."""
    venue.place("c01", limit(Side.BUY, "1", "99.0", link_id="w"))
    venue.amend("c01", link_id="w", price=D("101.0"))
    assert venue.executions("c01")[0].price == D("100.5")


def test_liquidation_takes_everything_at_the_touch(make_venue: Callable[..., Venue]) -> None:
    """At or below maintenance margin the venue cancels orders and closes positions as BustTrade."""
    venue = make_venue(D(100), D(50))
    venue.place("c01", limit(Side.BUY, "1", "50.0"))
    venue.place("c01", market(Side.BUY, "10"))
    move(venue, "93.0", "93.5")
    fill = venue.executions("c01")[-1]
    assert (fill.exec_type, fill.price, fill.lots) == (ExecType.BUST, D("93.0"), D(10))
    assert (venue.positions("c01"), venue.orders("c01", working=True)) == ([], [])


def test_events_come_in_the_order_things_happened(venue: Venue) -> None:
    """A fill is told as executions, position, order, wallet; a price first of all."""
    heard: list[VenueEvent] = []
    unsubscribe = venue.subscribe(heard.append)
    venue.place("c01", market(Side.BUY, "1.5", stop_loss=D("99.0")))
    kinds = [type(event) for event in heard]
    assert kinds == [Executed, Executed, PositionChanged, OrderChanged, WalletChanged]
    heard.clear()
    move(venue, "98.0", "98.5")
    assert [type(event) for event in heard] == [
        BookMoved,
        Executed,
        Executed,
        PositionChanged,
        OrderChanged,
        WalletChanged,
    ]
    unsubscribe()
    move(venue, "97.0", "97.5")
    assert len(heard) == 6


def test_transfers_move_the_balance_and_the_log(venue: Venue) -> None:
    """Deposits and withdrawals are ledger rows with their market time; more than is free cannot leave."""
    venue.deposit("c01", D(500), START_MS + 5)
    venue.withdraw("c01", D(200), START_MS + 6)
    assert [(row.kind, row.change, row.at_ms) for row in venue.ledger("c01")] == [
        ("TRANSFER_IN", D(500), START_MS + 5),
        ("TRANSFER_OUT", D(-200), START_MS + 6),
    ]
    assert venue.wallet("c01").balance == D(10_300)
    with pytest.raises(ValueError, match="at most 10300"):
        venue.withdraw("c01", D(10_301), START_MS + 7)


def test_the_same_calls_give_the_same_story(make_venue: Callable[..., Venue]) -> None:
    """Ids included: two venues of one seed cannot be told apart."""
    stories = []
    for _ in range(2):
        venue = make_venue()
        heard: list[VenueEvent] = []
        venue.subscribe(heard.append)
        venue.place("c01", market(Side.BUY, "1.5", stop_loss=D("99.0"), link_id="a"))
        move(venue, "98.0", "98.5")
        stories.append(heard)
    assert stories[0] == stories[1]


orders = st.builds(
    OrderTicket,
    symbol_id=st.just("BTCUSDT"),
    side=st.sampled_from([Side.BUY, Side.SELL]),
    lots=st.integers(6, 600).map(lambda n: D(n) / 100),
    price=st.sampled_from([None, D("99.0"), D("100.0"), D("101.5")]),
    time_in_force=st.sampled_from(list(TimeInForce)),
    reduce_only=st.booleans(),
)
steps = st.one_of(orders, st.integers(900, 1100).map(lambda n: D(n) / 10))


@settings(max_examples=60, deadline=None)
@given(story=st.lists(steps, max_size=25))
def test_money_and_inventory_are_conserved(
    make_venue: Callable[..., Venue], story: list[OrderTicket | Decimal]
) -> None:
    """Balance is start + deposits - cost of all fills - fees + entry value held; positions are the sum of fills."""
    venue = make_venue(D(1_000_000))
    for step in story:
        if isinstance(step, Decimal):
            venue.set_book("BTCUSDT", step, step + D("0.5"), venue.market_ms + 1000)
            continue
        before = venue.positions("c01", "BTCUSDT")[0]
        try:
            venue.place("c01", step)
        except VenueRefused:
            continue
        after = venue.positions("c01", "BTCUSDT")[0]
        if step.reduce_only:
            assert after.lots <= before.lots
            assert after.side in (None, before.side)
    fills = venue.executions("c01")
    held = sum((fill.side * fill.lots for fill in fills), ZERO)
    view = venue.positions("c01", "BTCUSDT")[0]
    assert held == view.lots * (view.side or 1)
    cost = sum((fill.side * fill.lots * fill.price for fill in fills), ZERO)
    fees = sum((fill.fee for fill in fills), ZERO)
    entry_value = held * view.mark - view.unrealised
    assert venue.wallet("c01").balance == D(1_000_000) - cost - fees + entry_value
    assert sum((row.change for row in venue.ledger("c01")), D(1_000_000)) == venue.wallet("c01").balance


@settings(max_examples=60, deadline=None)
@given(side=st.sampled_from([Side.BUY, Side.SELL]), lots=st.integers(6, 3000).map(lambda n: D(n) / 100))
def test_the_average_lies_between_touch_and_worst_level(
    make_venue: Callable[..., Venue], side: Side, lots: Decimal
) -> None:
    """Walking the depth never pays less than the touch nor more than the last level taken."""
    venue = make_venue(D(1_000_000))
    order = venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=side, lots=lots))
    prices = [fill.price for fill in venue.executions("c01")]
    touch = D("100.5") if side is Side.BUY else D("100.0")
    assert order.average_price is not None
    assert prices[0] == touch
    assert min(prices) <= order.average_price <= max(prices)
    assert (prices[-1] - touch) * side == (len(prices) - 1) * D("0.5")

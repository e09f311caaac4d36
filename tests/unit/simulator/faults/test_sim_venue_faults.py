"""What happens in the venue's core that no order asked for."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.holds import Hold
from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.records import ExecType, OrderStatus, OrderTicket, SimOrder, TimeInForce
from simulator.terms import SymbolState
from simulator.venue import Venue, VenueRefused
from srm_agent.domain.orders import FillKind, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import OrderRefused
from tests.unit.simulator.faults.conftest import BTC, POSITION, START, D, an_entry, an_exit, held, move


def order(side: Side = Side.BUY, lots: str = "1", **changes: object) -> OrderTicket:
    """A market order."""
    return OrderTicket(symbol_id="BTCUSDT", side=side, lots=D(lots), **changes)  # type: ignore[arg-type]


def terms(shop: Venue, **changes: object) -> None:
    """Other terms from now on."""
    shop.mischief.set_terms(replace(shop.instruments["BTCUSDT"], **changes))  # type: ignore[arg-type]


async def test_stops_too_near_are_refused(desk: InProcessBroker, quotes: InProcessFeed, shop: Venue) -> None:
    """Entries and changes within the stops level are INVALID_STOPS; the instrument says how far it must be (B9)."""
    terms(shop, stops_level=D("2.0"))
    assert (await quotes.instrument(BTC)).stops_distance == D("2.0")
    refused = await desk.submit(an_entry(stop_loss=D("99.1")))
    assert (refused.outcome, refused.code) == (Outcome.REJECTED, "INVALID_STOPS")
    assert (await desk.submit(an_entry(stop_loss=D("99.0")))).outcome is Outcome.FILLED
    with pytest.raises(OrderRefused, match=r"at least 2\.0 away"):
        await desk.protect(POSITION, BTC, D("98.1"), None)
    await desk.protect(POSITION, BTC, D("98.0"), None)


async def test_a_stop_that_the_market_is_near_to_is_frozen(desk: InProcessBroker, shop: Venue) -> None:
    """Neither moved nor removed within the freeze level; free again when the market has left (B9, 10029)."""
    await desk.submit(an_entry(stop_loss=D("99.0")))
    terms(shop, freeze_level=D("2.0"))
    for stop in (D("97.0"), D(0)):
        with pytest.raises(OrderRefused, match="frozen") as refused:
            await desk.protect(POSITION, BTC, stop, None)
        assert refused.value.code == "INVALID_STOPS"
    move(shop, "102.0")
    await desk.protect(POSITION, BTC, D("97.0"), None)


@pytest.mark.parametrize(
    ("state", "buy", "sell", "close"),
    [
        (SymbolState.TRADING, "", "", ""),
        (SymbolState.CLOSED, "MARKET_CLOSED", "MARKET_CLOSED", "MARKET_CLOSED"),
        (SymbolState.DISABLED, "MARKET_CLOSED", "MARKET_CLOSED", "MARKET_CLOSED"),
        (SymbolState.CLOSE_ONLY, "REDUCE_ONLY", "REDUCE_ONLY", ""),
        (SymbolState.LONG_ONLY, "", "NOT_PERMITTED", ""),
        (SymbolState.SHORT_ONLY, "NOT_PERMITTED", "", ""),
    ],
)
async def test_a_symbols_state_says_who_may_trade(
    desk: InProcessBroker, shop: Venue, state: SymbolState, buy: str, sell: str, close: str
) -> None:
    """Each side and the close are refused with their words, or pass (B12, B13)."""
    shop.place("c01", order(lots="3"))
    shop.set_state("BTCUSDT", state)
    told = [
        (await desk.submit(an_exit("x"))).code,
        (await desk.submit(an_entry("s", side=Side.SELL, lot=D(9), limit_price=D("99.0"), stop_loss=None))).code,
        (await desk.submit(an_entry("b", lot=D(9)))).code,
    ]
    assert told == [close, sell, buy]


async def test_only_an_open_symbol_is_tradable(quotes: InProcessFeed, shop: Venue) -> None:
    """The instrument says whether entries are possible at all."""
    tradable = []
    for state in SymbolState:
        shop.set_state("BTCUSDT", state)
        tradable.append((await quotes.instrument(BTC)).tradable)
    assert tradable == [True, False, False, False, True, True]


def test_stops_sleep_while_closed_and_work_while_disabled(shop: Venue) -> None:
    """A closed symbol is not matched; a disabled one only takes no orders (B12)."""
    shop.place("c01", order(stop_loss=D("95.0")))
    shop.set_state("BTCUSDT", SymbolState.CLOSED)
    move(shop, "90.0")
    assert held(shop) == 1
    shop.set_state("BTCUSDT", SymbolState.DISABLED)
    move(shop, "90.0")
    assert held(shop) == 0


def test_a_position_has_a_limit(shop: Venue) -> None:
    """What would exceed it is refused with LIMITS; reducing never is (B19)."""
    terms(shop, max_position=D(2))
    shop.place("c01", order(lots="2"))
    with pytest.raises(VenueRefused) as refused:
        shop.place("c01", order(lots="0.05"))
    assert refused.value.word == "LIMITS"
    shop.place("c01", order(Side.SELL, "1"))
    assert held(shop) == 1


async def test_a_gap_takes_the_stop_at_its_far_side_and_stays(desk: InProcessBroker, shop: Venue) -> None:
    """The stop fills where the price is then, and later prices of the world are shifted as well (B21, F23)."""
    await desk.submit(an_entry())
    shop.mischief.gap("BTCUSDT", D("-0.1"))
    stop = (await desk.fills(START))[-1]
    assert (stop.kind, stop.price) == (FillKind.STOP_LOSS, D("90.0"))
    move(shop, "110.0")
    assert shop.touch("BTCUSDT").bid == D("99.0")
    shop.mischief.gap("BTCUSDT", D("0.5"))
    assert shop.touch("BTCUSDT").bid == D("148.5")
    with pytest.raises(ValueError, match="above -1"):
        shop.mischief.gap("BTCUSDT", D(-1))


def test_a_gap_never_crosses_the_book(shop: Venue) -> None:
    """However far it falls, bid stays positive, below ask and on the grid."""
    shop.mischief.gap("BTCUSDT", D("-0.9999"))
    touch = shop.touch("BTCUSDT")
    assert (touch.bid, touch.ask) == (D("0.1"), D("0.2"))


async def test_terms_change_while_the_contract_is_traded(
    desk: InProcessBroker, quotes: InProcessFeed, shop: Venue
) -> None:
    """The next order meets the new terms, and the instrument tells them (B29)."""
    await desk.submit(an_entry())
    terms(shop, lot_step=D("0.5"), lot_min=D("2"), tick_size=D("0.05"))
    instrument = await quotes.instrument(BTC)
    assert (instrument.lot_step, instrument.lot_min, instrument.tick_size) == (D("0.5"), D(2), D("0.05"))
    assert (await desk.submit(an_entry("b", lot=D("1.5")))).code == "INVALID_VOLUME"
    assert (await desk.submit(an_entry("c", lot=D("2"), stop_loss=D("95.05")))).outcome is Outcome.FILLED
    assert shop.mischief.original_terms("BTCUSDT").lot_step == D("0.01")
    with pytest.raises(ValueError, match=r"new tick 0\.3"):
        terms(shop, tick_size=D("0.3"))


async def test_a_whole_position_may_always_be_closed(desk: InProcessBroker, shop: Venue) -> None:
    """Below the new smallest lot: an entry and a part are refused, the whole is not (INV-10)."""
    await desk.submit(an_entry())
    terms(shop, lot_min=D(2))
    assert (await desk.submit(an_exit("part", "0.5"))).code == "INVALID_VOLUME"
    assert (await desk.submit(an_exit("whole"))).outcome is Outcome.FILLED
    assert held(shop) == 0


async def test_hands_of_others_move_and_remove_stops(desk: InProcessBroker, shop: Venue) -> None:
    """Unchecked, even to the wrong side, and read back as it is (B11)."""
    await desk.submit(an_entry())
    for stop in (D("90.0"), None):
        shop.mischief.tamper("c01", "BTCUSDT", stop_loss=stop, take_profit=None)
        assert [position.stop_loss for position in await desk.positions()] == [stop]


async def test_the_broker_may_close_everything(desk: InProcessBroker, shop: Venue) -> None:
    """A stop-out withdraws what works and takes all positions, told as LIQUIDATION (B32)."""
    await desk.submit(an_entry())
    resting = shop.place("c01", order(price=D("90.0"), time_in_force=TimeInForce.GTC))
    shop.mischief.stop_out("c01")
    assert held(shop) == 0
    last = shop.order("c01", order_id=resting.order_id)
    assert last is not None
    assert last.status is OrderStatus.CANCELLED
    assert (await desk.fills(START))[-1].kind is FillKind.LIQUIDATION
    assert shop.executions("c01")[-1].exec_type is ExecType.BUST


@pytest.mark.parametrize(
    ("kind", "amount", "told"),
    [
        ("SETTLEMENT", "-3", "funding"),
        ("BONUS", "50", "other"),
        ("DIVIDEND", "7", "other"),
        ("TRANSFER_IN", "9", "deposit"),
    ],
)
async def test_money_moves_without_a_trade(
    desk: InProcessBroker, shop: Venue, kind: str, amount: str, told: str
) -> None:
    """Swap, bonus, dividend and deposit are in the balance and in the cash flows, each under its kind (B31)."""
    shop.mischief.book_cash("c01", kind, D(amount), shop.market_ms)
    flows = await desk.cash_flows(START)
    assert [(flow.kind, flow.amount) for flow in flows] == [(told, D(amount))]
    assert (await desk.account()).balance == 10_000 + D(amount)


# ---- orders that the venue sits on -----------------------------------------------------------------------------------


def test_a_stop_may_close_a_part_only(shop: Venue) -> None:
    """The rest stays protected and goes with the next price (B8 of stops, F11)."""
    shop.place("c01", order(stop_loss=D("95.0")))
    shop.mischief.hold_next("c01", Hold(fraction=D("0.4"), stops=True))
    move(shop, "94.0")
    assert (held(shop), shop.positions("c01")[0].stop_loss) == (D("0.6"), D("95.0"))
    move(shop, "93.0")
    assert held(shop) == 0


def test_a_plan_concerns_its_kind_of_order_only(shop: Venue) -> None:
    """One for exits leaves entries alone, one for stops leaves orders alone, each is used once."""
    shop.mischief.hold_next("c01", Hold(fraction=D("0.5"), stops=True))
    shop.mischief.hold_next("c01", Hold(fraction=D("0.5"), reduce_only=True))
    shop.place("c01", order(lots="2"))
    assert held(shop) == 2
    shop.place("c01", order(Side.SELL, "1", reduce_only=True))
    assert held(shop) == D("1.5")
    shop.place("c01", order(Side.SELL, "1", reduce_only=True))
    assert held(shop) == D("0.5")
    shop.mischief.hold_next("c01", Hold(fraction=D(0)))
    shop.mischief.calm()
    shop.place("c01", order())
    assert held(shop) == D("1.5")


def test_a_held_order_meets_no_price_until_it_is_released(shop: Venue) -> None:
    """Prices that it would accept pass by; then it is executed as far as its limit allows, or withdrawn."""
    kept: list[SimOrder] = []
    shop.mischief.hold_next("c01", Hold(fraction=D(0), on_held=kept.append))
    shop.place("c01", order(price=D("101.0")))
    move(shop, "99.0")
    assert held(shop) == 0
    assert shop.mischief.release("c01", kept[0].order_id)
    assert held(shop) == 1
    shop.mischief.hold_next("c01", Hold(fraction=D(0), on_held=kept.append))
    shop.place("c01", order(price=D("101.0")))
    move(shop, "150.0")
    assert shop.mischief.release("c01", kept[1].order_id)
    assert shop.mischief.release("c01", kept[1].order_id)
    assert [shop.orders("c01")[-1].status, held(shop)] == [OrderStatus.CANCELLED, 1]


@pytest.mark.parametrize("fraction", ["-0.1", "1", "2"])
def test_a_plan_for_more_than_the_order_is_refused(shop: Venue, fraction: str) -> None:
    """The fraction is at least 0 and below 1."""
    with pytest.raises(ValueError, match="fraction"):
        shop.mischief.hold_next("c01", Hold(fraction=Decimal(fraction)))

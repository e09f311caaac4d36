"""Rows of the venue into domain values: exact, and nothing guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ccxt_venue import parse
from adapters.ccxt_venue.rows import BadRow, as_number, from_ms, to_ms
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill, FillKind, OrderReport, Outcome
from srm_agent.domain.units import Side

Row = dict[str, object]

EXECUTION: Row = {
    "category": "linear", "symbol": "BTCUSDT", "execId": "e1", "execPrice": "60000.1", "execQty": "0.003",
    "execFee": "0.0990001", "execType": "Trade", "orderId": "o1", "orderLinkId": "srm1abc", "side": "Buy",
    "stopOrderType": "UNKNOWN", "execTime": "1700000000123",
}  # fmt: skip
ORDER: Row = {
    "symbol": "BTCUSDT", "orderId": "o1", "orderLinkId": "srm1abc", "side": "Buy", "orderType": "Limit",
    "timeInForce": "IOC", "orderStatus": "Filled", "avgPrice": "60000.1", "cumExecQty": "0.003",
    "rejectReason": "EC_NoError", "reduceOnly": False, "stopOrderType": "",
}  # fmt: skip
POSITION: Row = {
    "symbol": "BTCUSDT", "side": "Sell", "size": "0.003", "avgPrice": "60000.1", "positionIdx": 0,
    "stopLoss": "61000.5", "takeProfit": "", "createdTime": "1700000000123", "seq": 7,
}  # fmt: skip
WALLET: Row = {
    "accountType": "UNIFIED", "totalEquity": "10000.123456789", "totalWalletBalance": "10001",
    "totalInitialMargin": "12.5", "totalAvailableBalance": "9987.6",
}  # fmt: skip
FLOW: Row = {
    "id": "f1", "type": "TRANSFER_IN", "change": "250.5", "currency": "USDT", "transactionTime": "1700000000123",
}  # fmt: skip
MARKET: Row = {
    "symbol": "EUR/USDT:USDT", "base": "EUR", "quote": "USDT", "settle": "USDT", "contractSize": 1.0, "active": True,
    "info": {
        "status": "Trading", "priceFilter": {"tickSize": "0.00001"}, "leverageFilter": {"maxLeverage": "50.00"},
        "lotSizeFilter": {
            "minOrderQty": "10", "maxOrderQty": "1000000", "maxMktOrderQty": "500000", "qtyStep": "10",
            "minNotionalValue": "5",
        },
    },
}  # fmt: skip
TICKER: Row = {"bid": 60000.1, "ask": 60000.2, "bidVolume": 1.5, "askVolume": 2.0, "timestamp": 1700000000123}

AT = datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def symbol_of(market_id: str) -> Symbol:
    """The one symbol known here."""
    return Symbol("BTC/USDT:USDT") if market_id == "BTCUSDT" else Symbol(market_id)


def an_instrument(row: Mapping[str, object]) -> object:
    """Terms without any settings."""
    return parse.parse_instrument(row, {}, {})


PARSERS: dict[str, tuple[Row, Callable[[Row], object]]] = {
    "fill": (EXECUTION, lambda row: parse.parse_fill(row, symbol_of, "USDT", 1.0)),
    "order": (ORDER, lambda row: parse.parse_order(row, symbol_of, 1.0)),
    "position": (POSITION, lambda row: parse.parse_position(row, symbol_of)),
    "wallet": (WALLET, lambda row: parse.parse_wallet(row, "USDT", AT, 1.0)),
    "flow": (FLOW, parse.parse_flow),
    "market": (MARKET, an_instrument),
    "ticker": (TICKER, lambda row: parse.parse_quote(row, Symbol("BTC/USDT:USDT"), 1.0)),
}

rubbish = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=3),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["", "NaN", "Infinity", "-1", "0", "1e400", "1E+999999", "١٢", "1_000", "0x10", " 1 ", "Buy",
                     "Sell", "9" * 300, "Filled", "Cancelled"]),
)  # fmt: skip


def sound(value: object) -> bool:
    """What must hold of any value that a parser lets through."""
    match value:
        case Fill():
            return value.lot > 0 and value.price > 0 and value.fee.is_finite() and bool(value.fill_id)
        case OrderReport():
            executed = value.filled_lot > 0
            return executed == (value.outcome is Outcome.FILLED) or value.outcome is Outcome.WORKING
        case BrokerPosition():
            return value.lot == 0 or (value.lot > 0 and value.entry_price > 0)
        case AccountSnapshot():
            return value.balance.is_finite() and (value.equity is None or value.equity.is_finite())
        case CashFlow():
            return value.amount.is_finite() and bool(value.flow_id)
        case Instrument():
            return min(value.tick_size, value.lot_min, value.lot_max, value.lot_step, value.contract_size) > 0
        case Quote():
            return value.bid > 0 and value.ask > 0
        case _:
            return False


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_mangled_row_ends_in_a_value_or_a_bad_row(name: str, data: st.DataObject) -> None:
    """Whatever stands in any field, or is missing: a domain value, None, or the one documented error."""
    row, read = PARSERS[name]
    mangled = dict(row)
    for field in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=3, unique=True)):
        if data.draw(st.booleans()):
            del mangled[field]
        else:
            mangled[field] = data.draw(rubbish)
    try:
        value = read(mangled)
    except BadRow:
        return
    assert value is None or sound(value)


@given(st.one_of(rubbish, st.lists(rubbish, max_size=6)))
def test_mangled_candle_ends_in_a_bar_or_a_bad_row(candle: object) -> None:
    """A candle of any shape is a bar with positive prices or the documented error."""
    try:
        bar = parse.parse_bar(candle)
    except BadRow:
        return
    assert min(bar.open, bar.high, bar.low, bar.close) > 0


@given(st.decimals(min_value="1e-8", max_value="1e8", allow_nan=False, allow_infinity=False, places=8))
def test_numbers_are_exactly_what_the_venue_wrote(value: Decimal) -> None:
    """A text becomes the same number, digit for digit."""
    assert as_number(f"{value:f}", "x") == value


@given(st.integers(min_value=1, max_value=10**13), st.integers(min_value=0, max_value=6))
def test_floats_give_back_the_written_digits(units: int, places: int) -> None:
    """A price that the library turned into a float is restored by its shortest repr, up to 15 digits."""
    written = Decimal(units).scaleb(-places)
    assert as_number(float(written), "x") == written


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))
def test_times_survive_the_way_to_the_venue_and_back(naive: datetime) -> None:
    """To milliseconds rounds down, so that a query from a time never starts after it."""
    at = naive.replace(tzinfo=UTC)
    back = from_ms(to_ms(at), "x")
    assert back <= at
    assert (at - back).total_seconds() < 0.001


def test_execution_becomes_a_fill() -> None:
    """Every field of an execution is taken over exactly."""
    fill = parse.parse_fill(EXECUTION, symbol_of, "USDT", 5.0)
    assert fill is not None
    assert (fill.fill_id, fill.client_id, fill.broker_order_id) == ("e1", "srm1abc", "o1")
    assert (fill.side, fill.lot, fill.price, fill.fee) == (
        Side.BUY, Decimal("0.003"), Decimal("60000.1"), Decimal("0.0990001"),
    )  # fmt: skip
    assert (fill.kind, fill.at, fill.fee_currency) == (FillKind.ORDER, AT, "USDT")


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"stopOrderType": "StopLoss", "orderLinkId": ""}, FillKind.STOP_LOSS),
        ({"stopOrderType": "PartialStopLoss"}, FillKind.STOP_LOSS),
        ({"stopOrderType": "TrailingStop"}, FillKind.STOP_LOSS),
        ({"stopOrderType": "TakeProfit"}, FillKind.TAKE_PROFIT),
        ({"execType": "BustTrade"}, FillKind.LIQUIDATION),
        ({"execType": "AdlTrade"}, FillKind.LIQUIDATION),
        ({"execType": "SomethingNew"}, FillKind.ORDER),
    ],
)
def test_kinds_of_fills(changes: Row, kind: FillKind) -> None:
    """Stops, targets and liquidations are told apart; an unknown kind of execution is never hidden."""
    fill = parse.parse_fill(EXECUTION | changes, symbol_of, "USDT", 5.0)
    assert fill is not None
    assert fill.kind is kind


def test_funding_is_no_fill() -> None:
    """Rows of the execution list that move no volume are left out."""
    assert parse.parse_fill(EXECUTION | {"execType": "Funding"}, symbol_of, "USDT", 5.0) is None


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({}, Outcome.FILLED, ""),
        ({"orderStatus": "PartiallyFilledCanceled"}, Outcome.FILLED, ""),
        ({"orderStatus": "Cancelled"}, Outcome.FILLED, ""),
        ({"orderStatus": "Cancelled", "cumExecQty": "0"}, Outcome.REJECTED, "MISSED_PRICE"),
        ({"orderStatus": "Rejected", "cumExecQty": "0", "rejectReason": "EC_NoImmediateQtyToFill"},
         Outcome.REJECTED, "MISSED_PRICE"),
        ({"orderStatus": "Cancelled", "cumExecQty": "0", "orderType": "Market", "reduceOnly": True},
         Outcome.REJECTED, "NO_POSITION"),
        ({"orderStatus": "Cancelled", "cumExecQty": "", "timeInForce": "GTC"}, Outcome.REJECTED, "CANCELLED"),
        ({"orderStatus": "Rejected", "cumExecQty": "0", "timeInForce": "GTC"}, Outcome.REJECTED, "REJECTED"),
        ({"orderStatus": "New", "cumExecQty": "0"}, Outcome.WORKING, ""),
        ({"orderStatus": "PartiallyFilled"}, Outcome.WORKING, ""),
        ({"orderStatus": "Untriggered", "cumExecQty": "0"}, Outcome.WORKING, ""),
    ],
)  # fmt: skip
def test_orders_mean(changes: Row, outcome: Outcome, code: str) -> None:
    """Something executed is FILLED whatever came after; a finished order with nothing executed has its reason."""
    report = parse.parse_order(ORDER | changes, symbol_of, 5.0)
    assert (report.outcome, report.code) == (outcome, code)
    assert report.symbol == "BTC/USDT:USDT"


def test_unknown_status_is_not_guessed() -> None:
    """A status that is not known is an error, not a terminal state."""
    with pytest.raises(BadRow, match="orderStatus"):
        parse.parse_order(ORDER | {"orderStatus": "Hibernating"}, symbol_of, 5.0)


def test_order_of_somebody_else_carries_the_venues_id() -> None:
    """Without our id the venue's order id names it."""
    assert parse.parse_order(ORDER | {"orderLinkId": ""}, symbol_of, 5.0).client_id == "o1"


def test_position_and_its_end() -> None:
    """An open position has its stop; size 0 says that it is gone; an open one without entry price is an error."""
    open_position = parse.parse_position(POSITION, symbol_of)
    assert (open_position.ref, open_position.side) == ("BTC/USDT:USDT|0", Side.SELL)
    assert (open_position.stop_loss, open_position.take_profit) == (Decimal("61000.5"), None)
    gone = parse.parse_position(POSITION | {"size": "0", "side": "", "avgPrice": "0"}, symbol_of)
    assert gone.lot == 0
    with pytest.raises(BadRow):
        parse.parse_position(POSITION | {"avgPrice": "0"}, symbol_of)


def test_unknown_market_is_not_hidden() -> None:
    """A position in a symbol we do not know is reported under the venue's id (INV-7)."""
    assert parse.parse_position(POSITION | {"symbol": "NEWUSDT"}, symbol_of).symbol == "NEWUSDT"


def test_missing_equity_stays_unknown() -> None:
    """Equity the venue does not say is None, never computed or zero."""
    snapshot = parse.parse_wallet(WALLET | {"totalEquity": ""}, "USDT", AT, 1.0)
    assert snapshot.equity is None
    assert snapshot.balance == 10001


@pytest.mark.parametrize(
    ("kind", "word"),
    [("TRANSFER_IN", "deposit"), ("TRANSFER_OUT", "withdrawal"), ("SETTLEMENT", "funding"), ("BONUS", "other")],
)
def test_flows_by_kind(kind: str, word: str) -> None:
    """Deposits, withdrawals, funding and the rest; the money side of trades is known as fills."""
    flow = parse.parse_flow(FLOW | {"type": kind})
    assert flow is not None
    assert (flow.kind, flow.amount) == (word, Decimal("250.5"))
    assert parse.parse_flow(FLOW | {"type": "TRADE"}) is None


def test_instrument_terms() -> None:
    """Terms are exact; the pip comes from the class and the settings, the largest lot is that of an exit."""
    symbol = Symbol("EUR/USDT:USDT")
    terms = parse.parse_instrument(MARKET, {symbol: AssetClass.FX}, {})
    assert (terms.tick_size, terms.lot_step, terms.lot_max) == (Decimal("0.00001"), Decimal(10), Decimal(500000))
    assert terms.pip_size == Decimal("0.0001")
    assert terms.tradable
    assert parse.parse_instrument(MARKET, {}, {}).pip_size is None
    assert parse.parse_instrument(MARKET, {}, {symbol: Decimal("0.01")}).pip_size == Decimal("0.01")


def test_one_sided_book_is_no_quote() -> None:
    """Without a bid or an ask there is no touch to trade at."""
    assert parse.parse_quote(TICKER | {"bid": None}, Symbol("X"), 1.0) is None
    with pytest.raises(BadRow):
        parse.parse_book({"bids": [], "asks": [[1.0, 2.0]], "timestamp": 1700000000123}, Symbol("X"), 1.0)

"""Bybit V5 rows into domain values (pure). Every row ends in a value, in None where documented, or in BadRow.

Field names: bybit-exchange.github.io/docs/v5 (order/open-order, order/execution, position, account/wallet-balance,
account/transaction-log). REST and streams carry the same rows but for `avgPrice`, which a position stream calls
`entryPrice`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from adapters.ccxt_venue.rows import (
    BadRow,
    Row,
    as_number,
    as_row,
    from_ms,
    instant,
    number,
    optional_instant,
    optional_number,
    optional_text,
    positive,
    price_or_none,
    text,
)
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.ids import ClientOrderId, FillId, PositionRef, Symbol
from srm_agent.domain.instrument import AssetClass, Instrument, standard_pip
from srm_agent.domain.market import Bar, Quote
from srm_agent.domain.orders import BrokerPosition, Fill, FillKind, OrderReport, Outcome
from srm_agent.domain.units import ONE, ZERO, Side

SymbolOf = Callable[[str], Symbol]
"""The venue's id (`BTCUSDT`) to our symbol; an id it does not know stays as it is, so that nothing is hidden."""

PROTECTIVE = frozenset({"StopLoss", "TakeProfit", "TrailingStop", "PartialStopLoss", "PartialTakeProfit"})
"""`stopOrderType` of the orders that stand for a position's own stop and target: no working orders of anybody."""
_STOPS = frozenset({"StopLoss", "PartialStopLoss", "TrailingStop"})
_TARGETS = frozenset({"TakeProfit", "PartialTakeProfit"})

_FORCED = frozenset({"BustTrade", "AdlTrade", "Delivery"})
_NO_FILLS = frozenset({"Funding", "Settle", "SessionSettlePnL"})
"""`execType` of rows in the execution list that move money but no volume."""

_WORKING = frozenset({"Created", "New", "PartiallyFilled", "PendingCancel", "Untriggered", "Triggered", "Active"})
_FINISHED = frozenset({"Filled", "PartiallyFilledCanceled", "Cancelled", "Deactivated", "Rejected"})

_REASONS: Mapping[str, str] = {
    "EC_NoEnoughQtyToFill": "MISSED_PRICE",
    "EC_NoImmediateQtyToFill": "MISSED_PRICE",
    "EC_ReduceOnly": "NO_POSITION",
    "EC_LiquidationOrderWaitingToBeTriggered": "POSITION_STATUS",
    "EC_CancelByReduceOnly": "NO_POSITION",
    "EC_CancelForNoFullFill": "MISSED_PRICE",
    "EC_CancelByCrossMM": "INSUFFICIENT_MARGIN",
    "EC_CancelByOrderValueZero": "INVALID_VOLUME",
    "EC_PostOnlyWillTakeLiquidity": "MISSED_PRICE",
}


def parse_side(row: Row, field: str = "side") -> Side:
    """`Buy` or `Sell`. Raises BadRow."""
    match row.get(field):
        case "Buy":
            return Side.BUY
        case "Sell":
            return Side.SELL
        case other:
            raise BadRow(f"{field} must be Buy or Sell, was {other!r:.80}")


def parse_instrument(
    market: Row, asset_classes: Mapping[Symbol, AssetClass], pip_sizes: Mapping[Symbol, Decimal]
) -> Instrument:
    """Terms from a market as ccxt holds it, exact from the venue's own row (`info`). Raises BadRow.

    `lot_max` is the smaller of the limit-order and the market-order maximum, so that an exit never needs two orders.
    """
    info = as_row(market.get("info"), "info")
    symbol = Symbol(text(market, "symbol"))
    asset_class = asset_classes.get(symbol, AssetClass.CRYPTO)
    base, quote = text(market, "base"), text(market, "quote")
    lots = as_row(info.get("lotSizeFilter"), "lotSizeFilter")
    prices = as_row(info.get("priceFilter"), "priceFilter")
    leverage = as_row(info.get("leverageFilter", {}), "leverageFilter")
    lot_max = positive(lots, "maxOrderQty")
    market_max = optional_number(lots, "maxMktOrderQty")
    return Instrument(
        symbol=symbol,
        asset_class=asset_class,
        base_currency=base,
        quote_currency=quote,
        settle_currency=text(market, "settle"),
        tick_size=positive(prices, "tickSize"),
        pip_size=pip_sizes.get(symbol) or standard_pip(asset_class, base, quote),
        lot_min=positive(lots, "minOrderQty"),
        lot_max=lot_max if not market_max else min(lot_max, market_max),
        lot_step=positive(lots, "qtyStep"),
        contract_size=positive(market, "contractSize"),
        min_notional=optional_number(lots, "minNotionalValue") or ZERO,
        max_leverage=optional_number(leverage, "maxLeverage") or ONE,
        tradable=market.get("active") is True and info.get("status") == "Trading",
    )


def parse_quote(ticker: Row, symbol: Symbol, received: float) -> Quote | None:
    """Best bid and ask of a unified ticker (`bid`, `ask`, `timestamp`); None while the book is one-sided.

    Raises BadRow. Crossed or stale quotes are the market room's business, not dropped here.
    """
    bid, ask = price_or_none(ticker, "bid"), price_or_none(ticker, "ask")
    if bid is None or ask is None:
        return None
    return Quote(
        symbol=symbol,
        bid=bid,
        ask=ask,
        at=instant(ticker, "timestamp"),
        received=received,
        bid_size=optional_number(ticker, "bidVolume"),
        ask_size=optional_number(ticker, "askVolume"),
    )


def parse_book(book: Row, symbol: Symbol, received: float) -> Quote:
    """The touch of an order book read (`bids`, `asks`, `timestamp`). Raises BadRow when one side is empty."""
    levels: dict[str, object] = {"timestamp": book.get("timestamp")}
    for side, price, size in (("bids", "bid", "bidVolume"), ("asks", "ask", "askVolume")):
        rows = book.get(side)
        if not isinstance(rows, Sequence) or not rows or not isinstance(rows[0], Sequence) or len(rows[0]) < 2:
            raise BadRow(f"{side} must hold a price and a size, was {rows!r:.80}")
        levels[price], levels[size] = rows[0][0], rows[0][1]
    quote = parse_quote(levels, symbol, received)
    if quote is None:
        raise BadRow(f"book of {symbol} has no touch")
    return quote


def parse_bar(candle: object) -> Bar:
    """A candle `[start ms, open, high, low, close, ...]`; floats, for indicators only. Raises BadRow."""
    if not isinstance(candle, Sequence) or isinstance(candle, str) or len(candle) < 5:
        raise BadRow(f"candle must be a list of at least 5 numbers, was {candle!r:.80}")
    start = from_ms(as_number(candle[0], "start"), "start")
    prices = [as_number(candle[index], name) for index, name in ((1, "open"), (2, "high"), (3, "low"), (4, "close"))]
    if min(prices) <= ZERO:
        raise BadRow(f"prices of a candle must be positive, was {candle!r:.80}")
    return Bar(start, *(float(price) for price in prices))


def parse_fill(row: Row, symbol_of: SymbolOf, settle_currency: str, received: float) -> Fill | None:
    """One execution; None for rows that move no volume (funding, session settlement). Raises BadRow.

    Liquidation, auto-deleveraging and delivery are kind LIQUIDATION: the venue closed the position, not we.
    """
    exec_type = optional_text(row, "execType") or "Trade"
    if exec_type in _NO_FILLS:
        return None
    stop_type = optional_text(row, "stopOrderType") or ""
    kind = FillKind.ORDER
    if exec_type in _FORCED:
        kind = FillKind.LIQUIDATION
    elif stop_type in _STOPS:
        kind = FillKind.STOP_LOSS
    elif stop_type in _TARGETS:
        kind = FillKind.TAKE_PROFIT
    link = optional_text(row, "orderLinkId")
    return Fill(
        fill_id=FillId(text(row, "execId")),
        client_id=None if link is None else ClientOrderId(link),
        broker_order_id=optional_text(row, "orderId") or "",
        symbol=symbol_of(text(row, "symbol")),
        side=parse_side(row),
        lot=positive(row, "execQty"),
        price=positive(row, "execPrice"),
        fee=optional_number(row, "execFee") or ZERO,
        fee_currency=optional_text(row, "feeCurrency") or optional_text(row, "feeCoin") or settle_currency,
        kind=kind,
        at=instant(row, "execTime"),
        received=received,
    )


def parse_order(row: Row, symbol_of: SymbolOf, received: float, fills: Sequence[Fill] = ()) -> OrderReport:
    """An order as the venue lists it. Raises BadRow, also for a status that is not known.

    An order without our id carries the venue's own as client id. Something executed is FILLED, even if cancelled
    afterwards; a finished order with nothing executed is REJECTED (an immediate-or-cancel limit: MISSED_PRICE).
    """
    order_id = text(row, "orderId")
    status = text(row, "orderStatus")
    if status not in _WORKING and status not in _FINISHED:
        raise BadRow(f"orderStatus is not known, was {status!r:.80}")
    filled = optional_number(row, "cumExecQty") or ZERO
    if filled < ZERO:
        raise BadRow(f"cumExecQty must not be negative, was {filled}")
    outcome = Outcome.WORKING
    code = ""
    if status in _FINISHED:
        if status == "Filled" and filled == ZERO:
            raise BadRow("cumExecQty must be positive for a filled order, was 0")
        outcome = Outcome.FILLED if filled > ZERO else Outcome.REJECTED
        code = "" if filled > ZERO else _finished_code(row, status)
    return OrderReport(
        client_id=ClientOrderId(optional_text(row, "orderLinkId") or order_id),
        outcome=outcome,
        symbol=symbol_of(text(row, "symbol")),
        broker_order_id=order_id,
        filled_lot=filled,
        average_price=price_or_none(row, "avgPrice") if filled > ZERO else None,
        code=code,
        detail=status if code else "",
        fills=tuple(fills),
        received=received,
    )


def _finished_code(row: Row, status: str) -> str:
    reason = optional_text(row, "rejectReason") or ""
    if reason in _REASONS:
        return _REASONS[reason]
    immediate = row.get("timeInForce") == "IOC"
    if row.get("reduceOnly") is True and (immediate or row.get("orderType") == "Market"):
        # A market exit always meets the book; it ends unfilled where there was nothing left to close.
        return "NO_POSITION" if row.get("orderType") == "Market" else "MISSED_PRICE"
    if immediate:
        return "MISSED_PRICE"
    return "REJECTED" if status == "Rejected" else "CANCELLED"


def is_protective(row: Row) -> bool:
    """True for the venue's own order behind a position's stop or target."""
    return row.get("stopOrderType") in PROTECTIVE


def position_ref(symbol: Symbol, index: int) -> PositionRef:
    """`symbol|positionIdx`: stable as long as the account's mode is."""
    return PositionRef(f"{symbol}|{index}")


def parse_position(row: Row, symbol_of: SymbolOf) -> BrokerPosition:
    """A position; size 0 says that it is gone (entry price then 0, side BUY without meaning). Raises BadRow.

    `opened_at` is the venue's `createdTime`, which may be the first time the symbol was ever held.
    """
    symbol = symbol_of(text(row, "symbol"))
    lot = number(row, "size")
    if lot < ZERO:
        raise BadRow(f"size must not be negative, was {lot}")
    gone = lot == ZERO
    entry = price_or_none(row, "avgPrice") or price_or_none(row, "entryPrice")
    if entry is None and not gone:
        raise BadRow("avgPrice must be positive for an open position, was empty or 0")
    return BrokerPosition(
        ref=position_ref(symbol, position_index(row)),
        symbol=symbol,
        side=Side.BUY if gone else parse_side(row),
        lot=lot,
        entry_price=entry or ZERO,
        stop_loss=price_or_none(row, "stopLoss"),
        take_profit=price_or_none(row, "takeProfit"),
        opened_at=optional_instant(row, "createdTime"),
    )


def position_index(row: Row) -> int:
    """0 in one-way mode, 1 and 2 in hedge mode. Raises BadRow."""
    index = optional_number(row, "positionIdx")
    if index is None:
        return 0
    if index not in (0, 1, 2):
        raise BadRow(f"positionIdx must be 0, 1 or 2, was {index}")
    return int(index)


def parse_wallet(row: Row, currency: str, at: datetime, received: float) -> AccountSnapshot:
    """A unified account's totals. Raises BadRow.

    The venue states totals in US dollars with its stablecoins at index price; `currency` names them in the settle
    currency, which is exact for an account that holds only that coin. `equity` is the venue's own `totalEquity`.
    """
    return AccountSnapshot(
        currency=currency,
        balance=number(row, "totalWalletBalance"),
        equity=optional_number(row, "totalEquity"),
        margin_used=optional_number(row, "totalInitialMargin") or ZERO,
        margin_free=optional_number(row, "totalAvailableBalance") or ZERO,
        at=at,
        received=received,
    )


_FLOW_KINDS: Mapping[str, str] = {
    "TRANSFER_IN": "deposit",
    "DEPOSIT": "deposit",
    "TRANSFER_OUT": "withdrawal",
    "WITHDRAW": "withdrawal",
    "SETTLEMENT": "funding",
}
_TRADES = frozenset({"TRADE", "DELIVERY", "LIQUIDATION", "ADL"})
"""Types that are the money side of executions: known as fills already."""


def parse_flow(row: Row) -> CashFlow | None:
    """One line of the transaction log; None for the money side of trades. Raises BadRow.

    `amount` is the venue's `change`, positive into the account.
    """
    kind = text(row, "type")
    if kind in _TRADES:
        return None
    return CashFlow(
        flow_id=text(row, "id"),
        kind=_FLOW_KINDS.get(kind, "other"),
        amount=number(row, "change"),
        currency=text(row, "currency"),
        at=instant(row, "transactionTime"),
    )

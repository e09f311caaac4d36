"""The venue's records in Bybit V5's words. Pure. Data times are market milliseconds, numbers are text.

Fields: https://bybit-exchange.github.io/docs/v5/ (pages order, position, execution, wallet, instrument).
"""

from __future__ import annotations

from decimal import Decimal

from simulator.klines import Kline
from simulator.records import (
    BookMoved,
    Execution,
    LedgerRow,
    PositionView,
    SimOrder,
    StopKind,
    Wallet,
)
from simulator.terms import SimInstrument
from srm_agent.domain.units import Side, plain

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Row = dict[str, Json]


def text(value: Decimal | None) -> str:
    """A number as Bybit writes it: plain, empty when there is none."""
    return "" if value is None else plain(value)


def rounded(value: Decimal) -> str:
    """A quotient (average, margin) to at most 12 decimals."""
    return plain(value.quantize(Decimal("1e-12")))


def side_word(side: Side | None) -> str:
    """`Buy`, `Sell`, or empty for a flat position."""
    if side is None:
        return ""
    return "Buy" if side is Side.BUY else "Sell"


def instrument_row(terms: SimInstrument, *, suspended: bool) -> Row:
    """Of market/instruments-info."""
    return {
        "symbol": terms.symbol_id,
        "contractType": "LinearPerpetual",
        "status": "Closed" if suspended else "Trading",
        "baseCoin": terms.base,
        "quoteCoin": terms.quote,
        "settleCoin": terms.quote,
        "launchTime": "1585526400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(max(0, -int(terms.tick_size.normalize().as_tuple().exponent))),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": text(terms.max_leverage), "leverageStep": "0.01"},
        "priceFilter": {
            "minPrice": text(terms.tick_size),
            "maxPrice": "1999999.8",
            "tickSize": text(terms.tick_size),
        },
        "lotSizeFilter": {
            "maxOrderQty": text(terms.lot_max),
            "minOrderQty": text(terms.lot_min),
            "qtyStep": text(terms.lot_step),
            "postOnlyMaxOrderQty": text(terms.lot_max),
            "maxMktOrderQty": text(terms.max_market_lot),
            "minNotionalValue": text(terms.min_notional),
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "copyTrading": "none",
    }


def ticker_row(book: BookMoved, day: Kline | None) -> Row:
    """Of market/tickers and the `tickers` topic; `day` is the bar of the last 24 h as far as it is known."""
    mid = (book.bid + book.ask) / 2
    return {
        "symbol": book.symbol_id,
        "lastPrice": text(mid),
        "markPrice": text(mid),
        "indexPrice": text(mid),
        "prevPrice24h": text(day.open if day else mid),
        "price24hPcnt": rounded(mid / day.open - 1) if day else "0",
        "highPrice24h": text(day.high if day else mid),
        "lowPrice24h": text(day.low if day else mid),
        "openInterest": "0",
        "openInterestValue": "0",
        "turnover24h": "0",
        "volume24h": "0",
        "fundingRate": "0",
        "nextFundingTime": "0",
        "bid1Price": text(book.bid),
        "bid1Size": text(book.bid_lots),
        "ask1Price": text(book.ask),
        "ask1Size": text(book.ask_lots),
    }


def book_row(book: BookMoved) -> Row:
    """Of market/orderbook and the `orderbook.1` topic: the touch."""
    return {
        "s": book.symbol_id,
        "b": [[text(book.bid), text(book.bid_lots)]],
        "a": [[text(book.ask), text(book.ask_lots)]],
        "u": book.sequence,
        "seq": book.sequence,
    }


def kline_row(bar: Kline) -> list[Json]:
    """Of market/kline: start, open, high, low, close, volume, turnover."""
    return [str(bar.start_ms), text(bar.open), text(bar.high), text(bar.low), text(bar.close), "0", "0"]


def kline_push(bar: Kline, at_ms: int) -> Row:
    """Of the `kline.1` topic."""
    return {
        "start": bar.start_ms,
        "end": bar.start_ms + 59_999,
        "interval": "1",
        "open": text(bar.open),
        "close": text(bar.close),
        "high": text(bar.high),
        "low": text(bar.low),
        "volume": "0",
        "turnover": "0",
        "confirm": bar.closed,
        "timestamp": at_ms,
    }


def trade_row(fill: Execution) -> Row:
    """Of the `publicTrade` topic."""
    return {
        "T": fill.at_ms,
        "s": fill.order.ticket.symbol_id,
        "S": side_word(fill.side),
        "v": text(fill.lots),
        "p": text(fill.price),
        "L": "PlusTick" if fill.side is Side.BUY else "MinusTick",
        "i": fill.exec_id,
        "BT": False,
    }


def order_row(order: SimOrder) -> Row:
    """Of order/realtime, order/history and the `order` topic."""
    ticket = order.ticket
    return {
        "category": "linear",
        "symbol": ticket.symbol_id,
        "orderId": order.order_id,
        "orderLinkId": ticket.link_id,
        "side": side_word(ticket.side),
        "orderType": order.order_type.value,
        "price": text(order.price) or "0",
        "qty": text(order.lots),
        "timeInForce": "IOC" if ticket.price is None else ticket.time_in_force.value,
        "orderStatus": order.status.value,
        "avgPrice": "" if order.average_price is None else rounded(order.average_price),
        "cumExecQty": text(order.filled),
        "cumExecValue": text(order.value),
        "cumExecFee": text(order.fee),
        "cumFeeDetail": {"USDT": text(order.fee)} if order.filled else {},
        "leavesQty": text(order.leaves) if order.status.working else "0",
        "leavesValue": "0",
        "reduceOnly": ticket.reduce_only,
        "closeOnTrigger": False,
        "positionIdx": 0,
        "stopOrderType": order.stop_kind.value,
        "createType": create_type(order),
        "triggerPrice": text(order.trigger_price),
        "triggerDirection": ticket.trigger_direction,
        "triggerBy": "LastPrice" if order.trigger_price is not None else "",
        "takeProfit": text(ticket.take_profit),
        "stopLoss": text(ticket.stop_loss),
        "tpslMode": "Full",
        "cancelType": "CancelByUser" if order.cause == "EC_PerCancelRequest" else "UNKNOWN",
        "rejectReason": order.cause.value,
        "createdTime": str(order.created_ms),
        "updatedTime": str(order.updated_ms),
        "isLeverage": "",
        "smpType": "None",
    }


def create_type(order: SimOrder) -> str:
    """Who made the order."""
    match order.stop_kind:
        case StopKind.STOP_LOSS:
            return "CreateByStopLoss"
        case StopKind.TAKE_PROFIT:
            return "CreateByTakeProfit"
        case StopKind.NONE | StopKind.STOP:
            return "CreateByUser"


def execution_row(fill: Execution) -> Row:
    """Of execution/list and the `execution` topic."""
    order = fill.order
    return {
        "category": "linear",
        "symbol": order.ticket.symbol_id,
        "execId": fill.exec_id,
        "execPrice": text(fill.price),
        "execQty": text(fill.lots),
        "execValue": text(fill.price * fill.lots),
        "execFee": text(fill.fee),
        "feeRate": text(fill.fee_rate),
        "feeCoin": "USDT",
        "execType": fill.exec_type.value,
        "execPnl": text(fill.realised),
        "isMaker": fill.maker,
        "orderId": order.order_id,
        "orderLinkId": order.ticket.link_id,
        "side": side_word(fill.side),
        "orderType": order.order_type.value,
        "orderPrice": text(order.price) or "0",
        "orderQty": text(order.lots),
        "leavesQty": text(order.leaves),
        "closedSize": text(fill.closed),
        "stopOrderType": order.stop_kind.value or "UNKNOWN",
        "createType": create_type(order),
        "execTime": str(fill.at_ms),
        "markPrice": text(fill.mark),
        "indexPrice": "",
        "isLeverage": "0",
        "seq": fill.sequence,
    }


def position_row(position: PositionView) -> Row:
    """Of position/list (`avgPrice`) and the `position` topic (`entryPrice`): both names are given."""
    entry = rounded(position.entry_price)
    return {
        "category": "linear",
        "symbol": position.symbol_id,
        "side": side_word(position.side),
        "size": text(position.lots),
        "avgPrice": entry,
        "entryPrice": entry,
        "positionIdx": 0,
        "positionValue": rounded(position.entry_price * position.lots) if position.lots else "",
        "leverage": text(position.leverage),
        "markPrice": text(position.mark),
        "liqPrice": "",
        "bustPrice": "",
        "positionIM": rounded(position.initial_margin),
        "positionMM": rounded(position.maintenance_margin),
        "unrealisedPnl": rounded(position.unrealised),
        "curRealisedPnl": text(position.realised),
        "cumRealisedPnl": text(position.realised),
        "stopLoss": text(position.stop_loss),
        "takeProfit": text(position.take_profit),
        "tpslMode": "Full",
        "trailingStop": "0",
        "positionStatus": "Normal",
        "autoAddMargin": 0,
        "adlRankIndicator": 0,
        "tradeMode": 0,
        "createdTime": str(position.opened_ms),
        "updatedTime": str(position.updated_ms),
        "seq": position.sequence,
    }


def wallet_row(wallet: Wallet) -> Row:
    """Of account/wallet-balance and the `wallet` topic."""
    balance, equity, unrealised = text(wallet.balance), rounded(wallet.equity), rounded(wallet.unrealised)
    return {
        "accountType": "UNIFIED",
        "totalEquity": equity,
        "totalWalletBalance": balance,
        "totalMarginBalance": equity,
        "totalAvailableBalance": rounded(wallet.available),
        "totalPerpUPL": unrealised,
        "totalInitialMargin": rounded(wallet.initial_margin),
        "totalMaintenanceMargin": rounded(wallet.maintenance_margin),
        "accountIMRate": "",
        "accountMMRate": "",
        "accountLTV": "",
        "coin": [
            {
                "coin": wallet.currency,
                "equity": equity,
                "usdValue": equity,
                "walletBalance": balance,
                "availableToWithdraw": "",
                "availableToBorrow": "",
                "locked": "0",
                "borrowAmount": "0",
                "accruedInterest": "0",
                "totalOrderIM": rounded(wallet.order_margin),
                "totalPositionIM": rounded(wallet.position_margin),
                "totalPositionMM": rounded(wallet.maintenance_margin),
                "unrealisedPnl": unrealised,
                "cumRealisedPnl": text(wallet.realised),
                "bonus": "0",
                "collateralSwitch": True,
                "marginCollateral": True,
            }
        ],
    }


def ledger_row(row: LedgerRow) -> Row:
    """Of account/transaction-log."""
    fill = row.execution
    fee = fill.fee if fill else Decimal(0)
    return {
        "id": row.row_id,
        "symbol": fill.order.ticket.symbol_id if fill else "",
        "category": "linear" if fill else "",
        "side": side_word(fill.side) if fill else "None",
        "type": row.kind,
        "transactionTime": str(row.at_ms),
        "change": text(row.change),
        "cashFlow": text(row.change + fee),
        "cashBalance": text(row.balance),
        "currency": "USDT",
        "fee": text(fee),
        "feeRate": text(fill.fee_rate) if fill else "",
        "funding": "",
        "qty": text(fill.lots) if fill else "",
        "size": "",
        "tradePrice": text(fill.price) if fill else "",
        "tradeId": fill.exec_id if fill else "",
        "orderId": fill.order.order_id if fill else "",
        "orderLinkId": fill.order.ticket.link_id if fill else "",
        "bonusChange": "0",
        "transSubType": "",
    }

"""Bybit V5's REST calls on the venue: parameters in, `result` out. No HTTP here.

A refusal is a `VenueRefused` (the venue's) or an `ApiError` (the API's); the server turns both into retCodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from simulator import bybit_rows as rows
from simulator.bybit_auth import ApiError
from simulator.bybit_rows import Json, Row
from simulator.records import OrderTicket, SimOrder, TimeInForce
from simulator.terms import SimAccount, VenueRefused
from simulator.venue import Venue
from srm_agent.domain.units import Side

Params = Mapping[str, str]
Handler = Callable[[SimAccount, Params], Row]

MOST = Decimal("1e10")
LEAST = Decimal("1e-10")

INTERVALS_S = {"1": 60, "3": 180, "5": 300, "15": 900, "30": 1800, "60": 3600, "120": 7200, "240": 14_400}
INTERVALS_S |= {"360": 21_600, "720": 43_200, "D": 86_400}


def number(params: Params, name: str) -> Decimal | None:
    """An optional decimal. Raises ApiError 10001 naming the parameter."""
    value = params.get(name, "")
    if value == "":
        return None
    try:
        parsed = Decimal(value)
    except InvalidOperation:
        raise ApiError(10001, f"params error: {name} is not a number, was {value!r}") from None
    # The bounds keep exact arithmetic within the 28 digits of the decimal context.
    if not parsed.is_finite() or not 0 <= parsed <= MOST or (parsed and parsed < LEAST):
        raise ApiError(10001, f"params error: {name} must be 0 or {LEAST}..{MOST}, was {value!r}")
    return parsed


def integer(params: Params, name: str, default: int) -> int:
    """An optional whole number. Raises ApiError 10001 naming the parameter."""
    value = params.get(name) or str(default)
    if not value.isdecimal():
        raise ApiError(10001, f"params error: {name} is not a whole number, was {value!r}")
    return int(value)


def required(params: Params, name: str) -> str:
    """A parameter that must be there. Raises ApiError 10001 naming it."""
    value = params.get(name, "")
    if value == "":
        raise ApiError(10001, f"params error: {name} is required")
    return value


def page(params: Params, items: Sequence[Row], *, default: int, most: int) -> Row:
    """One page of newest-first rows; the cursor is the offset of the next one, empty at the end."""
    limit = min(max(integer(params, "limit", default), 1), most)
    start = integer(params, "cursor", 0)
    end = start + limit
    return {
        "category": params.get("category", "linear"),
        "list": list(items[start:end]),
        "nextPageCursor": str(end) if end < len(items) else "",
    }


class BybitRest:
    """The routes: `public` ones need no key, `private` ones get the account of the key."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self.public: dict[tuple[str, str], Callable[[Params], Row]] = {
            ("GET", "v5/market/instruments-info"): self._instruments,
            ("GET", "v5/market/tickers"): self._tickers,
            ("GET", "v5/market/orderbook"): self._orderbook,
            ("GET", "v5/market/kline"): self._kline,
        }
        self.private: dict[tuple[str, str], Handler] = {
            ("GET", "v5/asset/coin/query-info"): self._coins,
            ("GET", "v5/user/query-api"): self._key,
            ("GET", "v5/account/info"): self._account_info,
            ("GET", "v5/account/wallet-balance"): self._wallet,
            ("GET", "v5/account/transaction-log"): self._ledger,
            ("GET", "v5/position/list"): self._positions,
            ("GET", "v5/order/realtime"): self._realtime,
            ("GET", "v5/order/history"): self._history,
            ("GET", "v5/execution/list"): self._executions,
            ("POST", "v5/order/create"): self._create,
            ("POST", "v5/order/amend"): self._amend,
            ("POST", "v5/order/cancel"): self._cancel,
            ("POST", "v5/order/cancel-all"): self._cancel_all,
            ("POST", "v5/position/trading-stop"): self._trading_stop,
            ("POST", "v5/position/set-leverage"): self._leverage,
            ("POST", "v5/position/switch-mode"): self._mode,
        }

    def ticker(self, symbol_id: str) -> Row:
        """The ticker of a symbol now."""
        return rows.ticker_row(self._venue.touch(symbol_id), self._venue.day(symbol_id))

    # Market

    def _instruments(self, params: Params) -> Row:
        linear = params.get("category") == "linear" and params.get("status") in (None, "", "Trading")
        listed: list[Json] = [
            rows.instrument_row(terms, suspended=self._venue.suspended(terms.symbol_id))
            for terms in self._venue.instruments.values()
            if linear and params.get("symbol") in (None, "", terms.symbol_id)
        ]
        return {"category": params.get("category", ""), "list": listed, "nextPageCursor": ""}

    def _tickers(self, params: Params) -> Row:
        wanted = [params["symbol"]] if params.get("symbol") else list(self._venue.instruments)
        linear = params.get("category") == "linear"
        listed: list[Json] = [self.ticker(symbol_id) for symbol_id in wanted] if linear else []
        return {"category": params.get("category", ""), "list": listed}

    def _orderbook(self, params: Params) -> Row:
        touch = self._venue.touch(required(params, "symbol"))
        return {**rows.book_row(touch), "ts": touch.at_ms, "cts": touch.at_ms}

    def _kline(self, params: Params) -> Row:
        interval = INTERVALS_S.get(required(params, "interval"))
        if interval is None:
            raise ApiError(10001, f"params error: interval must be one of {', '.join(INTERVALS_S)}")
        symbol_id, limit = required(params, "symbol"), min(integer(params, "limit", 200), 1000)
        start, end = integer(params, "start", 0), integer(params, "end", 1 << 62)
        deep = limit if not start and end == 1 << 62 else 100_000
        bars = [bar for bar in self._venue.bars(symbol_id, interval, deep) if start <= bar.start_ms <= end]
        newest_first: list[Json] = [rows.kline_row(bar) for bar in reversed(bars[-limit:])]
        return {"category": "linear", "symbol": symbol_id, "list": newest_first}

    # Account

    def _coins(self, _account: SimAccount, _params: Params) -> Row:
        names = dict.fromkeys(name for terms in self._venue.instruments.values() for name in (terms.quote, terms.base))
        return {"rows": [{"name": name, "coin": name, "remainAmount": "0", "chains": []} for name in names]}

    def _key(self, account: SimAccount, _params: Params) -> Row:
        return {
            "id": account.account_id,
            "note": "simulator",
            "readOnly": 1 if account.read_only else 0,
            "permissions": {
                "ContractTrade": ["Order", "Position"],
                "Spot": [],
                "Wallet": ["Withdraw"] if account.may_withdraw else [],
                "Options": [],
                "Derivatives": ["DerivativesTrade"],
                "Exchange": [],
            },
            "ips": ["*"],
            "type": 1,
            "unified": 0,
            "uta": 1,
            "userID": 1,
            "isMaster": True,
        }

    def _account_info(self, _account: SimAccount, _params: Params) -> Row:
        return {"marginMode": "REGULAR_MARGIN", "unifiedMarginStatus": 6, "dcpStatus": "OFF", "updatedTime": "0"}

    def _wallet(self, account: SimAccount, _params: Params) -> Row:
        return {"list": [rows.wallet_row(self._venue.wallet(account.account_id))]}

    def _ledger(self, account: SimAccount, params: Params) -> Row:
        end, kind = integer(params, "endTime", 1 << 62), params.get("type")
        found = self._venue.ledger(account.account_id, since_ms=integer(params, "startTime", 0))
        listed = [
            rows.ledger_row(row)
            for row in reversed(found)
            if row.at_ms <= end and kind in (None, "", row.kind) and params.get("currency") in (None, "", "USDT")
        ]
        return page(params, listed, default=20, most=50)

    def _positions(self, account: SimAccount, params: Params) -> Row:
        if params.get("category") != "linear":
            return page(params, [], default=20, most=200)
        symbol_id = params.get("symbol") or None
        if symbol_id is None and not params.get("settleCoin"):
            raise ApiError(10001, "params error: symbol or settleCoin is required")
        if symbol_id is None and params["settleCoin"] != "USDT":
            return page(params, [], default=20, most=200)
        found = self._venue.positions(account.account_id, symbol_id)
        return page(params, [rows.position_row(item) for item in found], default=20, most=200)

    # Orders

    def _select(self, account: SimAccount, params: Params, *, working: bool | None) -> list[Row]:
        order_id, link_id = params.get("orderId", ""), params.get("orderLinkId", "")
        if order_id or link_id:
            one = self._venue.order(account.account_id, order_id=order_id, link_id=link_id)
            found = [one] if one and (working is None or one.status.working is working) else []
        else:
            found = self._venue.orders(account.account_id, working=working, symbol_id=params.get("symbol") or None)
        return [rows.order_row(order) for order in reversed(found)]

    def _realtime(self, account: SimAccount, params: Params) -> Row:
        # openOnly 0: working orders; 1: the 500 finished last.
        finished = params.get("openOnly", "0") == "1"
        listed = self._select(account, params, working=not finished)
        return page(params, listed[:500] if finished else listed, default=20, most=50)

    def _history(self, account: SimAccount, params: Params) -> Row:
        start, end = integer(params, "startTime", 0), integer(params, "endTime", 1 << 62)
        listed = [
            row for row in self._select(account, params, working=False) if start <= int(str(row["createdTime"])) <= end
        ]
        return page(params, listed, default=20, most=50)

    def _executions(self, account: SimAccount, params: Params) -> Row:
        found = self._venue.executions(
            account.account_id,
            since_ms=integer(params, "startTime", 0),
            order_id=params.get("orderId", ""),
            link_id=params.get("orderLinkId", ""),
        )
        end, kind = integer(params, "endTime", 1 << 62), params.get("execType")
        symbol_id = params.get("symbol")
        listed = [
            rows.execution_row(item)
            for item in reversed(found)
            if item.at_ms <= end
            and kind in (None, "", item.exec_type.value)
            and symbol_id in (None, "", item.order.ticket.symbol_id)
        ]
        return page(params, listed, default=50, most=100)

    def _create(self, account: SimAccount, params: Params) -> Row:
        order = self._venue.place(account.account_id, parse_ticket(params))
        return acknowledgement(order)

    def _amend(self, account: SimAccount, params: Params) -> Row:
        order = self._venue.amend(
            account.account_id,
            order_id=params.get("orderId", ""),
            link_id=params.get("orderLinkId", ""),
            price=number(params, "price"),
            lots=number(params, "qty"),
            trigger_price=number(params, "triggerPrice"),
        )
        return acknowledgement(order)

    def _cancel(self, account: SimAccount, params: Params) -> Row:
        order = self._venue.cancel(
            account.account_id, order_id=params.get("orderId", ""), link_id=params.get("orderLinkId", "")
        )
        return acknowledgement(order)

    def _cancel_all(self, account: SimAccount, params: Params) -> Row:
        found = self._venue.orders(account.account_id, working=True, symbol_id=params.get("symbol") or None)
        done = [self._venue.cancel(account.account_id, order_id=order.order_id) for order in found]
        return {"list": [acknowledgement(order) for order in done], "success": "1"}

    def _trading_stop(self, account: SimAccount, params: Params) -> Row:
        self._venue.set_trading_stop(
            account.account_id,
            required(params, "symbol"),
            stop_loss=number(params, "stopLoss"),
            take_profit=number(params, "takeProfit"),
        )
        return {}

    def _leverage(self, account: SimAccount, params: Params) -> Row:
        leverage = number(params, "buyLeverage")
        if leverage is None or leverage != number(params, "sellLeverage"):
            raise ApiError(10001, "params error: buyLeverage and sellLeverage must be given and equal in one-way mode")
        self._venue.set_leverage(account.account_id, required(params, "symbol"), leverage)
        return {}

    def _mode(self, _account: SimAccount, params: Params) -> Row:
        if params.get("mode") == "0":
            raise VenueRefused(110025, "NOT_MODIFIED", "Position mode is not modified")
        raise VenueRefused(110028, "NETTING_ONLY", "this venue knows one-way mode only")


def acknowledgement(order: SimOrder) -> Row:
    """What Bybit answers to a write: the ids, nothing about fills."""
    return {"orderId": order.order_id, "orderLinkId": order.ticket.link_id}


def parse_ticket(params: Params) -> OrderTicket:
    """A body of order/create. Raises ApiError 10001 naming the parameter."""
    sides = {"Buy": Side.BUY, "Sell": Side.SELL}
    side, kind, lots = sides.get(params.get("side", "")), params.get("orderType"), number(params, "qty")
    if side is None:
        raise ApiError(10001, f"params error: Side invalid, was {params.get('side', '')!r}")
    if kind not in ("Market", "Limit"):
        raise ApiError(10001, f"params error: orderType invalid, was {kind!r}")
    if params.get("category") != "linear":
        raise ApiError(10001, f"params error: category must be linear, was {params.get('category', '')!r}")
    if params.get("positionIdx", "0") != "0":
        raise ApiError(10001, "position idx not match position mode")
    price = number(params, "price") if kind == "Limit" else None
    if kind == "Limit" and price is None:
        raise ApiError(10001, "params error: price is required for Limit orders")
    link_id = params.get("orderLinkId", "")
    if len(link_id) > 36:
        raise ApiError(10001, f"params error: orderLinkId must have at most 36 characters, was {link_id!r}")
    time_in_force = params.get("timeInForce") or ("GTC" if kind == "Limit" else "IOC")
    if time_in_force not in list(TimeInForce):
        raise ApiError(10001, f"params error: timeInForce invalid, was {time_in_force!r}")
    return OrderTicket(
        symbol_id=required(params, "symbol"),
        side=side,
        lots=lots if lots is not None else Decimal(0),
        price=price,
        time_in_force=TimeInForce(time_in_force),
        link_id=link_id,
        reduce_only=params.get("reduceOnly", "") == "true",
        stop_loss=number(params, "stopLoss") or None,
        take_profit=number(params, "takeProfit") or None,
        trigger_price=number(params, "triggerPrice") or None,
        trigger_direction=integer(params, "triggerDirection", 0),
    )

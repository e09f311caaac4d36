"""Pure reads of one Bybit account: every reply is complete (all pages) or an error, never a silent part (INV-7).

The venue's endpoints are called by ccxt's implicit methods, because the unified ones hide rows (`fetch_my_trades` asks
for `execType=Trade` only) and lose exact texts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from adapters.ccxt_venue.budget import Priority, RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed
from adapters.ccxt_venue.orders import order_names
from adapters.ccxt_venue.outcomes import read_error
from adapters.ccxt_venue.parse import (
    is_protective,
    parse_fill,
    parse_flow,
    parse_order,
    parse_position,
    parse_wallet,
    position_index,
)
from adapters.ccxt_venue.rows import BadRow, Row, as_rows, optional_text, to_ms
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.ids import ClientOrderId, Symbol
from srm_agent.domain.orders import BrokerPosition, Fill, OrderReport, Outcome
from srm_agent.domain.units import ZERO
from srm_agent.errors import BrokerUnreachable

_WINDOW = timedelta(days=7)
"""Longest span of one history query."""
_OLDEST = timedelta(days=730)
"""The venue keeps no older history."""
_AHEAD = timedelta(days=1)
"""Queries end this far after the venue's newest known time, so that nothing just executed is left out."""
_MAX_PAGES = 200

_Result = TypeVar("_Result")


class AccountReads(Protocol):
    """What a broker asks of its account, exact for a trading venue, unified for a read-only one."""

    async def account(self) -> AccountSnapshot:
        """Balance, equity, margin."""
        ...

    async def positions(self) -> Sequence[BrokerPosition]:
        """All open positions."""
        ...

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders."""
        ...

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol, market_id: str) -> OrderReport:
        """One order by our id."""
        ...

    async def fills(self, since: datetime, market_now: datetime) -> Sequence[Fill]:
        """Executions since a market time, oldest first."""
        ...

    async def cash_flows(self, since: datetime, market_now: datetime) -> Sequence[CashFlow]:
        """Money that moved without a trade, oldest first."""
        ...


class BybitReads:
    """Reads of one account on one trading instance. All raise BrokerUnreachable or NotAuthorised."""

    def __init__(self, client: VenueClient, budget: RequestBudget, clock: Clock, settle_currency: str) -> None:
        self._client = client
        self._budget = budget
        self._clock = clock
        self._settle = settle_currency

    def symbol_of(self, market_id: str) -> Symbol:
        """Our symbol of the venue's id."""
        return Symbol(self._client.symbol_of_id(market_id))

    async def key_info(self) -> Row:
        """What the API key may do."""
        return await self._call("privateGetV5UserQueryApi", {})

    async def position_modes(self, market_id: str) -> frozenset[int]:
        """`positionIdx` of a symbol's rows: {0} in one-way mode, {1, 2} in hedge mode."""
        rows = await self._pages("privateGetV5PositionList", {"category": "linear", "symbol": market_id})
        return frozenset(_each(rows, position_index))

    async def account(self) -> AccountSnapshot:
        """The unified wallet's totals."""
        rows = await self._pages("privateGetV5AccountWalletBalance", {"accountType": "UNIFIED"}, limit=None)
        if len(rows) != 1:
            raise BrokerUnreachable(f"wallet: exactly one unified account expected, were {len(rows)}")
        return _each(rows, lambda row: parse_wallet(row, self._settle, self._clock.wall(), self._clock.monotonic()))[0]

    async def positions(self) -> Sequence[BrokerPosition]:
        """All open positions in the settle currency."""
        rows = await self._pages(
            "privateGetV5PositionList", {"category": "linear", "settleCoin": self._settle}, limit=200
        )
        found = _each(rows, lambda row: parse_position(row, self.symbol_of))
        return [position for position in found if position.lot > ZERO]

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders, without the venue's own orders behind positions' stops and targets."""
        rows = await self._pages("privateGetV5OrderRealtime", {"category": "linear", "settleCoin": self._settle})
        received = self._clock.monotonic()
        found = _each(
            [row for row in rows if not is_protective(row)], lambda row: parse_order(row, self.symbol_of, received)
        )
        return [report for report in found if report.outcome is Outcome.WORKING]

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol, market_id: str) -> OrderReport:
        """One order by our id: working, recently closed, history, executions; ABSENT when all four know nothing."""
        for name in order_names(client_id):
            query: dict[str, object] = {"category": "linear", "symbol": market_id, name: client_id}
            for endpoint, extra in (
                ("privateGetV5OrderRealtime", {"openOnly": 0}),
                ("privateGetV5OrderRealtime", {"openOnly": 1}),
                ("privateGetV5OrderHistory", {}),
            ):
                rows = await self._pages(endpoint, {**query, **extra})
                found = [row for row in rows if row.get(name) == client_id]
                if found:
                    return await self._with_fills(found[0], query)
            fills = await self._fills_of(query)
            if fills:
                return self._from_fills(client_id, symbol, fills)
        return OrderReport(client_id=client_id, outcome=Outcome.ABSENT, symbol=symbol, received=self._clock.monotonic())

    async def _with_fills(self, row: Row, query: Mapping[str, object]) -> OrderReport:
        report = _each([row], lambda found: parse_order(found, self.symbol_of, self._clock.monotonic()))[0]
        return report if report.filled_lot == ZERO else replace(report, fills=tuple(await self._fills_of(query)))

    def _from_fills(self, client_id: ClientOrderId, symbol: Symbol, fills: Sequence[Fill]) -> OrderReport:
        # Executions of an order that no list knows: all our orders are immediate, so what filled is all there is.
        lot = sum((fill.lot for fill in fills), ZERO)
        return OrderReport(
            client_id=client_id,
            outcome=Outcome.FILLED,
            symbol=symbol,
            broker_order_id=fills[0].broker_order_id,
            filled_lot=lot,
            average_price=sum((fill.lot * fill.price for fill in fills), ZERO) / lot,
            fills=tuple(fills),
            received=self._clock.monotonic(),
        )

    async def _fills_of(self, query: Mapping[str, object]) -> list[Fill]:
        rows = await self._pages("privateGetV5ExecutionList", query, limit=100)
        wanted = {name: query[name] for name in ("orderId", "orderLinkId") if name in query}
        return self._parse_fills(row for row in rows if all(row.get(name) == value for name, value in wanted.items()))

    async def fills(self, since: datetime, market_now: datetime) -> Sequence[Fill]:
        """Every execution since that market time, oldest first, liquidations included."""
        rows = await self._history("privateGetV5ExecutionList", {"category": "linear"}, since, market_now, 100)
        return self._parse_fills(rows)

    def _parse_fills(self, rows: Iterable[Row]) -> list[Fill]:
        received = self._clock.monotonic()
        found = _each(rows, lambda row: parse_fill(row, self.symbol_of, self._settle, received))
        return sorted((fill for fill in found if fill is not None), key=lambda fill: (fill.at, fill.fill_id))

    async def cash_flows(self, since: datetime, market_now: datetime) -> Sequence[CashFlow]:
        """Deposits, withdrawals, funding and the rest of the transaction log but trades, oldest first."""
        rows = await self._history(
            "privateGetV5AccountTransactionLog", {"accountType": "UNIFIED"}, since, market_now, 50
        )
        found = [flow for flow in _each(rows, parse_flow) if flow is not None]
        return sorted(found, key=lambda flow: (flow.at, flow.flow_id))

    async def _history(
        self, endpoint: str, query: Mapping[str, object], since: datetime, market_now: datetime, limit: int
    ) -> list[Row]:
        start, end = max(since, market_now - _OLDEST), market_now + _AHEAD
        rows: list[Row] = []
        while start < end:
            stop = min(start + _WINDOW, end)
            window = {**query, "startTime": to_ms(start), "endTime": to_ms(stop)}
            rows.extend(await self._pages(endpoint, window, limit=limit))
            start = stop
        return rows

    async def _pages(self, endpoint: str, query: Mapping[str, object], limit: int | None = 50) -> list[Row]:
        return [row async for row in self._page_rows(endpoint, query, limit)]

    async def _page_rows(self, endpoint: str, query: Mapping[str, object], limit: int | None) -> AsyncIterator[Row]:
        params = dict(query) if limit is None else {**query, "limit": limit}
        seen: set[str] = set()
        for _ in range(_MAX_PAGES):
            result = await self._call(endpoint, params)
            try:
                rows, cursor = (
                    as_rows(result.get("list"), f"list of {endpoint}"),
                    optional_text(result, "nextPageCursor"),
                )
            except BadRow as error:
                raise BrokerUnreachable(f"{endpoint}: {error}") from error
            for row in rows:
                yield row
            # The venue gives a cursor with the last page too; an empty or short page ends the list.
            if cursor is None or cursor in seen or limit is None or len(rows) < limit:
                return
            seen.add(cursor)
            params = {**params, "cursor": cursor}
        raise BrokerUnreachable(f"{endpoint}: more than {_MAX_PAGES} pages, ask for a shorter time")

    async def _call(self, endpoint: str, params: Mapping[str, object]) -> Row:
        await self._budget.take(Priority.READ)
        try:
            return await self._client.call(endpoint, params)
        except CallFailed as failed:
            raise read_error(failed.failure, endpoint) from failed
        except BadRow as error:
            raise BrokerUnreachable(f"{endpoint}: {error}") from error


def _each(rows: Iterable[Row], parse: Callable[[Row], _Result]) -> list[_Result]:
    try:
        return [parse(row) for row in rows]
    except BadRow as error:
        raise BrokerUnreachable(f"reply not understood: {error}") from error

"""Reading an account of any ccxt class by the unified methods only: for looking, never for trading.

A class joins the trading ones when it has its own exact reads and outcome table and passes the contract suite. Until
then numbers come as ccxt parsed them (floats by their shortest repr) and equity is None where ccxt states none.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from adapters.ccxt_venue.budget import Priority, RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed
from adapters.ccxt_venue.outcomes import read_error
from adapters.ccxt_venue.parse import position_ref
from adapters.ccxt_venue.rows import (
    BadRow,
    Row,
    as_number,
    as_row,
    as_rows,
    instant,
    number,
    optional_instant,
    optional_number,
    optional_text,
    positive,
    price_or_none,
    text,
    to_ms,
)
from adapters.ccxt_venue.settings import CcxtVenueSettings
from adapters.ccxt_venue.streams import backoff
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.ids import ClientOrderId, FillId, Symbol
from srm_agent.domain.instrument import AssetClass, Instrument, standard_pip
from srm_agent.domain.orders import BrokerPosition, Fill, FillKind, OrderReport, Outcome
from srm_agent.domain.units import ONE, ZERO, Side
from srm_agent.errors import BrokerUnreachable, NotAuthorised

_Result = TypeVar("_Result")

POLL_S = 5.0
"""Pause between two pictures of a read-only account."""


def parse_unified_instrument(
    market: Row, asset_classes: Mapping[Symbol, AssetClass], pip_sizes: Mapping[Symbol, Decimal]
) -> Instrument:
    """Terms from ccxt's unified market alone. Lots are contracts. Raises BadRow where ccxt knows a part of them not."""
    symbol = Symbol(text(market, "symbol"))
    asset_class = asset_classes.get(symbol, AssetClass.CRYPTO)
    base, quote = text(market, "base"), text(market, "quote")
    precision = as_row(market.get("precision"), "precision")
    limits = as_row(market.get("limits"), "limits")
    lots, cost = as_row(limits.get("amount"), "amount"), as_row(limits.get("cost", {}), "cost")
    step = positive(precision, "amount")
    return Instrument(
        symbol=symbol,
        asset_class=asset_class,
        base_currency=base,
        quote_currency=quote,
        settle_currency=optional_text(market, "settle") or quote,
        tick_size=positive(precision, "price"),
        pip_size=pip_sizes.get(symbol) or standard_pip(asset_class, base, quote),
        lot_min=optional_number(lots, "min") or step,
        lot_max=positive(lots, "max"),
        lot_step=step,
        contract_size=optional_number(market, "contractSize") or ONE,
        min_notional=optional_number(cost, "min") or ZERO,
        tradable=False,
    )


def parse_unified_position(row: Row) -> BrokerPosition | None:
    """An open position, None for an empty row. Raises BadRow."""
    lot = optional_number(row, "contracts") or ZERO
    if lot == ZERO:
        return None
    sides = {"long": Side.BUY, "short": Side.SELL}
    side = sides.get(str(row.get("side")))
    if side is None:
        raise BadRow(f"side must be long or short, was {row.get('side')!r:.80}")
    symbol = Symbol(text(row, "symbol"))
    return BrokerPosition(
        ref=position_ref(symbol, 0),
        symbol=symbol,
        side=side,
        lot=abs(lot),
        entry_price=positive(row, "entryPrice"),
        stop_loss=price_or_none(row, "stopLossPrice"),
        take_profit=price_or_none(row, "takeProfitPrice"),
        opened_at=optional_instant(row, "timestamp"),
    )


def parse_unified_fill(row: Row, received: float) -> Fill:
    """An execution; ccxt does not tell stops from orders here, so the kind is ORDER. Raises BadRow."""
    fee = as_row(row.get("fee") or {}, "fee")
    return Fill(
        fill_id=FillId(text(row, "id")),
        client_id=None,
        broker_order_id=optional_text(row, "order") or "",
        symbol=Symbol(text(row, "symbol")),
        side=_side(row),
        lot=positive(row, "amount"),
        price=positive(row, "price"),
        fee=optional_number(fee, "cost") or ZERO,
        fee_currency=optional_text(fee, "currency") or "",
        kind=FillKind.ORDER,
        at=instant(row, "timestamp"),
        received=received,
    )


def _side(row: Row) -> Side:
    match row.get("side"):
        case "buy":
            return Side.BUY
        case "sell":
            return Side.SELL
        case other:
            raise BadRow(f"side must be buy or sell, was {other!r:.80}")


class UnifiedReads:
    """Reads of one account by unified methods. All raise BrokerUnreachable or NotAuthorised."""

    def __init__(self, client: VenueClient, budget: RequestBudget, clock: Clock, settle_currency: str) -> None:
        self._client = client
        self._budget = budget
        self._clock = clock
        self._settle = settle_currency

    async def account(self) -> AccountSnapshot:
        """Balance of the settle currency; equity None: ccxt has no unified figure that includes open profit."""
        balance = await self._read("fetch_balance", lambda reply: as_row(reply, "balance"))
        try:
            settle = as_row(balance.get(self._settle), self._settle)
            return AccountSnapshot(
                currency=self._settle,
                balance=number(settle, "total"),
                equity=None,
                margin_used=optional_number(settle, "used") or ZERO,
                margin_free=optional_number(settle, "free") or ZERO,
                at=self._clock.wall(),
                received=self._clock.monotonic(),
            )
        except BadRow as error:
            raise BrokerUnreachable(f"balance: {error}") from error

    async def positions(self) -> Sequence[BrokerPosition]:
        """All open positions."""
        found = await self._rows("fetch_positions", parse_unified_position)
        return [position for position in found if position is not None]

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders, under the venue's ids."""
        received = self._clock.monotonic()

        def parse(row: Row) -> OrderReport:
            order_id = text(row, "id")
            return OrderReport(
                client_id=ClientOrderId(order_id),
                outcome=Outcome.WORKING,
                symbol=Symbol(text(row, "symbol")),
                broker_order_id=order_id,
                filled_lot=as_number(row.get("filled") or 0, "filled"),
                received=received,
            )

        return await self._rows("fetch_open_orders", parse)

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol, market_id: str) -> OrderReport:
        """A read-only account has no orders of ours: there is nothing to prove. Always raises NotAuthorised."""
        raise NotAuthorised(f"{client_id}: this account may only be read ({symbol}, {market_id})")

    async def fills(self, since: datetime, market_now: datetime) -> Sequence[Fill]:
        """Executions since a time as far as the venue lists them at once, up to `market_now`, oldest first."""
        received = self._clock.monotonic()
        found = await self._rows(
            "fetch_my_trades", lambda row: parse_unified_fill(row, received), None, to_ms(since), None
        )
        return sorted((fill for fill in found if fill.at <= market_now), key=lambda fill: (fill.at, fill.fill_id))

    async def cash_flows(self, since: datetime, market_now: datetime) -> Sequence[CashFlow]:
        """Nothing: ccxt's ledger does not tell deposits from trades reliably, and no limit rests on this account."""
        _ = since, market_now
        return ()

    async def _rows(self, method: str, parse: Callable[[Row], _Result], *arguments: object) -> list[_Result]:
        return await self._read(method, lambda reply: [parse(row) for row in as_rows(reply, method)], *arguments)

    async def _read(self, method: str, parse: Callable[[object], _Result], *arguments: object) -> _Result:
        await self._budget.take(Priority.READ)
        try:
            return parse(await self._client.unified(method, *arguments))
        except CallFailed as failed:
            raise read_error(failed.failure, method) from failed
        except BadRow as error:
            raise BrokerUnreachable(f"{method}: {error}") from error


async def polled_events(
    resync: Callable[[], Awaitable[Resync]], name: str, settings: CcxtVenueSettings, clock: Clock, rng: random.Random
) -> AsyncGenerator[AccountEvent, None]:
    """A picture every few seconds instead of streams; StreamDown when one fails. Never ends."""
    failures = 0
    while True:
        try:
            yield await resync()
            yield Heartbeat(clock.monotonic())
            failures = 0
            await asyncio.sleep(POLL_S)
        except (BrokerUnreachable, NotAuthorised) as error:
            yield StreamDown(name, str(error))
            await asyncio.sleep(backoff(failures, settings, rng))
            failures += 1

"""One trading account on Bybit V5 through the unmodified `ccxt.pro.bybit` (port `Broker`).

An account of any other ccxt class is read-only until that class has passed the contract suite (`unified.py`).
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from decimal import Decimal

from adapters.ccxt_venue.account_stream import AccountStream
from adapters.ccxt_venue.admission import admit
from adapters.ccxt_venue.budget import RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.feed import CcxtFeed
from adapters.ccxt_venue.orders import Refusal, wire_order
from adapters.ccxt_venue.reads import AccountReads, BybitReads
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from adapters.ccxt_venue.unified import UnifiedReads, polled_events
from adapters.ccxt_venue.writes import BybitWrites
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.events import AccountEvent, Resync
from srm_agent.domain.ids import ClientOrderId, ConnectionId, PositionRef, Symbol
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport
from srm_agent.errors import (
    BrokerUnreachable,
    NotAuthorised,
    OrderRefused,
    UnknownInstrument,
)
from srm_agent.ports import Capabilities

TRADING_CLASSES = ("bybit",)
"""Classes that passed the contract suite; accounts of all others may only be read."""
ABSENCES = 5
"""Successful look-ups in a row that must say ABSENT (INV-5)."""
_OVERLAP = timedelta(seconds=60)
"""Every resync reads this much of the past again: executions may be listed late (brokers.md C.2)."""


class CcxtBroker:
    """One account: its own ccxt instance, throttle and private socket; instruments shared from the feed."""

    def __init__(
        self,
        settings: CcxtVenueSettings,
        credentials: CcxtCredentials,
        connection_id: ConnectionId,
        feed: CcxtFeed,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._connection_id = connection_id
        self._feed = feed
        self._clock = clock
        self._rng = rng
        self._budget = RequestBudget(
            rate=settings.requests_per_s,
            burst=settings.request_burst,
            reserve=settings.reserved_for_exits,
            clock=clock,
        )
        self._client: VenueClient | None = None
        self._reads: AccountReads | None = None
        self._writes: BybitWrites | None = None
        self._stream: AccountStream | None = None
        self._capabilities: Capabilities | None = None
        self._synchronised_to: datetime | None = None

    @property
    def connection_id(self) -> ConnectionId:
        """Whose account."""
        return self._connection_id

    @property
    def capabilities(self) -> Capabilities:
        """Valid after `open`; before it raises BrokerUnreachable."""
        if self._capabilities is None:
            raise BrokerUnreachable(f"{self._connection_id}: the account is not open")
        return self._capabilities

    # ---- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Verify the key's permissions, the account type and the position mode.

        Raises NotAuthorised, BrokerUnreachable, ConfigurationError (hedge mode, withdrawal right, account type).
        """
        if self._client is not None:
            return
        client = VenueClient(self._settings, self._credentials)
        client.share_markets(self._feed.client)
        trading = self._settings.exchange in TRADING_CLASSES
        try:
            if trading:
                exact = BybitReads(client, self._budget, self._clock, self._settings.settle_currency)
                read_only = await admit(
                    client,
                    exact,
                    self._budget,
                    self._connection_id,
                    self._settings.symbols or tuple(Symbol(symbol) for symbol in self._feed.client.markets())[:1],
                    key_is_told=self._settings.environment != "demo",
                )
                self._reads = exact
            else:
                unified = UnifiedReads(client, self._budget, self._clock, self._settings.settle_currency)
                await unified.account()
                read_only, self._reads = True, unified
        except BaseException:
            await client.close()
            raise
        self._client = client
        if not read_only:
            self._writes = BybitWrites(client, self._budget, self._clock, self._connection_id, self.lookup)
        self._capabilities = Capabilities(
            netting=True,
            atomic_protection=trading,
            price_capped_entry=trading,
            finality_s=self._settings.finality_s,
            absences=ABSENCES,
            read_only=read_only,
        )

    async def close(self) -> None:
        """Release sockets and end the reader's loop; idempotent. Orders and positions stay as they are."""
        client, self._client = self._client, None
        self._reads = self._writes = None
        if self._stream is not None:
            await self._stream.stop()
        if client is not None:
            await client.close()

    # ---- reads ---------------------------------------------------------------------------------------------------

    async def account(self) -> AccountSnapshot:
        """The wallet's totals; equity is the venue's own figure. Raises BrokerUnreachable, NotAuthorised."""
        return await self._open_reads().account()

    async def positions(self) -> Sequence[BrokerPosition]:
        """All open positions. A failed or partial read raises (INV-7)."""
        return await self._open_reads().positions()

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders, without the ones that are a position's own stop and target."""
        return await self._open_reads().open_orders()

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """Working, recent, history, executions; ABSENT when all say so. Raises BrokerUnreachable, NotAuthorised."""
        return await self._open_reads().lookup(client_id, symbol, self._market_id(symbol))

    async def fills(self, since: datetime) -> Sequence[Fill]:
        """Every execution since that market time, liquidations included, oldest first."""
        return await self._open_reads().fills(since, await self._feed.market_now())

    async def cash_flows(self, since: datetime) -> Sequence[CashFlow]:
        """Deposits, withdrawals, funding and other lines of the transaction log but trades, oldest first."""
        return await self._open_reads().cash_flows(since, await self._feed.market_now())

    # ---- writes --------------------------------------------------------------------------------------------------

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Send once; the answer is WORKING (acknowledged, fills come by the streams), REJECTED or UNKNOWN.

        Raises BrokerUnreachable when nothing was sent or it was provably not taken, NotAuthorised.
        A duplicate id answers with its look-up: the first sending is the order.
        """
        writes = self._open_writes()
        try:
            instrument = await self._feed.instrument(intent.symbol)
        except UnknownInstrument as error:
            return writes.rejected(intent.client_id, "UNKNOWN_SYMBOL", str(error))
        order = wire_order(intent, instrument)
        if isinstance(order, Refusal):
            return writes.rejected(intent.client_id, order.code, order.detail)
        return await writes.send(intent, order)

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        """Set stop and target of the whole position; None keeps, 0 clears. Repeating is harmless.

        Raises OrderRefused, BrokerUnreachable, NotAuthorised.
        """
        reference, _, index = position.rpartition("|")
        if reference != symbol or not index.isdecimal():
            raise OrderRefused("NO_POSITION", f"position must be of {symbol}, was {position!r}")
        await self._open_writes().protect(self._market_id(symbol), int(index), stop_loss, take_profit)

    async def cancel(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """Withdraw a working order and say what became of it. Raises BrokerUnreachable, NotAuthorised.

        An order of somebody else is named as `open_orders` names it.
        """
        await self._open_writes().cancel(client_id, self._market_id(symbol))
        return await self.lookup(client_id, symbol)

    # ---- events --------------------------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[AccountEvent, None]:
        """Account events, at least once; a Resync first and after every break; ends with `close`.

        One reader at a time; a second one is a RuntimeError.
        """
        name = f"{self._settings.exchange}/{self._connection_id}"
        if self._settings.exchange not in TRADING_CLASSES:
            events = polled_events(self._resync, name, self._settings, self._clock, self._rng)
        elif self._stream is not None:
            raise RuntimeError("the account has a reader already: fan events out behind it")
        else:
            self._stream = AccountStream(
                name=name,
                client=self._open_client(),
                resync=self._resync,
                settings=self._settings,
                clock=self._clock,
                rng=self._rng,
            )
            events = self._stream.events()
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._stream = None

    async def _resync(self) -> Resync:
        reads = self._open_reads()
        market_now = await self._feed.market_now()
        since = (self._synchronised_to or market_now - timedelta(seconds=self._settings.resync_lookback_s)) - _OVERLAP
        # History first, positions second: what happens between the reads is then in the picture or on the stream.
        fills = await reads.fills(since, market_now)
        flows = await reads.cash_flows(since, market_now)
        orders = await reads.open_orders()
        positions = await reads.positions()
        account = await reads.account()
        self._synchronised_to = market_now
        return Resync(
            fills=tuple(fills),
            open_orders=tuple(orders),
            positions=tuple(positions),
            account=account,
            cash_flows=tuple(flows),
        )

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _open_client(self) -> VenueClient:
        if self._client is None:
            raise BrokerUnreachable(f"{self._connection_id}: the account is not open")
        return self._client

    def _open_reads(self) -> AccountReads:
        if self._reads is None:
            raise BrokerUnreachable(f"{self._connection_id}: the account is not open")
        return self._reads

    def _open_writes(self) -> BybitWrites:
        self._open_client()
        if self._writes is None:
            raise NotAuthorised(f"{self._connection_id}: this account may only be read")
        return self._writes

    def _market_id(self, symbol: Symbol) -> str:
        market_id = self._feed.client.id_of_symbol(symbol)
        if market_id is None:
            raise BrokerUnreachable(f"{self._connection_id}: unknown instrument, was {symbol!r}")
        return market_id

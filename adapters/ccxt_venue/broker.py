"""One trading account on Bybit V5 through the unmodified `ccxt.pro.bybit` (port `Broker`).

An account of any other ccxt class is read-only until that class has passed the contract suite (`readonly.py`).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from adapters.ccxt_venue.account_stream import AccountStream
from adapters.ccxt_venue.budget import Priority, RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed, Failure
from adapters.ccxt_venue.feed import CcxtFeed
from adapters.ccxt_venue.orders import Refusal, WireOrder, wire_order
from adapters.ccxt_venue.outcomes import ALREADY_GONE, Judgement, Verdict, change_error, judge_submit, read_error
from adapters.ccxt_venue.permissions import may_trade, refuse_withdrawal
from adapters.ccxt_venue.reads import BybitReads
from adapters.ccxt_venue.rows import BadRow
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.events import AccountEvent, Resync
from srm_agent.domain.ids import ClientOrderId, ConnectionId, PositionRef, Symbol
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import ZERO, plain
from srm_agent.errors import (
    BrokerUnreachable,
    ConfigurationError,
    NotAuthorised,
    OrderRefused,
    UnknownInstrument,
)
from srm_agent.ports import Capabilities

log = structlog.get_logger()

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
        self._reads: BybitReads | None = None
        self._capabilities: Capabilities | None = None
        self._synchronised_to: datetime | None = None
        self._log = log.bind(connection_id=connection_id)

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

        Raises NotAuthorised, BrokerUnreachable, ConfigurationError (hedge mode, withdrawal right, other classes).
        """
        if self._client is not None:
            return
        if self._settings.exchange != "bybit":
            raise ConfigurationError(
                f"exchange {self._settings.exchange!r} has not passed the contract suite: use ReadOnlyBroker"
            )
        client = VenueClient(self._settings, self._credentials)
        client.share_markets(self._feed.client)
        reads = BybitReads(client, self._budget, self._clock, self._settings.settle_currency)
        try:
            read_only = await self._verify(client, reads)
        except BaseException:
            await client.close()
            raise
        self._client, self._reads = client, reads
        self._capabilities = Capabilities(
            netting=True,
            atomic_protection=True,
            price_capped_entry=True,
            finality_s=self._settings.finality_s,
            absences=ABSENCES,
            read_only=read_only,
        )

    async def close(self) -> None:
        """Release sockets; idempotent. Orders and positions stay as they are."""
        client, self._client = self._client, None
        self._reads = None
        if client is not None:
            await client.close()

    async def _verify(self, client: VenueClient, reads: BybitReads) -> bool:
        read_only = False
        if self._settings.environment != "demo":
            # The demo service has no such endpoint.
            info = await reads.key_info()
            refuse_withdrawal(info, self._connection_id)
            read_only = not may_trade(info)
        unified = await self._library_read(client, "is_unified_enabled")
        if not (isinstance(unified, list) and len(unified) == 2 and unified[1] is True):
            raise ConfigurationError(
                f"{self._connection_id}: a unified trading account is required: upgrade it at the venue"
            )
        for symbol in self._settings.symbols or tuple(self._feed.client.markets())[:1]:
            await self._require_one_way(reads, Symbol(symbol))
        for position in await reads.positions():
            if not position.ref.endswith("|0"):
                raise self._hedge_mode(position.symbol)
        await reads.account()
        return read_only

    async def _require_one_way(self, reads: BybitReads, symbol: Symbol) -> None:
        if await reads.position_modes(self._market_id(symbol)) - {0}:
            raise self._hedge_mode(symbol)

    def _hedge_mode(self, symbol: Symbol) -> ConfigurationError:
        return ConfigurationError(
            f"{self._connection_id}: {symbol} is in hedge mode: switch the account to one-way mode at the venue"
        )

    async def _library_read(self, client: VenueClient, method: str) -> object:
        await self._budget.take(Priority.READ)
        try:
            return await client.unified(method)
        except CallFailed as failed:
            raise read_error(failed.failure, method) from failed

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
        client = self._writable()
        try:
            instrument = await self._feed.instrument(intent.symbol)
        except UnknownInstrument as error:
            return self._rejected(intent.client_id, "UNKNOWN_SYMBOL", str(error))
        order = wire_order(intent, instrument)
        if isinstance(order, Refusal):
            return self._rejected(intent.client_id, order.code, order.detail)
        await self._budget.take(Priority.ENTRY if intent.purpose is OrderPurpose.ENTRY else Priority.EXIT)
        late = self._clock.monotonic() - intent.deadline
        if late > 0:
            # After the deadline a look-up may already have said ABSENT for good (INV-5): nothing may follow it.
            raise BrokerUnreachable(f"{intent.client_id}: not sent, the deadline passed {late:.3f} s ago")
        return await self._send(client, intent, order)

    async def _send(self, client: VenueClient, intent: OrderIntent, order: WireOrder) -> OrderReport:
        try:
            order_id = await client.create_order(
                intent.symbol, order.kind, order.side, order.amount, order.price, order.params
            )
        except CallFailed as failed:
            return await self._judged(intent, failed.failure)
        received = self._clock.monotonic()
        if order_id is None:
            return OrderReport(
                client_id=intent.client_id,
                outcome=Outcome.UNKNOWN,
                code="NO_ORDER_ID",
                detail="the reply carried no order id",
                received=received,
            )
        return OrderReport(
            client_id=intent.client_id, outcome=Outcome.WORKING, broker_order_id=order_id, received=received
        )

    async def _judged(self, intent: OrderIntent, failure: Failure) -> OrderReport:
        judgement = judge_submit(failure)
        match judgement.verdict:
            case Verdict.NOTHING_HAPPENED:
                if judgement.code == "CLOCK":
                    await self._measure_clock()
                raise BrokerUnreachable(f"{intent.client_id}: {judgement.code} {failure.text}")
            case Verdict.AUTH:
                raise NotAuthorised(f"{self._connection_id}: {failure.text}")
            case Verdict.REJECTED if judgement.code == "DUPLICATE_ID":
                return await self._first_sending(intent)
            case Verdict.REJECTED:
                return self._rejected(intent.client_id, judgement.code, failure.text)
            case Verdict.UNKNOWN:
                return self._unknown(intent.client_id, judgement, failure.text)

    async def _first_sending(self, intent: OrderIntent) -> OrderReport:
        try:
            found = await self.lookup(intent.client_id, intent.symbol)
        except BrokerUnreachable as error:
            return self._unknown(intent.client_id, Judgement(Verdict.UNKNOWN, "DUPLICATE_ID"), str(error))
        if found.outcome is Outcome.ABSENT:
            # The venue knows the id and does not list it: not proof of anything.
            return self._unknown(
                intent.client_id, Judgement(Verdict.UNKNOWN, "DUPLICATE_ID"), "id is taken, order is not listed"
            )
        return found

    def _rejected(self, client_id: ClientOrderId, code: str, detail: str) -> OrderReport:
        return OrderReport(
            client_id=client_id,
            outcome=Outcome.REJECTED,
            code=code,
            detail=detail,
            received=self._clock.monotonic(),
        )

    def _unknown(self, client_id: ClientOrderId, judgement: Judgement, detail: str) -> OrderReport:
        self._log.warning("outcome unknown", client_id=client_id, code=judgement.code, reason=detail)
        return OrderReport(
            client_id=client_id,
            outcome=Outcome.UNKNOWN,
            code=judgement.code,
            detail=detail,
            received=self._clock.monotonic(),
        )

    async def _measure_clock(self) -> None:
        try:
            await self._writable().measure_clock()
        except CallFailed as failed:
            self._log.warning("clock of the venue not measured", reason=str(failed))

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        """Set stop and target of the whole position; None keeps, 0 clears. Repeating is harmless.

        Raises OrderRefused, BrokerUnreachable, NotAuthorised.
        """
        reference, _, index = position.rpartition("|")
        if reference != symbol or not index.isdecimal():
            raise OrderRefused("NO_POSITION", f"position must be of {symbol}, was {position!r}")
        values = {"stopLoss": stop_loss, "takeProfit": take_profit}
        changes: dict[str, object] = {name: plain(value) for name, value in values.items() if value is not None}
        if not changes:
            return
        for name, value in values.items():
            if value is not None and value < ZERO:
                raise OrderRefused("INVALID_STOPS", f"{name} must not be negative, was {plain(value)}")
        client = self._writable()
        request = {
            "category": "linear",
            "symbol": self._market_id(symbol),
            "positionIdx": int(index),
            "tpslMode": "Full",
            **changes,
        }
        await self._budget.take(Priority.EXIT)
        try:
            await client.call("privatePostV5PositionTradingStop", request)
        except CallFailed as failed:
            error = change_error(failed.failure, "protect")
            if error is not None:
                raise error from failed
        except BadRow as error:
            raise BrokerUnreachable(f"protect: {error}") from error

    async def cancel(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """Withdraw a working order and say what became of it. Raises BrokerUnreachable, NotAuthorised.

        An order of somebody else is named by the venue's order id, as `open_orders` gives it.
        """
        client = self._writable()
        market_id = self._market_id(symbol)
        await self._budget.take(Priority.EXIT)
        try:
            await client.call(
                "privatePostV5OrderCancel", {"category": "linear", "symbol": market_id, "orderLinkId": client_id}
            )
        except CallFailed as failed:
            if failed.failure.ret_code not in ALREADY_GONE:
                raise read_error(failed.failure, "cancel") from failed
        except BadRow as error:
            raise BrokerUnreachable(f"cancel: {error}") from error
        return await self.lookup(client_id, symbol)

    # ---- events --------------------------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[AccountEvent]:
        """Account events, at least once; a Resync first and after every break. One reader at a time."""
        stream = AccountStream(
            name=f"{self._settings.exchange}/{self._connection_id}",
            client=self._open_client(),
            resync=self._resync,
            symbol_of=self._open_reads().symbol_of,
            settings=self._settings,
            clock=self._clock,
            rng=self._rng,
        )
        async for event in stream.events():
            yield event

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

    def _open_reads(self) -> BybitReads:
        if self._reads is None:
            raise BrokerUnreachable(f"{self._connection_id}: the account is not open")
        return self._reads

    def _writable(self) -> VenueClient:
        client = self._open_client()
        if self.capabilities.read_only:
            raise NotAuthorised(f"{self._connection_id}: the API key may only read")
        return client

    def _market_id(self, symbol: Symbol) -> str:
        market_id = self._feed.client.id_of_symbol(symbol)
        if market_id is None:
            raise BrokerUnreachable(f"{self._connection_id}: unknown instrument, was {symbol!r}")
        return market_id

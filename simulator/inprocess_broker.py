"""`ports.Broker` directly on one account of the venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from simulator import inprocess_values as values
from simulator.faults import Faults
from simulator.inprocess_stream import AccountStream
from simulator.inprocess_wire import AnswerLost, Wire
from simulator.latency import LatencyModel
from simulator.records import (
    Executed,
    OrderChanged,
    OrderTicket,
    PositionChanged,
    SimOrder,
    TimeInForce,
    VenueEvent,
    WalletChanged,
)
from simulator.terms import VenueRefused
from simulator.venue import Venue
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.events import AccountEvent, Resync
from srm_agent.domain.ids import ClientOrderId, ConnectionId, PositionRef, Symbol
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport, Outcome
from srm_agent.errors import BrokerUnreachable, ConfigurationError, OrderRefused, UnknownInstrument
from srm_agent.ports import Capabilities

BACKFILL = timedelta(hours=24)


class InProcessBroker:
    """`ports.Broker` on one account of the venue. `submit` answers with the order's true state after matching."""

    def __init__(
        self,
        venue: Venue,
        account_id: str,
        connection_id: ConnectionId,
        clock: Clock,
        latency: LatencyModel,
        *,
        faults: Faults | None = None,
    ) -> None:
        self._venue = venue
        self._account_id = account_id
        self._connection_id = connection_id
        self._clock = clock
        self._latency = latency
        self.faults = faults or Faults()
        self._read_only = account_id in venue.accounts and venue.accounts[account_id].read_only
        self._wire = Wire(latency, self.faults, read_only=self._read_only)
        self._ids = {Symbol(terms.symbol): terms.symbol_id for terms in venue.instruments.values()}
        self._symbols = {symbol_id: symbol for symbol, symbol_id in self._ids.items()}
        self._stream = AccountStream(venue, clock, latency, self._translate)

    @property
    def connection_id(self) -> ConnectionId:
        """Whose account."""
        return self._connection_id

    @property
    def capabilities(self) -> Capabilities:
        """A netting venue with attached stops and capped entries; nothing stays in flight for long."""
        return Capabilities(
            netting=True,
            atomic_protection=True,
            price_capped_entry=True,
            finality_s=0.5,
            absences=2,
            read_only=self._read_only,
        )

    async def open(self) -> None:
        """Raises ConfigurationError when the venue has no such account."""
        if self._account_id not in self._venue.accounts:
            raise ConfigurationError(f"the simulated venue has no account {self._account_id!r}")

    async def close(self) -> None:
        """Nothing to release."""

    async def account(self) -> AccountSnapshot:
        """Balance, equity, margin."""
        wallet = await self._wire.read("v5/account/wallet-balance", lambda: self._venue.wallet(self._account_id))
        return values.snapshot(wallet, self._venue.market_ms, self._clock.monotonic())

    async def positions(self) -> Sequence[BrokerPosition]:
        """All open positions."""
        views = await self._wire.read("v5/position/list", lambda: self._venue.positions(self._account_id))
        return [values.position(view, self._symbols[view.symbol_id]) for view in views]

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders."""
        orders = await self._wire.read("v5/order/realtime", lambda: self._venue.orders(self._account_id, working=True))
        return [self._report(order) for order in orders]

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Send once; see `ports.Broker`."""
        ticket = OrderTicket(
            symbol_id=self._id(intent.symbol),
            side=intent.side,
            lots=intent.lot,
            price=intent.limit_price,
            time_in_force=TimeInForce.IOC,
            link_id=intent.client_id,
            reduce_only=intent.reduce is not None,
            stop_loss=intent.stop_loss,
            take_profit=intent.take_profit,
        )
        try:
            order = await self._wire.call("v5/order/create", lambda: self._venue.place(self._account_id, ticket))
        except VenueRefused as refusal:
            if refusal.word == "DUPLICATE_ID":
                return await self.lookup(intent.client_id, intent.symbol)
            return self._verdict(intent.client_id, Outcome.REJECTED, refusal.word, refusal.message)
        except AnswerLost as lost:
            return self._verdict(intent.client_id, Outcome.UNKNOWN, "ANSWER_LOST", str(lost))
        return self._report(order)

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """One order with its fills; ABSENT when the account never had it."""
        order = await self._wire.read(
            "v5/order/realtime", lambda: self._venue.order(self._account_id, link_id=client_id)
        )
        if order is None or order.ticket.symbol_id != self._id(symbol):
            return self._verdict(client_id, Outcome.ABSENT, "", "")
        return self._report(order)

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        """Set stop and target; None keeps, 0 clears. Raises OrderRefused, BrokerUnreachable."""
        try:
            await self._wire.read(
                "v5/position/trading-stop",
                lambda: self._venue.set_trading_stop(
                    self._account_id, self._id(symbol), stop_loss=stop_loss, take_profit=take_profit
                ),
            )
        except VenueRefused as refusal:
            if refusal.word != "NOT_MODIFIED":
                raise OrderRefused(refusal.word, f"{position}: {refusal.message}") from None

    async def cancel(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """Withdraw a working order; one that is gone answers with its look-up."""
        try:
            order = await self._wire.read(
                "v5/order/cancel", lambda: self._venue.cancel(self._account_id, **self._name(client_id))
            )
        except VenueRefused:
            return await self.lookup(client_id, symbol)
        return self._report(order)

    async def fills(self, since: datetime) -> Sequence[Fill]:
        """Every execution since that market time, oldest first."""
        start = values.milliseconds(since)
        found = await self._wire.read(
            "v5/execution/list", lambda: self._venue.executions(self._account_id, since_ms=start)
        )
        received = self._clock.monotonic()
        return [values.fill(item, self._symbols[item.order.ticket.symbol_id], received) for item in found]

    async def cash_flows(self, since: datetime) -> Sequence[CashFlow]:
        """Deposits and withdrawals since that market time, oldest first."""
        start = values.milliseconds(since)
        rows = await self._wire.read(
            "v5/account/transaction-log", lambda: self._venue.ledger(self._account_id, since_ms=start)
        )
        return [values.cash_flow(row) for row in rows if row.kind != "TRADE"]

    def drop_stream(self) -> None:
        """Break the event streams: what happens until their Resync reaches nobody."""
        self._stream.drop()

    def events(self) -> AsyncIterator[AccountEvent]:
        """A Resync, then what happens, a Heartbeat every idle second; StreamDown and a Resync after each break."""
        return self._stream.events(self._resync)

    async def _resync(self) -> Resync:
        since = values.moment(self._venue.market_ms) - BACKFILL
        while True:
            try:
                fills, flows = await self.fills(since), await self.cash_flows(since)
                orders, positions = await self.open_orders(), await self.positions()
                account = await self.account()
            except BrokerUnreachable:
                await asyncio.sleep(0.05)
                continue
            return Resync(
                fills=tuple(fills),
                open_orders=tuple(orders),
                positions=tuple(positions),
                account=account,
                cash_flows=tuple(flows),
            )

    def _translate(self, event: VenueEvent) -> AccountEvent | None:
        now = self._clock.monotonic()
        match event:
            case OrderChanged(order) if order.account_id == self._account_id:
                return self._report(order)
            case Executed(item) if item.account_id == self._account_id:
                return values.fill(item, self._symbols[item.order.ticket.symbol_id], now)
            case PositionChanged(view) if view.account_id == self._account_id:
                return values.position(view, self._symbols[view.symbol_id])
            case WalletChanged(wallet) if wallet.account_id == self._account_id:
                return values.snapshot(wallet, event.at_ms, now)
            case _:
                return None

    def _report(self, order: SimOrder) -> OrderReport:
        received = self._clock.monotonic()
        symbol = self._symbols[order.ticket.symbol_id]
        fills = self._venue.executions(self._account_id, order_id=order.order_id) if order.filled else []
        return values.report(order, symbol, tuple(values.fill(item, symbol, received) for item in fills), received)

    def _verdict(self, client_id: ClientOrderId, result: Outcome, code: str, detail: str) -> OrderReport:
        return OrderReport(
            client_id=client_id, outcome=result, code=code, detail=detail, received=self._clock.monotonic()
        )

    def _name(self, client_id: ClientOrderId) -> dict[str, str]:
        """How the venue knows an order: ours by link id, others' by its own id."""
        ours = self._venue.order(self._account_id, link_id=client_id) is not None
        return {"link_id": client_id} if ours else {"order_id": client_id}

    def _id(self, symbol: Symbol) -> str:
        symbol_id = self._ids.get(symbol)
        if symbol_id is None:
            raise UnknownInstrument(symbol)
        return symbol_id

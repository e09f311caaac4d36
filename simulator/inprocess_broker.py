"""`ports.Broker` directly on one account of the venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from simulator import inprocess_values as values
from simulator.faults import Faults
from simulator.holds import Hold
from simulator.inprocess_stream import FIRST_PAUSE_S, LONGEST_PAUSE_S, AccountStream
from simulator.inprocess_wire import Wire
from simulator.latency import LatencyModel
from simulator.mischief import AnswerLost, Mischief
from simulator.network import Network
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
from simulator.sight import Sight
from simulator.spells import Message
from simulator.terms import VenueRefused
from simulator.venue import Venue
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.events import AccountEvent, Resync
from srm_agent.domain.ids import ClientOrderId, ConnectionId, PositionRef, Symbol
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport, Outcome
from srm_agent.domain.units import ZERO
from srm_agent.errors import BrokerError, BrokerUnreachable, ConfigurationError, OrderRefused, UnknownInstrument
from srm_agent.ports import Capabilities

BACKFILL = timedelta(hours=24)
RELEASE_AGAIN_S = 1.0


class InProcessBroker:
    """`ports.Broker` on one account of the venue. `submit` answers with the order's true state after matching.

    `client_timeout_s`: how long a call waits for its answer. `receive_window_s`: the venue refuses what was signed
    longer ago (None: never). With a window, `finality_s` must be longer; without one, longer than any packet's delay.
    What goes wrong is told to `network` (the line), `mischief` (the broker), `sight` (the reads), `faults` (by REST
    path) and to the venue's own `mischief`.
    """

    def __init__(
        self,
        venue: Venue,
        account_id: str,
        connection_id: ConnectionId,
        clock: Clock,
        latency: LatencyModel,
        *,
        faults: Faults | None = None,
        client_timeout_s: float = 5.0,
        receive_window_s: float | None = 5.0,
        finality_s: float = 7.0,
        absences: int = 5,
    ) -> None:
        self._venue = venue
        self._account_id = account_id
        self._connection_id = connection_id
        self._clock = clock
        self.faults = faults or Faults()
        self.network = Network(latency)
        self.mischief = Mischief()
        self.sight = Sight(venue, account_id)
        self._finality_s, self._absences = finality_s, absences
        self._read_only = account_id in venue.accounts and venue.accounts[account_id].read_only
        if self._read_only:
            self.mischief.disable_trading()
        self._wire = Wire(
            self.network, self.faults, self.mischief, timeout_s=client_timeout_s, window_s=receive_window_s
        )
        self._ids = {Symbol(terms.symbol): terms.symbol_id for terms in venue.instruments.values()}
        self._symbols = {symbol_id: symbol for symbol, symbol_id in self._ids.items()}
        self._stream = AccountStream(venue, clock, self.network, self._translate, self.mischief.echo)

    @property
    def connection_id(self) -> ConnectionId:
        """Whose account."""
        return self._connection_id

    @property
    def account_id(self) -> str:
        """The account's name at the venue."""
        return self._account_id

    @property
    def reachable(self) -> bool:
        """Nothing that was told to this object keeps calls or events from their end now."""
        return not self.network.down and self.mischief.serving and self.sight.whole and self._stream.alive

    @property
    def capabilities(self) -> Capabilities:
        """A netting venue with attached stops and capped entries."""
        return Capabilities(
            netting=True,
            atomic_protection=True,
            price_capped_entry=True,
            finality_s=self._finality_s,
            absences=self._absences,
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
        wallet = await self._wire.read("v5/account/wallet-balance", Message.READ, self.sight.wallet)
        return values.snapshot(wallet, self._venue.market_ms, self._clock.monotonic())

    async def positions(self) -> Sequence[BrokerPosition]:
        """All open positions."""
        views = await self._wire.read("v5/position/list", Message.READ, self.sight.positions)
        return [values.position(view, self._symbols[view.symbol_id]) for view in views]

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders."""
        orders = await self._wire.read("v5/order/realtime", Message.READ, self.sight.open_orders)
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
        message = Message.ENTRY if intent.reduce is None else Message.EXIT
        try:
            report = await self._wire.call("v5/order/create", message, lambda: self._place(ticket))
        except VenueRefused as refusal:
            if refusal.word == "DUPLICATE_ID":
                return await self._first_sending(intent)
            return self._verdict(intent.client_id, Outcome.REJECTED, refusal.word, refusal.message)
        except AnswerLost as lost:
            return self._verdict(intent.client_id, Outcome.UNKNOWN, lost.code, str(lost))
        return report

    def _place(self, ticket: OrderTicket) -> OrderReport:
        if ticket.stop_loss is not None and self.mischief.drops_stop():
            ticket = replace(ticket, stop_loss=None, take_profit=None)
        return self._report(self._venue.place(self._account_id, ticket))

    async def _first_sending(self, intent: OrderIntent) -> OrderReport:
        """The id is taken: the first order of that id is the answer, or nobody knows."""
        try:
            found = await self.lookup(intent.client_id, intent.symbol)
        except BrokerUnreachable as error:
            return self._verdict(intent.client_id, Outcome.UNKNOWN, "DUPLICATE_ID", str(error))
        if found.outcome is Outcome.ABSENT:
            return self._verdict(intent.client_id, Outcome.UNKNOWN, "DUPLICATE_ID", "id is taken, order is not listed")
        return found

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """One order with its fills; ABSENT when the account never had it."""
        symbol_id = self._id(symbol)

        def look() -> OrderReport | None:
            order = self.sight.order(client_id)
            return None if order is None or order.ticket.symbol_id != symbol_id else self._report(order)

        report = await self._wire.read("v5/order/realtime", Message.READ, look)
        return self._verdict(client_id, Outcome.ABSENT, "", "") if report is None else report

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        """Set stop and target; None keeps, 0 clears. Raises OrderRefused, BrokerUnreachable."""
        symbol_id = self._id(symbol)

        def act() -> None:
            if not self.mischief.ignores_protect():
                self._venue.set_trading_stop(self._account_id, symbol_id, stop_loss=stop_loss, take_profit=take_profit)

        try:
            await self._wire.read("v5/position/trading-stop", Message.PROTECT, act)
        except VenueRefused as refusal:
            if refusal.word != "NOT_MODIFIED":
                raise OrderRefused(refusal.word, f"{position}: {refusal.message}") from None

    async def cancel(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """Withdraw a working order; one that is gone answers with its look-up."""
        try:
            order = await self._wire.read(
                "v5/order/cancel",
                Message.CANCEL,
                lambda: self._venue.cancel(self._account_id, **self._name(client_id)),
            )
        except VenueRefused:
            return await self.lookup(client_id, symbol)
        return self._report(order)

    async def fills(self, since: datetime) -> Sequence[Fill]:
        """Every execution since that market time, oldest first."""
        start = values.milliseconds(since)
        found = await self._wire.read("v5/execution/list", Message.READ, lambda: self.sight.fills(start))
        received = self._clock.monotonic()
        return [values.fill(item, self._symbols[item.order.ticket.symbol_id], received) for item in found]

    async def cash_flows(self, since: datetime) -> Sequence[CashFlow]:
        """Deposits and withdrawals since that market time, oldest first."""
        start = values.milliseconds(since)
        rows = await self._wire.read("v5/account/transaction-log", Message.READ, lambda: self.sight.ledger(start))
        return [values.cash_flow(row) for row in rows if row.kind != "TRADE"]

    def drop_stream(self) -> None:
        """Break the event streams: what happens until their Resync reaches nobody."""
        self._stream.drop()

    def mute_stream(self) -> None:
        """The streams' peer is half dead: nothing comes, heartbeats neither, until the client notices (B22)."""
        self._stream.mute()

    def switch_account(self, seconds: float) -> None:
        """Somebody else's account answers behind the credentials, as after a re-login of a terminal (B33)."""
        self.mischief.switch_account(seconds)
        self._stream.drop()

    def calm(self) -> None:
        """No more trouble: what was begun ends, what waited for the next calls is forgotten."""
        self.network.calm()
        self.mischief.calm()
        self.sight.clear()
        self.faults.clear()
        if self._read_only:
            self.mischief.disable_trading()

    def hold_next(self, *, fraction: Decimal = ZERO, rest_after_s: float | None, exits: bool | None = None) -> None:
        """Of the next order only `fraction` is executed at once; the rest after so many seconds, None: never (B6, B8).

        `exits` True: the next exit, False: the next entry.
        """

        def later(order: SimOrder) -> None:
            asyncio.get_running_loop().call_later(rest_after_s or 0.0, self._release, order.order_id)

        on_held = None if rest_after_s is None else later
        self._venue.mischief.hold_next(self._account_id, Hold(fraction=fraction, on_held=on_held, reduce_only=exits))

    def _release(self, order_id: str) -> None:
        if not self._venue.mischief.release(self._account_id, order_id):
            asyncio.get_running_loop().call_later(RELEASE_AGAIN_S, self._release, order_id)

    def events(self) -> AsyncIterator[AccountEvent]:
        """A Resync, then what happens, a Heartbeat every idle second; StreamDown and a Resync after each break."""
        return self._stream.events(self._resync)

    async def _resync(self) -> Resync:
        since = values.moment(self._venue.market_ms) - BACKFILL
        pause = FIRST_PAUSE_S
        while True:
            try:
                fills, flows = await self.fills(since), await self.cash_flows(since)
                orders, positions = await self.open_orders(), await self.positions()
                account = await self.account()
            except BrokerError:
                # A refusal of the credentials too: whoever reads the account hears of it, the stream only waits.
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            return Resync(
                fills=tuple(fills),
                open_orders=tuple(orders),
                positions=tuple(positions),
                account=account,
                cash_flows=tuple(flows),
            )

    def _translate(self, event: VenueEvent) -> AccountEvent | None:
        if self.mischief.other_account:
            return None
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
        fills = tuple(values.fill(item, symbol, received) for item in self.sight.fills_of(order))
        return values.report(order, symbol, fills, received)

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

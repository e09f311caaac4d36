"""What the agent needs from the world, and nothing about how it is done.

Each consumer's port is small; `bootstrap` plugs the implementations in. A market feed and a trading account are two
ports because many accounts share one feed, and because an order must never wait behind market data (brokers.md A.3-13).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from srm_agent.domain.accounts import AccountSnapshot, CashFlow, Halt, HaltScope, ProtectionMark
from srm_agent.domain.decisions import Decision
from srm_agent.domain.events import AccountEvent, FeedEvent
from srm_agent.domain.forecasts import ExecutionMeasure, ForecastRequest, ProviderScore, SlippageForecast
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, PositionRef, ProviderKey, SignalId, Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import Bar, Quote
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport, OrderState
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.domain.trades import ClosedTrade, Leg


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a venue can do and how long its doubts last."""

    netting: bool
    """One net position per symbol: one open leg of ours at a time."""
    atomic_protection: bool
    """The stop travels with the entry order."""
    price_capped_entry: bool
    """Immediate-or-cancel limit orders exist."""
    finality_s: float
    """After this long (from the last possible send) ABSENT may become final (INV-5)."""
    absences: int
    """How many consecutive successful look-ups must say ABSENT as well."""
    read_only: bool


class MarketFeed(Protocol):
    """Instruments, bars and quotes of one venue."""

    @property
    def venue(self) -> str:
        """Name in the registry, e.g. `bybit`."""
        ...

    async def open(self) -> None:
        """Connect and load instruments. Raises BrokerUnreachable."""
        ...

    async def close(self) -> None:
        """Release everything; idempotent."""
        ...

    async def instrument(self, symbol: Symbol) -> Instrument:
        """Contract terms. Raises UnknownInstrument."""
        ...

    async def quote(self, symbol: Symbol) -> Quote:
        """Best bid and ask now, by a read. Raises BrokerUnreachable."""
        ...

    async def bars(self, symbol: Symbol, timeframe_s: int, count: int) -> Sequence[Bar]:
        """The last `count` closed bars, oldest first, market time. Raises BrokerUnreachable."""
        ...

    def events(self, symbols: Sequence[Symbol]) -> AsyncIterator[FeedEvent]:
        """Quotes as they come; StreamDown after each break. Never ends, never raises for network trouble."""
        ...


class Broker(Protocol):
    """One trading account."""

    @property
    def connection_id(self) -> ConnectionId:
        """Whose account."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Valid after `open`."""
        ...

    async def open(self) -> None:
        """Connect, verify mode and permissions. Raises NotAuthorised, BrokerUnreachable, ConfigurationError."""
        ...

    async def close(self) -> None:
        """Release everything; idempotent. Orders and positions stay as they are."""
        ...

    async def account(self) -> AccountSnapshot:
        """Balance, equity, margin. Raises BrokerUnreachable, NotAuthorised."""
        ...

    async def positions(self) -> Sequence[BrokerPosition]:
        """Authoritative snapshot of all open positions. A failed read raises; it is never an empty list (INV-7)."""
        ...

    async def open_orders(self) -> Sequence[OrderReport]:
        """Working orders, ours and others' (others carry the broker's order id as client id)."""
        ...

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Send once. FILLED, WORKING (acknowledged), REJECTED or UNKNOWN; never retried inside.

        Raises BrokerUnreachable only if provably nothing was sent or executed (then the same id may be sent again
        before the deadline) and NotAuthorised; every doubt is the UNKNOWN outcome (INV-5).
        """
        ...

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """A pure read of one order with its fills; ABSENT when every source says so. Raises BrokerUnreachable."""
        ...

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        """Set stop and target of a position to values; None keeps, 0 clears. Idempotent, so it may be repeated.

        Raises OrderRefused, BrokerUnreachable.
        """
        ...

    async def cancel(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        """Withdraw a working order; 'already gone' answers with its look-up. Raises BrokerUnreachable."""
        ...

    async def fills(self, since: datetime) -> Sequence[Fill]:
        """At least every execution since that market time, oldest first; the caller removes repeats by fill id."""
        ...

    async def cash_flows(self, since: datetime) -> Sequence[CashFlow]:
        """Deposits, withdrawals, funding since that time, oldest first."""
        ...

    def events(self) -> AsyncIterator[AccountEvent]:
        """Account events, at least once, ordered within a kind. A Resync first and after every break. Never ends."""
        ...


class Forecaster(Protocol):
    """Expected cost of an order."""

    def forecast(self, request: ForecastRequest) -> SlippageForecast:
        """Never raises and never blocks: falls back to the floor model."""
        ...

    def observe(self, measure: ExecutionMeasure) -> None:
        """Learn from what an execution really cost."""
        ...


class Scorer(Protocol):
    """What a provider is worth."""

    def score(self, provider: ProviderKey) -> ProviderScore:
        """The score in force; a provider never seen has the prior's."""
        ...

    def observe(self, trade: ClosedTrade) -> ProviderScore:
        """Learn from one closed trade, in O(1); the new score."""
        ...


class Notifier(Protocol):
    """Tells people."""

    def notify(self, level: str, title: str, message: str, connection: ConnectionId | None = None) -> None:
        """Never blocks, never raises. `level` is notice, warning or page."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """An order as the journal knows it."""

    intent: OrderIntent
    state: OrderState
    filled_lot: Decimal
    average_price: Decimal | None
    broker_order_id: str | None
    code: str
    absences: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderUpdate:
    """A change of a journal row with what it caused, written in one transaction; repeating it changes nothing."""

    client_id: ClientOrderId
    state: OrderState
    filled_lot: Decimal
    average_price: Decimal | None
    broker_order_id: str | None
    code: str
    detail: str
    absences: int
    at: datetime
    fills: tuple[Fill, ...] = ()
    leg: Leg | None = None
    measure: ExecutionMeasure | None = None


class Journal(Protocol):
    """The truth about orders, written before the wire (INV-2)."""

    async def record(self, decisions: Sequence[Decision], intents: Sequence[OrderIntent], legs: Sequence[Leg]) -> None:
        """All or nothing, in one transaction; rows that are there already stay as they are."""
        ...

    async def update(self, updates: Sequence[OrderUpdate]) -> None:
        """Apply in order; idempotent."""
        ...

    async def record_fills(self, connection: ConnectionId, fills: Sequence[Fill], legs: Sequence[Leg]) -> None:
        """Fills that no order of ours asked for (stops, targets, liquidations), with the legs they changed."""
        ...

    async def unsettled(self, connection: ConnectionId) -> Sequence[JournalRow]:
        """Rows in INTENT, WORKING or UNKNOWN, oldest first."""
        ...

    async def open_legs(self, connection: ConnectionId) -> Sequence[Leg]:
        """Legs in OPENING or OPEN, oldest first."""
        ...

    async def known_fills(self, connection: ConnectionId, since: datetime) -> Mapping[str, LegId | None]:
        """Fill ids recorded since that market time."""
        ...

    async def decided(self, signal: SignalId) -> Sequence[ConnectionId]:
        """Whose decision on this signal is committed, in the order of their ids."""
        ...

    async def settled_since(self, connection: ConnectionId, since: datetime) -> Sequence[JournalRow]:
        """Rows in FILLED, REJECTED or ABANDONED that changed at or after that wall time, oldest first."""
        ...

    async def orders_of(self, legs: Sequence[LegId]) -> Sequence[JournalRow]:
        """Every order of these legs, oldest first."""
        ...

    async def legs(self, legs: Sequence[LegId]) -> Sequence[Leg]:
        """These legs, whatever became of them, oldest first; ids that are not known are left out."""
        ...

    async def close_trade(self, trade: ClosedTrade, score: ProviderScore) -> None:
        """A leg's end with the score it leads to; updates the provider's daily, weekly and monthly metrics."""
        ...


class ProtectionStore(Protocol):
    """Marks and halts that survive a restart."""

    async def mark(self, connection: ConnectionId) -> ProtectionMark | None:
        """The persisted high-water mark and day base, None at first sight."""
        ...

    async def save_mark(self, mark: ProtectionMark) -> None:
        """Replace the connection's mark."""
        ...

    async def halts(self) -> Sequence[Halt]:
        """All halts in force."""
        ...

    async def save_halt(self, halt: Halt) -> None:
        """Latch, or advance FLATTENING to HALTED."""
        ...

    async def clear_halt(self, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        """Remove a halt and write who did it to the audit log; False if there was none."""
        ...

    async def record_equity(
        self, connection: ConnectionId, at: datetime, equity: Decimal, balance: Decimal, drawdown: Decimal
    ) -> None:
        """One row of the equity curve."""
        ...

    async def record_flows(self, connection: ConnectionId, flows: Sequence[CashFlow]) -> None:
        """Deposits and withdrawals, once each by flow id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeResult:
    """What the log says to a delivered message: the answer to give, and whether the message is new.

    `fresh` False: a delivery id or an opening signal id that is known; `answer` is then the first answer, unchanged.
    """

    fresh: bool
    answer: str


class SignalLog(Protocol):
    """Accepted messages: written before they are acknowledged, never lost (INV-3), never taken twice (INV-1)."""

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """Commit the message; a repeat (same delivery id, or same opening signal id) gives the first answer."""
        ...

    async def unfinished(self) -> Sequence[Signal]:
        """Accepted but not processed to the end, oldest first: to be taken up again after a restart."""
        ...

    async def finish(self, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """Every follower's decision on this message is committed."""
        ...

    async def opening(self, signal_id: SignalId) -> OpenSignal | None:
        """The opening signal of that id, None if it never came."""
        ...

    async def closed_before_open(self, signal_id: SignalId) -> bool:
        """A full close or a cancel of that id was accepted before its open was decided for every follower (tombstone).

        Such an open is refused: also one that waits while the close overtakes it, and by a later process.
        """
        ...


class History(Protocol):
    """What learning is rebuilt from at start: deterministic and recomputable."""

    async def closed_trades(self) -> Sequence[ClosedTrade]:
        """All of them, in the order of their market close (ties by leg id)."""
        ...

    async def recent_measures(self, count: int) -> Sequence[ExecutionMeasure]:
        """The last entries measured, oldest first."""
        ...


class Leases(Protocol):
    """One writer per connection (INV-17)."""

    async def acquire(self, connection_id: ConnectionId, owner: str, ttl_s: float) -> int | None:
        """The fencing token, or None while another holds it."""
        ...

    async def renew(self, connection_id: ConnectionId, owner: str, fence: int, ttl_s: float) -> bool:
        """False when it is no longer ours."""
        ...

    async def release(self, connection_id: ConnectionId, owner: str, fence: int) -> bool:
        """Give it back."""
        ...


class Storage(Protocol):
    """One database: what it keeps, by subject."""

    @property
    def journal(self) -> Journal:
        """Orders, legs, fills, trades."""
        ...

    @property
    def protection(self) -> ProtectionStore:
        """Marks and halts."""
        ...

    @property
    def signals(self) -> SignalLog:
        """Messages."""
        ...

    @property
    def history(self) -> History:
        """What learning is rebuilt from."""
        ...

    @property
    def leases(self) -> Leases:
        """Who writes."""
        ...

    async def close(self) -> None:
        """Commit what waits and release everything; idempotent."""
        ...


class Server(Protocol):
    """Where signals and control come in."""

    async def start(self) -> int:
        """Listen; the port. Raises ConfigurationError if the address cannot be used."""
        ...

    async def wait(self) -> None:
        """Until the server ends, by `stop` or by a defect (which is raised)."""
        ...

    async def stop(self) -> None:
        """No new requests; idempotent."""
        ...

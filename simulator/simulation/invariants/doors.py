"""What passes between the agent and the world, noted at the doors: database, brokers and feeds, each behind its port.

A door stands between the faults and the real thing: what it notes as committed is committed, whatever the agent was
told. It waits for nothing of its own and changes nothing; calls that nobody judges go straight through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import cast

from simulator.records import OrderTicket
from srm_agent.domain.accounts import AccountSnapshot, Halt, HaltScope, ProtectionMark
from srm_agent.domain.decisions import Decision
from srm_agent.domain.events import AccountEvent, FeedEvent, Resync, StreamDown
from srm_agent.domain.ids import ClientOrderId, ConnectionId, DecisionId, PositionRef, ProviderKey, Symbol
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import Fill, OrderIntent, OrderReport, OrderState, Outcome
from srm_agent.domain.signals import Signal
from srm_agent.domain.trades import Leg
from srm_agent.errors import BrokerUnreachable, NotAuthorised
from srm_agent.ports import (
    Broker,
    Capabilities,
    IntakeResult,
    Journal,
    Leases,
    MarketFeed,
    OrderUpdate,
    ProtectionStore,
    SignalLog,
    Storage,
)

UNREACHABLE, REFUSED_KEY = "unreachable", "not authorised"
"""Answers to `submit` that prove that nothing was done, beside the outcomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """An order's first row in the journal. `life` is who wrote it."""

    at: float
    life: int
    intent: OrderIntent
    decision: Decision | None
    database_worked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The journal took an order as ended."""

    at: float
    intent: OrderIntent
    state: OrderState
    code: str


@dataclass(slots=True, kw_only=True)
class Sent:
    """One call of `submit`. `answer`: the outcome, UNREACHABLE or REFUSED_KEY; empty while (or if never) answered."""

    at: float
    life: int
    intent: OrderIntent
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltWritten:
    """A halt was committed (`halt` set), or cleared by `operator`; `stood`: there was one to clear."""

    at: float
    scope: HaltScope
    key: str
    halt: Halt | None
    operator: str
    stood: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who got an account's lease last, by what token, and when (the first time with that token)."""

    at: float
    fence: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message in the database."""

    at: float
    signal: Signal


class Seen:
    """Everything noted so far, indexed; it outlives the processes. `works`: the database takes writes now."""

    def __init__(self, now: Callable[[], float], works: Callable[[], bool] = lambda: True) -> None:
        self.now = now
        self.works = works
        self.orders: dict[ClientOrderId, Committed] = {}
        self.states: dict[ClientOrderId, OrderState] = {}
        self.sent: dict[ClientOrderId, list[Sent]] = {}
        self.absent: dict[ClientOrderId, list[float]] = {}
        """When the last look-ups in a row, of those that succeeded, said ABSENT."""
        self.capabilities: dict[ConnectionId, Capabilities] = {}
        self.decisions: dict[DecisionId, Decision] = {}
        self.messages: dict[tuple[ProviderKey, str], Taken] = {}
        self.legs_changed = True
        """Somebody wrote legs since this was set to False."""
        self.halts: list[HaltWritten] = []
        self.marks: list[ProtectionMark] = []
        self.leases: dict[ConnectionId, Lease] = {}
        self.heard: dict[tuple[int, ConnectionId], float] = {}
        """When a life last heard its account's stream."""
        self.figure: dict[tuple[int, ConnectionId], float] = {}
        """When it last got the broker's own figure of the account."""
        self.quoted: dict[tuple[int, Symbol], float] = {}
        """When a life last got a quote."""
        self.protects: dict[tuple[ConnectionId, Symbol], float] = {}
        """When somebody last asked for a stop, whatever came of it."""
        self.exits: dict[tuple[ConnectionId, Symbol], float] = {}
        """When a reducing order was last handed to the broker."""
        self.on_taken: list[Callable[[Taken], None]] = []
        self.on_committed: list[Callable[[Committed], None]] = []
        self.on_settled: list[Callable[[Settled], None]] = []
        self.on_sent: list[Callable[[Sent], None]] = []

    def storage(self, life: int, storage: Storage) -> Storage:
        """The database, for one life."""
        return cast("Storage", _StorageDoor(self, life, storage))

    def broker(self, life: int, broker: Broker) -> Broker:
        """One account, for one life."""
        return cast("Broker", _BrokerDoor(self, life, broker))

    def feed(self, life: int, feed: MarketFeed) -> MarketFeed:
        """Market data, for one life."""
        return cast("MarketFeed", _FeedDoor(self, life, feed))

    # ---- what the doors tell

    def recorded(self, life: int, decisions: Sequence[Decision], intents: Sequence[OrderIntent], legs: int) -> None:
        """A transaction of `Journal.record` is committed; rows that were there stay as they are."""
        for decision in decisions:
            self.decisions.setdefault(decision.decision_id, decision)
        self.legs_changed |= legs > 0
        for intent in intents:
            if intent.client_id in self.orders:
                continue
            entry = Committed(
                at=self.now(),
                life=life,
                intent=intent,
                decision=None if intent.decision_id is None else self.decisions.get(intent.decision_id),
                database_worked=self.works(),
            )
            self.orders[intent.client_id] = entry
            self.states[intent.client_id] = OrderState.INTENT
            for tell in self.on_committed:
                tell(entry)

    def updated(self, updates: Sequence[OrderUpdate]) -> None:
        """A transaction of `Journal.update` is committed; a settled order keeps its state."""
        for change in updates:
            self.legs_changed |= change.leg is not None
            before = self.states.get(change.client_id)
            if before is None or before.settled or change.state is OrderState.INTENT:
                continue
            self.states[change.client_id] = change.state
            if not change.state.settled:
                continue
            end = Settled(
                at=self.now(),
                intent=self.orders[change.client_id].intent,
                state=change.state,
                code=change.code,
            )
            for tell in self.on_settled:
                tell(end)

    def stop_sent(self, ticket: OrderTicket) -> Decimal | None:
        """The stop that left with an order, whatever the broker made of it; the ticket's if nobody saw it leave."""
        calls = self.sent.get(ClientOrderId(ticket.link_id))
        return calls[-1].intent.stop_loss if calls else ticket.stop_loss

    def handed(self, life: int, intent: OrderIntent) -> Sent:
        """An order goes to the broker now."""
        sent = Sent(at=self.now(), life=life, intent=intent)
        self.sent.setdefault(intent.client_id, []).append(sent)
        if intent.reduce is not None:
            self.exits[intent.connection_id, intent.symbol] = sent.at
        for tell in self.on_sent:
            tell(sent)
        return sent


class _Door:
    """Passes on what it does not note."""

    def __init__(self, seen: Seen, life: int, inner: object) -> None:
        self._seen, self._life, self._inner = seen, life, inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class _StorageDoor(_Door):
    def __init__(self, seen: Seen, life: int, storage: Storage) -> None:
        super().__init__(seen, life, storage)
        self.journal = _JournalDoor(seen, life, storage.journal)
        self.protection = _ProtectionDoor(seen, life, storage.protection)
        self.signals = _SignalsDoor(seen, life, storage.signals)
        self.leases = _LeasesDoor(seen, life, storage.leases)


class _JournalDoor(_Door):
    _inner: Journal

    async def record(self, decisions: Sequence[Decision], intents: Sequence[OrderIntent], legs: Sequence[Leg]) -> None:
        await self._inner.record(decisions, intents, legs)
        self._seen.recorded(self._life, decisions, intents, len(legs))

    async def update(self, updates: Sequence[OrderUpdate]) -> None:
        await self._inner.update(updates)
        self._seen.updated(updates)

    async def record_fills(self, connection: ConnectionId, fills: Sequence[Fill], legs: Sequence[Leg]) -> None:
        await self._inner.record_fills(connection, fills, legs)
        self._seen.legs_changed |= bool(legs)


class _ProtectionDoor(_Door):
    _inner: ProtectionStore

    async def save_mark(self, mark: ProtectionMark) -> None:
        await self._inner.save_mark(mark)
        self._seen.marks.append(mark)

    async def save_halt(self, halt: Halt) -> None:
        await self._inner.save_halt(halt)
        self._note(halt.scope, halt.key, halt, "", stood=True)

    async def clear_halt(self, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        stood = await self._inner.clear_halt(scope, key, operator, at)
        self._note(scope, key, None, operator, stood=stood)
        return stood

    def _note(self, scope: HaltScope, key: str, halt: Halt | None, operator: str, *, stood: bool) -> None:
        self._seen.halts.append(
            HaltWritten(at=self._seen.now(), scope=scope, key=key, halt=halt, operator=operator, stood=stood)
        )


class _SignalsDoor(_Door):
    _inner: SignalLog

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        result = await self._inner.accept(signal, body_sha256, answer)
        if result.fresh:
            taken = Taken(at=self._seen.now(), signal=signal)
            self._seen.messages[signal.provider, signal.receipt.message_id] = taken
            for tell in self._seen.on_taken:
                tell(taken)
        return result


class _LeasesDoor(_Door):
    _inner: Leases

    async def acquire(self, connection_id: ConnectionId, owner: str, ttl_s: float) -> int | None:
        fence = await self._inner.acquire(connection_id, owner, ttl_s)
        if fence is not None:
            known = self._seen.leases.get(connection_id)
            if known is None or known.fence != fence:
                self._seen.leases[connection_id] = Lease(at=self._seen.now(), fence=fence, owner=owner)
        return fence


class _BrokerDoor(_Door):
    _inner: Broker

    async def submit(self, intent: OrderIntent) -> OrderReport:
        seen = self._seen
        seen.capabilities[intent.connection_id] = self._inner.capabilities
        sent = seen.handed(self._life, intent)
        try:
            report = await self._inner.submit(intent)
        except BrokerUnreachable:
            sent.answer = UNREACHABLE
            raise
        except NotAuthorised:
            sent.answer = REFUSED_KEY
            raise
        sent.answer = report.outcome.value
        return report

    async def lookup(self, client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
        report = await self._inner.lookup(client_id, symbol)
        if report.outcome is Outcome.ABSENT:
            self._seen.absent.setdefault(client_id, []).append(self._seen.now())
        else:
            self._seen.absent.pop(client_id, None)
        return report

    async def protect(
        self, position: PositionRef, symbol: Symbol, stop_loss: Decimal | None, take_profit: Decimal | None
    ) -> None:
        if stop_loss is not None:
            self._seen.protects[self._inner.connection_id, symbol] = self._seen.now()
        await self._inner.protect(position, symbol, stop_loss, take_profit)

    async def account(self) -> AccountSnapshot:
        snapshot = await self._inner.account()
        self._figure(snapshot)
        return snapshot

    async def events(self) -> AsyncIterator[AccountEvent]:
        key = (self._life, self._inner.connection_id)
        async for event in self._inner.events():
            if not isinstance(event, StreamDown):
                self._seen.heard[key] = self._seen.now()
            if isinstance(event, AccountSnapshot):
                self._figure(event)
            elif isinstance(event, Resync):
                self._figure(event.account)
            yield event

    def _figure(self, snapshot: AccountSnapshot) -> None:
        if snapshot.equity is not None:
            self._seen.figure[self._life, self._inner.connection_id] = self._seen.now()


class _FeedDoor(_Door):
    _inner: MarketFeed

    async def events(self, symbols: Sequence[Symbol]) -> AsyncIterator[FeedEvent]:
        quoted, now, stamps = self._seen.quoted, self._seen.now, dict[Symbol, datetime]()
        async for event in self._inner.events(symbols):
            # A frozen quote (B23) is no news: it comes again and again with the same stamp.
            if isinstance(event, Quote) and stamps.get(event.symbol) != event.at:
                stamps[event.symbol] = event.at
                quoted[self._life, event.symbol] = now()
            yield event

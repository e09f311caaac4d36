"""The trading desk of one connection: listens to its broker, keeps its ledger, sends, closes, reconciles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.ids import ConnectionId, LegId, PositionRef, SignalId, Symbol, leg_id
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport, Outcome
from srm_agent.domain.policies import StopPolicy
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised
from srm_agent.execution.auditor import Auditor
from srm_agent.execution.chaser import Chaser
from srm_agent.execution.exit_lane import ExitLane
from srm_agent.execution.exits import ExitPlan
from srm_agent.execution.ledger import Change, Ledger
from srm_agent.execution.moves import StopMover
from srm_agent.execution.position_keeper import PositionKeeper
from srm_agent.execution.reconcile import Difference
from srm_agent.execution.recovery import recover
from srm_agent.execution.refusals import Refusals
from srm_agent.execution.sender import Sender
from srm_agent.execution.spill import SpillFile
from srm_agent.execution.stop_changes import NEVER, StopChanges
from srm_agent.execution.tickets import finality_of
from srm_agent.execution.writer import JournalWriter
from srm_agent.ports import Broker, Journal, OrderUpdate

log = structlog.get_logger()


class DeskListener(Protocol):
    """What the rest of the agent wants to hear of a desk. Called synchronously, must not block."""

    def on_change(self, desk: Desk, change: Change) -> None:
        """An order or a leg changed."""
        ...

    def on_account_event(self, desk: Desk, event: AccountEvent) -> None:
        """The account spoke (before the desk itself handles it)."""
        ...

    def on_difference(self, desk: Desk, difference: Difference) -> None:
        """Journal and broker disagree, confirmed twice."""
        ...

    def on_not_authorised(self, desk: Desk, error: NotAuthorised) -> None:
        """The broker refuses our credentials, or answers for another account."""
        ...

    def on_trouble(self, desk: Desk, level: str, title: str, text: str) -> None:
        """Something that people must hear of; `level` is notice, warning or page."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskParts:
    """What a desk is made of."""

    broker: Broker
    journal: Journal
    clock: Clock
    instruments: Mapping[Symbol, Instrument]
    touch: Callable[[Symbol, Side], Decimal | None]
    gate: Callable[[OrderIntent], ReasonCode | None]
    spill: SpillFile
    listener: DeskListener
    stop_policy: Callable[[Leg], StopPolicy] = lambda leg: StopPolicy()
    risk_cap: Callable[[Leg], Decimal | None] = lambda leg: None
    """Money that a position may lose at its stop (INV-11), settle currency; None: not known, nothing is widened."""


class Desk:
    """One connection. `synced` false until the first full picture, and again after each break of the stream."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts
        self.broker = parts.broker
        self.connection_id: ConnectionId = parts.broker.connection_id
        self.ledger = Ledger(
            lambda: finality_of(self.broker.capabilities),
            lambda symbol: parts.instruments[symbol].contract_size,
        )
        self.writer = JournalWriter(parts.journal, self.connection_id)
        self.exits = ExitPlan(parts.clock)
        self.refusals = Refusals(parts.clock, self.tell)
        self.positions: dict[Symbol, BrokerPosition] = {}
        self.halted_symbols: dict[Symbol, str] = {}
        self.synced = False
        self.fence = 0
        self._seen: dict[Symbol, float] = {}
        self._read_at = NEVER
        self._entered: frozenset[LegId] = frozenset()
        """Legs of an earlier process: what it has sent for a signal is not sent again."""
        self._sender = Sender(
            parts.broker,
            self.ledger,
            parts.clock,
            gate=parts.gate,
            touch=parts.touch,
            on_report=self.take_report,
            on_not_authorised=self.not_authorised,
        )
        self._chaser = Chaser(parts.broker, self.ledger, parts.clock, self.take_report)
        self.stops = StopChanges(self, parts.clock)
        self.moves = StopMover(self, parts.clock, self.instrument)
        self._exit_lane = ExitLane(self, self.exits, parts.journal, parts.spill, parts.clock)
        self.auditor = Auditor(self, parts.clock, lambda found: parts.listener.on_difference(self, found))
        self.keeper = PositionKeeper(self, parts.clock)

    # ---- life

    async def recover(self) -> None:
        """Read the journal: what may be live is asked about before anything else is done. Raises StoreError."""
        known = await recover(self._parts.journal, self.connection_id, self._parts.spill, self._parts.clock)
        self.ledger.restore(known.legs, known.tickets, known.counted, known.ended)
        self.exits.restore(known.exits)
        self.moves.restore(known.buffers)
        self._entered = known.entered()
        if known.damaged:
            text = (
                f"{known.damaged} of {self._parts.spill.where()} cannot be read: an exit may be unknown to the journal"
            )
            self.tell("page", "damaged spill file", text)

    async def is_behind_journal(self) -> bool:
        """The journal holds open legs or unsettled orders that this desk has not heard of. Raises StoreError."""
        legs = await self._parts.journal.open_legs(self.connection_id)
        rows = await self._parts.journal.unsettled(self.connection_id)
        strange = any(leg.leg_id not in self.ledger.legs for leg in legs)
        return strange or any(row.intent.client_id not in self.ledger.tickets for row in rows)

    async def run(self) -> None:
        """Work until cancelled; an unexpected error ends it, and with it the process (P18)."""
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("writer", self.writer.run),
                ("sender", self._sender.run),
                ("chaser", self._chaser.run),
                ("exits", self._exit_lane.run),
                ("moves", self.moves.run),
                ("keeper", self.keeper.run),
                ("audit", self.auditor.run),
                ("listen", self._listen),
            ):
                group.create_task(work(), name=f"{name} {self.connection_id}")

    # ---- what we do

    def plan_entry(self, leg: Leg, intent: OrderIntent) -> None:
        """Reserve synchronously, before anything is awaited (no second signal may use the same budget)."""
        self.ledger.plan(leg, intent)

    def entered_before(self, signal: SignalId) -> bool:
        """Whether an earlier process has sent an order for this signal that lives, lived, or may live (INV-1)."""
        return leg_id(self.connection_id, signal) in self._entered

    def send(self, intent: OrderIntent) -> None:
        """Queue an order whose intent is committed."""
        self._sender.enqueue(intent)

    def withdraw(self, intent: OrderIntent, code: str) -> None:
        """An entry whose intent was not committed: it is never sent, and its reservation ends."""
        refusal = OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code=code)
        for change in self.ledger.take_report(refusal, self._parts.clock.monotonic()):
            self._parts.listener.on_change(self, change)
        self.ledger.withdraw(intent.client_id)
        if intent.leg_id is not None:
            self.ledger.ended.pop(intent.leg_id, None)
            self.exits.drop(intent.leg_id)

    def close(self, leg: Leg, fraction: Decimal, reason: CloseReason, label: str) -> None:
        """Want a leg smaller or gone; attempts follow until it is."""
        self.exits.want(leg, fraction, reason, label, self.instrument(leg))
        self._exit_lane.look_soon()

    def note_emergency(self, intent: OrderIntent, reason: CloseReason) -> None:
        """An order that the emergency close sends by itself: remember it at once, journal it when that is possible."""
        self._exit_lane.note_emergency(intent, reason)

    def tell(self, level: str, title: str, text: str) -> None:
        """Something that people must hear of."""
        self._parts.listener.on_trouble(self, level, title, text)

    # ---- what we hear

    async def _listen(self) -> None:
        async for event in self.broker.events():
            self._parts.listener.on_account_event(self, event)
            await self._hear(event)
        # A deaf desk that goes on trading would be worse than a dead one (P18).
        raise RuntimeError(f"the account stream of {self.connection_id} ended")

    def not_authorised(self, error: NotAuthorised) -> None:
        """The broker refuses our credentials, whichever call said so."""
        self._parts.listener.on_not_authorised(self, error)

    def failed(self, error: BrokerError) -> None:
        """A call failed: nothing follows from it, unless it was refused because of our credentials."""
        if isinstance(error, NotAuthorised):
            self.not_authorised(error)

    async def _hear(self, event: AccountEvent) -> None:
        match event:
            case Fill():
                self.count(event)
            case OrderReport():
                self.take_report(event)
            case BrokerPosition():
                self._see_position(event)
            case StreamDown():
                self.synced = False
            case Resync():
                await self._resync(event)
            case AccountSnapshot() | Heartbeat():
                pass

    def take_report(self, report: OrderReport) -> None:
        """What the broker says about one order, from whichever side it was heard."""
        for change in self.ledger.take_report(report, self._parts.clock.monotonic()):
            self._apply(change)

    def _apply(self, change: Change) -> None:
        if not change.anything:
            return
        if change.ticket is not None:
            self.writer.put(self.update_of(change))
        elif change.fill is not None and change.leg is not None:
            self._write_leg(change.leg, change.fill)
        if change.leg is not None:
            if change.ended:
                self.exits.drop(change.leg.leg_id)
                self.stops.forget(change.leg.leg_id)
            else:
                self.exits.shrunk(change.leg)
                if change.opened:
                    self.keeper.look_soon(change.leg.leg_id)
        if change.ticket is not None and change.settled:
            self.refusals.heard(change.ticket)
        self._exit_lane.heard(change)
        self._parts.listener.on_change(self, change)
        self._exit_lane.look_soon()

    def update_of(self, change: Change, measure: ExecutionMeasure | None = None) -> OrderUpdate:
        """The journal's form of a change of an order. Raises AssertionError for a change without one."""
        ticket = change.ticket
        assert ticket is not None
        return OrderUpdate(
            client_id=ticket.intent.client_id,
            state=ticket.state,
            filled_lot=ticket.filled_lot,
            average_price=ticket.average_price,
            broker_order_id=ticket.broker_order_id,
            code=ticket.code,
            detail=ticket.detail[:200],
            absences=ticket.absences,
            at=self._parts.clock.wall(),
            fills=(change.fill,) if change.fill else (),
            leg=change.leg,
            measure=measure,
        )

    def _see_position(self, position: BrokerPosition) -> None:
        self._seen[position.symbol] = self._parts.clock.monotonic()
        if position.lot:
            self.positions[position.symbol] = position
            if self.ledger.open_leg(position.symbol) is not None:
                self.keeper.look_soon()  # it reads only if this one does not look well (INV-4)
        else:
            self.positions.pop(position.symbol, None)

    # ---- the full picture

    async def _resync(self, picture: Resync) -> None:
        for fill in picture.fills:
            self.count(fill)
        self.see_positions(picture.positions)
        self.synced = True
        self.keeper.look_soon()
        await self.auditor.after_resync()

    def count(self, fill: Fill) -> None:
        """An execution, from whichever side it was heard."""
        for change in self.ledger.take_fill(fill):
            self._apply(change)

    def put_leg(self, leg: Leg) -> None:
        """A leg that changed otherwise than by a fill: in the ledger and in the journal."""
        self.ledger.set_leg(leg)
        self._write_leg(leg)

    def _write_leg(self, leg: Leg, fill: Fill | None = None) -> None:
        fills = [fill] if fill else []
        self.writer.put_job(lambda: self._parts.journal.record_fills(self.connection_id, fills, [leg]))

    def see_positions(self, positions: Iterable[BrokerPosition]) -> None:
        """A successful read of all positions."""
        self.positions = {position.symbol: position for position in positions if position.lot}
        self._read_at = self._parts.clock.monotonic()
        self._seen.clear()

    def seen_at(self, symbol: Symbol) -> float:
        """Monotonic second of the last picture of this symbol's position, by a read or an event."""
        return self._seen.get(symbol, self._read_at)

    def lose(self, leg: Leg) -> None:
        """The broker no longer holds this leg, and no fill explains it."""
        lost = self.ledger.lose(leg.leg_id)
        if lost is not None:
            self._write_leg(lost)
            self.exits.drop(lost.leg_id)
            self.stops.forget(lost.leg_id)
            self._parts.listener.on_change(self, Change(leg=lost, ended=True))

    # ---- details

    def instrument(self, leg: Leg) -> Instrument | None:
        """The terms of what it holds, None until the venue has told them."""
        return self._parts.instruments.get(leg.symbol)

    def exit_touch(self, leg: Leg) -> Decimal | None:
        """The price at which it could be closed, None where there is no quote."""
        return self._parts.touch(leg.symbol, leg.side.opposite)

    def stop_policy(self, leg: Leg) -> StopPolicy:
        """How its stop may change."""
        return self._parts.stop_policy(leg)

    def risk_cap(self, leg: Leg) -> Decimal | None:
        """Money that it may lose at its stop, settle currency; None: not known."""
        return self._parts.risk_cap(leg)

    def reference(self, leg: Leg) -> PositionRef:
        """The broker's name of the position that holds this leg."""
        position = self.positions.get(leg.symbol)
        return position.ref if position else PositionRef(f"{leg.symbol}|0")

    @property
    def netting(self) -> bool:
        """Whether the venue keeps one net position per symbol; until that is known the stricter answer."""
        try:
            return self.broker.capabilities.netting
        except BrokerUnreachable:
            return True

    @property
    def read_only(self) -> bool:
        """Whether the credentials may only read (False until known: nothing is sent before the first sync anyway)."""
        try:
            return self.broker.capabilities.read_only
        except BrokerUnreachable:
            return False

    def open_legs(self) -> Iterable[Leg]:
        """Legs that hold or may hold volume."""
        return [leg for leg in self.ledger.legs.values() if leg.state in (LegState.OPEN, LegState.OPENING)]

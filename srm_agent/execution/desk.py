"""The trading desk of one connection: listens to its broker, keeps its ledger, sends, closes, reconciles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.ids import ConnectionId, FillId, LegId, PositionRef, SignalId, Symbol, leg_id
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport, Outcome
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, SrmError
from srm_agent.execution.auditor import Auditor
from srm_agent.execution.chaser import Chaser
from srm_agent.execution.exits import ExitPlan
from srm_agent.execution.ledger import Change, Ledger
from srm_agent.execution.moves import StopMover
from srm_agent.execution.reconcile import Difference
from srm_agent.execution.sender import Sender
from srm_agent.execution.spill import SpillFile
from srm_agent.execution.tickets import Finality, restored
from srm_agent.execution.writer import JournalWriter
from srm_agent.ports import Broker, Journal, OrderUpdate

log = structlog.get_logger()

JOURNAL_PATIENCE_S = 1.0
NO_PATIENCE_S = 0.05
"""While the journal is known to be behind."""
REACH_BACK = timedelta(hours=1)


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

    def on_not_authorised(self, desk: Desk, detail: str) -> None:
        """The broker refuses our credentials."""
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


class Desk:
    """One connection. `synced` false until the first full picture, and again after each break of the stream."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts
        self.broker = parts.broker
        self.connection_id: ConnectionId = parts.broker.connection_id
        self.ledger = Ledger(
            lambda: Finality(self.broker.capabilities.finality_s, self.broker.capabilities.absences),
            lambda symbol: parts.instruments[symbol].contract_size,
        )
        self.writer = JournalWriter(parts.journal, self.connection_id)
        self.exits = ExitPlan(parts.clock)
        self.positions: dict[Symbol, BrokerPosition] = {}
        self.halted_symbols: dict[Symbol, str] = {}
        self.synced = False
        self.fence = 0
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
        self.moves = StopMover(self, parts.clock, lambda leg: parts.instruments.get(leg.symbol))
        self._wake_exits = asyncio.Event()
        self.auditor = Auditor(self, parts.clock, lambda found: parts.listener.on_difference(self, found))

    # ---- life

    async def recover(self) -> None:
        """Read the journal: what may be live is asked about before anything else is done. Raises StoreError."""
        journal = self._parts.journal
        legs = await journal.open_legs(self.connection_id)
        rows = await journal.unsettled(self.connection_id)
        since = min((leg.opened_at for leg in legs if leg.opened_at), default=_EPOCH)
        counted = await journal.known_fills(self.connection_id, since - REACH_BACK)
        now = self._parts.clock.monotonic()
        self.ledger.restore(legs, [restored(row, now) for row in rows], [FillId(fill) for fill in counted])
        entered = [leg.leg_id for leg in legs] + [row.intent.leg_id for row in rows] + list(counted.values())
        self._entered = frozenset(name for name in entered if name is not None)

    async def run(self) -> None:
        """Work until cancelled; an unexpected error ends it, and with it the process (P18)."""
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("writer", self.writer.run),
                ("sender", self._sender.run),
                ("chaser", self._chaser.run),
                ("exits", self._run_exits),
                ("moves", self.moves.run),
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
        del self.ledger.tickets[intent.client_id]
        if intent.leg_id is not None:
            self.ledger.ended.pop(intent.leg_id, None)
            self.exits.drop(intent.leg_id)

    def close(self, leg: Leg, fraction: Decimal, reason: CloseReason, label: str) -> None:
        """Want a leg smaller or gone; attempts follow until it is."""
        self.exits.want(leg, fraction, reason, label, self._parts.instruments.get(leg.symbol))
        self._wake_exits.set()

    async def protect(self, leg: Leg, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Move stop and target at the broker, then in the ledger. Raises OrderRefused, BrokerUnreachable."""
        await self.broker.protect(self.reference(leg), leg.symbol, stop_loss, take_profit)
        current = self.ledger.legs.get(leg.leg_id)
        if current is None:
            return
        moved = replace(
            current, stop_loss=stop_loss or current.stop_loss, take_profit=take_profit or current.take_profit
        )
        self.ledger.set_leg(moved)
        self._put_leg(moved)

    def note_emergency(self, intent: OrderIntent, reason: CloseReason) -> None:
        """An order that the emergency close sends by itself: remember it at once, journal it when that is possible."""
        self.ledger.plan_exit(intent, reason)
        self._spill(intent)
        self.writer.put_job(lambda: self._parts.journal.record([], [intent], []))

    def note_stop_not_kept(self, leg: Leg) -> None:
        """The provider asked for a wider stop: not granted, but it counts against its stop-loss compliance."""
        current = self.ledger.legs.get(leg.leg_id)
        if current is not None and current.stop_kept:
            marked = replace(current, stop_kept=False)
            self.ledger.set_leg(marked)
            self._put_leg(marked)

    # ---- what we hear

    async def _listen(self) -> None:
        async for event in self.broker.events():
            self._parts.listener.on_account_event(self, event)
            await self._hear(event)
        # A deaf desk that goes on trading would be worse than a dead one (P18).
        raise RuntimeError(f"the account stream of {self.connection_id} ended")

    def not_authorised(self, detail: str) -> None:
        """The broker refuses our credentials, whichever call said so."""
        self._parts.listener.on_not_authorised(self, detail)

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
            self._put_leg(change.leg, change.fill)
        if change.leg is not None:
            if change.ended:
                self.exits.drop(change.leg.leg_id)
            else:
                self.exits.shrunk(change.leg)
        self._parts.listener.on_change(self, change)
        self._wake_exits.set()

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
        if position.lot:
            self.positions[position.symbol] = position
            if position.stop_loss is None and self.ledger.open_leg(position.symbol) is not None:
                self.auditor.look_soon()  # a naked position is found in seconds, not at the next audit (INV-4)
        else:
            self.positions.pop(position.symbol, None)

    # ---- exits as a desired state

    async def _run_exits(self) -> None:
        while True:
            self._wake_exits.clear()
            # Together, so that a store that hangs delays them by one patience, not by one each.
            await asyncio.gather(*(self.send_exit(intent, reason) for intent, reason in self._due_exits()))
            try:
                async with asyncio.timeout(0.2):
                    await self._wake_exits.wait()
            except TimeoutError:
                continue

    def _due_exits(self) -> list[tuple[OrderIntent, CloseReason]]:
        due = []
        for name, wish in self.exits.due():
            leg = self.ledger.legs.get(name)
            if leg is None:
                self.exits.drop(name)
            elif not self.ledger.exits_under_way(name):
                instrument = self._parts.instruments.get(leg.symbol)
                if instrument is None:
                    continue  # the venue has not been reached yet; the wish stands
                intent = self.exits.next_intent(leg, wish, instrument, self.reference(leg), self.fence)
                if intent is not None:
                    due.append((intent, wish.reason))
        return due

    async def send_exit(self, intent: OrderIntent, reason: CloseReason) -> None:
        """Journal an exit, or failing that write it to the spill file, and send it in any case (INV-2, INV-10)."""
        self.ledger.plan_exit(intent, reason)
        try:
            async with asyncio.timeout(NO_PATIENCE_S if self.writer.behind else JOURNAL_PATIENCE_S):
                await self._parts.journal.record([], [intent], [])
        except (SrmError, TimeoutError) as error:
            # The writer goes on trying, ahead of everything that will be reported about this order.
            log.warning("exit not journalled in time", client_id=intent.client_id, error=str(error))
            self._spill(intent)
            self.writer.put_job(lambda: self._parts.journal.record([], [intent], []))
        self.send(intent)

    def _spill(self, intent: OrderIntent) -> None:
        try:
            self._parts.spill.write(intent)
        except OSError as disk:
            log.error("exit not even spilt", client_id=intent.client_id, error=str(disk))

    # ---- the full picture

    async def _resync(self, picture: Resync) -> None:
        for fill in picture.fills:
            self.count(fill)
        self.see_positions(picture.positions)
        self.synced = True
        await self.auditor.after_resync()

    def count(self, fill: Fill) -> None:
        """An execution, from whichever side it was heard."""
        for change in self.ledger.take_fill(fill):
            self._apply(change)

    def _put_leg(self, leg: Leg, fill: Fill | None = None) -> None:
        fills = [fill] if fill else []
        self.writer.put_job(lambda: self._parts.journal.record_fills(self.connection_id, fills, [leg]))

    def see_positions(self, positions: Iterable[BrokerPosition]) -> None:
        """A successful read of all positions."""
        self.positions = {position.symbol: position for position in positions if position.lot}

    def lose(self, leg: Leg) -> None:
        """The broker no longer holds this leg, and no fill explains it."""
        lost = self.ledger.lose(leg.leg_id)
        if lost is not None:
            self._put_leg(lost)
            self.exits.drop(lost.leg_id)
            self._parts.listener.on_change(self, Change(leg=lost, ended=True))

    # ---- details

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


_EPOCH = datetime.fromisoformat("1970-01-02T00:00:00+00:00")

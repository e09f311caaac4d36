"""Carries out wishes to close: journalled or spilt first, sent in any case, repeated until it is done.

An exit never waits for the database for long (INV-10) and leaves no order without a trace (INV-2).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import LegId
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.trades import CloseReason, Leg
from srm_agent.domain.units import plain
from srm_agent.errors import SrmError
from srm_agent.execution.exits import ExitPlan, is_dust
from srm_agent.execution.ledger import Change
from srm_agent.execution.spill import SpillFile
from srm_agent.execution.tickets import Ticket
from srm_agent.ports import Journal

if TYPE_CHECKING:
    from srm_agent.execution.desk import Desk

log = structlog.get_logger()

TURN_S = 0.2
JOURNAL_PATIENCE_S = 1.0
NO_PATIENCE_S = 0.05
"""While the journal is known to be behind."""
REPEAT_ABSENCES, REPEAT_AFTER_S = 2, 2.0
"""A full close may go out again after so many look-ups said ABSENT, or after one of them so long after its sending."""
TOO_SMALL = frozenset({"INVALID_VOLUME"})


class ExitLane:
    """The exits of one connection."""

    def __init__(self, desk: Desk, plan: ExitPlan, journal: Journal, spill: SpillFile, clock: Clock) -> None:
        self._desk = desk
        self._plan = plan
        self._journal = journal
        self._spill = spill
        self._clock = clock
        self._wake = asyncio.Event()

    def look_soon(self) -> None:
        """Something was asked for, or has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self._wake.clear()
            # Together, so that a store that hangs delays them by one patience, not by one each.
            await asyncio.gather(*(self._send(intent, reason) for intent, reason in self._due()))
            if self._plan.idle:
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(TURN_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def heard(self, change: Change) -> None:
        """An order changed: a refused exit is a reason to read the truth, and dust that cannot go is told once."""
        ticket = change.ticket
        if ticket is None or not change.settled or ticket.intent.purpose is OrderPurpose.ENTRY:
            return
        if ticket.state is OrderState.REJECTED:
            self._desk.auditor.look_soon()
            self._dust(ticket)

    def note_emergency(self, intent: OrderIntent, reason: CloseReason) -> None:
        """An order that the emergency close sends by itself: remember it at once, journal it when that is possible."""
        self._desk.ledger.plan_exit(intent, reason)
        self._spill_it(intent)
        self._desk.writer.put_job(lambda: self._journal.record([], [intent], []))

    # ---- details

    def _due(self) -> list[tuple[OrderIntent, CloseReason]]:
        due = []
        for name, wish in self._plan.due():
            leg = self._desk.ledger.legs.get(name)
            if leg is None:
                self._plan.drop(name)
            elif not any(self._waits_for(ticket, leg) for ticket in self._desk.ledger.exits_under_way(name)):
                instrument = self._desk.instrument(leg)
                if instrument is None:
                    continue  # the venue has not been reached yet; the wish stands
                intent = self._plan.next_intent(leg, wish, instrument, self._desk.reference(leg), self._desk.fence)
                if intent is not None:
                    due.append((intent, wish.reason))
        return due

    def _waits_for(self, ticket: Ticket, leg: Leg) -> bool:
        """Whether an exit under way holds back the next one (brokers.md C.3).

        The whole leg may be closed twice: reduce-only, a second order finds nothing. A part may not, nor the whole
        where the position holds volume of others too: these wait until the doubt is over.
        """
        if ticket.state is OrderState.INTENT or not self._plan.everything(leg.leg_id):
            return True
        position = self._desk.positions.get(leg.symbol)
        if position is not None and position.lot > leg.open_lot:
            return True
        since = ticket.intent.deadline if ticket.sent is None else ticket.sent
        long_ago = self._clock.monotonic() - since >= REPEAT_AFTER_S
        return ticket.absences < (1 if long_ago else REPEAT_ABSENCES)

    async def _send(self, intent: OrderIntent, reason: CloseReason) -> None:
        """Journal an exit, or failing that write it to the spill file, and send it in any case (INV-2, INV-10)."""
        self._desk.ledger.plan_exit(intent, reason)
        try:
            async with asyncio.timeout(NO_PATIENCE_S if self._desk.writer.behind else JOURNAL_PATIENCE_S):
                await self._journal.record([], [intent], [])
        except (SrmError, TimeoutError) as error:
            # The writer goes on trying, ahead of everything that will be reported about this order.
            log.warning("exit not journalled in time", client_id=intent.client_id, error=str(error))
            self._spill_it(intent)
            self._desk.writer.put_job(lambda: self._journal.record([], [intent], []))
        self._desk.send(intent)

    def _spill_it(self, intent: OrderIntent) -> None:
        try:
            self._spill.write(intent)
        except OSError as disk:
            log.error("exit not even spilt", client_id=intent.client_id, error=str(disk))

    def _dust(self, ticket: Ticket) -> None:
        leg_id: LegId | None = ticket.intent.leg_id
        leg = None if leg_id is None else self._desk.ledger.legs.get(leg_id)
        instrument = None if leg is None else self._desk.instrument(leg)
        if leg is None or instrument is None or ticket.code not in TOO_SMALL or ticket.intent.lot != leg.open_lot:
            return
        if is_dust(ticket.intent.lot, instrument):
            self._plan.give_up(leg)
            self._desk.tell(
                "page",
                "a rest too small to be closed",
                f"{leg.symbol}: {plain(leg.open_lot)} lots are below the smallest order of {plain(instrument.lot_min)} "
                f"and the broker refuses to close them ({ticket.detail or ticket.code}); close them by hand",
            )

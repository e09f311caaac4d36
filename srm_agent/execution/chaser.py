"""Asks about orders that have not ended: UNKNOWN is resolved by asking, never by sending again (INV-5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.orders import OrderReport, OrderState, Outcome
from srm_agent.errors import BrokerError
from srm_agent.execution.ledger import Ledger
from srm_agent.execution.tickets import Ticket, final_from
from srm_agent.ports import Broker

log = structlog.get_logger()

TICK_S, IDLE_S = 0.1, 0.3
PATIENCE_WORKING_S = 0.7
"""An acknowledged order usually ends by the stream; ask after this."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
FINAL_PAUSE_S = 0.5
"""Once ABSENT counts: five look-ups then take less than the five seconds that B4 allows."""
AT_ONCE = 4


class Chaser:
    """A few look-ups at a time per connection, backing off per order from 0.2 s to 2 s."""

    def __init__(self, broker: Broker, ledger: Ledger, clock: Clock, on_report: Callable[[OrderReport], None]) -> None:
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._on_report = on_report
        self._next: dict[ClientOrderId, tuple[float, float]] = {}

    async def run(self) -> None:
        """Chase for ever."""
        while True:
            await asyncio.sleep(TICK_S if self._ledger.waiting else IDLE_S)
            await self.turn()

    async def turn(self) -> None:
        """Ask about every order whose time has come."""
        now = self._clock.monotonic()
        asked = []
        for ticket in self._ledger.unsettled():
            client_id = ticket.intent.client_id
            if ticket.state is OrderState.INTENT:
                continue  # queued, or its first reply is still awaited
            due, pause = self._next.get(client_id, (self._first_look(ticket, now), FIRST_PAUSE_S))
            if now < due:
                self._next.setdefault(client_id, (due, pause))
                continue
            self._next[client_id] = (self._next_look(ticket, now, pause), min(pause * 2, LONGEST_PAUSE_S))
            asked.append(ticket)
        for start in range(0, len(asked), AT_ONCE):
            await asyncio.gather(*(self._ask(ticket) for ticket in asked[start : start + AT_ONCE]))
        for client_id in [key for key in self._next if self._settled(key)]:
            del self._next[client_id]

    def _settled(self, client_id: ClientOrderId) -> bool:
        ticket = self._ledger.tickets.get(client_id)
        return ticket is None or ticket.state.settled

    def _first_look(self, ticket: Ticket, now: float) -> float:
        return now + PATIENCE_WORKING_S if ticket.state is OrderState.WORKING else now

    def _next_look(self, ticket: Ticket, now: float, pause: float) -> float:
        """Not beyond the moment from which ABSENT counts."""
        final = final_from(ticket, self._ledger.finality())
        return min(now + pause, final) if final > now else now + pause

    async def _ask(self, ticket: Ticket) -> None:
        try:
            report = await self._broker.lookup(ticket.intent.client_id, ticket.intent.symbol)
        except BrokerError as error:
            # A query that failed proves nothing: the order stays as it is (F3).
            log.info("look-up failed", client_id=ticket.intent.client_id, error=str(error))
            return
        self._on_report(report)
        now = self._clock.monotonic()
        if report.outcome is Outcome.ABSENT and now >= final_from(ticket, self._ledger.finality()):
            self._next[ticket.intent.client_id] = (now + FINAL_PAUSE_S, LONGEST_PAUSE_S)

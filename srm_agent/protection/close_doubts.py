"""Closes whose reply proves nothing, where a repeat could close volume that is not ours (scope OWN)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import ClientOrderId, Symbol
from srm_agent.domain.orders import OrderReport, Outcome
from srm_agent.ports import Broker

log = structlog.get_logger()

PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    symbol: Symbol
    since: float
    absences: int = 0


class CloseDoubts:
    """Asks the broker until each close is known to have ended, or is final as ABSENT (INV-5)."""

    def __init__(self, broker: Broker, clock: Clock, heard: Callable[[OrderReport], None]) -> None:
        self._broker = broker
        self._clock = clock
        self._heard = heard
        self._doubts: dict[ClientOrderId, _Doubt] = {}

    @property
    def symbols(self) -> frozenset[Symbol]:
        """Symbols on which a close is in doubt."""
        return frozenset(doubt.symbol for doubt in self._doubts.values())

    def note(self, client_id: ClientOrderId, symbol: Symbol) -> None:
        """A close that was sent and whose end is not known."""
        self._doubts[client_id] = _Doubt(symbol=symbol, since=self._clock.monotonic())

    async def ask(self) -> None:
        """Look each of them up once. Never raises."""
        await asyncio.gather(*(self._ask(client_id, doubt) for client_id, doubt in list(self._doubts.items())))

    async def _ask(self, client_id: ClientOrderId, doubt: _Doubt) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                report = await self._broker.lookup(client_id, doubt.symbol)
            capabilities = self._broker.capabilities
        except Exception as error:  # a query that failed proves nothing
            log.info("close in doubt could not be looked up", client_id=client_id, error=repr(error))
            return
        self._heard(report)
        if report.outcome is Outcome.ABSENT:
            final = self._clock.monotonic() - doubt.since >= capabilities.finality_s
            counted = replace(doubt, absences=doubt.absences + 1 if final else 0)
            self._doubts[client_id] = counted
            if counted.absences >= capabilities.absences:
                del self._doubts[client_id]
        elif report.outcome in (Outcome.FILLED, Outcome.REJECTED):
            del self._doubts[client_id]

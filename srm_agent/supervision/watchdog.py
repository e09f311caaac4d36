"""The watchdog: fed by the event loop itself, and only while it is well; what stalls it is dumped."""

from __future__ import annotations

from typing import Protocol

import structlog

from srm_agent.clock import Clock
from srm_agent.supervision.health import Vitals, illness
from srm_agent.supervision.notify import Manager

log = structlog.get_logger()

FEEDS_PER_PERIOD = 3
EARLY_S = 0.05
"""A beat that comes by a rounding too early is not left for the next one."""
STATUS_EVERY_S = 1.0
"""At most one status line a second, and only when it changed."""


class StallDump(Protocol):
    """Writes where every thread stands if it is not armed again in time."""

    def arm(self) -> None:
        """Count anew."""
        ...

    def disarm(self) -> None:
        """Stop counting."""
        ...


class NoDump:
    """Nothing is dumped: simulations and tests."""

    def arm(self) -> None:
        """Nothing to do."""

    def disarm(self) -> None:
        """Nothing to do."""


class Watchdog:
    """Tells the manager: ready once, alive while well, and what the state is."""

    def __init__(self, manager: Manager, clock: Clock, dump: StallDump | None = None) -> None:
        self._manager = manager
        self._clock = clock
        self._dump = dump or NoDump()
        self._fed: float | None = None
        self._told: tuple[float, str] | None = None
        self.illness = ""
        """Why the watchdog is not fed; empty while it is."""

    def feel(self, vitals: Vitals, status: str) -> None:
        """Once a heartbeat."""
        self._dump.arm()
        now, ill = self._clock.monotonic(), illness(vitals)
        if ill and not self.illness:
            log.error("not well: the watchdog is not fed", illness=ill)
        elif self.illness and not ill:
            log.info("well again", was=self.illness)
        self.illness = ill
        period = self._manager.watchdog_s
        due = self._fed is None or (period is not None and now - self._fed >= period / FEEDS_PER_PERIOD - EARLY_S)
        if not ill and period is not None and due:
            self._fed = now
            self._manager.alive()
        self._tell(now, f"NOT WELL: {ill}; {status}" if ill else status)

    def ready(self, status: str) -> None:
        """Everything was looked at once."""
        self._manager.ready(status)

    def stopping(self) -> None:
        """The end has begun; it has its own time limit (TimeoutStopSec), and may stall."""
        self._dump.disarm()
        self._manager.stopping()

    def _tell(self, now: float, status: str) -> None:
        if self._told is None or (status != self._told[1] and now - self._told[0] >= STATUS_EVERY_S):
            self._told = (now, status)
            self._manager.status(status)

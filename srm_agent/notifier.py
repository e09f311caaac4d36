"""Tells people, by the log and by a short memory that `status` shows; other sinks plug in behind the same port."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import ConnectionId

log = structlog.get_logger()

REMEMBERED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something a person should know."""

    at: datetime
    level: str
    title: str
    message: str
    connection: ConnectionId | None
    count: int = 1
    """More than one: how many events of a storm this alert stands for."""


class LogNotifier:
    """One log line an alert, and the last hundred in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.recent: deque[Alert] = deque(maxlen=REMEMBERED)

    def notify(self, level: str, title: str, message: str, connection: ConnectionId | None = None) -> None:
        """`level` is notice, warning or page."""
        self.recent.append(
            Alert(at=self._clock.wall(), level=level, title=title, message=message, connection=connection)
        )
        write = {"notice": log.info, "warning": log.warning}.get(level, log.error)
        write("alert", level_of_alert=level, title=title, message=message, connection=connection)

    def sinks(self) -> list[tuple[str, bool]]:
        """Name of each sink beyond the log, and whether it takes alerts as far as is known."""
        return []

    def waiting(self) -> int:
        """Alerts that no sink has taken yet."""
        return 0

"""What the supervision's tests share: virtual time, and a manager that keeps what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from srm_agent.clock import ManualClock
from tests.unit.execution.conftest import pytest_asyncio_loop_factories, quiet

__all__ = ["clock", "manager", "pytest_asyncio_loop_factories", "quiet"]


@dataclass(slots=True)
class Told:
    """A manager in memory."""

    watchdog_s: float | None = 3.0
    lines: list[str] = field(default_factory=list)

    def ready(self, status: str) -> None:
        """Keep it."""
        self.lines.append(f"READY {status}")

    def status(self, text: str) -> None:
        """Keep it."""
        self.lines.append(f"STATUS {text}")

    def alive(self) -> None:
        """Keep it."""
        self.lines.append("ALIVE")

    def reloading(self, monotonic_s: float) -> None:
        """Keep it."""
        self.lines.append("RELOADING")

    def stopping(self) -> None:
        """Keep it."""
        self.lines.append("STOPPING")


@pytest.fixture
def manager() -> Told:
    """Nobody was told anything yet."""
    return Told()


@pytest.fixture
def clock() -> ManualClock:
    """A Monday noon."""
    return ManualClock(datetime(2026, 1, 5, 12, tzinfo=UTC))

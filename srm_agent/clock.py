"""The only place that reads a clock.

Three times exist. *Wall* (UTC) stamps records, signatures and time-to-live; *monotonic* measures latencies, ages and
time-outs; *market* time is what the venue's quotes carry (`Quote.at`) and decides sessions, bars and trading days.
Market time therefore needs no clock here: it arrives with the data, and a simulated venue may run it faster.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time, injected everywhere."""

    def wall(self) -> datetime:
        """Now, aware UTC with microseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> datetime:
        """Now, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds, `time.monotonic`."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told: tests and replays."""

    def __init__(self, start: datetime, monotonic: float = 1000.0) -> None:
        self._wall = start
        self._monotonic = monotonic

    def wall(self) -> datetime:
        """The time last set."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds advanced so far, plus the origin."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._wall += timedelta(seconds=seconds)
        self._monotonic += seconds

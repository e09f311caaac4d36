"""The heartbeat of the event loop, on both clocks, so that a stall and a suspended host show alike (P5, P6, P17)."""

from __future__ import annotations

from datetime import datetime

from srm_agent.clock import Clock
from srm_agent.supervision.health import STANDSTILL_S

BEAT_S = 0.5


class Pulse:
    """`beat` is called every BEAT_S by the loop itself, never by a thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: tuple[float, datetime] | None = None
        self.lag_s = 0.0
        """How late the last beat was, seconds."""
        self.worst_s = 0.0
        """The largest lag since the start."""

    def beat(self) -> float:
        """Take a beat; how late it is. A wall clock set forward counts as time passed: what is not known is old."""
        self.lag_s = max(0.0, self.silence() - BEAT_S)
        self.worst_s = max(self.worst_s, self.lag_s)
        self._last = (self._clock.monotonic(), self._clock.wall())
        return self.lag_s

    def silence(self) -> float:
        """Seconds since the last beat by the clock that says more; 0 before the first.

        A suspended host stops the monotonic clock and not the wall; a wall clock set back says nothing.
        """
        if self._last is None:
            return 0.0
        monotonic, wall = self._last
        return max(self._clock.monotonic() - monotonic, (self._clock.wall() - wall).total_seconds())

    def stands_still(self) -> bool:
        """No beat for too long: whoever asks runs again before the heartbeat does, after a stall or a suspend."""
        return self.silence() > STANDSTILL_S + BEAT_S

"""The clocks of a simulated machine: both follow the loop, and the wall may be set wrong (P5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from simulator.simulation.loop import VirtualLoop

BOOT_S = 1000.0
"""Monotonic seconds at the loop's zero: nothing may rely on a machine that has just been switched on."""
EPOCH = datetime(2026, 3, 4, 13, 30, tzinfo=UTC)
"""Wall time at the loop's zero: a Wednesday, while London and New York are both open."""


class VirtualClock:
    """`srm_agent.clock.Clock` on a virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.skew_s = 0.0
        """How wrong the wall clock is, seconds."""

    def wall(self) -> datetime:
        """Aware UTC, with the skew."""
        return EPOCH + timedelta(seconds=self._loop.time() + self.skew_s)

    def monotonic(self) -> float:
        """Seconds since the machine's start; a wrong wall clock does not touch it."""
        return BOOT_S + self._loop.time()

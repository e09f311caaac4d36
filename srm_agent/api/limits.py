"""How much one provider may send: token buckets and bounds, with a lane of its own for messages that reduce risk."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """Rates are messages per second and provider; bursts and queues are messages.

    Opening signals (and malformed messages) use the entry lane; close, cancel and modify have the exit lane, which
    nothing else can empty (INV-10). `in_flight` bounds messages waiting for their commit, over all providers;
    `in_flight_reserve` more may wait if they are exits. `backlog` bounds accepted messages that wait for a decision.
    `total_*` is what all providers together may open; four times that is what they may close (see House).
    """

    entries_per_s: float = 20.0
    entries_burst: int = 60
    exits_per_s: float = 50.0
    exits_burst: int = 200
    in_flight: int = 256
    in_flight_reserve: int = 256
    backlog: int = 1000
    total_per_s: float = 1000.0
    total_burst: int = 2000


_ROUNDING = 1e-9
"""A promised wait is kept although `tokens + seconds x rate` may round to a hair below one."""


class TokenBucket:
    """`burst` tokens at first, refilled at `per_s`; time is an argument (monotonic seconds)."""

    def __init__(self, per_s: float, burst: int, now: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def wait(self, now: float) -> int:
        """0 if a token is there, else the whole seconds (>= 1) until one will be. Takes nothing."""
        level = self.level(now)
        return 0 if level >= 1.0 - _ROUNDING else max(1, math.ceil((1.0 - level) / self._per_s))

    def take(self, now: float) -> int:
        """As `wait`; and if there is a token it is taken."""
        wait_s = self.wait(now)
        if not wait_s:
            self._tokens = max(0.0, self._tokens - 1.0)
        return wait_s

    def level(self, now: float) -> float:
        """Tokens that are there."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._per_s)
        self._at = max(self._at, now)
        return self._tokens

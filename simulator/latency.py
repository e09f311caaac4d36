"""How long the wire takes: a lognormal body with a heavy tail, one leg to the venue and one back.

The request leg passes *before* the order meets the book, so prices move while it is in flight.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One direction. Seconds; `sigma` of the log; with `tail_probability` a delay is Pareto-stretched up to the cap."""

    median_s: float
    sigma: float = 0.35
    tail_probability: float = 0.01
    tail_alpha: float = 1.5
    cap_s: float = 2.0

    def draw(self, rng: random.Random) -> float:
        """One delay, 0 for a leg of median 0."""
        if self.median_s <= 0:
            return 0.0
        delay = self.median_s * math.exp(rng.gauss(0.0, self.sigma))
        if rng.random() < self.tail_probability:
            delay *= rng.paretovariate(self.tail_alpha)
        return min(delay, self.cap_s)


NO_LEG = Leg(median_s=0.0)


class LatencyModel:
    """Draws both legs from one seeded generator."""

    def __init__(self, rng: random.Random, *, request: Leg, reply: Leg) -> None:
        self._rng = rng
        self._request = request
        self._reply = reply

    @classmethod
    def none(cls) -> LatencyModel:
        """No delay at all."""
        return cls(random.Random(0), request=NO_LEG, reply=NO_LEG)

    @classmethod
    def typical(cls, rng: random.Random) -> LatencyModel:
        """A retail line to an exchange: 25 ms out, 15 ms back, one in a hundred much slower."""
        return cls(rng, request=Leg(median_s=0.025), reply=Leg(median_s=0.015))

    def request_s(self) -> float:
        """Seconds until the venue acts on a request."""
        return self._request.draw(self._rng)

    def reply_s(self) -> float:
        """Seconds until an answer or a pushed message arrives."""
        return self._reply.draw(self._rng)

"""Our own request budget: exits go first, and an entry or a read never takes the last tokens (INV-9, INV-10).

ccxt's limiter is one first-in-first-out bucket, where an order waits behind every queued read (brokers.md A.3-13).
"""

from __future__ import annotations

import asyncio
import heapq
from enum import IntEnum
from itertools import count

from srm_agent.clock import Clock


class Priority(IntEnum):
    """Who goes first; only EXIT may use the reserve."""

    EXIT = 0
    READ = 1
    ENTRY = 2


class TokenBucket:
    """Sans-I/O core: tokens fill at `rate` per second up to `burst`; the last `reserve` belong to exits."""

    def __init__(self, *, rate: float, burst: int, reserve: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._reserve = reserve
        self._tokens = float(burst)
        self._filled_at = now

    def take(self, priority: Priority, now: float) -> float:
        """0.0 and one token gone, or the seconds until it is worth asking again (nothing taken)."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now
        needed = 1.0 if priority is Priority.EXIT else 1.0 + self._reserve
        if self._tokens >= needed:
            self._tokens -= 1.0
            return 0.0
        return (needed - self._tokens) / self._rate


class RequestBudget:
    """Async shell around one bucket: `await take(priority)` returns when the request may be sent."""

    def __init__(self, *, rate: float, burst: int, reserve: int, clock: Clock) -> None:
        self._clock = clock
        self._bucket = TokenBucket(rate=rate, burst=burst, reserve=reserve, now=clock.monotonic())
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, priority: Priority) -> None:
        """Wait for a token; earlier and more urgent waiters first."""
        if not self._blocked(priority) and self._bucket.take(priority, self._clock.monotonic()) == 0.0:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        self._serve()
        await turn

    def _blocked(self, priority: Priority) -> bool:
        return any(waiting <= priority and not turn.done() for waiting, _, turn in self._waiting)

    def _serve(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            priority, _, turn = self._waiting[0]
            if not turn.done():
                wait = self._bucket.take(priority, self._clock.monotonic())
                if wait > 0.0:
                    # Never a zero delay: a clock coarser than the loop's must not make this spin.
                    self._timer = asyncio.get_running_loop().call_later(max(wait, 0.001), self._serve)
                    return
                turn.set_result(None)
            heapq.heappop(self._waiting)

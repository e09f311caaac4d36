"""Writes what happened to the journal, in order, in batches, and never gives up: the trade does not wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.orders import Fill
from srm_agent.domain.trades import Leg
from srm_agent.errors import Duplicate, OutcomeUnknown, StoreUnavailable
from srm_agent.ports import Journal, OrderUpdate

log = structlog.get_logger()

LARGEST_BATCH = 100
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0


@dataclass(frozen=True, slots=True)
class LegWrite:
    """A leg as it is now, and the fill that changed it."""

    leg: Leg
    fill: Fill | None


class JournalWriter:
    """One ordered queue per connection. `behind` true: the store does not take our writes, so no entries (INV-14)."""

    def __init__(self, journal: Journal, connection: ConnectionId) -> None:
        self._journal = journal
        self._connection = connection
        self._queue: deque[OrderUpdate | LegWrite] = deque()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.behind = False

    def put(self, update: OrderUpdate) -> None:
        """Queue a change of an order."""
        self._queue.append(update)
        self._wake()

    def put_leg(self, leg: Leg, fill: Fill | None = None) -> None:
        """Queue a leg that changed without an order of ours, with the fill that did it if there was one."""
        self._queue.append(LegWrite(leg, fill))
        self._wake()

    async def drained(self) -> None:
        """Wait until everything queued so far is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write for ever; every write is idempotent, so a doubtful commit is simply written again."""
        while True:
            if not self._queue:
                self._idle.set()
                self._work.clear()
                await self._work.wait()
            await self._write(self._next_batch())

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()

    def _next_batch(self) -> list[OrderUpdate] | LegWrite:
        first = self._queue.popleft()
        if isinstance(first, LegWrite):
            return first
        batch = [first]
        while self._queue and len(batch) < LARGEST_BATCH and isinstance(self._queue[0], OrderUpdate):
            following = self._queue.popleft()
            assert isinstance(following, OrderUpdate)
            batch.append(following)
        return batch

    async def _write(self, batch: list[OrderUpdate] | LegWrite) -> None:
        if isinstance(batch, LegWrite):
            fills = [batch.fill] if batch.fill else []
            await self.insist(lambda: self._journal.record_fills(self._connection, fills, [batch.leg]))
        else:
            await self.insist(lambda: self._journal.update(batch))

    async def insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Repeat an idempotent write until the store has taken it."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await write()
            except (StoreUnavailable, OutcomeUnknown) as error:
                if not self.behind:
                    log.warning("journal is behind", connection=self._connection, error=str(error))
                self.behind = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except Duplicate:
                return self._caught_up()
            else:
                return self._caught_up()

    def _caught_up(self) -> None:
        if self.behind:
            log.info("journal has caught up", connection=self._connection)
        self.behind = False

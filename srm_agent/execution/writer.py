"""Writes what happened to the journal, in order, in batches, and never gives up: the trade does not wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import OutcomeUnknown, StoreError, StoreUnavailable
from srm_agent.ports import Journal, OrderUpdate

log = structlog.get_logger()

LARGEST_BATCH = 100
TRIES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0


Job = Callable[[], Awaitable[None]]
"""An idempotent write."""


class JournalWriter:
    """One ordered queue per connection. `behind` true: the store does not take our writes, so no entries (INV-14)."""

    def __init__(self, journal: Journal, connection: ConnectionId) -> None:
        self._journal = journal
        self._connection = connection
        self._queue: deque[OrderUpdate | Job] = deque()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._late = False
        self.broken = False

    @property
    def behind(self) -> bool:
        """Whether something that happened is not in the store."""
        return self._late or self.broken

    def put(self, update: OrderUpdate) -> None:
        """Queue a change of an order."""
        self._queue.append(update)
        self._wake()

    def put_job(self, job: Job) -> None:
        """Queue any other idempotent write, in order with the rest."""
        self._queue.append(job)
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

    def _next_batch(self) -> list[OrderUpdate] | Job:
        first = self._queue.popleft()
        if not isinstance(first, OrderUpdate):
            return first
        batch = [first]
        while self._queue and len(batch) < LARGEST_BATCH and isinstance(following := self._queue[0], OrderUpdate):
            batch.append(following)
            self._queue.popleft()
        return batch

    async def _write(self, batch: list[OrderUpdate] | Job) -> None:
        if not isinstance(batch, list):
            await self._at_last(batch)
        elif len(batch) == 1 or not await self._taken(lambda: self._journal.update(batch)):
            # A batch is one transaction: what one update spoils would take the others with it.
            for change in batch:
                await self._at_last(lambda change=change: self._journal.update([change]))  # type: ignore[misc]

    async def _at_last(self, write: Job) -> None:
        """One write; a defect in it is given up so that the rest is written, and stops entries (INV-14)."""
        for _ in range(TRIES):
            if await self._taken(write):
                return
        self.broken = True
        log.error("journal refuses a write for good: no entries until a restart", connection=self._connection)

    async def _taken(self, write: Job) -> bool:
        """Repeat an idempotent write until the store has taken it (True) or has refused it (False)."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await write()
            except (StoreUnavailable, OutcomeUnknown) as error:
                if not self._late:
                    log.warning("journal is behind", connection=self._connection, error=str(error))
                self._late = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            except StoreError as error:
                # Duplicate: another process wrote the same row at the same moment, which the next try sees.
                log.warning("journal refused", connection=self._connection, error=str(error))
                return False
            else:
                if self._late:
                    log.info("journal has caught up", connection=self._connection)
                self._late = False
                return True

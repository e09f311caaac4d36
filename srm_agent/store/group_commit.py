"""One writer task that commits together what waited during the last fsync (reliability.md 4.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec, TypeVar

from sqlalchemy import Connection

from srm_agent.errors import OutcomeUnknown, StoreUnavailable
from srm_agent.store.runner import StoreRunner

P = ParamSpec("P")
T = TypeVar("T")
LARGEST = 64
"""Jobs in one transaction at most, so that the first of them does not wait for an endless queue."""


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    call: Callable[[Connection], T]
    context: Context
    done: asyncio.Future[T]
    value: T | None = None

    def work(self, connection: Connection) -> None:
        self.value = self.context.run(self.call, connection)

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(self.value)  # type: ignore[arg-type]  # T may itself be None

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _work_all(connection: Connection, jobs: Sequence[_Job[object]]) -> None:
    for job in jobs:
        job.work(connection)


class GroupCommit:
    """A runner whose writes share transactions. Callers may be cancelled, the transaction may not.

    A job that raises rolls the batch back, and each job then runs alone, so only the culprit sees its error.
    StoreUnavailable and OutcomeUnknown are nobody's fault: they fail the whole batch.
    """

    def __init__(self, runner: StoreRunner, *, largest: int = LARGEST) -> None:
        self._runner, self._largest = runner, largest
        self._queue: asyncio.Queue[_Job[object] | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self.batches = 0
        self.jobs = 0

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner; returns after the commit."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._serve(), name="store-writer")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(lambda connection: fn(connection, *args, **kwargs), copy_context(), done)
        self._queue.put_nowait(job)  # type: ignore[arg-type]  # the queue does not look at T
        return await done

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner; sees every write that has returned."""
        return await self._runner.read(fn, *args, **kwargs)

    async def close(self) -> None:
        """Commit what waits, stop the writer, release the runner; idempotent."""
        if not self._closed:
            self._closed = True
            if self._writer is not None:
                self._queue.put_nowait(None)
                await self._writer
        await self._runner.close()

    async def _serve(self) -> None:
        stopping = False
        while not stopping:
            waiting = [await self._queue.get()]
            while len(waiting) < self._largest and not self._queue.empty():
                waiting.append(self._queue.get_nowait())
            stopping = None in waiting
            # Who was cancelled before its turn asked for nothing.
            jobs = [job for job in waiting if job is not None and not job.done.done()]
            if jobs:
                await self._commit(jobs)

    async def _commit(self, jobs: Sequence[_Job[object]]) -> None:
        self.batches += 1
        self.jobs += len(jobs)
        try:
            await self._runner.run(_work_all, jobs)
        except asyncio.CancelledError:
            for job in jobs:
                job.fail(OutcomeUnknown("the writer was stopped during the commit"))
            raise
        except (StoreUnavailable, OutcomeUnknown) as error:
            for job in jobs:
                job.fail(error)
        except Exception as error:  # whatever a job raised; rolled back whole, nothing happened yet
            if len(jobs) == 1:
                jobs[0].fail(error)
            else:
                for job in jobs:
                    await self._commit([job])
        else:
            for job in jobs:
                job.succeed()

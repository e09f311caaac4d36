"""Who runs a repository function in a transaction: one thread in production, inline in simulation and tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, exc

from srm_agent.errors import StoreUnavailable
from srm_agent.store.engine import transaction
from srm_agent.store.errors_map import mapped

P = ParamSpec("P")
T = TypeVar("T")


class StoreRunner(Protocol):
    """Runs a plain function over a Connection in a transaction of its own."""

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run and commit. Raises StoreUnavailable, OutcomeUnknown, Duplicate, StoreBroken, or what `fn` raises.

        A cancelled caller may have committed: functions are idempotent.
        """
        ...

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run without the write lock: one consistent picture. Raises StoreUnavailable, StoreBroken."""
        ...

    async def close(self) -> None:
        """Finish what waits, then release everything; idempotent."""
        ...


class _Session:
    """The one connection, checked out at first use and kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def work(self, call: Callable[[Connection], T], *, reading: bool) -> T:
        if self._connection is None:
            try:
                self._connection = self._engine.connect()
            except (exc.SQLAlchemyError, OSError) as error:
                raise mapped(error, committing=False) from error
        with transaction(self._connection.execution_options(srm_read=reading)) as connection:
            return call(connection)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()


class ThreadRunner:
    """A synchronous driver in one thread of its own: one hop a transaction (foundation.md's measured choice)."""

    def __init__(self, engine: Engine) -> None:
        self._session = _Session(engine)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._closed = False

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner."""
        return await self._hop(lambda connection: fn(connection, *args, **kwargs), reading=False)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner."""
        return await self._hop(lambda connection: fn(connection, *args, **kwargs), reading=True)

    async def _hop(self, call: Callable[[Connection], T], *, reading: bool) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        # A thread does not inherit the caller's context (the ids bound to the log).
        work = partial(copy_context().run, partial(self._session.work, call, reading=reading))
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """See StoreRunner."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._session.close)
        self._thread.shutdown(wait=True)


class InlineRunner:
    """The same functions without a thread: simulation, tests, short commands."""

    def __init__(self, engine: Engine) -> None:
        self._session = _Session(engine)
        self._closed = False

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner."""
        self._check()
        return self._session.work(lambda connection: fn(connection, *args, **kwargs), reading=False)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner."""
        self._check()
        return self._session.work(lambda connection: fn(connection, *args, **kwargs), reading=True)

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    async def close(self) -> None:
        """See StoreRunner."""
        self._closed = True
        self._session.close()

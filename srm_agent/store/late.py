"""A runner that opens its database when it can: a daemon must start, and watch its positions, without one (P9, F25)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from srm_agent.clock import Clock
from srm_agent.errors import StoreError, StoreUnavailable
from srm_agent.store.runner import StoreRunner

P = ParamSpec("P")
T = TypeVar("T")
TRY_EVERY_S = 2.0


class LateRunner:
    """Tries to open at a call, at most every TRY_EVERY_S; until it succeeds every call raises StoreUnavailable."""

    def __init__(self, make: Callable[[], StoreRunner], clock: Clock) -> None:
        """`make` opens and migrates; it raises StoreError while it cannot."""
        self._make = make
        self._clock = clock
        self._runner: StoreRunner | None = None
        self._closed = False
        self._again_at: float | None = None
        self._why = ""

    def try_now(self) -> StoreRunner:
        """Open now. Raises what opening raises."""
        if self._runner is None:
            self._runner = self._make()
        return self._runner

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner."""
        return await self._opened().run(fn, *args, **kwargs)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """See StoreRunner."""
        return await self._opened().read(fn, *args, **kwargs)

    async def close(self) -> None:
        """See StoreRunner."""
        self._closed = True
        if self._runner is not None:
            await self._runner.close()

    def _opened(self) -> StoreRunner:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._runner is not None:
            return self._runner
        now = self._clock.monotonic()
        if self._again_at is not None and now < self._again_at:
            raise StoreUnavailable(self._why)
        self._again_at = now + TRY_EVERY_S
        try:
            return self.try_now()
        except StoreError as error:
            self._why = str(error)
            raise StoreUnavailable(self._why) from error

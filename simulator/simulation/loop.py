"""An event loop whose time is a number: no sockets, no threads, nothing that two runs could do differently.

Facts behind it: foundation.md, "Determinism". Tasks hash by their number (asyncio keeps them in sets), timers fire at
their exact time in the order (when, number), garbage is collected between seeds only.

Every task belongs to a *life* (a process of the agent, or 0 for the world): what a life starts is its own, so that a
kill can end all of it at once, as SIGKILL does.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, NoReturn, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

LIFE: ContextVar[int] = ContextVar("life", default=0)
"""Whose task this is; inherited by everything that it starts."""


class Deadlock(RuntimeError):
    """Nothing is scheduled: every task waits for another."""


class _Timer(asyncio.TimerHandle):
    __slots__ = ("number",)
    number: int
    _when: float
    _scheduled: bool

    def __lt__(self, other: _Timer) -> bool:  # type: ignore[override]
        return (self._when, self.number) < (other._when, other.number)


class _Task(asyncio.Task[Any]):
    """Hashes by its number: TaskGroup, wait() and all_tasks() walk sets of tasks, and the default is an address."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **options: Any) -> None:
        loop.tasks_made += 1
        self._number = loop.tasks_made
        self.life = LIFE.get()
        options["name"] = options.get("name") or f"virtual-{self._number}"
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Time jumps from timer to timer. `time()` starts at 0 and is seconds."""

    _scheduled: list[_Timer]
    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers_made = 0
        self._clock_resolution = 1e-9
        self._selector = self  # BaseEventLoop asks it to wait
        self._home = threading.get_ident()
        self.tasks_made = 0
        self.failures: list[Mapping[str, Any]] = []
        """What asyncio would only have logged: lost exceptions, errors in callbacks."""
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return _Task(coroutine, loop=self, **options)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def stall(self, seconds: float) -> None:
        """Time passes and nothing runs: the process was suspended, or something blocked the loop (P6, P17)."""
        self._now += seconds

    def select(self, timeout: float | None) -> list[Any]:
        """Instead of waiting for sockets: go to the next timer."""
        if timeout is None:
            raise Deadlock(f"at {self._now:.3f} s every task waits and no timer is set")
        if timeout > 0:
            # Exactly the timer's time: adding the difference would drift by rounding.
            self._now = max(self._now, self._scheduled[0]._when)
        return []

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """A timer, ordered by time and then by when it was set."""
        self._timers_made += 1
        timer = _Timer(when, callback, args, self, context)
        timer.number = self._timers_made
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def call_soon_threadsafe(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """Raises RuntimeError from another thread."""
        if threading.get_ident() != self._home:
            raise RuntimeError("a thread reached into the simulation")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, *_: Any) -> NoReturn:  # type: ignore[override]
        """Raises RuntimeError: threads escape the simulation."""
        raise RuntimeError("threads escape the simulation")

    def tasks_of(self, life: int) -> list[asyncio.Task[Any]]:
        """Tasks of a life that are not done, in the order of their making."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, _Task) and task.life == life]
        return sorted(tasks, key=hash)

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, Result]]) -> Result:
    """Run one world to its end, then cancel what is left.

    Raises RuntimeError for a thread, and for exceptions that nobody took (they would be lost in production's log).
    """
    loop = VirtualLoop()
    collecting = gc.isenabled()
    gc.disable()
    try:
        with _no_threads():
            result = loop.run_until_complete(main(loop))
            for task in sorted(asyncio.all_tasks(loop), key=hash):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        if collecting:
            gc.enable()
    gc.collect()  # the world is full of cycles; and exceptions that nobody took are reported when their task is freed
    if loop.failures:
        raise RuntimeError(f"lost in the loop: {_told(loop.failures)}")
    return result


def _told(failures: list[Mapping[str, Any]]) -> str:
    return "; ".join(f"{context.get('message')}: {context.get('exception')!r}" for context in failures[:5])


@contextmanager
def _no_threads() -> Iterator[None]:
    """anyio (sync endpoints, static files) starts threads of its own: `run_in_executor` never sees them."""

    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError(f"a thread was started in the simulation: {thread.name}")

    start, threading.Thread.start = threading.Thread.start, refuse  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]

"""The hands of a process: whatever it reaches outside itself goes through them, and a killed process has none.

SIGKILL leaves no time for `finally`. In the simulation the tasks of a dead process are cancelled, so their clean-up
code does run; through these wrappers it can no longer change anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from inspect import isawaitable
from typing import Any, TypeVar, cast

Thing = TypeVar("Thing")


class Pulse:
    """Whether a process lives."""

    def __init__(self) -> None:
        self.alive = True

    def check(self) -> None:
        """Raises CancelledError in a dead process."""
        if not self.alive:
            raise asyncio.CancelledError("the process is dead")


class _Hand:
    def __init__(self, thing: object, pulse: Pulse, inner: tuple[str, ...]) -> None:
        self._thing, self._pulse, self._inner = thing, pulse, inner
        if hasattr(thing, "close"):
            self.__dict__["close"] = nothing

    def __getattr__(self, name: str) -> object:
        value = getattr(self._thing, name)
        if name in self._inner:
            value = _Hand(value, self._pulse, ())
        elif callable(value):
            value = _guarded(value, self._pulse)
        else:
            return value  # may change: asked again each time
        self.__dict__[name] = value
        return value


def hand(thing: Thing, pulse: Pulse, *, inner: tuple[str, ...] = ()) -> Thing:
    """The same thing for one process; `inner` names attributes that are things themselves.

    Closing it does nothing: the thing is the world's, and the next process uses it.
    """
    return cast("Thing", _Hand(thing, pulse, inner))


async def nothing() -> None:
    """What closing is to a thing that the world keeps."""


def _guarded(method: Callable[..., object], pulse: Pulse) -> Callable[..., object]:
    @wraps(method)
    def call(*args: Any, **options: Any) -> object:
        pulse.check()
        answer = method(*args, **options)
        if isawaitable(answer):
            return _awaited(answer, pulse)
        if hasattr(answer, "__aiter__"):
            return _iterated(cast("AsyncIterator[object]", answer), pulse)
        return answer

    return call


async def _awaited(answer: Awaitable[object], pulse: Pulse) -> object:
    result = await answer
    pulse.check()
    return result


async def _iterated(events: AsyncIterator[object], pulse: Pulse) -> AsyncIterator[object]:
    async for event in events:
        pulse.check()
        yield event

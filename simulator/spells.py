"""How trouble comes: for a while (`Spell`), or to the next calls that it concerns (`Waiting`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from math import inf
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Message(StrEnum):
    """What a call to the broker is about."""

    ENTRY = "entry"
    EXIT = "exit"
    PROTECT = "protect"
    CANCEL = "cancel"
    READ = "read"


ORDERS = (Message.ENTRY, Message.EXIT)


def loop_time() -> float:
    """Seconds of the running loop: virtual in a simulation."""
    return asyncio.get_running_loop().time()


class Spell:
    """Something that lasts. Seconds of `now`, by default the running loop's."""

    def __init__(self, now: Callable[[], float] = loop_time) -> None:
        self._now = now
        self._until = -inf

    def begin(self, seconds: float = inf) -> None:
        """From now on, for so long (without end unless told); one that lasts longer already stays."""
        # What has no end needs no clock: it may begin before there is a loop.
        self._until = inf if seconds == inf else max(self._until, self._now() + seconds)

    def end(self) -> None:
        """At once."""
        self._until = -inf

    @property
    def on(self) -> bool:
        """It lasts."""
        # Most spells never begin: those need no clock either.
        return self._until > -inf and (self._until == inf or self._now() < self._until)


class Waiting(Generic[Item]):
    """Items that meet the next calls they concern, in the order added."""

    def __init__(self) -> None:
        self._items: list[tuple[Item, tuple[Message, ...] | None]] = []

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item, only: tuple[Message, ...] | None = None, count: int = 1) -> None:
        """For the next `count` calls, of these kinds if told."""
        self._items.extend([(item, only)] * count)

    def take(self, message: Message) -> Item | None:
        """The first item that concerns this call, consumed."""
        for index, (item, only) in enumerate(self._items):
            if only is None or message in only:
                del self._items[index]
                return item
        return None

    def clear(self) -> None:
        """Forget what waits."""
        self._items.clear()

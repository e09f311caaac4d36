"""An ordered pipe with delay: what goes in first comes out first, each not before its time (TCP, not UDP)."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

Item = TypeVar("Item")


class DelayLine(Generic[Item]):
    """Put at once, get when due. Time is the running loop's."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[float, Item]] = asyncio.Queue()
        self._next: tuple[float, Item] | None = None

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, item: Item, delay_s: float = 0.0) -> None:
        """Send `item`; it arrives after `delay_s`, or later if one before it is late."""
        due = asyncio.get_running_loop().time() + delay_s if delay_s > 0 else 0.0
        self._queue.put_nowait((due, item))

    async def get(self) -> Item:
        """The next item, once it is due; a cancelled wait loses nothing. One reader only."""
        if self._next is None:
            self._next = await self._queue.get()
        due, item = self._next
        wait = due - asyncio.get_running_loop().time() if due else 0.0
        if wait > 0:
            await asyncio.sleep(wait)
        self._next = None
        return item

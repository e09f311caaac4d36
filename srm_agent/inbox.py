"""Signals wait here in order, so that a slow provider delays nobody else and an entry never delays an exit (INV-10)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.signals import CancelSignal, CloseSignal, OpenSignal, Signal

OPENS_AT_ONCE = 4
"""Opens decided at the same time, so that a hundred that come together leave the loop to exits in between."""
_Lane = tuple[ProviderKey, SignalId | None]
"""Opens of a provider wait in one lane; what follows a signal waits in that signal's own."""


class Inbox:
    """Filled synchronously by the intake, emptied by one worker per lane.

    Full closes and cancels overtake an open that still waits (it is then refused as closed before open); part closes
    and changes of the stop wait for the open of their own signal, and for no other.
    """

    def __init__(self) -> None:
        self._lanes: dict[_Lane, deque[Signal]] = {}
        self._busy: dict[_Lane, asyncio.Task[None]] = {}
        self._new = asyncio.Event()
        self._moved = asyncio.Condition()
        self._count = 0
        self._opens = asyncio.Semaphore(OPENS_AT_ONCE)

    def put(self, signal: Signal) -> None:
        """Queue behind what came before in its lane."""
        lane = (signal.provider, None if isinstance(signal, OpenSignal) else signal.signal_id)
        self._lanes.setdefault(lane, deque()).append(signal)
        self._count += 1
        self._new.set()

    def waiting(self) -> int:
        """How many signals wait for their turn."""
        return self._count

    async def run(self, take: Callable[[Signal], Awaitable[None]]) -> None:
        """Serve for ever; a raised error ends it (and with it the process)."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._new.clear()
                for lane in [lane for lane in self._lanes if lane not in self._busy]:
                    self._busy[lane] = group.create_task(self._serve(lane, take), name=f"signals {lane[0]}")
                await self._new.wait()

    async def _serve(self, lane: _Lane, take: Callable[[Signal], Awaitable[None]]) -> None:
        queue = self._lanes[lane]
        while queue:
            await self._turn(queue[0])
            if isinstance(queue[0], OpenSignal):
                async with self._opens:
                    await take(queue[0])
            else:
                await take(queue[0])
            queue.popleft()
            self._count -= 1
            async with self._moved:
                self._moved.notify_all()
        # Nothing is awaited between the last look and here, so that nothing can have been queued meanwhile.
        del self._lanes[lane], self._busy[lane]

    async def _turn(self, signal: Signal) -> None:
        """A part close or a new stop of a signal that is still being opened waits for that."""
        match signal:
            case OpenSignal() | CancelSignal():
                return
            case CloseSignal(fraction=fraction) if fraction >= 1:
                return
        async with self._moved:
            await self._moved.wait_for(lambda: not self._opening(signal))

    def _opening(self, signal: Signal) -> bool:
        opens = self._lanes.get((signal.provider, None), ())
        return any(opening.signal_id == signal.signal_id for opening in opens)

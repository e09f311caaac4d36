"""Signals wait here in order, one queue per provider, so that a slow provider delays nobody else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.signals import Signal


class Inbox:
    """Filled synchronously by the intake, emptied by one worker per provider."""

    def __init__(self) -> None:
        self._queues: dict[ProviderKey, deque[Signal]] = {}
        self._new = asyncio.Event()

    def put(self, signal: Signal) -> None:
        """Queue behind what this provider sent before."""
        self._queues.setdefault(signal.provider, deque()).append(signal)
        self._new.set()

    def waiting(self) -> int:
        """How many signals wait for their turn."""
        return sum(len(queue) for queue in self._queues.values())

    async def run(self, take: Callable[[Signal], Awaitable[None]]) -> None:
        """Serve for ever; a raised error ends it (and with it the process)."""
        busy: dict[ProviderKey, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._new.clear()
                for provider, queue in self._queues.items():
                    if queue and (provider not in busy or busy[provider].done()):
                        busy[provider] = group.create_task(self._serve(queue, take), name=f"signals {provider}")
                await self._new.wait()

    async def _serve(self, queue: deque[Signal], take: Callable[[Signal], Awaitable[None]]) -> None:
        while queue:
            await take(queue[0])
            queue.popleft()

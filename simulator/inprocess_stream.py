"""What an in-process account hears: ordered, delayed, and breakable like a private stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from simulator.delay_line import DelayLine
from simulator.latency import LatencyModel
from simulator.records import VenueEvent
from simulator.venue import Venue
from srm_agent.clock import Clock
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown

HEARTBEAT_S = 1.0


class AccountStream:
    """Events of one account; `translate` gives None for what does not concern it."""

    def __init__(
        self,
        venue: Venue,
        clock: Clock,
        latency: LatencyModel,
        translate: Callable[[VenueEvent], AccountEvent | None],
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._latency = latency
        self._translate = translate
        self._lines: list[DelayLine[AccountEvent]] = []

    def drop(self) -> None:
        """Break all streams: what happens until their Resync reaches nobody."""
        for line in self._lines:
            line.put(StreamDown("account", "dropped by the simulator"))
        self._lines.clear()

    async def events(self, resync: Callable[[], Awaitable[Resync]]) -> AsyncIterator[AccountEvent]:
        """A Resync, then what happens, a Heartbeat every idle second; StreamDown and a Resync after each break."""
        while True:
            line: DelayLine[AccountEvent] = DelayLine()
            self._lines.append(line)
            unsubscribe = self._venue.subscribe(self._listener(line))
            try:
                yield await resync()
                broken = False
                while not broken:
                    event = await self._next(line)
                    broken = isinstance(event, StreamDown)
                    yield event
            finally:
                unsubscribe()
                if line in self._lines:
                    self._lines.remove(line)

    def _listener(self, line: DelayLine[AccountEvent]) -> Callable[[VenueEvent], None]:
        def hear(event: VenueEvent) -> None:
            message = self._translate(event) if line in self._lines else None
            if message is not None:
                line.put(message, self._latency.reply_s())

        return hear

    async def _next(self, line: DelayLine[AccountEvent]) -> AccountEvent:
        # Not wait_for: in Python 3.11 it may swallow the cancellation of its caller.
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                return await line.get()
        except TimeoutError:
            return Heartbeat(self._clock.monotonic())

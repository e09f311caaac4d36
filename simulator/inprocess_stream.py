"""What an in-process account hears: ordered, delayed, and breakable like a private stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from simulator.delay_line import DelayLine
from simulator.network import Network
from simulator.records import VenueEvent
from simulator.venue import Venue
from srm_agent.clock import Clock
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.orders import Fill, OrderReport

HEARTBEAT_S = 1.0
STALE_S = 5.0
"""A stream that gave no sign of life for this long is dropped by the client and opened again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
"""Between two tries to connect."""


def _nothing() -> None: ...


class _Line:
    """One connection of a reader."""

    def __init__(self) -> None:
        self.events: DelayLine[AccountEvent] = DelayLine()
        self.muted = False
        self.quiet_s = 0.0
        """Seconds of silence that the client has noticed."""
        self.reader = asyncio.current_task()
        """Who listened last."""
        self.hang_up: Callable[[], None] = _nothing

    @property
    def abandoned(self) -> bool:
        """The reader was killed while he handled an event: nobody runs the generator's clean-up in good time."""
        return self.reader is not None and self.reader.cancelled()


class AccountStream:
    """Events of one account; `translate` gives None for what does not concern it, `echo` says: push this one twice."""

    def __init__(
        self,
        venue: Venue,
        clock: Clock,
        network: Network,
        translate: Callable[[VenueEvent], AccountEvent | None],
        echo: Callable[[], bool],
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._network = network
        self._translate = translate
        self._echo = echo
        self._lines: list[_Line] = []
        network.on_cut(self.mute)

    @property
    def alive(self) -> bool:
        """Everybody who listens hears."""
        return not any(line.muted and not line.abandoned for line in self._lines)

    def drop(self) -> None:
        """Break all streams: what happens until their Resync reaches nobody."""
        for line in self._lines:
            line.events.put(StreamDown("account", "dropped by the simulator"))
        self._lines.clear()

    def mute(self) -> None:
        """Half-dead peers: the sockets stay open and nothing comes; the client notices by the missing heartbeats."""
        for line in self._lines:
            line.muted = True

    async def events(self, resync: Callable[[], Awaitable[Resync]]) -> AsyncIterator[AccountEvent]:
        """A Resync, then what happens, a Heartbeat every idle second; StreamDown and a Resync after each break."""
        while True:
            await self._connect()
            line = _Line()
            self._lines.append(line)
            line.hang_up = self._venue.subscribe(self._listener(line))
            try:
                yield await resync()
                broken = False
                while not broken:
                    event = await self._next(line)
                    broken = isinstance(event, StreamDown)
                    if event is not None:
                        yield event
            finally:
                self._close(line)

    def _close(self, line: _Line) -> None:
        line.hang_up()
        line.hang_up = _nothing
        if line in self._lines:
            self._lines.remove(line)

    async def _connect(self) -> None:
        pause = FIRST_PAUSE_S
        while self._network.down:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _listener(self, line: _Line) -> Callable[[VenueEvent], None]:
        def hear(event: VenueEvent) -> None:
            if line.abandoned:
                self._close(line)
            message = self._translate(event) if line in self._lines and not line.muted else None
            if message is not None:
                twice = isinstance(message, Fill | OrderReport) and self._echo()
                for _ in range(2 if twice else 1):
                    line.events.put(message, self._network.push_s())

        return hear

    async def _next(self, line: _Line) -> AccountEvent | None:
        """The next event; None for a second in which a muted line gave none."""
        line.reader = asyncio.current_task()
        # Not wait_for: in Python 3.11 it may swallow the cancellation of its caller.
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                event = await line.events.get()
        except TimeoutError:
            if not line.muted:
                return Heartbeat(self._clock.monotonic())
            line.quiet_s += HEARTBEAT_S
            return StreamDown("account", f"silent for {STALE_S:g} s") if line.quiet_s >= STALE_S else None
        if line.muted and not isinstance(event, StreamDown):
            return None  # it was under way when the line died
        return event

"""Keeping watch loops alive: one task per stream, one supervisor per socket, a complete restart after any trouble.

A *generation* is one try: fresh sockets, all watch loops, a read of what was missed, a watchdog. Whatever fails first
ends it; sockets and caches are dropped, the pause grows with jitter, and the next generation begins. ccxt's own
recovery is never relied upon: it keeps stale caches, hangs on some refusals and reconnects without a pause
(brokers.md A.3, 1-8).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog

from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed
from adapters.ccxt_venue.rows import BadRow
from adapters.ccxt_venue.settings import CcxtVenueSettings
from srm_agent.clock import Clock
from srm_agent.errors import BrokerError

log = structlog.get_logger()

_STABLE_S = 10.0
"""A generation that lived this long starts the pauses again from the shortest."""
_TROUBLE = (CallFailed, BadRow, BrokerError, TimeoutError)


class StreamBroken(Exception):
    """This generation is over; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """One stream: `wait` is one watch call, `deliver` takes its result without ever suspending."""

    name: str
    wait: Callable[[], Awaitable[object]]
    deliver: Callable[[object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a supervisor tells its owner.

    `subscribed` True once every subscription was sent; `synchronise` then runs once (None: nothing to read);
    `down` is called once per broken generation; `alive` with the monotonic second before which the last frame came;
    `silent` may name a reason to break although the socket lives.
    """

    subscribed: Callable[[], bool]
    synchronise: Callable[[], Awaitable[None]] | None
    down: Callable[[str], None]
    alive: Callable[[float], None]
    silent: Callable[[float], str | None]


def backoff(attempt: int, settings: CcxtVenueSettings, rng: random.Random) -> float:
    """Seconds before try number `attempt` + 1: doubling up to the cap, of which a random half is taken off."""
    pause = min(settings.backoff_cap_s, settings.backoff_first_s * 2.0 ** min(attempt, 30))
    return pause * rng.uniform(0.5, 1.0)


class StreamSupervisor:
    """Runs generations for ever on one client's sockets."""

    def __init__(
        self,
        *,
        name: str,
        client: VenueClient,
        watches: Sequence[Watch],
        hooks: Hooks,
        settings: CcxtVenueSettings,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._name = name
        self._client = client
        self._watches = tuple(watches)
        self._hooks = hooks
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._poll_s = min(0.25, settings.stale_s / 8)

    async def run(self) -> NoReturn:
        """Until cancelled. Raises only for defects of this program."""
        attempt = 0
        while True:
            began = self._clock.monotonic()
            try:
                await self._generation()
            except StreamBroken as broken:
                reason = str(broken)
            finally:
                await self._client.reset_streams()
            if self._clock.monotonic() - began >= _STABLE_S:
                attempt = 0
            log.warning("stream down", stream=self._name, reason=reason, attempt=attempt)
            self._hooks.down(reason)
            await asyncio.sleep(backoff(attempt, self._settings, self._rng))
            attempt += 1

    async def _generation(self) -> None:
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(_pump(watch), name=f"{self._name}/{watch.name}") for watch in self._watches
        ]
        tasks.append(asyncio.create_task(self._guard(), name=f"{self._name}/watchdog"))
        tasks.append(asyncio.create_task(self._synchronise(), name=f"{self._name}/synchronise"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # In the order of the tasks, not of the set, so that the reason is the same in every run.
        first = next(task for task in tasks if task in done)
        name = first.get_name().rpartition("/")[2]
        # ccxt cancels the futures of a client it closes, which ends a watch as if it had been cancelled by us.
        error = None if first.cancelled() else first.exception()
        if error is not None and not isinstance(error, (*_TROUBLE, StreamBroken)):
            raise error
        raise StreamBroken(f"{name}: {error}" if error is not None else f"{name}: connection closed")

    async def _guard(self) -> None:
        newest, changed = self._client.last_message_ms(), self._clock.monotonic()
        looked = changed
        while True:
            await asyncio.sleep(self._poll_s)
            now, stamp = self._clock.monotonic(), self._client.last_message_ms()
            if stamp != newest:
                newest, changed = stamp, now
                # The frame came at some time since the last look: the older bound never makes it look fresher.
                self._hooks.alive(looked)
            elif now - changed > self._settings.stale_s:
                raise StreamBroken(f"no frame for {now - changed:.1f} s")
            looked = now
            reason = self._hooks.silent(now)
            if reason is not None:
                raise StreamBroken(reason)

    async def _synchronise(self) -> None:
        if self._hooks.synchronise is None:
            await asyncio.Event().wait()
            return
        await _until(self._hooks.subscribed)
        # One ordered connection: whoever answers a ping sent after the subscriptions has seen them all.
        await self._client.ping()
        await _until(self._client.answered)
        await self._retried(self._hooks.synchronise)
        await asyncio.Event().wait()

    async def _retried(self, read: Callable[[], Awaitable[None]]) -> None:
        attempt = 0
        while True:
            try:
                await read()
                return
            except (BrokerError, BadRow) as error:
                log.warning("resync failed", stream=self._name, reason=str(error), attempt=attempt)
                await asyncio.sleep(backoff(attempt, self._settings, self._rng))
                attempt += 1


async def _until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.005)


async def _pump(watch: Watch) -> None:
    # Nothing else may be awaited in this loop, and no wait_for: it would put a task between two calls, and what
    # arrives meanwhile would surface only with the next message (A.3-1).
    while True:
        watch.deliver(await watch.wait())

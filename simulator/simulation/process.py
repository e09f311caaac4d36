"""One process of the agent: born with empty memory, killed without a word, or asked to stop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import replace

import structlog
from starlette.types import ASGIApp

from simulator.simulation.loop import LIFE, VirtualLoop
from simulator.simulation.mortal import Pulse, hand
from simulator.simulation.server import VirtualServer
from srm_agent.alerts.sink import Sink
from srm_agent.api.control import Operator
from srm_agent.api.signatures import WebhookKey
from srm_agent.assembly import Agent, Outside, assemble
from srm_agent.clock import Clock
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.files import Files
from srm_agent.ports import Broker, MarketFeed, Storage
from srm_agent.settings import Settings
from srm_agent.supervision.life import Life
from srm_agent.supervision.starts import StartRecord

log = structlog.get_logger()

STORAGE_PARTS = ("journal", "protection", "signals", "history", "leases")


class Process:
    """`start` it, then `kill` or `stop` it. `ended` is called once with how it ended."""

    def __init__(
        self,
        number: int,
        loop: VirtualLoop,
        *,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
        feeds: Mapping[str, MarketFeed],
        brokers: Mapping[ConnectionId, Broker],
        storage: Storage,
        files: Files,
        keys: Mapping[ProviderKey, Sequence[WebhookKey]],
        operators: Sequence[Operator],
        sinks: Sequence[Sink],
        ended: Callable[[Process, str], None],
    ) -> None:
        self.number = number
        self._loop = loop
        self._pulse = Pulse()
        self._stop = asyncio.Event()
        self._ended = ended
        self._how = ""
        self.server: VirtualServer | None = None
        pulse = self._pulse

        def serve(app: ASGIApp) -> VirtualServer:
            self.server = VirtualServer(app, number)
            return self.server

        self._outside = Outside(
            clock=clock,
            rng=rng,
            feeds={name: hand(feed, pulse) for name, feed in feeds.items()},
            brokers={name: hand(broker, pulse) for name, broker in brokers.items()},
            storage=hand(storage, pulse, inner=STORAGE_PARTS),
            files=hand(files, pulse),
            serve=serve,
            keys=keys,
            operators=operators,
            sinks=[hand(sink, pulse) for sink in sinks],
            process=str(number),
        )
        self._settings = settings
        starts = StartRecord(self._outside.files, clock, settings.agent.guard_after)
        self._life = Life(self._make, starts)

    @property
    def agent(self) -> Agent | None:
        """The agent of the moment: a process may wire a new one when its database is back."""
        return self._life.agent

    @property
    def alive(self) -> bool:
        """Not ended yet."""
        return self._pulse.alive

    @property
    def ready(self) -> bool:
        """The daemon says so."""
        return self.alive and self.agent is not None and self.agent.daemon.ready.is_set()

    def start(self) -> None:
        """Be born."""
        context = copy_context()
        context.run(LIFE.set, self.number)
        context.run(self._loop.create_task, self._live())

    def kill(self, how: str) -> None:
        """SIGKILL: nothing more of it happens, from this very moment."""
        if self.alive:
            self._pulse.alive = False
            self._how = how
            for task in self._loop.tasks_of(self.number):
                task.cancel()
            self._ended(self, how)

    def stop(self) -> None:
        """SIGTERM."""
        self._stop.set()

    async def _make(self, guard: str) -> Agent:
        return assemble(self._settings, replace(self._outside, exits_only=guard))

    async def _live(self) -> None:
        how = "stop"
        try:
            await self._life.run(self._stop)
        except asyncio.CancelledError:
            return  # killed
        except BaseException as error:
            how = f"defect: {_innermost(error)!r}"
            if self.alive:
                log.exception("the daemon died of a defect")
        if self.alive:
            self._pulse.alive = False
            self._how = how
            for task in self._loop.tasks_of(self.number):
                if task is not asyncio.current_task():
                    task.cancel()
            self._ended(self, how)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

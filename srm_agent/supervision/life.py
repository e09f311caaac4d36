"""One process, one or more lives: each begins by recovering, and some end only so that a better one can begin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from srm_agent.assembly import Agent
from srm_agent.clock import Clock
from srm_agent.daemon import Ending
from srm_agent.errors import ConfigurationError
from srm_agent.settings import Settings
from srm_agent.supervision.notify import Manager
from srm_agent.supervision.reload import Reloader
from srm_agent.supervision.starts import StartRecord

log = structlog.get_logger()


class Life:
    """What `srm-agent run` runs. `make` wires an agent; its argument says why that agent is a guard, or is empty."""

    def __init__(self, make: Callable[[str], Awaitable[Agent]], starts: StartRecord, *, exits_only: str = "") -> None:
        """`exits_only`: why this process is to be a guard whatever the record of starts says."""
        self._make = make
        self._starts = starts
        self._exits_only = exits_only
        self.agent: Agent | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises the defect that ended it; then this start counts as one that failed."""
        guard = self._starts.begin()
        guard = self._exits_only or guard
        try:
            while not stop.is_set():
                self.agent = await self._make(guard)
                ending = await self.agent.daemon.run(stop)
                log.info("life ended", ending=ending.value)
                if ending is Ending.STOPPED:
                    break
                if ending is Ending.GUARD_LIFTED:
                    guard = ""
        except ConfigurationError:
            self._starts.end()  # nothing crashed, and starting again would not help
            raise
        self._starts.end()


class Reload:
    """What SIGHUP does: reads the configuration anew and puts into force what may change; a bad one changes nothing."""

    def __init__(
        self, settings: Settings, read: Callable[[], Settings], life: Life, manager: Manager, clock: Clock
    ) -> None:
        self._reloader = Reloader(settings)
        self._read = read
        self._life = life
        self._manager = manager
        self._clock = clock
        self._adopted: Settings | None = None

    def renew(self, agent: Agent) -> None:
        """A new life in this process begins with what was put into force before it."""
        if self._adopted is not None:
            self._reloader.adopt(self._adopted, agent.roster, agent.flow.accounts)

    def __call__(self) -> None:
        """Synchronous, in the event loop. Never raises for what a person wrote."""
        agent = self._life.agent
        if agent is None:
            log.warning("not reloaded: still starting; send SIGHUP again when it is ready")
            return
        self._manager.reloading(self._clock.monotonic())
        try:
            settings = self._read()
            changed = self._reloader.adopt(settings, agent.roster, agent.flow.accounts)
            self._adopted = settings
        except ConfigurationError as error:
            log.error("configuration refused, the old one stays in force", error=str(error))
            agent.notifier.notify("page", "configuration refused", f"the old one stays in force: {error}")
        else:
            log.warning("configuration reloaded", applied=changed.applied, needs_restart=changed.waiting)
            if changed.applied:
                agent.notifier.notify("warning", "limits changed by a reload", "; ".join(changed.applied)[:1000])
            if changed.waiting:
                text = f"needs a restart: {'; '.join(changed.waiting)}"
                agent.notifier.notify("warning", "not everything was reloaded", text[:1000])
        finally:
            agent.daemon.supervisor.ready()

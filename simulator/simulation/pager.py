"""Where the agent's alerts arrive, when somebody listens."""

from __future__ import annotations

from collections.abc import Callable

from simulator.spells import Spell
from srm_agent.alerts.sink import SinkFailed


class Pager:
    """An alert sink that keeps what it takes, with the second of its arrival."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.down = Spell()
        self.taken: list[tuple[float, str]] = []

    @property
    def name(self) -> str:
        """For the agent's log."""
        return "pager"

    async def post(self, text: str) -> None:
        """Raises SinkFailed while nobody listens."""
        if self.down.on:
            raise SinkFailed("nobody answers the pager")
        self.taken.append((self._now(), text))

    async def close(self) -> None:
        """Nothing to release."""

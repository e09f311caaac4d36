"""Where alerts go: the port of a sink, and the error of one that did not take an alert."""

from __future__ import annotations

from typing import Protocol

from srm_agent.errors import SrmError


class SinkFailed(SrmError):
    """The sink did not take the alert, or did not say so in time; it may be offered again (it carries an id)."""


class Sink(Protocol):
    """One place that takes alerts."""

    @property
    def name(self) -> str:
        """For logs and status; holds no secret."""
        ...

    async def post(self, text: str) -> None:
        """Hand over one alert as JSON text. Raises SinkFailed; bounded in time by the sink itself."""
        ...

    async def close(self) -> None:
        """Release connections; idempotent."""
        ...

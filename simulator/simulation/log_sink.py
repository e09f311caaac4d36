"""The agent's log inside the simulation: JSON lines into the world of the moment, stamped with virtual time."""

from __future__ import annotations

import logging

import structlog

from srm_agent.logs import Redactor


class LogSink:
    """Where lines go at the moment: structlog is configured once a process, worlds come and go."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.blocked = False
        """The pipe is full: lines are lost (P25)."""

    def reset(self) -> list[str]:
        """Begin a new world; the list that its lines go to."""
        self.lines, self.blocked = [], False
        return self.lines

    def write(self, text: str) -> int:
        """Keep one line."""
        if text != "\n" and not self.blocked:
            self.lines.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""


SINK = LogSink()


def configure(secrets: tuple[str, ...]) -> None:
    """Set structlog up as the daemon does, without a wall clock."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            Redactor(secrets),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(SINK),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )

"""How often this daemon has been started lately without ending in order: what decides on guard mode.

systemd counts starts too, but knows one answer only: to leave the daemon dead. While positions are open a daemon that
watches and closes is worth more than none, so the daemon counts by itself and starts with exits only when it must.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import structlog

from srm_agent.clock import Clock
from srm_agent.files import Files

log = structlog.get_logger()

FILE = "starts.json"
WINDOW_S = 600.0


class StartRecord:
    """The starts of the last ten minutes that have not ended in order, by wall clock, in one small file."""

    def __init__(self, files: Files, clock: Clock, failures: int) -> None:
        """`failures`: so many starts that did not end in order make the next one a guard; 0 never does."""
        self._files = files
        self._clock = clock
        self._failures = failures
        self._mine: str | None = None

    def begin(self) -> str:
        """Note this start; why it must take exits only, or an empty text.

        An unreadable file counts as failures: what is not known to be well is not well (INV-14).
        """
        now = self._clock.wall()
        earlier = self._read(now)
        self._mine = now.isoformat()
        self._write([*(earlier or []), self._mine])
        if not self._failures:
            return ""
        if earlier is None:
            return f"the record of starts {self._files.where(FILE)!r} could not be read"
        if len(earlier) >= self._failures:
            return f"{len(earlier)} starts within {WINDOW_S / 60:.0f} minutes did not end in order"
        return ""

    def end(self) -> None:
        """This life ended in order, or never began (a configuration that was refused)."""
        if self._mine is not None:
            self._write([start for start in self._read(self._clock.wall()) or [] if start != self._mine])
            self._mine = None

    def _read(self, now: datetime) -> list[str] | None:
        """None when the file cannot be read."""
        try:
            text = self._files.read(FILE)
            starts = [str(start) for start in json.loads(text)] if text else []
            window = timedelta(seconds=WINDOW_S)
            # A wall clock that was set back leaves starts in the future: as near as those of the past.
            return [start for start in starts if abs(now - datetime.fromisoformat(start)) <= window]
        except (OSError, ValueError, TypeError) as error:
            log.error("the record of starts cannot be read", path=self._files.where(FILE), error=str(error))
            return None

    def _write(self, starts: list[str]) -> None:
        try:
            self._files.replace(FILE, json.dumps(starts))
        except OSError as error:
            log.error("the start could not be recorded", path=self._files.where(FILE), error=str(error))

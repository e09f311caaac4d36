"""Whether the agent's own directory takes writes (P7, P8): where a halt cannot be latched nothing is risked (INV-14).

A full disk is over when it takes writes again. After any other error nobody knows what of the earlier writes is left:
this life takes no entries any more, and when the disk is well a new one begins that reads everything anew.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import structlog

from srm_agent.clock import Clock
from srm_agent.files import Files, exclusively

log = structlog.get_logger()

FILE = "probe"
PROBE_S = 2.0
"""So long after the last write that worked, one is tried."""
WELL_S = 10.0
"""So long without an error makes a disk that has failed well again."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskWatch:
    """`files.Files` over the agent's directory that remembers how its calls went. `look` tries one by itself."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._wrote = clock.monotonic()
        self._failed: float | None = None
        self.failing = ""
        """Why the last call failed; empty when it worked."""
        self.distrusted = ""
        """The error after which this life trusts nothing that it has written; empty while there was none."""

    def why_held(self) -> str:
        """Why no entries are taken; empty when they are."""
        if self.failing:
            return f"the state directory cannot be written: {self.failing}"
        if self.distrusted:
            return f"the disk has failed ({self.distrusted}): everything is read anew when it has been well for a while"
        return ""

    def look(self) -> None:
        """Call it about once a second. Tries a write if there was none for a while; never raises."""
        if not self.failing and self._clock.monotonic() - self._wrote < PROBE_S:
            return
        try:
            self.replace(FILE, "")
        except OSError as error:
            log.debug("the disk does not take writes", error=str(error))

    async def is_well_again(self) -> None:
        """Return when the disk, after an error that is not want of space, has worked for WELL_S seconds."""
        while not (self.distrusted and self._failed is not None and self._clock.monotonic() - self._failed >= WELL_S):
            await asyncio.sleep(PROBE_S / 2)

    # ---- Files

    def read(self, name: str) -> str | None:
        """See Files."""
        with self._noted():
            return self._files.read(name)

    def replace(self, name: str, text: str) -> None:
        """See Files."""
        with self._noted():
            self._files.replace(name, text)
        self._worked()

    def append(self, name: str, line: str) -> None:
        """See Files."""
        with self._noted():
            self._files.append(name, line)
        self._worked()

    def remove(self, name: str) -> None:
        """See Files."""
        with self._noted():
            self._files.remove(name)

    def where(self, name: str) -> str:
        """See Files."""
        return self._files.where(name)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """See SharedFiles. Somebody who holds the lock is no trouble of the disk's."""
        return exclusively(self._files, name)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = self._clock.monotonic()
            self.failing = error.strerror or repr(error)
            if error.errno not in _FULL:
                self.distrusted = self.failing
            raise

    def _worked(self) -> None:
        """Only a write proves that writes work."""
        self._wrote, self.failing = self._clock.monotonic(), ""

"""A directory in memory that outlives the agent's processes, on a disk that fails (P7, P8)."""

from __future__ import annotations

import errno
import os
from math import inf

from simulator.spells import Spell


class FilesFaults:
    """What is wrong with the disk. Seconds of the running loop; counts are numbers of calls."""

    def __init__(self) -> None:
        self._full, self._read_only, self._failing = Spell(), Spell(), Spell()
        self._torn = 0

    def fill(self, seconds: float = inf) -> None:
        """No space is left: every write fails, nothing of it is kept (P7)."""
        self._full.begin(seconds)

    def write_protect(self, seconds: float = inf) -> None:
        """The filesystem is mounted read-only, as after an error of the disk (P8)."""
        self._read_only.begin(seconds)

    def fail(self, seconds: float = inf) -> None:
        """Every call fails with EIO, reads too (P8)."""
        self._failing.begin(seconds)

    def tear(self, count: int = 1) -> None:
        """The next lines appended are written by half, without their end, and the flush fails (P8)."""
        self._torn += count

    def mend(self) -> None:
        """The disk is well again; what was torn stays torn."""
        for spell in (self._full, self._read_only, self._failing):
            spell.end()
        self._torn = 0

    @property
    def well(self) -> bool:
        """The disk works now."""
        return not (self._full.on or self._read_only.on or self._failing.on or self._torn)

    def check_read(self, name: str) -> None:
        """Raises OSError where a read fails now."""
        if self._failing.on:
            raise _error(errno.EIO, name)

    def check_write(self, name: str) -> None:
        """Raises OSError where a write fails now."""
        self.check_read(name)
        if self._read_only.on:
            raise _error(errno.EROFS, name)
        if self._full.on:
            raise _error(errno.ENOSPC, name)

    def tears(self) -> bool:
        """This line is torn; consumed."""
        self._torn, torn = max(self._torn - 1, 0), self._torn > 0
        return torn


class MemoryFiles:
    """`srm_agent.files.Files` without a disk. `texts` is what stands there, by name."""

    def __init__(self, faults: FilesFaults | None = None) -> None:
        self.faults = faults or FilesFaults()
        self.texts: dict[str, str] = {}

    def read(self, name: str) -> str | None:
        """See Files."""
        self.faults.check_read(name)
        return self.texts.get(name)

    def replace(self, name: str, text: str) -> None:
        """See Files."""
        self.faults.check_write(name)
        self.texts[name] = text

    def append(self, name: str, line: str) -> None:
        """See Files. What follows a torn line stands on the same line, as on a real disk."""
        self.faults.check_write(name)
        before = self.texts.get(name, "")
        if self.faults.tears():
            self.texts[name] = before + line[: len(line) // 2]
            raise _error(errno.EIO, name)
        self.texts[name] = f"{before}{line}\n"

    def remove(self, name: str) -> None:
        """See Files."""
        self.faults.check_write(name)
        self.texts.pop(name, None)

    def where(self, name: str) -> str:
        """See Files."""
        return f"memory:{name}"

    def tear_end(self, name: str) -> bool:
        """Cut the last line in its middle, as a crash while appending leaves it; False if there is nothing to cut."""
        text = self.texts.get(name, "").removesuffix("\n")
        begin = text.rfind("\n") + 1
        if not text[begin:]:
            return False
        self.texts[name] = text[: begin + (len(text) - begin) // 2]
        return True


def _error(code: int, name: str) -> OSError:
    return OSError(code, os.strerror(code), name)

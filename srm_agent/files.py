"""The few files that must outlive a crash (halts, spilt exits, the journal of alerts), behind a seam.

The simulation keeps them in memory and lets them fail; the daemon writes them to disk, flushed before it goes on.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, runtime_checkable

LOCK_TRIES, LOCK_PAUSE_S = 40, 0.005
"""A lock is held for one read and one write; whoever holds it longer is stuck, and nobody waits for him for ever."""


class Files(Protocol):
    """One directory of small text files, by name. All calls are synchronous and durable when they return."""

    def read(self, name: str) -> str | None:
        """The whole text, None if there is no such file. Raises OSError, UnicodeDecodeError."""
        ...

    def replace(self, name: str, text: str) -> None:
        """Write the whole file, all or nothing. Raises OSError."""
        ...

    def append(self, name: str, line: str) -> None:
        """Add one line (without its newline); a torn last line is possible after a crash. Raises OSError."""
        ...

    def remove(self, name: str) -> None:
        """Delete; nothing happens if there is no such file. Raises OSError."""
        ...

    def where(self, name: str) -> str:
        """How a person finds it."""
        ...


@runtime_checkable
class SharedFiles(Protocol):
    """Files that another process may change as well (the daemon and `srm-agent flatten` both write the halts)."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold a file alone for one read-modify-write. Raises OSError when another process does not let go of it."""
        ...


def exclusively(files: Files, name: str) -> AbstractContextManager[None]:
    """The lock of a file where several processes share it; files that nobody shares need none."""
    return files.exclusive(name) if isinstance(files, SharedFiles) else nullcontext()


class DiskFiles:
    """`Files` in a directory that exists, readable by its user alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> str | None:
        """See Files."""
        try:
            return (self._directory / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def replace(self, name: str, text: str) -> None:
        """See Files: a temporary file, renamed, with both flushed."""
        temporary = self._directory / f"{name}.new"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._directory / name)
        self._flush_directory()

    def append(self, name: str, line: str) -> None:
        """See Files."""
        descriptor = os.open(self._directory / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            data = line.encode() + b"\n"
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, name: str) -> None:
        """See Files."""
        (self._directory / name).unlink(missing_ok=True)
        self._flush_directory()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """See SharedFiles: an advisory lock on `<name>.lock`, which ends with the process that holds it."""
        descriptor = os.open(self._directory / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, name)
            yield
        finally:
            os.close(descriptor)

    def where(self, name: str) -> str:
        """The path."""
        return str(self._directory / name)

    def _flush_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _lock(descriptor: int, name: str) -> None:
    for _ in range(LOCK_TRIES):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            select.select((), (), (), LOCK_PAUSE_S)  # the pause of a synchronous call: milliseconds, rarely
    raise TimeoutError(f"{name} is held by another process")

"""Where every thread stands when the event loop stalls. Outside the simulation only: it counts in real time."""

from __future__ import annotations

import faulthandler
from typing import TextIO


class TracebackDump:
    """`watchdog.StallDump` by faulthandler's own C thread, which needs neither the loop nor the interpreter's lock.

    A dump names files, lines and functions, never values, so it holds no secret (INV-16).
    """

    def __init__(self, after_s: float, stream: TextIO) -> None:
        """`stream` must have a file descriptor: the dump goes there directly."""
        self._after_s = after_s
        self._stream = stream

    def arm(self) -> None:
        """Count anew; nothing is written before `after_s` have passed without another call."""
        faulthandler.dump_traceback_later(self._after_s, file=self._stream)

    def disarm(self) -> None:
        """Stop counting."""
        faulthandler.cancel_dump_traceback_later()

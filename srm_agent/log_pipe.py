"""Log lines leave through a thread, so that a slow disk or a blocked pipe never blocks the event loop (P25).

Outside the simulation only: it starts with the process, in `srm-agent run`. What does not fit waits in a bounded queue;
beyond it lines are dropped and counted, and the count is logged when the sink takes lines again.
"""

from __future__ import annotations

import io
import json
import threading
from collections import deque
from typing import TextIO

LONGEST_QUEUE = 10_000
CLOSE_S = 1.0


class LogPipe(io.TextIOBase):
    """A text stream whose `write` returns at once. One per process."""

    def __init__(self, sink: TextIO, longest: int = LONGEST_QUEUE) -> None:
        self._sink = sink
        self._longest = longest
        self._lines: deque[str] = deque()
        self._work = threading.Condition()
        self._ending = False
        self._untold = 0
        self.dropped = 0
        """Lines lost since the start."""
        self._thread = threading.Thread(target=self._serve, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue; never blocks, never raises for the sink."""
        with self._work:
            if len(self._lines) >= self._longest:
                self.dropped += 1
                self._untold += 1
            else:
                self._lines.append(text)
                self._work.notify()
        return len(text)

    def flush(self) -> None:
        """Nothing to do: the thread flushes after each batch."""

    def isatty(self) -> bool:
        """Whether the sink is a terminal."""
        return self._sink.isatty()

    def close(self) -> None:
        """Let the thread write what waits, for at most a second; a sink that stays blocked is left to itself."""
        with self._work:
            self._ending = True
            self._work.notify()
        self._thread.join(CLOSE_S)

    def _serve(self) -> None:
        while True:
            with self._work:
                while not self._lines and not self._ending:
                    self._work.wait()
                if not self._lines:
                    return
                batch, lost = "".join(self._lines), self._untold
                self._lines.clear()
                self._untold = 0
            if lost:
                batch += json.dumps({"event": "log lines dropped", "level": "warning", "count": lost}) + "\n"
            try:
                self._sink.write(batch)
                self._sink.flush()
            except (OSError, ValueError):
                # The disk is full or the reader is gone: there is nowhere left to say so.
                with self._work:
                    self.dropped += batch.count("\n")

"""The file of alerts: appended to whatever the network and the database do, bounded by turning it over."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from srm_agent.files import Files

log = structlog.get_logger()

FILE, OLDER = "alerts.jsonl", "alerts.1.jsonl"
LARGEST_BYTES = 4 * 1024 * 1024


class AlertFile:
    """One JSON line an alert. A full disk costs lines, never anything else; it is logged when it begins and ends."""

    def __init__(self, files: Files, largest_bytes: int = LARGEST_BYTES) -> None:
        self._files = files
        self._largest = largest_bytes
        self._bytes: int | None = None
        self.failing = False

    def write(self, texts: Sequence[str]) -> bool:
        """Append these lines with one flush; False if the disk refused them."""
        try:
            self._append("\n".join(texts))
        except (OSError, UnicodeDecodeError) as error:
            if not self.failing:
                log.error("alerts cannot be written to their file", file=self._files.where(FILE), error=repr(error))
            self.failing = True
            return False
        if self.failing:
            log.info("alerts are written to their file again", file=self._files.where(FILE))
        self.failing = False
        return True

    def _append(self, text: str) -> None:
        if self._bytes is None:
            self._bytes = len((self._files.read(FILE) or "").encode())
        if self._bytes > self._largest:
            self._files.replace(OLDER, self._files.read(FILE) or "")
            self._files.remove(FILE)
            self._bytes = 0
        self._files.append(FILE, text)
        self._bytes += len(text.encode()) + 1

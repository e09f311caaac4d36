"""What happened, as lines; their hash tells whether two runs were the same (INV-15)."""

from __future__ import annotations

from hashlib import sha256


class Trace:
    """Lines in the order of events. The hash covers all of them; the text is kept only if asked for."""

    def __init__(self, *, keep: bool = False) -> None:
        self._hash = sha256()
        self._keep = keep
        self.lines: list[str] = []
        self.count = 0

    def add(self, at: float, what: str) -> None:
        """One line at a virtual second."""
        line = f"{at:.6f} {what}"
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.count += 1
        if self._keep:
            self.lines.append(line)

    def digest(self) -> str:
        """Sixteen hex digits."""
        return self._hash.hexdigest()[:16]

"""The last resort of INV-2: an exit whose intent the database does not take is written to a local append-only file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from srm_agent.domain.orders import OrderIntent
from srm_agent.domain.units import plain


class SpillFile:
    """One JSON line per exit, flushed to disk before the order leaves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, intent: OrderIntent) -> None:
        """Append and fsync. Raises OSError; the caller sends the exit all the same (INV-10)."""
        line = json.dumps(
            {
                "at": intent.created_at.isoformat(),
                "client_id": intent.client_id,
                "connection": intent.connection_id,
                "leg": intent.leg_id,
                "purpose": intent.purpose.value,
                "symbol": intent.symbol,
                "side": intent.side.word,
                "lot": plain(intent.lot),
                "reason": intent.reason,
            }
        )
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

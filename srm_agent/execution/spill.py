"""The last resort of INV-2: an exit whose intent the database does not take is written to a local append-only file."""

from __future__ import annotations

import json

from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.orders import OrderIntent
from srm_agent.domain.units import plain
from srm_agent.files import Files


class SpillFile:
    """One JSON line per exit, flushed to disk before the order leaves."""

    def __init__(self, files: Files, connection: ConnectionId) -> None:
        self._files = files
        self._name = f"exits.{connection}.jsonl"

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
        self._files.append(self._name, line)

"""What must be known of an account while the database cannot be asked: a small file beside it (P9, F25).

The journal stays the truth. This copy is for a start that finds no database: the legs whose stops are to be watched,
the fills that are counted in them, and the mark that drawdown is measured from. It is at most a second older than the
ledger, and it is never written back into the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydantic import TypeAdapter, ValidationError

from srm_agent.domain.accounts import ProtectionMark
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.trades import Leg
from srm_agent.files import Files

log = structlog.get_logger()

FILE = "spool.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """One account, as last seen."""

    connection_id: ConnectionId
    mark: ProtectionMark | None
    legs: tuple[Leg, ...]
    fills: tuple[str, ...]
    """Ids of executions that these legs contain."""


_ROWS: TypeAdapter[tuple[Spooled, ...]] = TypeAdapter(tuple[Spooled, ...])


class Spool:
    """The file, written only when something changed."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._written: tuple[Spooled, ...] | None = None
        self._failing = False

    def read(self) -> Mapping[ConnectionId, Spooled]:
        """By connection; empty when there is none, or none that can be read (which is logged)."""
        try:
            text = self._files.read(FILE)
            rows = () if text is None else _ROWS.validate_json(text)
        except (OSError, UnicodeDecodeError) as error:
            log.error("the spool cannot be read", path=self._files.where(FILE), error=str(error))
            return {}
        except ValidationError as error:
            log.error("the spool is damaged", path=self._files.where(FILE), problems=error.error_count())
            return {}
        return {row.connection_id: row for row in rows}

    def write(self, rows: Iterable[Spooled]) -> None:
        """Replace the file if something changed. Never raises: a disk that fails must not stop a trade."""
        wanted: Sequence[Spooled] = tuple(rows)
        if wanted == self._written:
            return
        try:
            self._files.replace(FILE, _ROWS.dump_json(tuple(wanted)).decode())
        except OSError as error:
            if not self._failing:
                log.error("the spool cannot be written", path=self._files.where(FILE), error=str(error))
            self._failing = True
            return
        self._written, self._failing = tuple(wanted), False

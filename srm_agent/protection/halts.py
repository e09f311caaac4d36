"""The latch (INV-8): a halt stands in memory, then in a file, then in the database; only an operator clears it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import structlog

from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.errors import ConfigurationError, OutcomeUnknown, StoreError
from srm_agent.ports import ProtectionStore

log = structlog.get_logger()


class HaltBoard:
    """All halts in force. `set` is synchronous down to the file; the database follows."""

    def __init__(self, path: Path, store: ProtectionStore) -> None:
        self._path = path
        self._store = store
        self._halts: dict[tuple[HaltScope, str], Halt] = {}
        self._unsaved: dict[tuple[HaltScope, str], Halt] = {}

    async def load(self) -> None:
        """Union of file and database: what either remembers is in force. A broken file raises ConfigurationError."""
        for halt in self._read_file():
            self._halts[halt.scope, halt.key] = halt
        for halt in await self._store.halts():
            known = self._halts.get((halt.scope, halt.key))
            if known is None or known.state is ConnectionState.HALTED:
                self._halts[halt.scope, halt.key] = halt
        self._unsaved = dict(self._halts)
        await self.save()

    def set(self, halt: Halt) -> None:
        """Latch now. A halt that stands keeps its first reason; only FLATTENING -> HALTED moves its state."""
        key = (halt.scope, halt.key)
        known = self._halts.get(key)
        if known is not None and known.state is halt.state:
            return
        if known is not None and known.state is ConnectionState.FLATTENING and halt.set_at != known.set_at:
            return  # only the episode itself may end: a halt in between must not make a restart forget it
        self._halts[key] = halt
        self._unsaved[key] = halt
        try:
            self._write_file()
        except OSError as error:
            log.error("halt latched in memory only", scope=halt.scope, key=halt.key, error=str(error))

    async def save(self) -> None:
        """Bring the database up to date; what it does not take now it gets with the next call."""
        for key, halt in list(self._unsaved.items()):
            try:
                await self._store.save_halt(halt)
            except (StoreError, OutcomeUnknown) as error:
                log.warning("halt not yet in the database", key=halt.key, error=str(error))
                return
            if self._unsaved.get(key) is halt:
                del self._unsaved[key]

    async def clear(self, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        """An operator resumes: database (with audit row) first, then file, then memory, so a crash leaves the halt."""
        if (scope, key) not in self._halts:
            return False
        await self.save()
        await self._store.clear_halt(scope, key, operator, at)
        halt = self._halts.pop((scope, key))
        self._unsaved.pop((scope, key), None)
        try:
            self._write_file()
        except OSError:
            self._halts[scope, key] = halt
            raise
        return True

    def find(self, scope: HaltScope, key: str = "") -> Halt | None:
        """The halt of that scope and key, if any."""
        return self._halts.get((scope, key))

    def all(self) -> Iterable[Halt]:
        """All halts, in the order they were set."""
        return list(self._halts.values())

    def _write_file(self) -> None:
        rows = [
            {
                "scope": halt.scope.value,
                "key": halt.key,
                "state": halt.state.value,
                "reason": halt.reason,
                "set_at": halt.set_at.isoformat(),
                "set_by": halt.set_by,
            }
            for halt in self._halts.values()
        ]
        temporary = self._path.with_suffix(".new")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read_file(self) -> list[Halt]:
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            return [
                Halt(
                    scope=HaltScope(row["scope"]),
                    key=row["key"],
                    state=ConnectionState(row["state"]),
                    reason=row["reason"],
                    set_at=datetime.fromisoformat(row["set_at"]),
                    set_by=row["set_by"],
                )
                for row in rows
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"halt file {str(self._path)!r} cannot be read ({error}): look into it, then mend or move it away"
            ) from None

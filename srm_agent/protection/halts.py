"""The latch (INV-8): a halt stands in memory, then in a file, then in the database; only an operator clears it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

import structlog

from srm_agent import failpoints
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.errors import ConfigurationError, OutcomeUnknown, StoreError
from srm_agent.files import Files
from srm_agent.ports import ProtectionStore

log = structlog.get_logger()

FILE = "halts.json"


class HaltBoard:
    """All halts in force. `set` is synchronous down to the file; the database follows."""

    def __init__(self, files: Files, store: ProtectionStore) -> None:
        self._files = files
        self._store = store
        self._halts: dict[tuple[HaltScope, str], Halt] = {}
        self._unsaved: dict[tuple[HaltScope, str], Halt] = {}
        self._clearing: set[tuple[HaltScope, str]] = set()
        """Halts an operator is lifting just now: one that is set meanwhile is a new one."""
        self._file_behind = False

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
        if known is not None and known.state is halt.state and key not in self._clearing:
            return
        if known is not None and known.state is ConnectionState.FLATTENING and halt.set_at != known.set_at:
            return  # only the episode itself may end: a halt in between must not make a restart forget it
        self._halts[key] = halt
        self._unsaved[key] = halt
        failpoints.reached("CP8")
        self._to_disk()

    async def save(self) -> None:
        """Bring file and database up to date; what they do not take now they get with the next call."""
        if self._file_behind:
            self._to_disk()
        for key, halt in list(self._unsaved.items()):
            if self._unsaved.get(key) is not halt:
                continue  # lifted or moved on while an earlier one was written
            try:
                await self._store.save_halt(halt)
            except (StoreError, OutcomeUnknown) as error:
                log.warning("halt not yet in the database", key=halt.key, error=str(error))
                return
            if self._unsaved.get(key) is halt:
                del self._unsaved[key]

    async def clear(self, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        """An operator resumes: database (with audit row) first, then file, then memory, so a crash leaves the halt."""
        which = (scope, key)
        halt = self._halts.get(which)
        if halt is None:
            return False
        self._clearing.add(which)
        try:
            await self.save()
            await self._store.clear_halt(scope, key, operator, at)
        finally:
            self._clearing.discard(which)
        if self._halts.get(which) is not halt:
            # Somebody latched anew while we waited for the database: that halt stands, there too.
            self._unsaved[which] = self._halts[which]
            return False
        del self._halts[which]
        self._unsaved.pop(which, None)
        try:
            self._write_file()
        except OSError:
            self._halts[which] = halt
            self._unsaved[which] = halt
            raise
        return True

    def find(self, scope: HaltScope, key: str = "") -> Halt | None:
        """The halt of that scope and key, if any."""
        return self._halts.get((scope, key))

    def all(self) -> Iterable[Halt]:
        """All halts, in the order they were set."""
        return list(self._halts.values())

    def _to_disk(self) -> None:
        try:
            self._write_file()
        except OSError as error:
            if not self._file_behind:
                log.error(
                    "halts are latched in memory, not in the file", path=self._files.where(FILE), error=str(error)
                )
            self._file_behind = True

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
        self._files.replace(FILE, json.dumps(rows, indent=1))
        self._file_behind = False

    def _read_file(self) -> list[Halt]:
        try:
            text = self._files.read(FILE)
            return [
                Halt(
                    scope=HaltScope(row["scope"]),
                    key=row["key"],
                    state=ConnectionState(row["state"]),
                    reason=row["reason"],
                    set_at=datetime.fromisoformat(row["set_at"]),
                    set_by=row["set_by"],
                )
                for row in ([] if text is None else json.loads(text))
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"halt file {self._files.where(FILE)!r} cannot be read ({error}): "
                f"look into it, then mend or move it away"
            ) from None

"""The latch (INV-8): a halt stands in memory, then in a file, then in the database; only an operator clears it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime

import structlog

from srm_agent import failpoints
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.files import Files
from srm_agent.ports import ProtectionStore
from srm_agent.protection.halt_file import FILE, HaltFile, Halts, united

log = structlog.get_logger()

__all__ = ["FILE", "HaltBoard"]

STORE_PATIENCE_S = 2.0
"""The once-a-second work of protection comes by here: a database that hangs must not hold it up (P10)."""


class HaltBoard:
    """All halts in force. `set` is synchronous down to the file; the database follows.

    The file is shared with `srm-agent flatten`: what it latches there is taken over with the next `save`.
    """

    def __init__(self, files: Files, store: ProtectionStore) -> None:
        self._file = HaltFile(files)
        self._store = store
        self._halts: dict[tuple[HaltScope, str], Halt] = {}
        self._unsaved: dict[tuple[HaltScope, str], Halt] = {}
        self._clearing: set[tuple[HaltScope, str]] = set()
        """Halts an operator is lifting just now: one that is set meanwhile is a new one."""
        self._lifted = 0
        """How many were lifted so far."""
        self._file_behind = False
        self._unreadable = False

    async def load(self) -> None:
        """Union of file and database: what either remembers is in force. A broken file raises ConfigurationError."""
        in_file = self._file.read()
        self._halts.update(in_file)
        for halt in await self._store.halts():
            known = self._halts.get((halt.scope, halt.key))
            if known is None or known.state is ConnectionState.HALTED:
                self._halts[halt.scope, halt.key] = halt
        self._unsaved = dict(self._halts)
        self._file_behind = self._halts != in_file
        await self.save()

    async def catch_up(self) -> None:
        """Take over what a daemon on another machine has latched in the database meanwhile. Raises StoreError.

        What we have latched ourselves is newer than the database; what is being lifted just now is not brought back.
        """
        lifted = self._lifted
        found = await self._store.halts()
        if self._clearing or self._lifted != lifted:
            return
        for halt in found:
            key = (halt.scope, halt.key)
            known = self._halts.get(key)
            if known is None or (key not in self._unsaved and known.set_at != halt.set_at):
                self.set(halt)

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
        self._adopt()
        if self._file_behind:
            self._to_disk()
        for key, halt in list(self._unsaved.items()):
            if self._unsaved.get(key) is not halt:
                continue  # lifted or moved on while an earlier one was written
            try:
                async with asyncio.timeout(STORE_PATIENCE_S):
                    await self._store.save_halt(halt)
            except Exception as error:  # even a defect: it must not end what protects the accounts (K6)
                log.warning("halt not yet in the database", key=halt.key, error=repr(error))
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
            self._lifted += 1
        if self._halts.get(which) is not halt:
            # Somebody latched anew while we waited for the database: that halt stands, there too.
            self._unsaved[which] = self._halts[which]
            return False
        del self._halts[which]
        self._unsaved.pop(which, None)
        try:
            self._write_file(lifted=halt)
        except OSError:
            self._halts[which] = halt
            self._unsaved[which] = halt
            raise
        return which not in self._halts

    def find(self, scope: HaltScope, key: str = "") -> Halt | None:
        """The halt of that scope and key, if any."""
        return self._halts.get((scope, key))

    def all(self) -> Iterable[Halt]:
        """All halts, in the order they were set."""
        return list(self._halts.values())

    def _to_disk(self) -> None:
        told, self._file_behind = self._file_behind, True
        try:
            self._write_file()
        except Exception as error:  # a defect here must not leave the latch: memory holds, and it is tried again (K6)
            if not told:
                log.error("halts are latched in memory, not in the file", path=self._file.path, error=repr(error))

    def _write_file(self, lifted: Halt | None = None) -> None:
        """Memory and file become what they mean together, without the halt that was lifted just now."""

        def together(known: Halts) -> Halts:
            there = None if lifted is None else known.get((lifted.scope, lifted.key))
            if lifted is not None and there is not None and there.set_at == lifted.set_at:
                del known[lifted.scope, lifted.key]
            return united(self._halts, known)

        self._take_over(self._file.update(together))
        self._file_behind = False

    def _take_over(self, halts: Halts) -> None:
        for key, halt in halts.items():
            if self._halts.get(key) != halt:
                log.warning("halt of another process", scope=halt.scope.value, key=halt.key, state=halt.state.value)
                self._halts[key] = halt
                self._unsaved[key] = halt

    def _adopt(self) -> None:
        """What `srm-agent flatten` has written meanwhile holds here as well."""
        try:
            changed = self._file.changed()
        except (OSError, UnicodeDecodeError) as error:
            if not self._unreadable:
                log.error("halt file cannot be read", path=self._file.path, error=str(error))
            self._unreadable = True
            return
        self._unreadable = False
        if changed is not None:
            self._take_over(united(self._halts, changed))

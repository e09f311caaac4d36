"""The store as one thing: opened by URL, brought to this program's schema, closed once."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine

from srm_agent.clock import Clock
from srm_agent.errors import StoreBroken, StoreError
from srm_agent.store.book import SqlBook
from srm_agent.store.engine import MEMORY, database_path, open_engine
from srm_agent.store.facades import SqlHistory, SqlJournal, SqlLeases, SqlProtection, SqlSignalLog
from srm_agent.store.group_commit import GroupCommit
from srm_agent.store.late import LateRunner
from srm_agent.store.migrate import migrate, pending
from srm_agent.store.names import STANDALONE, Names
from srm_agent.store.reads import Reads
from srm_agent.store.runner import InlineRunner, StoreRunner, ThreadRunner
from srm_agent.store.schema import Tables, tables_of


class Store:
    """`journal`, `protection`, `signals`, `history`, `leases` are the ports; people ask `reads`, auditors `book`."""

    def __init__(self, runner: StoreRunner, tables: Tables, clock: Clock, path: Path | None = None) -> None:
        self.runner = runner
        self.journal = SqlJournal(runner, tables, clock)
        self.protection = SqlProtection(runner, tables)
        self.signals = SqlSignalLog(runner, tables)
        self.history = SqlHistory(runner, tables)
        self.leases = SqlLeases(runner, tables, clock)
        self.reads = Reads(runner, tables, path)
        self.book = SqlBook(runner, tables)

    @classmethod
    async def open(
        cls,
        url: str,
        clock: Clock,
        *,
        names: Names = STANDALONE,
        inline: bool = False,
        migrating: bool = True,
        read_only: bool = False,
        patient: type[StoreError] | None = None,
    ) -> Store:
        """Open, and migrate unless told not to. `url` is `sqlite:///path`, a path, or `sqlite://` (memory).

        `inline`: no thread, no group commit (simulation, short commands). `read_only`: takes no write lock and never
        creates or migrates. `patient`: an error of this kind is not raised; the store then opens later, at a call, and
        raises StoreUnavailable until it has. Raises ConfigurationError, StoreUnavailable, StoreBroken (schema older
        than this program and not migrated, or newer).
        """

        def made() -> StoreRunner:
            engine = open_engine(url, read_only=read_only)
            try:
                _prepare(engine, names, migrating=migrating and not read_only)
            except BaseException:
                engine.dispose()
                raise
            return InlineRunner(engine) if inline else GroupCommit(ThreadRunner(engine))

        runner: StoreRunner
        if patient is None:
            runner = made()
        else:
            runner = late = LateRunner(made, clock)
            with suppress(patient):
                late.try_now()
        return cls(runner, tables_of(names), clock, database_path(url))

    @classmethod
    async def memory(cls, clock: Clock) -> Store:
        """An empty store in memory, inline: tests and simulation."""
        return await cls.open(MEMORY, clock, inline=True)

    async def close(self) -> None:
        """Commit what waits and release the file; idempotent."""
        await self.runner.close()


def _prepare(engine: Engine, names: Names, *, migrating: bool) -> None:
    if migrating:
        migrate(engine, names)
        return
    todo = pending(engine, names)
    if todo:
        raise StoreBroken(f"the database's schema is older than this program ({todo[0]}); run 'srm-agent migrate'")


def migrate_database(url: str, names: Names = STANDALONE, *, dry_run: bool = False) -> list[str]:
    """For the command `migrate`: what was added, or with `dry_run` what would be, one sentence each.

    A dry run writes nothing and creates no file. Raises ConfigurationError, StoreUnavailable, StoreBroken.
    """
    path = database_path(url)
    absent = dry_run and path is not None and not path.exists()
    engine = open_engine(MEMORY if absent else url, read_only=dry_run)
    try:
        return pending(engine, names) if dry_run else migrate(engine, names)
    finally:
        engine.dispose()

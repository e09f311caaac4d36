"""SQLite made trustworthy: WAL, FULL, explicit BEGIN, private file; and transactions with two kinds of failure."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from sqlite3 import Cursor as SqliteCursor

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event, exc, make_url

from srm_agent.errors import ConfigurationError, StoreUnavailable
from srm_agent.store.errors_map import mapped

MEMORY = "sqlite://"
BUSY_TIMEOUT_MS = 50
"""Short: the one writer is us; whoever else holds the lock is a command line that is done at once, or trouble."""
FULL = 2
"""`PRAGMA synchronous`: each commit is flushed."""
READ = {"srm_read": True}
"""Execution options of a transaction that only reads: it takes no write lock."""


def database_path(url: str) -> Path | None:
    """The file of a SQLite URL or plain path; None for memory.

    Raises ConfigurationError for other databases and unreadable URLs (never printing what may hold a password).
    """
    if "://" not in url:
        return Path(url)
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise ConfigurationError("[store] url cannot be read; write 'sqlite:///srm.db' or a path") from None
    if parsed.get_backend_name() != "sqlite":
        raise ConfigurationError(
            f"[store] url must be SQLite in this version, was {parsed.get_backend_name()!r}; write 'sqlite:///srm.db'"
        )
    return Path(parsed.database) if parsed.database and parsed.database != ":memory:" else None


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """An engine of exactly one connection. The file is created with mode 0600 and narrowed to it if wider.

    Raises ConfigurationError naming the path, StoreUnavailable where the file cannot be touched.
    """
    path = database_path(url)
    if path is not None:
        _private_file(path, create=not read_only)
    engine = create_engine(
        MEMORY if path is None else f"sqlite:///{path}",
        poolclass=StaticPool,
        # One thread uses it, but not the one that opened it (nor closes it at exit).
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        hide_parameters=True,
    )
    _explicit_transactions(engine, memory=path is None, read_only=read_only)
    return engine


def _private_file(path: Path, *, create: bool) -> None:
    if not path.parent.is_dir():
        raise ConfigurationError(f"[store] url: the directory {str(path.parent)!r} does not exist; create it")
    if not create and not path.exists():
        raise ConfigurationError(f"[store] url: no database at {str(path)!r}; start the agent once or run migrate")
    try:
        # SQLite gives -wal and -shm the mode of the main file.
        os.close(os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600))
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StoreUnavailable(f"database file {str(path)!r} cannot be used: {error.strerror}") from error


def _explicit_transactions(engine: Engine, *, memory: bool, read_only: bool) -> None:
    pragmas = [f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"]
    if not memory and not read_only:
        pragmas += ["journal_mode=WAL", "synchronous=FULL"]
    if read_only:
        pragmas.append("query_only=ON")

    @event.listens_for(engine, "connect")
    def _connect(dbapi: SqliteConnection, record: object) -> None:
        # Python's sqlite3 opens no transaction for SELECT, SAVEPOINT and DDL; with None it keeps out and we do.
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        try:
            for pragma in pragmas:
                cursor.execute(f"PRAGMA {pragma}")
            if not memory and not read_only:
                require_flushed_commits(cursor)
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN that later writes would meet BUSY at once, without waiting.
        reading = read_only or connection.get_execution_options().get("srm_read", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def require_flushed_commits(cursor: SqliteCursor) -> None:
    """Ask back what is in force: where SQLite cannot give a mode it stays with another, without an error (P14).

    Raises ConfigurationError: an acknowledged signal that a power cut takes back is worse than no start.
    """
    journal, synchronous = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous"))
    if journal != "wal" or synchronous < FULL:
        raise ConfigurationError(
            f"[store] url: SQLite would not flush each commit to disk there (journal_mode {journal}, synchronous "
            f"{synchronous}, needed wal and {FULL}); put the database on a local disk"
        )


@contextmanager
def transaction(connection: Connection) -> Iterator[Connection]:
    """Begin, run, commit. Raises StoreUnavailable (nothing happened), OutcomeUnknown (at COMMIT), StoreBroken.

    Errors that are not the database's pass through after the rollback.
    """
    try:
        begun = connection.begin()
    except (exc.SQLAlchemyError, OSError) as error:
        _abandon(connection)
        raise mapped(error, committing=False) from error
    try:
        yield connection
    except BaseException as error:
        _abandon(connection)
        if isinstance(error, Exception):
            changed = mapped(error, committing=False)
            if changed is not error:
                raise changed from error
        raise
    try:
        begun.commit()
    except (exc.SQLAlchemyError, OSError) as error:
        _abandon(connection)
        raise mapped(error, committing=True) from error


def _abandon(connection: Connection) -> None:
    """Roll back whatever is open; a connection that cannot even do that is thrown away."""
    try:
        open_transaction = connection.get_transaction()
        if open_transaction is not None:
            open_transaction.rollback()
    except exc.SQLAlchemyError:
        with suppress(exc.SQLAlchemyError):
            connection.invalidate()

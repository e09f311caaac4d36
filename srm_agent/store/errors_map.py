"""Driver failures in the words of `srm_agent.errors`: by driver code, never by class or message."""

from __future__ import annotations

import sqlite3

from sqlalchemy import exc

from srm_agent.errors import Duplicate, OutcomeUnknown, StoreBroken, StoreUnavailable

_DUPLICATE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
_AWAY = {
    sqlite3.SQLITE_BUSY: "another process holds the write lock",
    sqlite3.SQLITE_LOCKED: "the table is locked",
    sqlite3.SQLITE_IOERR: "the disk failed",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_INTERRUPT: "interrupted",
    sqlite3.SQLITE_PROTOCOL: "the locking protocol failed",
}
_NOTHING_COMMITTED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}
"""Codes that prove, even at COMMIT, that the transaction did not become durable (sqlite.org/lang_transaction.html)."""


def mapped(error: Exception, *, committing: bool) -> Exception:
    """The error to raise instead. `committing`: it came from COMMIT, whose outcome may be unknown.

    Errors that are not the driver's (our own, a function's) come back unchanged.
    """
    if isinstance(error, exc.DBAPIError):
        return _driver(error, committing=committing)
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable(f"no database connection became free: {error}")
    if isinstance(error, exc.StatementError):  # a value was refused before the wire
        return StoreBroken(f"a value cannot be stored: {error.orig}")
    if isinstance(error, exc.SQLAlchemyError):
        return StoreBroken(str(error))
    if isinstance(error, OSError):
        return OutcomeUnknown(str(error)) if committing else StoreUnavailable(str(error))
    return error


def _driver(error: exc.DBAPIError, *, committing: bool) -> Exception:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code in _DUPLICATE:
        return Duplicate(str(error.orig))
    primary = code & 0xFF if isinstance(code, int) else None  # extended codes carry the primary in the low byte
    if primary in _AWAY:
        message = f"database unavailable: {_AWAY[primary]} ({error.orig})"
        sure = not committing or primary in _NOTHING_COMMITTED
        return StoreUnavailable(message) if sure else OutcomeUnknown(message)
    if error.connection_invalidated:
        message = f"the database connection was lost ({error.orig})"
        return OutcomeUnknown(message) if committing else StoreUnavailable(message)
    return StoreBroken(str(error.orig))

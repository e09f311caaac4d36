"""Leases: one writer per account, with a fencing token that only grows (INV-17)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, insert, select, update

from srm_agent.errors import LeaseLost
from srm_agent.store.schema import Tables
from srm_agent.store.statements import many


class Leases:
    """One row a connection; it stays after a release, so that the token never starts again."""

    def __init__(self, tables: Tables) -> None:
        self._table = table = tables.leases
        self._get = select(table).where(table.c.connection_id == bindparam("of"))
        self._fences = (
            select(table.c.connection_id, table.c.fence)
            .where(table.c.connection_id.in_(many()))
            .order_by(table.c.connection_id)
        )
        self._set = (
            update(table)
            .where(table.c.connection_id == bindparam("of"))
            .values(owner=bindparam("who"), fence=bindparam("token"), expires_at=bindparam("until"))
        )

    def acquire(self, connection: Connection, of: str, owner: str, ttl_s: float, now: datetime) -> int | None:
        """The fencing token; None while another owner holds the lease. The holder gets its own token again."""
        until = now + timedelta(seconds=ttl_s)
        row = connection.execute(self._get, {"of": of}).first()
        if row is None:
            connection.execute(
                insert(self._table), {"connection_id": of, "owner": owner, "fence": 1, "expires_at": until}
            )
            return 1
        alive = row.expires_at > now
        if alive and row.owner != owner:
            return None
        fence = int(row.fence) if alive else int(row.fence) + 1
        connection.execute(self._set, {"of": of, "who": owner, "token": fence, "until": until})
        return fence

    def renew(self, connection: Connection, of: str, owner: str, fence: int, ttl_s: float, now: datetime) -> bool:
        """Extend; False when the lease has run out or is another's: acquire again, with a new token."""
        row = connection.execute(self._get, {"of": of}).first()
        if row is None or row.owner != owner or row.fence != fence or row.expires_at <= now:
            return False
        until = now + timedelta(seconds=ttl_s)
        connection.execute(self._set, {"of": of, "who": owner, "token": fence, "until": until})
        return True

    def release(self, connection: Connection, of: str, owner: str, fence: int, now: datetime) -> bool:
        """Give it back; False when it was not ours."""
        row = connection.execute(self._get, {"of": of}).first()
        if row is None or row.owner != owner or row.fence != fence:
            return False
        connection.execute(self._set, {"of": of, "who": "", "token": fence, "until": now})
        return True

    def guard(self, connection: Connection, fences: Mapping[str, int]) -> None:
        """Refuse to write under another token than the lease's. A connection that was never leased passes.

        `fences` holds the writer's token by connection. Raises LeaseLost.
        """
        if not fences:
            return
        for row in connection.execute(self._fences, {"keys": list(fences)}):
            fence = fences[row.connection_id]
            if row.fence != fence:
                raise LeaseLost(
                    f"the lease of connection {row.connection_id!r} has fencing token {row.fence}, the entry was "
                    f"written under {fence}; another process trades this account, or the lease was not acquired"
                )

"""Leases: one writer per account, with a fencing token that only grows (INV-17)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from simulator.memory_store.exact import instant
from simulator.memory_store.tables import Session, Tables
from srm_agent.clock import Clock
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import LeaseLost
from srm_agent.store.records import LeaseRecord


class MemoryLeases:
    """`ports.Leases`: one row a connection; it stays after a release, so that the token never starts again."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock

    async def acquire(self, connection_id: ConnectionId, owner: str, ttl_s: float) -> int | None:
        """The fencing token; None while another owner holds the lease. The holder gets its own token again."""
        with self._session.writing() as tables:
            now, row = self._clock.wall(), tables.leases.get(connection_id)
            alive = row is not None and row.expires_at > now
            if row is not None and alive and row.owner != owner:
                return None
            fence = 1 if row is None else row.fence if alive else row.fence + 1
            self._set(tables, connection_id, owner, fence, ttl_s)
            return fence

    async def renew(self, connection_id: ConnectionId, owner: str, fence: int, ttl_s: float) -> bool:
        """Extend; False when the lease has run out or is another's: acquire again, with a new token."""
        with self._session.writing() as tables:
            row = tables.leases.get(connection_id)
            ours = row is not None and row.owner == owner and row.fence == fence and row.expires_at > self._clock.wall()
            if ours:
                self._set(tables, connection_id, owner, fence, ttl_s)
            return ours

    async def release(self, connection_id: ConnectionId, owner: str, fence: int) -> bool:
        """Give it back; False when it was not ours."""
        with self._session.writing() as tables:
            row = tables.leases.get(connection_id)
            ours = row is not None and row.owner == owner and row.fence == fence
            if ours:
                self._set(tables, connection_id, "", fence, 0.0)
            return ours

    def _set(self, tables: Tables, of: ConnectionId, owner: str, fence: int, ttl_s: float) -> None:
        until = instant(self._clock.wall() + timedelta(seconds=ttl_s))
        tables.leases.put(of, LeaseRecord(connection_id=of, owner=owner, fence=fence, expires_at=until))


def guard(tables: Tables, fences: Mapping[ConnectionId, int]) -> None:
    """Refuse to write under another token than the lease's. A connection that was never leased passes.

    `fences` holds the writer's token by connection. Raises LeaseLost.
    """
    for connection_id in sorted(fences):
        row = tables.leases.get(connection_id)
        if row is not None and row.fence != fences[connection_id]:
            raise LeaseLost(
                f"the lease of connection {connection_id!r} has fencing token {row.fence}, the entry was "
                f"written under {fences[connection_id]}; another process trades this account, or the lease was not "
                "acquired"
            )

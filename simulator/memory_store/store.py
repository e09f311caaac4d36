"""The store as one thing, with the attributes of `srm_agent.store.store.Store`."""

from __future__ import annotations

from simulator.memory_store.book import MemoryBook
from simulator.memory_store.history import MemoryHistory
from simulator.memory_store.leases import MemoryLeases
from simulator.memory_store.messages import MemorySignalLog
from simulator.memory_store.orders import MemoryJournal
from simulator.memory_store.protection import MemoryProtection
from simulator.memory_store.tables import Session, Tables
from srm_agent.clock import Clock


class MemoryStore:
    """`ports.Storage` in dictionaries: each method one transaction, done at once, without a pause.

    A restart: `reopen` gives the next daemon a store over the same tables. Who still holds the old one, closed, gets
    StoreUnavailable from every method, as from a database whose connection is gone.
    """

    def __init__(self, clock: Clock, tables: Tables | None = None) -> None:
        self._tables = Tables() if tables is None else tables
        self._session = session = Session(self._tables)
        self.journal = MemoryJournal(session, clock)
        self.protection = MemoryProtection(session)
        self.signals = MemorySignalLog(session)
        self.history = MemoryHistory(session)
        self.leases = MemoryLeases(session, clock)
        self.book = MemoryBook(self._tables)

    def reopen(self, clock: Clock) -> MemoryStore:
        """Close this store, if nobody did, and open the same tables for the next daemon."""
        self._session.close()
        return MemoryStore(clock, self._tables)

    async def close(self) -> None:
        """No more access through this store; what was written stays. Idempotent."""
        self._session.close()

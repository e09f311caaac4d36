"""The three stores on which the contract suite of the store runs; a new one joins by one more entry in `RIGS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import pytest

from simulator.memory_store.book import StoreBook
from simulator.memory_store.store import MemoryStore
from srm_agent.clock import Clock, ManualClock
from srm_agent.domain.accounts import CashFlow, ConnectionState, Halt, HaltScope, ProtectionMark
from srm_agent.domain.ids import ConnectionId, LegId
from srm_agent.ports import History, Journal, Leases, ProtectionStore, SignalLog
from srm_agent.store.store import Store
from tests.unit.store.conftest import START, Builders


class MetricsJournal(Journal, Protocol):
    """The journal with the one method that commands alone call."""

    async def rebuild_metrics(self) -> int:
        """How many trades the metrics were rebuilt from."""
        ...


class KeptStore(Protocol):
    """`ports.Storage` with the book that auditors read."""

    @property
    def journal(self) -> MetricsJournal: ...
    @property
    def protection(self) -> ProtectionStore: ...
    @property
    def signals(self) -> SignalLog: ...
    @property
    def history(self) -> History: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def book(self) -> StoreBook: ...
    async def close(self) -> None: ...


Opening = Callable[[Clock, Path, "KeptStore | None"], Awaitable["KeptStore"]]
"""Opens a store at a path, or again after the one before it was closed."""


async def dictionaries(clock: Clock, path: Path, before: KeptStore | None) -> KeptStore:
    """The store of the simulation."""
    return before.reopen(clock) if isinstance(before, MemoryStore) else MemoryStore(clock)


async def in_memory(clock: Clock, path: Path, before: KeptStore | None) -> KeptStore:
    """SQLite in memory, inline; it ends with its closing."""
    return await Store.memory(clock)


async def inline(clock: Clock, path: Path, before: KeptStore | None) -> KeptStore:
    """SQLite in a file without a thread."""
    return await Store.open(f"sqlite:///{path}", clock, inline=True)


async def file(clock: Clock, path: Path, before: KeptStore | None) -> KeptStore:
    """SQLite in a file through the writer thread with group commit, as in production."""
    return await Store.open(f"sqlite:///{path}", clock)


RIGS = {"dictionaries": dictionaries, "SQLite in memory": in_memory, "SQLite file, writer thread": file}
LASTING = {"dictionaries": dictionaries, "SQLite file, inline": inline, "SQLite file, writer thread": file}


class Lasting:
    """A store that outlives a daemon."""

    def __init__(self, opening: Opening, clock: Clock, path: Path, store: KeptStore) -> None:
        self._opening, self._clock, self._path = opening, clock, path
        self.store = store

    async def restart(self) -> KeptStore:
        """Close, and open what was written for the next daemon."""
        await self.store.close()
        self.store = await self._opening(self._clock, self._path, self.store)
        return self.store


class Values(Builders):
    """The builders of the unit tests, and those of protection."""

    def mark(self, **changes: Any) -> ProtectionMark:
        values: dict[str, Any] = {
            "connection_id": self.connection,
            "high_water_mark": Decimal("10250.1234567891"),
            "start_equity": Decimal(10000),
            "day": "2026-01-05",
            "day_base": Decimal("10100.5"),
            "last_flow_at": None,
            "updated_at": START,
        }
        return ProtectionMark(**(values | changes))

    def halt(self, **changes: Any) -> Halt:
        values: dict[str, Any] = {
            "scope": HaltScope.CONNECTION,
            "key": "c1",
            "state": ConnectionState.FLATTENING,
            "reason": "drawdown 0.21",
            "set_at": START,
            "set_by": "drawdown_guard",
        }
        return Halt(**(values | changes))

    def flow(self, **changes: Any) -> CashFlow:
        values: dict[str, Any] = {
            "flow_id": "d1", "kind": "deposit", "amount": Decimal("500.00"), "currency": "USD", "at": START,
        }  # fmt: skip
        return CashFlow(**(values | changes))


@pytest.fixture(scope="session")
def a() -> Values:
    """Builders of domain values."""
    return Values()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands."""
    return ManualClock(START)


@pytest.fixture(params=list(RIGS))
async def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> AsyncIterator[KeptStore]:
    """The same suite over every store."""
    opened = await RIGS[request.param](clock, tmp_path / "srm.db", None)
    yield opened
    await opened.close()


@pytest.fixture(params=list(LASTING))
async def lasting(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Lasting]:
    """Stores that outlive a daemon."""
    opening, path = LASTING[request.param], tmp_path / "srm.db"
    kept = Lasting(opening, clock, path, await opening(clock, path, None))
    yield kept
    await kept.store.close()


async def fills_of(store: KeptStore) -> dict[str, LegId | None]:
    """Fill ids with the legs they belong to."""
    return {record.fill.fill_id: record.leg_id for record in await store.book.fills()}


C1, C2 = ConnectionId("c1"), ConnectionId("c2")

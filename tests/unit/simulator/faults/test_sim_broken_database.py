"""A database that fails, in front of a store that works."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from simulator.broken_database import READS, RIVAL, DatabaseFaults, FaultyStorage
from simulator.latency import Leg
from srm_agent import ports
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import OutcomeUnknown, StoreUnavailable
from tests.unit.simulator.faults.conftest import now

C01 = ConnectionId("c01")
SLOW = Leg(median_s=0.1, sigma=0.0, tail_probability=0.0)


@dataclass
class Notebook:
    """A journal that notes what was committed, at which second."""

    written: list[tuple[float, str]] = field(default_factory=list)
    note: str = "kept"

    async def record(self, decisions: object, intents: object, legs: object) -> None:
        """A write."""
        self.written.append((now(), "record"))

    async def unsettled(self, connection: ConnectionId) -> list[str]:
        """A read."""
        return [connection]


@dataclass
class OneLease:
    """A lease on one connection, without expiry."""

    owner: str = ""
    fence: int = 0
    heard: list[str] = field(default_factory=list)

    async def acquire(self, connection_id: ConnectionId, owner: str, ttl_s: float) -> int | None:
        """Free for the first who asks."""
        if self.owner not in ("", owner):
            return None
        self.owner, self.fence = owner, self.fence + 1
        return self.fence

    async def renew(self, connection_id: ConnectionId, owner: str, fence: int, ttl_s: float) -> bool:
        """Still the same."""
        return (self.owner, self.fence) == (owner, fence)

    async def release(self, connection_id: ConnectionId, owner: str, fence: int) -> bool:
        """Given back."""
        self.owner = ""
        return True


@pytest.fixture
def book() -> Notebook:
    """What lies beneath."""
    return Notebook()


@pytest.fixture
def faults() -> DatabaseFaults:
    """Nothing yet."""
    return DatabaseFaults()


@pytest.fixture
def lease() -> OneLease:
    """Nobody's."""
    return OneLease()


@pytest.fixture
def storage(book: Notebook, faults: DatabaseFaults, lease: OneLease) -> FaultyStorage:
    """100 ms to the commit and 100 ms back."""
    beneath = SimpleNamespace(journal=book, protection=book, signals=book, history=book, leases=lease)
    return FaultyStorage(cast("ports.Storage", beneath), faults, random.Random(1), before=SLOW, after=SLOW)


async def test_a_call_commits_between_its_two_delays(storage: FaultyStorage, book: Notebook) -> None:
    """Latency before the commit and after it, and the answer is the store's."""
    await storage.journal.record([], [], [])
    assert (book.written, round(now(), 6)) == ([(0.1, "record")], 0.2)
    assert list(map(str, await storage.journal.unsettled(C01))) == ["c01"]
    assert storage.journal.note == "kept"  # type: ignore[attr-defined]


async def test_a_database_that_is_down_takes_nothing(
    storage: FaultyStorage, book: Notebook, faults: DatabaseFaults
) -> None:
    """Reads and writes are StoreUnavailable until it is back (P9)."""
    faults.take_down(5)
    for call in (storage.journal.record([], [], []), storage.journal.unsettled(C01)):
        with pytest.raises(StoreUnavailable, match="down"):
            await call
    assert (book.written, faults.refused, faults.works) == ([], 2, False)
    await asyncio.sleep(5)
    await storage.journal.record([], [], [])
    assert len(book.written) == 1


async def test_going_down_after_the_commit_leaves_a_doubt(
    storage: FaultyStorage, book: Notebook, faults: DatabaseFaults
) -> None:
    """Committed, the answer lost: OutcomeUnknown for a write, StoreUnavailable for a read (P12, P13)."""
    asyncio.get_running_loop().call_later(0.15, faults.take_down, 1)
    both = asyncio.gather(storage.journal.record([], [], []), storage.journal.unsettled(C01), return_exceptions=True)
    write, read = await both
    assert isinstance(write, OutcomeUnknown)
    assert isinstance(read, StoreUnavailable)
    assert len(book.written) == 1


async def test_a_lock_stops_writes_only(storage: FaultyStorage, book: Notebook, faults: DatabaseFaults) -> None:
    """Another process writes: ours is refused, reads work (P15)."""
    faults.lock(3)
    with pytest.raises(StoreUnavailable, match="write lock"):
        await storage.journal.record([], [], [])
    assert list(map(str, await storage.journal.unsettled(C01))) == ["c01"]
    assert book.written == []


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_answer_tells_nothing(
    storage: FaultyStorage, book: Notebook, faults: DatabaseFaults, committed: bool
) -> None:
    """OutcomeUnknown whether it was done or not; reads are not concerned (P12)."""
    faults.make_ambiguous(committed=committed)
    await storage.journal.unsettled(C01)
    with pytest.raises(OutcomeUnknown):
        await storage.journal.record([], [], [])
    assert len(book.written) == (1 if committed else 0)
    await storage.journal.record([], [], [])
    assert len(book.written) == (2 if committed else 1)


async def test_a_slow_database_answers_late(storage: FaultyStorage, book: Notebook, faults: DatabaseFaults) -> None:
    """Five seconds more, for a while (P10)."""
    faults.slow_down(5, 3)
    await storage.journal.record([], [], [])
    assert round(now(), 6) == 5.2
    await storage.journal.record([], [], [])
    assert round(now(), 6) == 5.4


async def test_a_caller_who_gives_up_takes_nothing_back(
    storage: FaultyStorage, book: Notebook, faults: DatabaseFaults
) -> None:
    """Cancelled while waiting, the transaction is committed all the same (P12: 73 of 94 were)."""
    faults.slow_down(5, 60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await storage.journal.record([], [], [])
    assert book.written == []
    await asyncio.sleep(10)
    assert len(book.written) == 1


async def test_an_abandoned_failure_disturbs_nobody(storage: FaultyStorage, faults: DatabaseFaults) -> None:
    """The refusal that nobody waits for any more is not reported as lost."""
    faults.slow_down(5, 60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await storage.journal.record([], [], [])
    faults.take_down(60)
    await asyncio.sleep(10)
    assert faults.refused == 1


async def test_a_rival_takes_the_lease(storage: FaultyStorage, lease: OneLease, faults: DatabaseFaults) -> None:
    """At the next renewal it is the rival's, by the store's own rules: the token has moved on (P22, P23, INV-17)."""
    fence = await storage.leases.acquire(C01, "me", 10)
    assert fence == 1
    faults.steal_lease(C01, 30)
    assert not await storage.leases.renew(C01, "me", 1, 10)
    assert (lease.owner, await storage.leases.acquire(C01, "me", 10)) == (RIVAL, None)
    lease.owner = ""  # the rival's time is over
    assert await storage.leases.acquire(C01, "me", 10) == 3


async def test_mended_is_mended(storage: FaultyStorage, book: Notebook, faults: DatabaseFaults) -> None:
    """Nothing waits for later calls."""
    faults.take_down()
    faults.lock()
    faults.slow_down(9)
    faults.make_ambiguous(5, committed=False)
    faults.mend()
    assert faults.works
    await storage.journal.record([], [], [])
    assert book.written == [(0.1, "record")]


def test_every_read_of_the_ports_is_known_as_one() -> None:
    """A read's lost answer is StoreUnavailable; what is not listed is a write."""
    parts = (ports.Journal, ports.ProtectionStore, ports.SignalLog, ports.History, ports.Leases)
    methods = {name for part in parts for name in vars(part) if not name.startswith("_")}
    writes = {
        *("record", "update", "record_fills", "close_trade", "save_mark", "save_halt", "clear_halt", "record_equity"),
        *("record_flows", "accept", "finish", "acquire", "renew", "release"),
    }
    assert writes <= methods
    assert methods - writes <= READS

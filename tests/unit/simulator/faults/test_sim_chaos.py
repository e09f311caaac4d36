"""Faults by chance: each strikes, says what it did, ends by itself, and depends on the seed alone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from simulator.broken_database import DatabaseFaults
from simulator.broken_disk import FilesFaults
from simulator.chaos import IDS, ChaosWorld, calm, inject, schedule
from simulator.chaos.strikes import LONGEST_S
from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.records import BookMoved
from simulator.terms import SymbolState
from simulator.venue import Venue
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.orders import Outcome
from tests.unit.simulator.faults.conftest import BTC, D, LoopClock, a_broker, a_venue, an_entry, an_exit, held, move

C01 = ConnectionId("c01")


@dataclass
class SmallWorld:
    """One account, its feed, a database and a disk; what was asked of the machine is noted."""

    venue: Venue
    feed: InProcessFeed
    brokers: dict[ConnectionId, InProcessBroker]
    database: DatabaseFaults = field(default_factory=DatabaseFaults)
    disk: FilesFaults = field(default_factory=FilesFaults)
    asked: list[str] = field(default_factory=list)
    skew_s: float = 0.0

    def clock_skew(self, seconds: float) -> None:
        """Note it."""
        self.skew_s = seconds
        self.asked.append(f"skew {seconds:g}")

    def stall(self, seconds: float) -> None:
        """Note it."""
        self.asked.append(f"stall {seconds:g}")

    def alerts_down(self, seconds: float) -> None:
        """Note it."""
        self.asked.append(f"alerts {seconds:g}")

    def logs_blocked(self, seconds: float) -> None:
        """Note it."""
        self.asked.append(f"logs {seconds:g}")

    def operator_resumes(self, scope: str, key: str) -> None:
        """Note it."""
        self.asked.append(f"resume {scope} {key}".rstrip())


def a_world() -> SmallWorld:
    """c01 holds two lots with a stop."""
    venue = a_venue()
    world = SmallWorld(
        venue,
        InProcessFeed(venue, LoopClock(), asset_classes={BTC: AssetClass.CRYPTO}, pip_sizes={}),
        {C01: a_broker(venue)},
    )
    port: ChaosWorld = world
    assert port.venue is venue
    return world


async def played(fault_id: str, seed: int) -> tuple[str, list[str], SmallWorld]:
    """One fault in a small story: an entry and an exit meet it, ten minutes pass; what was told and what happened."""
    world = a_world()
    story: list[str] = []
    world.venue.subscribe(lambda event: None if isinstance(event, BookMoved) else story.append(repr(event)))
    broker = world.brokers[C01]
    await broker.submit(an_entry("first", lot=D(2)))
    told = inject(world, fault_id, random.Random(seed))
    for intent in (an_entry("second"), an_exit("third")):
        try:
            report = await broker.submit(intent)
            story.append(f"{report.outcome} {report.code}")
        except Exception as error:
            story.append(repr(error))
    for _ in range(int(LONGEST_S) // 2 + 5):
        await asyncio.sleep(2)
        move(world.venue, f"{100 + len(story) % 3}.0", after_ms=2000)
    return told, story, world


@pytest.mark.parametrize("fault_id", IDS)
async def test_each_fault_strikes_and_is_told(fault_id: str) -> None:
    """In ten seeds the line begins with the id, says something, and is not always the same."""
    told = []
    for seed in range(10):
        line = inject(a_world(), fault_id, random.Random(seed))
        assert line.startswith(f"{fault_id} ")
        assert len(line) > len(fault_id) + 8
        told.append(line)
    assert len(set(told)) > 1 or fault_id in ("B11", "B14", "B16", "B19", "B32")


@pytest.mark.parametrize("fault_id", IDS)
async def test_the_same_seed_makes_the_same_trouble(fault_id: str) -> None:
    """Told and done the same twice, other seeds do something else somewhere."""
    for seed in range(3):
        first, again = await played(fault_id, seed), await played(fault_id, seed)
        assert first[:2] == again[:2]
        assert first[2].asked == again[2].asked


@pytest.mark.parametrize("fault_id", IDS)
async def test_each_fault_is_over_in_time(fault_id: str) -> None:
    """After the longest time an account can be reached, its reads are true, the symbol trades under its own terms."""
    for seed in range(6):
        _, _, world = await played(fault_id, seed)
        broker = world.brokers[C01]
        assert not broker.network.down
        assert broker.mischief.serving
        assert broker.sight.whole
        assert not world.feed.network.down
        assert world.venue.state_of("BTCUSDT") is SymbolState.TRADING
        assert world.venue.instruments["BTCUSDT"] == world.venue.mischief.original_terms("BTCUSDT")
        assert world.skew_s == 0
        assert world.database.works or fault_id == "P12"  # which waits for commits, and here nobody writes
        assert world.disk.well


async def test_calm_ends_everything_at_once() -> None:
    """After all faults at once and `calm`, an entry and a close go through and everything is seen."""
    world = a_world()
    rng = random.Random(5)
    for fault_id in IDS:
        if fault_id not in ("B9", "B29", "B31"):  # terms come back by themselves, money does not
            inject(world, fault_id, rng)
    calm(world)
    broker = world.brokers[C01]
    broker.mischief.calm()
    touch = world.venue.touch("BTCUSDT")
    report = await broker.submit(an_entry("c", limit_price=None, stop_loss=touch.bid - 5))
    assert report.outcome is Outcome.FILLED
    assert [(p.lot, p.stop_loss) for p in await broker.positions()] == [(D(1), touch.bid - 5)]
    assert (await broker.submit(an_exit("d"))).outcome is Outcome.FILLED
    assert held(world.venue) == 0
    assert world.database.works
    assert world.disk.well
    assert world.feed.mischief.honest


async def test_a_venue_never_lies_for_longer_than_its_finality() -> None:
    """However often B26 strikes, reads that are less than the truth are rare and short (INV-5 would be impossible)."""
    world, rng = a_world(), random.Random(3)
    broker = world.brokers[C01]
    await broker.submit(an_entry("a"))
    lying, longest = 0.0, 0.0
    for _ in range(600):
        inject(world, "B26", rng)
        await asyncio.sleep(0.5)
        lying = lying + 0.5 if broker.sight.truthful_s < 0 else 0.0
        longest = max(longest, lying)
    assert 0 < longest <= 3


def test_a_schedule_is_the_seeds() -> None:
    """So many strikes within the time, in order, of the ids asked for; the same for the same seed."""
    first = schedule(random.Random(7), IDS, 200, 120.0)
    assert first == schedule(random.Random(7), IDS, 200, 120.0) != schedule(random.Random(8), IDS, 200, 120.0)
    assert [strike.at_s for strike in first] == sorted(strike.at_s for strike in first)
    assert all(0 <= strike.at_s <= 120 for strike in first)
    assert len({strike.fault_id for strike in first}) > 40
    assert {strike.fault_id for strike in schedule(random.Random(7), ["B4"], 5, 1.0)} == {"B4"}


@pytest.mark.parametrize("ids", [[], ["B4", "S1"], ["P14"]])
def test_a_fault_that_cannot_come_by_chance_is_refused(ids: list[str]) -> None:
    """The message names what can."""
    with pytest.raises(ValueError, match="B34"):
        schedule(random.Random(1), ids, 3, 10.0)


async def test_money_is_moved_within_what_there_is() -> None:
    """A withdrawal never exceeds what is free, and an empty account has nothing to move (B31)."""
    world = a_world()
    await world.brokers[C01].submit(an_entry("a"))
    for seed in range(60):
        inject(world, "B31", random.Random(seed))
        assert world.venue.wallet("c01").available >= 0
    wallet = world.venue.wallet("c01")
    assert wallet.balance != Decimal(10_000)
    assert len(world.venue.ledger("c01")) > 30

"""Many seeds, on all cores: totals, and the first seeds that broke something with the command that plays them again."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from simulator.memory_store.store import MemoryStore
from simulator.simulation import cast
from simulator.simulation.clock import VirtualClock
from simulator.simulation.director import Director, Ending
from simulator.simulation.log_sink import SINK, configure
from simulator.simulation.loop import VirtualLoop, run_virtual
from simulator.simulation.plan import Profile, draw
from simulator.simulation.profiles import profile_of
from simulator.simulation.trace import Trace
from simulator.simulation.world import World
from srm_agent.clock import Clock, SystemClock
from srm_agent.store.store import Store

SQL_EVERY, TWICE_EVERY = 10, 25
"""Every tenth seed is played on SQLite too, every twenty-fifth twice: the hash must be the same (INV-15)."""


def play(seed: int, profile: Profile, *, sql: bool = False, trace: Trace | None = None) -> Ending:
    """One seed in its own virtual time. All that went wrong is in the ending; only our own defects are raised."""
    trace = trace or Trace()

    async def main(loop: VirtualLoop) -> Ending:
        clock = VirtualClock(loop)
        if sql:
            sql_store = await Store.memory(clock)
            return await Director(World(draw(seed, profile), loop, sql_store, sql_store.book, trace)).whole()
        store = MemoryStore(clock)
        return await Director(World(draw(seed, profile), loop, store, store.book, trace)).whole()

    try:
        return run_virtual(main)
    finally:
        SINK.reset()


INVARIANT = "INV-"


@dataclass(slots=True)
class Totals:
    """Sums over seeds."""

    seeds: int = 0
    violations: list[tuple[int, str]] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    digests: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, ending: Ending) -> None:
        """One seed more."""
        self.seeds += 1
        self.violations += [(ending.seed, text) for text in ending.violations]
        self.checks.update(ending.checks)
        self.faults.update(ending.faults)
        self.crashes.update(ending.crashes)
        self.counters.update(ending.counters)
        self.digests[ending.seed] = ending.digest

    @property
    def broken(self) -> dict[int, list[str]]:
        """Names of the invariants that each seed broke. A seed whose agent died of a defect proves no invariant."""
        died = {seed for seed, text in self.violations if not text.startswith(INVARIANT)}
        found: dict[int, list[str]] = {}
        for seed, text in self.violations:
            name = text.split(maxsplit=1)[0].rstrip(":")
            if seed not in died and name not in found.setdefault(seed, []):
                found[seed].append(name)
        return found

    @property
    def hash(self) -> str:
        """Of all seeds' hashes, in the order of the seeds."""
        text = ",".join(f"{seed}:{digest}" for seed, digest in sorted(self.digests.items()))
        return sha256(text.encode()).hexdigest()[:16]


def play_checked(seed: int, profile: Profile) -> Ending:
    """One seed, and where it is its turn once more: on the other store, or simply again."""
    ending = play(seed, profile)
    again = []
    if seed % SQL_EVERY == 0:
        again.append(("on SQLite", play(seed, profile, sql=True)))
    if seed % TWICE_EVERY == 0:
        again.append(("the second time", play(seed, profile)))
    different = [
        f"INV-15: hash {other.digest} {how}, {ending.digest} the first time"
        for how, other in again
        if other.digest != ending.digest
    ]
    return ending.with_replays(len(again), different)


def run(
    seeds: Sequence[int],
    profile: str,
    *,
    jobs: int = 0,
    stop_after: int = 0,
    again: bool = True,
    on_done: Callable[[Ending], None] | None = None,
    clock: Clock | None = None,
) -> Totals:
    """Play the seeds on `jobs` processes (0: one a core).

    `stop_after`: not further than to the seed with which so many have broken an invariant, in the seeds' order, so that
    two runs count the same (0: all). `again` False: no seed is played a second time.
    """
    clock = clock or SystemClock()
    totals, began = Totals(), clock.monotonic()
    for ending in _endings(seeds, profile, jobs or os.cpu_count() or 1, again=again):
        totals.add(ending)
        if on_done is not None:
            on_done(ending)
        if stop_after and len(totals.broken) >= stop_after:
            break
    totals.seconds = clock.monotonic() - began
    return totals


def _endings(seeds: Sequence[int], profile: str, jobs: int, *, again: bool) -> Iterator[Ending]:
    work: Iterable[tuple[int, str, bool]] = [(seed, profile, again) for seed in seeds]
    if jobs == 1 or len(seeds) == 1:
        _prepare()
        yield from map(_one, work)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_prepare) as pool:
        yield from pool.imap(_one, work, chunksize=1)


def _prepare() -> None:
    configure(cast.secrets())
    gc.collect()
    gc.freeze()  # what was imported is no garbage: the collection after each world looks at that world alone


def _one(work: tuple[int, str, bool]) -> Ending:
    seed, profile, again = work
    return play_checked(seed, profile_of(profile)) if again else play(seed, profile_of(profile))

"""The register of injections, and their schedule.

Each injection ends by itself within `LONGEST_S`, so that the world can be judged afterwards; what it did is told in one
line for the trace. Left to the signal side: S1-S12. Left to scripted tests: P1-P4, P11, P13, P14, P16, P18-P21, P26
(crashes, start-up, models, configuration: not the world's doing).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from simulator.chaos.world import ChaosWorld
from simulator.terms import SymbolState

LONGEST_S = 90.0

Injector = Callable[[ChaosWorld, Random], str]
INJECTORS: dict[str, Injector] = {}
"""By id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault to come. `at_s`: seconds of the loop from the beginning of the schedule."""

    at_s: float
    fault_id: str


def schedule(rng: Random, ids: Sequence[str], count: int, horizon_s: float) -> list[Strike]:
    """Draw `count` faults of these ids over the time, in their order. Raises ValueError for an id without injector."""
    unknown = [name for name in ids if name not in INJECTORS]
    if unknown or not ids:
        raise ValueError(f"ids must be some of {', '.join(INJECTORS)}, was {', '.join(unknown) or 'empty'}")
    strikes = [Strike(at_s=rng.uniform(0.0, horizon_s), fault_id=rng.choice(ids)) for _ in range(count)]
    return sorted(strikes, key=lambda strike: (strike.at_s, strike.fault_id))


def inject(world: ChaosWorld, fault_id: str, rng: Random) -> str:
    """Let one fault strike now; what was done. Raises KeyError for an id without injector."""
    return f"{fault_id} {INJECTORS[fault_id](world, rng)}"


def registered(fault_id: str) -> Callable[[Injector], Injector]:
    """File an injector under its id."""

    def file(injector: Injector) -> Injector:
        INJECTORS[fault_id] = injector
        return injector

    return file


def calm(world: ChaosWorld) -> None:
    """End everything that was begun, as far as it does not end by itself (leases do)."""
    for broker in world.brokers.values():
        broker.calm()
    world.feed.network.restore()
    world.feed.mischief.calm()
    for name in world.venue.instruments:
        world.venue.set_state(name, SymbolState.TRADING)
    world.venue.mischief.calm()
    world.database.mend()
    world.disk.mend()
    world.clock_skew(0.0)

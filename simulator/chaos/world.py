"""What the injections reach, and the draws they share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import Context
from random import Random
from typing import Protocol

from simulator.broken_database import DatabaseFaults
from simulator.broken_disk import FilesFaults
from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.records import PositionView
from simulator.terms import SimInstrument
from simulator.venue import Venue
from srm_agent.domain.ids import ConnectionId, Symbol


class ChaosWorld(Protocol):
    """What the injections reach. `brokers` by connection, in a fixed order."""

    venue: Venue
    feed: InProcessFeed
    database: DatabaseFaults

    @property
    def brokers(self) -> Mapping[ConnectionId, InProcessBroker]:
        """Every connection's."""
        ...

    @property
    def disk(self) -> FilesFaults:
        """Of the agent's files."""
        ...

    def clock_skew(self, seconds: float) -> None:
        """From now on the agent's wall clock is wrong by so much; 0: right again (P5)."""
        ...

    def stall(self, seconds: float) -> None:
        """Time passes and no process of the agent runs (P6, P17)."""
        ...

    def alerts_down(self, seconds: float) -> None:
        """The first sink of alerts is out of reach (P24)."""
        ...

    def logs_blocked(self, seconds: float) -> None:
        """The agent's log lines go nowhere (P25)."""
        ...

    def operator_resumes(self, scope: str, key: str) -> None:
        """Somebody has looked and lifts a halt: one of everything would end the story (B33)."""
        ...


def any_broker(world: ChaosWorld, rng: Random) -> InProcessBroker:
    """One of the accounts."""
    return rng.choice(list(world.brokers.values()))


def any_symbol(world: ChaosWorld, rng: Random) -> str:
    """The venue's name of a symbol that has a price."""
    return rng.choice([name for name in world.venue.instruments if world.venue.priced(name)])


def agents_symbol(world: ChaosWorld, symbol_id: str) -> Symbol:
    """The agent's name of a venue's symbol."""
    return Symbol(world.venue.instruments[symbol_id].symbol)


def any_position(world: ChaosWorld, rng: Random) -> tuple[InProcessBroker, PositionView] | None:
    """An account's open position, if there is any."""
    found = [(broker, view) for broker in world.brokers.values() for view in world.venue.positions(broker.account_id)]
    return rng.choice(found) if found else None


def draw_seconds(rng: Random, least: float, most: float) -> float:
    """So long, to the millisecond."""
    return round(rng.uniform(least, most), 3)


def draw_count(rng: Random, most: int = 3) -> int:
    """One to `most`."""
    return rng.randint(1, most)


def later(seconds: float, act: Callable[[], object]) -> None:
    """End a fault after so many seconds of the loop."""
    # The end of a fault is the world's, whoever runs now.
    asyncio.get_running_loop().call_later(seconds, act, context=Context())


def change_terms(world: ChaosWorld, name: str, change: Callable[[SimInstrument], SimInstrument]) -> None:
    """Let some terms of a contract be others from now on."""
    world.venue.mischief.set_terms(change(world.venue.instruments[name]))

"""What a judge of one invariant is, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from simulator.records import SimOrder, VenueEvent
from simulator.simulation.invariants.doors import Committed, Sent, Settled, Taken
from simulator.simulation.invariants.facts import Facts
from srm_agent.domain.accounts import Halt
from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.trades import Leg
from srm_agent.ports import JournalRow
from srm_agent.store.records import AuditRow, MessageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """An invariant that did not hold. `at`: loop second at which it was seen; `text`: enough to understand it."""

    at: float
    invariant: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The database after the world was left in peace."""

    orders: Sequence[JournalRow]
    details: Mapping[ClientOrderId, str]
    decisions: Sequence[Decision]
    legs: Sequence[Leg]
    messages: Sequence[MessageRecord]
    halts: Sequence[Halt]
    audit: Sequence[AuditRow]


class Judging(Protocol):
    """What the runner needs to know of a check."""

    name: ClassVar[str]
    """`INV-4`."""
    checked: int
    """How often something was really judged."""

    def on_event(self, event: VenueEvent, at: float) -> Iterable[Violation]:
        """At the venue's event, synchronously."""
        ...

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Every quarter of a second."""
        ...

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """After the world was left in peace: no faults, the daemon alive, at least 60 s."""
        ...


class Check:
    """A check that judges nothing yet: each overrides the moments it needs, and only those are called."""

    name: ClassVar[str]

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.evidence = facts.evidence
        self.seen = facts.seen
        self.checked = 0

    def on_event(self, event: VenueEvent, at: float) -> Iterable[Violation]:
        """Any event of the venue but prices and wallets."""
        return ()

    def on_taken(self, taken: Taken, at: float) -> Iterable[Violation]:
        """The database has a new message."""
        return ()

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """The first that the venue tells of an order with our client id prefix."""
        return ()

    def on_committed(self, entry: Committed, at: float) -> Iterable[Violation]:
        """The journal has a new order."""
        return ()

    def on_settled(self, end: Settled, at: float) -> Iterable[Violation]:
        """The journal says that an order ended."""
        return ()

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """The agent hands an order to the broker (again)."""
        return ()

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Every quarter of a second, after the facts were brought up to date."""
        return ()

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """At the end, after peace."""
        return ()

    def broken(self, at: float, text: str) -> Violation:
        """A violation of this invariant."""
        return Violation(at=at, invariant=self.name, text=text)

"""All checks of one seed, fed with what happens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from simulator.records import BookMoved, Executed, OrderChanged, SimOrder, VenueEvent, WalletChanged
from simulator.simulation.evidence import Evidence
from simulator.simulation.invariants.books import BooksAgree
from simulator.simulation.invariants.check import Check, Final, Violation
from simulator.simulation.invariants.closed import FailClosed
from simulator.simulation.invariants.doubts import GhostsAreCaught, NoGuess
from simulator.simulation.invariants.equity import EquityIsKnown
from simulator.simulation.invariants.facts import PREFIX, Facts
from simulator.simulation.invariants.halts import FlatInTime, HaltsHold
from simulator.simulation.invariants.identity import JournalFirst, OneOrder, OneWriter
from simulator.simulation.invariants.messages import ExitsGo, NeverLost
from simulator.simulation.invariants.replay import SameTrace
from simulator.simulation.invariants.silence import NoSecrets
from simulator.simulation.invariants.sizes import DecisionsExplain, LotsFit, RiskCapped
from simulator.simulation.invariants.stops import AlwaysStopped

What = TypeVar("What")
CHECKS: tuple[type[Check], ...] = (
    OneOrder, JournalFirst, NeverLost, AlwaysStopped, NoGuess, GhostsAreCaught, BooksAgree, HaltsHold, FlatInTime,
    ExitsGo, RiskCapped, LotsFit, EquityIsKnown, FailClosed, SameTrace, NoSecrets, OneWriter, DecisionsExplain,
)  # fmt: skip
"""INV-1 to INV-18, in order."""


class Judge:
    """Make it before the first process is born; `tick` it every 0.25 s of the loop and `end` it after the peace."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.violations: list[Violation] = []
        self._facts = facts = Facts(evidence)
        self.replay = SameTrace(facts)
        self._checks = [self.replay if kind is SameTrace else kind(facts) for kind in CHECKS]
        self._orders: set[str] = set()
        self._event = self._overriding("on_event")
        self._accepted = self._overriding("on_accepted")
        self._ticking = self._overriding("on_tick")
        seen = evidence.seen
        seen.on_taken.append(self._teller(lambda check: check.on_taken, "on_taken"))
        seen.on_committed.append(self._teller(lambda check: check.on_committed, "on_committed"))
        seen.on_settled.append(self._teller(lambda check: check.on_settled, "on_settled"))
        seen.on_sent.append(self._teller(lambda check: check.on_sent, "on_sent"))
        evidence.venue.subscribe(self._hear)
        facts.tick(evidence.now())

    def tick(self) -> None:
        """A quarter of a second has passed."""
        at = self._evidence.now()
        self._facts.tick(at)
        for check in self._ticking:
            self.violations += check.on_tick(at)

    async def end(self) -> None:
        """No faults, the daemon alive, at least 60 s of peace: look at everything once more."""
        self.tick()
        book, at = self._evidence.book, self._evidence.now()
        final = Final(
            orders=await book.orders(),
            details=await book.details(),
            decisions=await book.decisions(),
            legs=await book.legs(),
            messages=await book.messages(),
            halts=await book.halts(),
            audit=await book.audit(),
        )
        for check in self._checks:
            self.violations += check.at_end(final, at)

    def counts(self) -> Mapping[str, int]:
        """How often each invariant was really judged."""
        return {check.name: check.checked for check in self._checks}

    def _hear(self, event: VenueEvent) -> None:
        if isinstance(event, BookMoved | WalletChanged):
            return
        at = self._evidence.now()
        order: SimOrder | None = None
        if isinstance(event, Executed):
            self._facts.executed(event.execution, at)
            order = event.execution.order
        elif isinstance(event, OrderChanged):
            order = event.order
        if order is not None and order.order_id not in self._orders:
            self._orders.add(order.order_id)
            if order.ticket.link_id.startswith(PREFIX):
                for check in self._accepted:
                    self.violations += check.on_accepted(order, at)
        for check in self._event:
            self.violations += check.on_event(event, at)

    def _overriding(self, moment: str) -> Sequence[Check]:
        return [check for check in self._checks if getattr(type(check), moment) is not getattr(Check, moment)]

    def _teller(
        self, method: Callable[[Check], Callable[[What, float], Iterable[Violation]]], moment: str
    ) -> Callable[[What], None]:
        listening = [method(check) for check in self._overriding(moment)]

        def tell(what: What) -> None:
            at = self._evidence.now()
            for judge in listening:
                self.violations += judge(what, at)

        return tell

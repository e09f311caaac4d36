"""Orders in doubt: INV-5 and INV-6."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulator.records import Executed, SimOrder, VenueEvent
from simulator.simulation.invariants.check import Check, Violation
from simulator.simulation.invariants.doors import REFUSED_KEY, UNREACHABLE, Sent, Settled
from simulator.simulation.invariants.facts import Facts
from srm_agent.domain.ids import ClientOrderId, ConnectionId
from srm_agent.domain.orders import OrderPurpose, OrderState, Outcome
from srm_agent.domain.trades import LegState

SEND_DEADLINE_S, SLACK_S = 2.0, 0.05
LEAST_ABSENCES = 5
PROOFS = frozenset({UNREACHABLE, REFUSED_KEY, Outcome.REJECTED.value})
"""Answers after which nothing of that call is or will be executed."""
ADOPTED_S, TICK_S = 10.0, 0.25


class NoGuess(Check):
    """INV-5: an entry leaves within 2 s of its commit or never. The journal says REJECTED only after an explicit
    refusal (or if no call of `submit` can have had an effect, or the venue shows that the order ended unfilled), and
    ABANDONED only after the adapter's finality time since the last call and at least five look-ups in a row that said
    ABSENT after it.

    Lenient: the time between the agent's conclusion and its commit is given away.
    """

    name = "INV-5"

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """The send deadline, from the commit of the intent."""
        entry = self.seen.orders.get(sent.intent.client_id)
        if sent.intent.purpose is not OrderPurpose.ENTRY or entry is None:
            return  # without a row it is INV-2's
        self.checked += 1
        if at - entry.at > SEND_DEADLINE_S + SLACK_S:
            yield self.broken(
                at,
                f"{sent.intent.connection_id}: entry {sent.intent.client_id} left {at - entry.at:.2f} s after its row",
            )

    def on_settled(self, end: Settled, at: float) -> Iterable[Violation]:
        """What the journal concludes against what it can know."""
        link, connection = end.intent.client_id, end.intent.connection_id
        if end.intent.purpose is not OrderPurpose.ENTRY or end.state is OrderState.FILLED:
            return
        self.checked += 1
        calls = self.seen.sent.get(link, [])
        doubts = [call for call in calls if call.answer not in PROOFS]
        if not doubts:
            return
        order = self.evidence.venue.order(connection, link_id=link)
        if order is not None and not order.status.working and not order.filled:
            return  # the venue shows that it ended unfilled
        text = f"{connection}: entry {link} was journalled {end.state} ({end.code})"
        last = max(call.at for call in doubts)
        if end.state is OrderState.REJECTED:
            yield self.broken(at, f"{text} although the answer to the call at {last:.2f} proves nothing")
            return
        terms = self.seen.capabilities.get(connection)
        finality = 0.0 if terms is None else terms.finality_s
        if at - last < finality:
            yield self.broken(at, f"{text} {at - last:.2f} s after its last call, finality is {finality:g} s")
        absent = sum(asked >= last + finality for asked in self.seen.absent.get(link, ()))
        if absent < LEAST_ABSENCES:
            yield self.broken(
                at, f"{text} after {absent} look-ups in a row said ABSENT when it counts, {LEAST_ABSENCES} are needed"
            )


@dataclass(slots=True)
class _Ghost:
    order: SimOrder
    state: OrderState
    since: float


class GhostsAreCaught(Check):
    """INV-6: an entry that the journal takes as REJECTED or ABANDONED and that executes all the same is adopted (its
    leg open in the database, a stop at the venue) or flattened, and paged, within 10 s in which the account is
    reachable, a process ready and the database at work.
    """

    name = "INV-6"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._ghosts: dict[str, _Ghost] = {}

    def on_event(self, event: VenueEvent, at: float) -> Iterable[Violation]:
        """An execution of an order that had been taken as ended."""
        if isinstance(event, Executed) and not event.execution.order.ticket.reduce_only:
            link = ClientOrderId(event.execution.order.ticket.link_id)
            self._suspect(link, event.execution.order, at)
        return ()

    def on_settled(self, end: Settled, at: float) -> Iterable[Violation]:
        """A conclusion about an order that has been executed."""
        order = self.evidence.venue.order(end.intent.connection_id, link_id=end.intent.client_id)
        if end.intent.purpose is OrderPurpose.ENTRY and order is not None and order.filled:
            self._suspect(end.intent.client_id, order, at)
        return ()

    def _suspect(self, link: ClientOrderId, order: SimOrder, at: float) -> None:
        state = self.seen.states.get(link)
        if state in (OrderState.REJECTED, OrderState.ABANDONED) and link not in self._ghosts:
            self._ghosts[link] = _Ghost(order, state, at)
            self.checked += 1

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Ghosts that nobody takes care of."""
        for link, ghost in list(self._ghosts.items()):
            connection = ConnectionId(ghost.order.account_id)
            wrong = self._wrong(connection, ghost)
            if wrong is None:
                del self._ghosts[link]
                continue
            good, works = self.facts.good_since(connection), self.facts.database_since
            if good is None or works is None or at - max(ghost.since, good, works) <= ADOPTED_S + TICK_S:
                continue
            del self._ghosts[link]
            yield self.broken(
                at,
                f"{connection}: entry {link} was journalled {ghost.state}, executed all the same "
                f"({ghost.order.filled:f} lots), and after {ADOPTED_S:g} s {wrong}",
            )

    def _wrong(self, connection: ConnectionId, ghost: _Ghost) -> str | None:
        if not any(
            told.level == "page" and told.connection == connection and told.at >= ghost.since - SLACK_S
            for told in self.evidence.told
        ):
            return "nobody was paged"
        symbol_id = ghost.order.ticket.symbol_id
        if self.facts.holding(connection, symbol_id).ours * ghost.order.ticket.side <= 0:
            return None
        views = self.evidence.venue.positions(connection, symbol_id)
        legs = [leg for leg in self.facts.legs(connection) if leg.symbol == self.facts.symbol[symbol_id]]
        if not any(leg.state is LegState.OPEN for leg in legs):
            return "it is neither adopted nor flattened"
        return None if views[0].stop_loss is not None else "it was adopted without a stop"

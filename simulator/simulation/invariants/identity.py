"""One order a signal, journalled before it leaves, by the one process that may: INV-1, INV-2, INV-17."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.records import SimOrder
from simulator.simulation.invariants.check import Check, Violation
from simulator.simulation.invariants.doors import Committed, Sent
from simulator.simulation.invariants.facts import Facts
from srm_agent.domain.ids import ClientOrderId, ConnectionId, SignalId
from srm_agent.domain.orders import OrderPurpose

WIRE_S = 2.0
"""A process that has just lost its lease may still send for so long: the send deadline bounds what it cannot know."""


class OneOrder(Check):
    """INV-1: at most one accepted entry order per (account, signal), across lives.

    Strict: an accepted order counts even if it ended without a fill; a refused one was never accepted. An order that
    neither the journal nor a derived id explains is INV-2's to report.
    """

    name = "INV-1"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._orders: dict[tuple[str, SignalId], str] = {}

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """Count it."""
        signal = None if order.ticket.reduce_only else self.facts.signal_of(order)
        if signal is None:
            return
        self.checked += 1
        first = self._orders.setdefault((order.account_id, signal), order.order_id)
        if first != order.order_id:
            known = self.evidence.venue.order(order.account_id, order_id=first)
            link = "?" if known is None else known.ticket.link_id
            yield self.broken(
                at,
                f"{order.account_id}: signal {signal} has a second entry order {order.ticket.link_id} "
                f"({order.lots:f} lots), the first was {link}",
            )


class JournalFirst(Check):
    """INV-2: what the venue accepts has a committed journal row that says the same; exits may be spilt instead.

    Lenient: where database and disk both fail, an exit leaves without either (INV-10 comes first).
    """

    name = "INV-2"

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """Look the order up at the moment of its acceptance."""
        self.checked += 1
        ticket = order.ticket
        what = f"{order.account_id}: {'exit' if ticket.reduce_only else 'entry'} {ticket.link_id}"
        entry = self.seen.orders.get(ClientOrderId(ticket.link_id))
        if entry is None:
            if ticket.reduce_only and (self.evidence.spilt(ticket.link_id) or not self._writable()):
                return
            yield self.broken(at, f"{what} of {ticket.lots:f} lots was accepted without a row in the journal")
            return
        intent = entry.intent
        theirs = (order.account_id, self.facts.symbol[ticket.symbol_id], ticket.side, ticket.lots)
        ours = (intent.connection_id, intent.symbol, intent.side, intent.lot)
        if theirs != ours:
            yield self.broken(at, f"{what} was accepted as {theirs}, its row says {ours}")

    def _writable(self) -> bool:
        return self.evidence.database_works() or self.evidence.disk_works()


class OneWriter(Check):
    """INV-17: an entry is committed under the token of the account's lease, which is still in force when it leaves; two
    lives that overlap never both get entries accepted under one token.

    Lenient: a lease that ran out but was taken by nobody harms nobody; a process that lost its lease cannot know it
    within WIRE_S (the send deadline).
    """

    name = "INV-17"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._writers: dict[tuple[ConnectionId, int], int] = {}

    def on_committed(self, entry: Committed, at: float) -> Iterable[Violation]:
        """The token of the row against the lease's."""
        intent = entry.intent
        if intent.purpose is not OrderPurpose.ENTRY:
            return
        self.checked += 1
        lease = self.seen.leases.get(intent.connection_id)
        if lease is None or lease.fence != intent.fence:
            held = "nobody has the lease" if lease is None else f"{lease.owner!r} has it by token {lease.fence}"
            yield self.broken(
                at,
                f"{intent.connection_id}: life {entry.life} committed entry {intent.client_id} "
                f"under token {intent.fence}, but {held}",
            )

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """The token once more before the wire."""
        intent, lease = sent.intent, self.seen.leases.get(sent.intent.connection_id)
        if intent.purpose is not OrderPurpose.ENTRY or lease is None:
            return
        self.checked += 1
        if lease.fence != intent.fence and at - lease.at > WIRE_S:
            yield self.broken(
                at,
                f"{intent.connection_id}: life {sent.life} sent entry {intent.client_id} {at - lease.at:.1f} s after "
                f"{lease.owner!r} took the lease",
            )

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """Whose entries are taken under a token."""
        entry = self.seen.orders.get(ClientOrderId(order.ticket.link_id))
        if entry is None or entry.intent.purpose is not OrderPurpose.ENTRY:
            return
        key = (ConnectionId(order.account_id), entry.intent.fence)
        first = self._writers.setdefault(key, entry.life)
        if first != entry.life and self._lived(first, entry.at):
            yield self.broken(
                at,
                f"{key[0]}: lives {first} and {entry.life} both sent entries under token {key[1]}, "
                f"last {order.ticket.link_id}",
            )

    def _lived(self, number: int, at: float) -> bool:
        return any(life.number == number and (life.died is None or life.died > at) for life in self.evidence.lives)

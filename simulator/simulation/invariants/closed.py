"""Entries fail closed, exits fail safe: INV-14."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.records import SimOrder
from simulator.simulation.invariants.check import Check, Violation
from simulator.simulation.invariants.doors import Sent
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.orders import OrderPurpose


class FailClosed(Check):
    """INV-14: an entry leaves only while its account is ACTIVE; none is accepted whose row was committed (or is
    missing) while the database does not work. Exits count as judged when one leaves while the database does not work or
    its account is not ACTIVE: that they leave in time is INV-10's and INV-9's.

    Lenient: what the account of a second living process says is not asked.
    """

    name = "INV-14"

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """What the agent itself says at that very moment."""
        connection = sent.intent.connection_id
        state = self.evidence.state_of(connection) if self.facts.alone() == sent.life else None
        if sent.intent.purpose is not OrderPurpose.ENTRY:
            self.checked += not self.evidence.database_works() or state is not ConnectionState.ACTIVE
            return
        self.checked += 1
        if state not in (None, ConnectionState.ACTIVE):
            yield self.broken(at, f"{connection}: entry {sent.intent.client_id} left while the account was {state}")

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """An entry is as good as its row."""
        if order.ticket.reduce_only:
            return
        entry = self.seen.orders.get(ClientOrderId(order.ticket.link_id))
        worked = self.evidence.database_works() if entry is None else entry.database_worked
        self.checked += 1
        if not worked:
            yield self.broken(
                at,
                f"{order.account_id}: entry {order.ticket.link_id} was accepted, and while the database did not work "
                f"its row was {'missing' if entry is None else 'committed'}",
            )

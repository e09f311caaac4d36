"""The journal and the broker agree, and what is not ours is left alone: INV-7."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from simulator.records import Executed, SimOrder, VenueEvent
from simulator.simulation.invariants.check import Check, Final, Violation
from simulator.simulation.invariants.facts import PREFIX, Facts
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ClientOrderId, ConnectionId
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.units import ZERO

AGREE_S, TICK_S = 10.0, 0.25
CROSSED_S = 5.0
"""Others who trade a symbol while an exit of ours is under way may make it too large: nobody can prevent that."""


class BooksAgree(Check):
    """INV-7: at most 10 s after account, database and a process are all there, the open legs in the database are the
    venue's positions without the foreign part; exits of ours never close foreign lots, except in an emergency close
    whose scope is the account.

    Lenient: where others traded the symbol since it was flat, whose lots are left is a matter of opinion: the legs may
    be anything from nothing to the whole position, on its side. An exit that is too large because others traded within
    5 s before, or that leaves an account being flattened, may close foreign lots.
    """

    name = "INV-7"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._since: dict[tuple[ConnectionId, str], float] = {}
        self._told: set[tuple[ConnectionId, str]] = set()

    def on_event(self, event: VenueEvent, at: float) -> Iterable[Violation]:
        """Whether an exit of ours closed more than ours."""
        if not isinstance(event, Executed):
            return
        order = event.execution.order
        if not (order.ticket.reduce_only and order.ticket.link_id.startswith(PREFIX)):
            return
        self.checked += 1
        touched = self.facts.touched
        if touched and not self._allowed(order, at):
            yield self.broken(
                at,
                f"{order.account_id}: exit {order.ticket.link_id} closed {touched:f} lots of {order.ticket.symbol_id} "
                "that are not ours",
            )

    def _allowed(self, order: SimOrder, at: float) -> bool:
        connection = ConnectionId(order.account_id)
        if self.evidence.scope_is_account:
            entry = self.seen.orders.get(ClientOrderId(order.ticket.link_id))
            state = self.evidence.state_of(connection)
            emergency = entry is not None and entry.intent.purpose is OrderPurpose.EMERGENCY
            if emergency or state in (ConnectionState.FLATTENING, ConnectionState.HALTED, None):
                return True
        crossed = self.facts.crossed.get((connection, order.ticket.symbol_id))
        return crossed is not None and at - crossed <= CROSSED_S

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Positions and legs of every account and symbol that differ."""
        for connection in self.evidence.connections:
            good, works = self.facts.good_since(connection), self.facts.database_since
            for symbol_id in self.facts.symbol:
                key = (connection, symbol_id)
                wrong = self._difference(connection, symbol_id)
                if wrong is None:
                    self._since.pop(key, None)
                    self._told.discard(key)
                    continue
                since = self._since.setdefault(key, at)
                if good is None or works is None or key in self._told:
                    continue
                lasted = at - max(since, good, works)
                if lasted > AGREE_S + TICK_S:
                    self._told.add(key)
                    yield self.broken(at, f"{connection} {symbol_id}: {wrong} for {lasted:.1f} s")

    def _difference(self, connection: ConnectionId, symbol_id: str) -> str | None:
        holding = self.facts.holding(connection, symbol_id)
        legs = self.facts.leg_lots(connection, self.facts.symbol[symbol_id])
        if legs or holding.net:
            self.checked += 1
        if legs == holding.ours:
            return None
        if holding.meddled_at is not None and ZERO <= legs * _sign(holding.net) <= abs(holding.net):
            return None
        return f"legs have {legs:f} lots, the venue {holding.net:f}, of which {holding.foreign:f} are foreign"

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """What still differs after peace was told by the ticks, unless it has just begun."""
        for connection in self.evidence.connections:
            for symbol_id in self.facts.symbol:
                wrong = self._difference(connection, symbol_id)
                if wrong is not None and (connection, symbol_id) not in self._told:
                    yield self.broken(at, f"{connection} {symbol_id}: {wrong} at the end")


def _sign(value: Decimal) -> int:
    return (value > 0) - (value < 0)

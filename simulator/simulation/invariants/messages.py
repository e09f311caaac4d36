"""What providers were promised: INV-3 and INV-10."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from simulator.simulation.evidence import Acknowledged
from simulator.simulation.invariants.check import Check, Final, Violation
from simulator.simulation.invariants.doors import Taken
from simulator.simulation.invariants.facts import LIVE, PREFIX, Facts
from srm_agent.domain.ids import ConnectionId, ProviderKey, SignalId
from srm_agent.domain.orders import OrderState
from srm_agent.domain.signals import CloseSignal, OpenSignal
from srm_agent.domain.trades import Leg, LegState
from srm_agent.store.records import MessageRecord

CLOSE_S, TICK_S = 5.0, 0.25
UNDECIDED_S = 10.0
"""So long after a close its signal may still be waiting for its decision."""


class NeverLost(Check):
    """INV-3: an acknowledged message was committed before it was answered; at the end it is finished, an open has a
    decision for every follower, and every order has ended, with a reason if it was not filled.

    A repeat of an opening signal under a new delivery id is answered by the first message, which stands for it.
    """

    name = "INV-3"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._read = 0
        self._openings: dict[SignalId, Taken] = {}

    def on_taken(self, taken: Taken, at: float) -> Iterable[Violation]:
        """Index openings."""
        if isinstance(taken.signal, OpenSignal):
            self._openings.setdefault(taken.signal.signal_id, taken)
        return ()

    def on_tick(self, at: float) -> Iterable[Violation]:
        """What was acknowledged since the last tick must have been committed by then."""
        told = self.evidence.acknowledged
        while self._read < len(told):
            receipt = told[self._read]
            self._read += 1
            self.checked += 1
            taken = self.seen.messages.get((ProviderKey.parse(receipt.provider), receipt.message_id))
            if taken is None and receipt.action == "open":
                taken = self._openings.get(receipt.signal_id)
            if taken is None or taken.at > receipt.at:
                yield self.broken(at, f"{_named(receipt)} was acknowledged at {receipt.at:.3f} without a commit")

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """Everything is finished and decided, and ended with a reason."""
        records = {(record.signal.provider, record.signal.receipt.message_id): record for record in final.messages}
        openings = {
            record.signal.signal_id: record for record in final.messages if isinstance(record.signal, OpenSignal)
        }
        decided = {(decision.connection_id, decision.signal_id) for decision in final.decisions}
        for receipt in self.evidence.acknowledged:
            yield from self._finished(receipt, records, openings, decided, at)
        ordered = {row.intent.decision_id for row in final.orders}
        for decision in final.decisions:
            if decision.accepted and decision.decision_id not in ordered:
                yield self.broken(
                    at, f"{decision.connection_id}: {decision.signal_id} was accepted, but has no order in the journal"
                )
        for row in final.orders:
            self.checked += 1
            if not row.state.settled:
                yield self.broken(at, f"order {row.intent.client_id} is still {row.state} at the end")
            elif row.state is not OrderState.FILLED and not row.code:
                yield self.broken(at, f"order {row.intent.client_id} ended {row.state} without a reason")

    def _finished(
        self,
        receipt: Acknowledged,
        records: Mapping[tuple[ProviderKey, str], MessageRecord],
        openings: Mapping[SignalId, MessageRecord],
        decided: set[tuple[ConnectionId, SignalId]],
        at: float,
    ) -> Iterable[Violation]:
        provider = ProviderKey.parse(receipt.provider)
        record = records.get((provider, receipt.message_id))
        if record is None and receipt.action == "open":
            record = openings.get(receipt.signal_id)
        if record is None:
            yield self.broken(at, f"{_named(receipt)} was acknowledged and is not in the database")
            return
        if record.finished_at is None:
            yield self.broken(at, f"{_named(receipt)} was acknowledged and never finished")
        if isinstance(record.signal, OpenSignal):
            for connection in self.evidence.followers(provider):
                if (connection, record.signal.signal_id) not in decided:
                    yield self.broken(at, f"{_named(receipt)} has no decision for {connection}")


@dataclass(slots=True)
class _Wish:
    connection: ConnectionId
    signal: SignalId
    since: float
    open_since: float | None = None


class ExitsGo(Check):
    """INV-10: an acknowledged full close makes an exit leave for each open leg of its signal within 5 s in which the
    account is reachable and a process ready, whatever database, halts and filters do; at the end no such leg is left.

    Judged where the order is handed to the broker (a refusal there is the broker's). The clock starts when the database
    shows the leg open, and stands while the symbol cannot be traded, and while the venue sits on an earlier exit of
    ours there (a part close that it has taken and does not execute: what it will leave is not known).
    """

    name = "INV-10"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._wishes: list[_Wish] = []

    def on_taken(self, taken: Taken, at: float) -> Iterable[Violation]:
        """A full close concerns every account."""
        signal = taken.signal
        if isinstance(signal, CloseSignal) and signal.fraction >= 1:
            self._wishes += [_Wish(name, signal.signal_id, at) for name in self.evidence.connections]
        return ()

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Wishes that wait too long."""
        if not self._wishes:
            return
        waiting = []
        for wish in self._wishes:
            leg = next((leg for leg in self.facts.legs(wish.connection) if leg.signal_id == wish.signal), None)
            if leg is None:
                if at - wish.since < UNDECIDED_S:
                    waiting.append(wish)
            elif leg.state is LegState.OPENING:
                waiting.append(wish)
            elif leg.state is LegState.OPEN:
                if self._served(wish, leg):
                    self.checked += 1
                elif self._overdue(wish, leg, at):
                    self.checked += 1
                    yield self.broken(
                        at,
                        f"{wish.connection}: full close of {wish.signal} taken at {wish.since:.2f}, {leg.leg_id} with "
                        f"{leg.open_lot:f} {leg.symbol} is open and no exit has left",
                    )
                else:
                    waiting.append(wish)
        self._wishes = waiting

    def _served(self, wish: _Wish, leg: Leg) -> bool:
        sent = self.seen.exits.get((wish.connection, leg.symbol))
        held = self.facts.holding(wish.connection, self.facts.symbol_id[leg.symbol]).ours
        return (sent is not None and sent >= wish.since) or held * leg.side <= 0

    def _overdue(self, wish: _Wish, leg: Leg, at: float) -> bool:
        good = self.facts.good_since(wish.connection)
        symbol_id = self.facts.symbol_id[leg.symbol]
        if good is None or not self.facts.tradable(symbol_id) or self._held_back(wish.connection, symbol_id):
            wish.open_since = None
            return False
        wish.open_since = at if wish.open_since is None else wish.open_since
        return at - max(wish.open_since, good) > CLOSE_S + TICK_S

    def _held_back(self, connection: ConnectionId, symbol_id: str) -> bool:
        return any(
            order.ticket.reduce_only and order.ticket.symbol_id == symbol_id and order.ticket.link_id.startswith(PREFIX)
            for order in self.evidence.venue.orders(connection, working=True)
        )

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """Whatever was closed by its provider is closed."""
        closed = {
            record.signal.signal_id
            for record in final.messages
            if isinstance(record.signal, CloseSignal) and record.signal.fraction >= 1
        }
        for leg in final.legs:
            if leg.signal_id in closed:
                self.checked += 1
                if leg.state in LIVE:
                    yield self.broken(
                        at, f"{leg.connection_id}: {leg.signal_id} was closed by its provider, its leg is {leg.state}"
                    )


def _named(receipt: Acknowledged) -> str:
    return f"{receipt.action} {receipt.signal_id} (message {receipt.message_id} of {receipt.provider})"

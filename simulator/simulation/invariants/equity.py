"""Entries need an equity that is known, and its peak is never forgotten: INV-13."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from simulator.simulation.invariants.check import Check, Violation
from simulator.simulation.invariants.doors import Sent
from simulator.simulation.invariants.facts import Facts
from srm_agent.domain.accounts import ConnectionState, HaltScope, ProtectionMark
from srm_agent.domain.ids import ConnectionId, Symbol
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.units import ZERO

FRESH_S, SEND_DEADLINE_S, WIRE_S = 5.0, 2.0, 0.25
BREACHED_TICKS, GOOD_S, BEYOND = 12, 10.0, Decimal("0.01")
"""So many looks in a row (3 s) may an account be this far beyond its limit, when all has been well for so long."""
ROUNDING = Decimal("1e-6")


class EquityIsKnown(Check):
    """INV-13: no entry leaves on an equity older than 5 s: the sender has got the broker's own figure of the account
    since, or has heard its stream and a quote of every symbol that it holds. The high-water mark in the database falls
    by withdrawals of the account and after an operator's resume only. An account whose equity at the venue, floating
    loss included, is below that mark by more than the drawdown allowed is closed, while account, feed and a process
    have been well for 10 s; not judged where money was moved, or an operator resumed since the mark was written.

    Judged where the entry leaves, up to 2 s (the send deadline) after it was decided: so 5 s + 2 s + a packet's way.
    """

    name = "INV-13"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._read = 0
        self._marks: dict[ConnectionId, ProtectionMark] = {}
        self._explained: dict[ConnectionId, Decimal] = {}
        """Withdrawals that have lowered a mark already."""
        self._resumed: dict[ConnectionId, int] = {}
        """Resumes that have lowered a mark already."""
        self._written: dict[ConnectionId, float] = {}
        self._well_since: float | None = None
        self._breached: dict[ConnectionId, int] = {}
        """Looks in a row that saw a breach nobody acts on."""

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """What its sender had heard by then."""
        if sent.intent.purpose is not OrderPurpose.ENTRY:
            return
        self.checked += 1
        connection, oldest = sent.intent.connection_id, at - FRESH_S - SEND_DEADLINE_S - WIRE_S
        key = (sent.life, connection)
        if self.seen.figure.get(key, -1.0) >= oldest:
            return
        silent = [
            symbol for symbol in self._held(connection) if self.seen.quoted.get((sent.life, symbol), -1.0) < oldest
        ]
        if self.seen.heard.get(key, -1.0) < oldest:
            silent.append(Symbol("the account's stream"))
        if silent:
            yield self.broken(
                at,
                f"{connection}: entry {sent.intent.client_id} left although {', '.join(silent)} had been silent "
                f"for more than {FRESH_S:g} s",
            )

    def _held(self, connection: ConnectionId) -> list[Symbol]:
        return [self.facts.symbol[symbol_id] for symbol_id, _ in self.facts.held(connection)]

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Marks written since the last tick."""
        marks = self.seen.marks
        while self._read < len(marks):
            mark = marks[self._read]
            self._read += 1
            before = self._marks.get(mark.connection_id)
            self._marks[mark.connection_id] = mark
            self._written[mark.connection_id] = at
            if before is None:
                continue
            self.checked += 1
            fall = before.high_water_mark - mark.high_water_mark
            if fall > ROUNDING and not self._may_fall(mark.connection_id, fall):
                yield self.broken(
                    at,
                    f"{mark.connection_id}: the high-water mark fell from {before.high_water_mark:f} to "
                    f"{mark.high_water_mark:f} without a withdrawal or an operator",
                )

        yield from self._breaches(at)

    def _breaches(self, at: float) -> Iterable[Violation]:
        """Accounts beyond their limit that are not being closed (F17: floating losses count)."""
        if not self.evidence.feed_works():
            self._well_since = None
        elif self._well_since is None:
            self._well_since = at
        for connection, mark in self._marks.items():
            equity = self.evidence.venue.wallet(connection).equity
            limit = mark.high_water_mark * (1 - self.evidence.max_drawdown - BEYOND)
            if equity >= limit or not self._must_act(connection, at):
                self._breached[connection] = 0
                continue
            self._breached[connection] = count = self._breached.get(connection, 0) + 1
            self.checked += 1
            if count == BREACHED_TICKS:
                yield self.broken(
                    at,
                    f"{connection}: equity {equity:f} is more than {self.evidence.max_drawdown:%} below the mark of "
                    f"{mark.high_water_mark:f}, and the account is not closed",
                )

    def _must_act(self, connection: ConnectionId, at: float) -> bool:
        good, well = self.facts.good_since(connection), self._well_since
        if good is None or well is None or at - max(good, well) < GOOD_S:
            return False
        if self.facts.states[connection] not in (ConnectionState.ACTIVE, ConnectionState.REDUCING):
            return False
        if any(act.act == "resume" and act.at >= self._written[connection] for act in self.evidence.operated):
            return False
        return all(row.kind == "TRADE" or row.change > 0 for row in self.evidence.venue.ledger(connection))

    def _may_fall(self, connection: ConnectionId, fall: Decimal) -> bool:
        resumes = sum(
            act.act == "resume" and act.scope == HaltScope.CONNECTION.value and act.key == connection
            for act in self.evidence.operated
        )
        if resumes > self._resumed.get(connection, 0):
            self._resumed[connection] = resumes
            return True
        explained = self._explained.get(connection, ZERO)
        withdrawn = sum(
            (-row.change for row in self.evidence.venue.ledger(connection) if row.kind != "TRADE" and row.change < 0),
            ZERO,
        )
        if fall > withdrawn - explained + ROUNDING:
            return False
        self._explained[connection] = explained + fall
        return True

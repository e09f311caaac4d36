"""Halts hold until an operator lifts them, and a flattened account becomes flat: INV-8 and INV-9."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulator.simulation.evidence import Operated
from simulator.simulation.invariants.check import Check, Final, Violation
from simulator.simulation.invariants.doors import HaltWritten, Sent
from simulator.simulation.invariants.facts import PREFIX, Facts
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.domain.orders import OrderIntent, OrderPurpose

STOPPED = (ConnectionState.FLATTENING, ConnectionState.HALTED)
LIFTING_S = 3.0
"""Between the database's and the memory's part of a resume."""
ANSWER_S = 30.0
"""Between what an operator's act does and its answer."""
TICK_S = 0.25


@dataclass(slots=True)
class _Latch:
    since: float
    source: str
    durable: bool
    """It stands in the database, or did so in the file for all we know: a death does not excuse its loss."""
    until: float | None = None

    def covers(self, at: float) -> bool:
        return self.since < at and (self.until is None or at < self.until)


Key = tuple[HaltScope, str]


class HaltsHold(Check):
    """INV-8: once a halt is latched (an operator was told so, it is in the database, or the agent says FLATTENING or
    HALTED) no entry of its scope is handed to the broker, and an account's halt shows in every later life, until an
    operator's resume. Only a named operator's act clears one.

    Lenient: a halt that a process knew only in memory, while neither file nor database could take it, dies with it;
    between the parts of a resume the account may still say HALTED. What was handed to the broker before it may arrive.
    """

    name = "INV-8"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._latches: dict[Key, list[_Latch]] = {}
        self._lifted: dict[Key, float] = {}
        self._operated = self._written = 0
        self._sent: list[Sent] = []
        self._clears: list[HaltWritten] = []
        self._deaths = 0
        self._told: set[str] = set()

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """Judged at the next tick, when everything that happened by now has been told."""
        if sent.intent.purpose is OrderPurpose.ENTRY:
            self._sent.append(sent)
        return ()

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Learn what was latched and lifted, then judge."""
        self._read(at)
        self._read_states(at)
        self._forget_the_dead(at)
        for sent in self._sent:
            self.checked += 1
            latch = self._in_force(sent)
            if latch is not None:
                yield self.broken(
                    at,
                    f"{sent.intent.connection_id}: entry {sent.intent.client_id} left at {sent.at:.3f}, "
                    f"halted since {latch.since:.3f} ({latch.source})",
                )
        self._sent.clear()
        yield from self._forgotten(at)

    def _in_force(self, sent: Sent) -> _Latch | None:
        for key in self._keys(sent.intent):
            for latch in self._latches.get(key, ()):
                if latch.covers(sent.at):
                    return latch
        return None

    def _keys(self, intent: OrderIntent) -> list[Key]:
        keys = [
            (HaltScope.ALL, ""),
            (HaltScope.CONNECTION, str(intent.connection_id)),
            (HaltScope.SYMBOL, str(intent.symbol)),
        ]
        decision = None if intent.decision_id is None else self.seen.decisions.get(intent.decision_id)
        return keys if decision is None else [*keys, (HaltScope.PROVIDER, str(decision.provider))]

    # ---- what was latched and lifted

    def _read(self, at: float) -> None:
        acts = self.evidence.operated
        for act in acts[self._operated :]:
            key = _key(act)
            if act.act == "resume" and act.answered:
                self._lift(key, act.at)
            elif act.act != "resume" and act.answered:
                self._latch(key, act.at, f"operator's {act.act}", durable=self.evidence.disk_works())
        self._operated = len(acts)
        for written in self.seen.halts[self._written :]:
            key = (written.scope, written.key)
            if written.halt is not None:
                self._latch(key, written.at, f"{written.halt.set_by}, in the database", durable=True)
            else:
                self._lift(key, written.at)
                if written.stood:
                    self._clears.append(written)
        self._written = len(self.seen.halts)

    def _read_states(self, at: float) -> None:
        works = self.evidence.disk_works()
        for connection in self.evidence.connections:
            key = (HaltScope.CONNECTION, str(connection))
            if self.facts.states[connection] in STOPPED and at - self._lifted.get(key, -LIFTING_S) >= LIFTING_S:
                self._latch(key, at, "the agent says so", durable=works)

    def _latch(self, key: Key, at: float, source: str, *, durable: bool) -> None:
        known = self._latches.setdefault(key, [])
        if known and known[-1].until is None:
            known[-1].durable |= durable
        elif at > self._lifted.get(key, -1.0):
            known.append(_Latch(at, source, durable))

    def _lift(self, key: Key, at: float) -> None:
        self._lifted[key] = at
        known = self._latches.get(key)
        if known and known[-1].until is None:
            known[-1].until = at

    def _forget_the_dead(self, at: float) -> None:
        deaths = sum(life.died is not None for life in self.evidence.lives)
        if deaths > self._deaths:
            for known in self._latches.values():
                if known[-1].until is None and not known[-1].durable:
                    known[-1].until = at
        self._deaths = deaths

    # ---- what later lives say, and who cleared

    def _forgotten(self, at: float) -> Iterable[Violation]:
        if self.facts.alone() is None:
            return
        for connection in self.evidence.connections:
            known = self._latches.get((HaltScope.CONNECTION, str(connection)))
            if not known or known[-1].until is not None or connection in self._told:
                continue
            state = self.facts.states[connection]
            if state is not None and self.facts.good_since(connection) is not None:
                self.checked += 1
                if state not in STOPPED:
                    self._told.add(connection)
                    yield self.broken(
                        at, f"{connection}: halted since {known[-1].since:.3f} ({known[-1].source}), now it is {state}"
                    )

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """Every halt that was cleared was cleared by somebody with a name, who asked for it."""
        for clear in self._clears:
            self.checked += 1
            asked = any(
                act.act == "resume" and _key(act) == (clear.scope, clear.key) and abs(act.at - clear.at) <= ANSWER_S
                for act in self.evidence.operated
            )
            if not asked or not clear.operator:
                yield self.broken(
                    at,
                    f"halt {clear.scope.value} {clear.key} was cleared at {clear.at:.3f} by {clear.operator!r} unasked",
                )


def _key(act: Operated) -> Key:
    """As the agent keeps it: the control API takes `alpha` for `channel_source:alpha`."""
    scope = HaltScope(act.scope)
    return scope, str(ProviderKey.parse(act.key)) if scope is HaltScope.PROVIDER else act.key


class FlatInTime(Check):
    """INV-9: an account being flattened is flat (no position in scope, no working entry of ours) within 5, 10 or 20 s
    (up to 10, 20, more positions) in which it is reachable and a process ready, and stays without a position of ours
    until an operator resumes: one that appears later has the same time.

    Lenient: the clock starts again with each break, and positions of symbols that cannot be traded do not count.
    """

    name = "INV-9"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._flattening: set[ConnectionId] = set()
        self._since: dict[ConnectionId, float] = {}
        self._told: set[ConnectionId] = set()

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Accounts that are being, or have been, flattened."""
        for connection in self.evidence.connections:
            state = self.facts.states[connection]
            if state is ConnectionState.FLATTENING:
                if connection not in self._flattening:
                    self._flattening.add(connection)
                    self.checked += 1
            elif state in (ConnectionState.ACTIVE, ConnectionState.REDUCING):
                self._flattening.discard(connection)
            if connection in self._flattening:
                yield from self._pursued(connection, at, whole=state is ConnectionState.FLATTENING)

    def _pursued(self, connection: ConnectionId, at: float, *, whole: bool) -> Iterable[Violation]:
        left = self._left(connection, whole=whole)
        if not left:
            self._since.pop(connection, None)
            self._told.discard(connection)
            return
        since, good = self._since.setdefault(connection, at), self.facts.good_since(connection)
        if good is None or connection in self._told:
            return
        lasted = at - max(since, good)
        if lasted > (5.0 if len(left) <= 10 else 10.0 if len(left) <= 20 else 20.0) + TICK_S:
            self._told.add(connection)
            yield self.broken(at, f"{connection}: not flat after {lasted:.1f} s: {', '.join(left)}")

    def _left(self, connection: ConnectionId, *, whole: bool) -> list[str]:
        account = whole and self.evidence.scope_is_account
        positions = [
            f"{holding.net:f} {symbol_id}"
            for symbol_id, holding in self.facts.held(connection)
            if (account or holding.ours) and self.facts.tradable(symbol_id)
        ]
        orders = [
            f"order {order.ticket.link_id}"
            for order in self.evidence.venue.orders(connection, working=True)
            if order.ticket.link_id.startswith(PREFIX) and not order.ticket.reduce_only
        ]
        return positions + orders

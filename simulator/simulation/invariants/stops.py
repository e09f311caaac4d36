"""Positions have stops: INV-4."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from simulator.records import PositionView
from simulator.simulation.invariants.check import Check, Violation
from simulator.simulation.invariants.facts import Facts, Holding
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.trades import LegState

MISSING_S, LOOSE_S, FLAT_S, TICK_S = 5.0, 10.0, 30.0, 0.25
CLOSING_S = 5.0
"""What closing takes after 30 s (INV-9's bar)."""


@dataclass(slots=True)
class _Problem:
    since: float
    what: str
    told: bool = False
    told_open: bool = False


class AlwaysStopped(Check):
    """INV-4: no position of ours without a stop on its losing side for more than 5 s in which the account is reachable
    and a process ready; more than 30 s (and what closing takes): not flattened either, a violation of its own. A stop
    looser than the leg's by the database has 10 s (B11).

    Lenient: while the agent goes on asking and the venue refuses or ignores it, up to 30 s are lawful (B9); the clock
    stands while the symbol cannot be traded; whose position it is on a netting account follows `facts.Holding`.
    """

    name = "INV-4"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._problems: dict[tuple[ConnectionId, str], _Problem] = {}

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Read the positions of accounts that hold something of ours."""
        for connection in self.evidence.connections:
            held = {symbol_id: holding for symbol_id, holding in self.facts.held(connection) if holding.ours}
            if held:
                views = {view.symbol_id: view for view in self.evidence.venue.positions(connection)}
            for symbol_id, holding in held.items():
                view = views.get(symbol_id)
                what = None if view is None else self._wrong(connection, view, holding)
                if view is not None and what is not None:
                    yield from self._judge(connection, view, what, at)
                else:
                    self._problems.pop((connection, symbol_id), None)
                self.checked += 1
            if self._problems:
                for key in [key for key in self._problems if key[0] == connection and key[1] not in held]:
                    del self._problems[key]

    def _wrong(self, connection: ConnectionId, view: PositionView, holding: Holding) -> str | None:
        stop, side = view.stop_loss, view.side
        if side is None or holding.ours * side <= 0:
            return None  # the net position is not ours
        if stop is None:
            return "no stop"
        planned = self._planned(connection, view)
        if planned is not None and (stop - planned) * side < 0:
            return f"stop {stop:f} looser than the leg's {planned:f}"
        return None

    def _planned(self, connection: ConnectionId, view: PositionView) -> Decimal | None:
        symbol = self.facts.symbol[view.symbol_id]
        for leg in self.facts.legs(connection):
            if leg.symbol == symbol and leg.state is LegState.OPEN and leg.side is view.side:
                return leg.stop_loss
        return None

    def _judge(self, connection: ConnectionId, view: PositionView, what: str, at: float) -> Iterable[Violation]:
        key = (connection, view.symbol_id)
        good = self.facts.good_since(connection)
        known = self._problems.get(key)
        if known is None or good is None or not self.facts.tradable(view.symbol_id):
            self._problems[key] = known = _Problem(at, what)
        if good is None:
            return
        lasted = at - max(known.since, good)
        text = f"{connection}: {view.lots:f} {view.symbol_id} with {what} for {lasted:.2f} s"
        limit = MISSING_S if view.stop_loss is None else LOOSE_S
        asked = self.seen.protects.get((connection, self.facts.symbol[view.symbol_id]))
        busy = asked is not None and at - asked <= MISSING_S + TICK_S
        if lasted > limit + TICK_S and not busy and not known.told:
            known.told = True
            yield self.broken(at, f"{text}, and nobody asks for one")
        if lasted > FLAT_S + CLOSING_S and not known.told_open:
            known.told_open = True
            yield self.broken(at, f"{text}, and it is not flattened")

"""How much an entry risks, and that its decision says why: INV-11, INV-12, INV-18."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, DecimalException, localcontext

from simulator.records import OrderTicket, SimOrder
from simulator.simulation.invariants.check import Check, Final, Violation
from simulator.simulation.invariants.doors import Committed, Sent
from simulator.simulation.invariants.facts import LIVE, Facts
from simulator.terms import SimInstrument
from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import ClientOrderId, LegId
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ONE, ZERO, stored_up
from srm_agent.risk.explain import recompute
from srm_agent.risk.rules import EXACT

CONTRACT = ONE
"""Contract size of every instrument of the venue (simulator/terms.py)."""
ROUNDING = Decimal("1e-6")
"""Sums of stored money are rounded in their tenth digit."""
SEND_DEADLINE_S = 2.0


class RiskCapped(Check):
    """INV-11: what an accepted entry loses from its worst price (its limit, else the touch that was decided on) to its
    stop is at most the recorded equity x `max_risk`, in account currency.

    The stop is the one that left with the order: a broker that drops it (B10) is INV-4's trouble, and a gap through it
    the market's. Afterwards the leg's stop, as the database has it, is never looser than that one: nobody may raise the
    risk beyond the plan under the policies of the simulation.
    """

    name = "INV-11"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._stops: dict[LegId, Decimal | None] = {}
        """As seen last."""
        self._version = 0

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Stops of legs that were moved since the last tick."""
        if not self.seen.legs_changed and self._version == self.facts.legs_version:
            return
        for connection in self.evidence.connections:
            legs = self.facts.legs(connection)
            self._version = self.facts.legs_version
            for leg in legs:
                stop = leg.stop_loss
                if leg.state is not LegState.OPEN or self._stops.get(leg.leg_id) == stop:
                    continue
                self._stops[leg.leg_id] = stop
                entry = self.facts.entry_of(leg)
                first = None if entry is None else entry.intent.stop_loss
                if stop is None or first is None:
                    continue
                self.checked += 1
                if (stop - first) * leg.side < 0:
                    yield self.broken(
                        at,
                        f"{connection}: the stop of {leg.leg_id} was moved to {stop:f}, "
                        f"its order left with {first:f}: more is at risk than was planned",
                    )

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """The venue's own words for lots, limit and stop."""
        entry = self.seen.orders.get(ClientOrderId(order.ticket.link_id))
        if order.ticket.reduce_only or entry is None or entry.decision is None:
            return
        self.checked += 1
        ticket, decision = order.ticket, entry.decision
        text = f"{order.account_id}: entry {ticket.link_id} of {ticket.lots:f} lots"
        worst = worst_price(ticket, decision)
        stop = self.seen.stop_sent(order.ticket)
        if stop is None or worst is None or "equity" not in decision.inputs:
            yield self.broken(at, f"{text} has no stop, no price or no equity that bounds its risk")
            return
        rate = Decimal(decision.inputs.get("conversion", "1"))
        risk = ticket.lots * abs(worst - stop) * CONTRACT * rate
        cap = Decimal(decision.inputs["equity"]) * self.evidence.max_risk
        if risk > cap:
            yield self.broken(at, f"{text} risks {risk:f} from {worst:f} to its stop {stop:f}, the cap is {cap:f}")


class LotsFit(Check):
    """INV-12: the lot of an entry that leaves is finite, on the venue's grid and within its limits; its decision keeps
    the score's multiplier within `max_up`; when it is committed, it and all other open or possible legs of the account
    risk at most equity x `max_open_risk`.

    Lenient: terms that the venue has changed are still good; a leg that the database shows open counts with what the
    venue holds of it; an order that the venue has never seen counts no longer than the finality time.
    """

    name = "INV-12"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._terms: dict[str, list[SimInstrument]] = {}

    def on_sent(self, sent: Sent, at: float) -> Iterable[Violation]:
        """On the grid."""
        intent = sent.intent
        if intent.purpose is not OrderPurpose.ENTRY:
            return
        self.checked += 1
        versions = self._versions(self.facts.symbol_id[intent.symbol])
        if not intent.lot.is_finite() or not any(_fits(intent.lot, terms) for terms in versions):
            terms = versions[-1]
            yield self.broken(
                at,
                f"{intent.connection_id}: entry {intent.client_id} of {intent.lot} lots is not within "
                f"{terms.lot_min:f} and {terms.lot_max:f} in steps of {terms.lot_step:f}",
            )

    def _versions(self, symbol_id: str) -> list[SimInstrument]:
        known, now = self._terms.setdefault(symbol_id, []), self.evidence.venue.instruments[symbol_id]
        if not known or known[-1] is not now:
            known.append(now)
        return known

    def on_tick(self, at: float) -> Iterable[Violation]:
        """Learn new terms."""
        for symbol_id in self.facts.symbol:
            self._versions(symbol_id)
        return ()

    def on_committed(self, entry: Committed, at: float) -> Iterable[Violation]:
        """The factor of the score, and the risk of all legs together."""
        intent, decision = entry.intent, entry.decision
        if intent.purpose is not OrderPurpose.ENTRY or decision is None or intent.stop_loss is None:
            return
        self.checked += 1
        what = f"{intent.connection_id}: entry {intent.client_id} of {intent.lot:f} lots"
        for step in decision.steps:
            if step.rule == "score_multiplier" and step.lot_out > step.lot_in * Decimal(step.inputs["max_up"]):
                yield self.broken(at, f"{what}: its score made {step.lot_in:f} lots {step.lot_out:f}")
        price = worst_price(intent, decision)
        if price is None or "equity" not in decision.inputs:
            return  # INV-11 says so
        rate = Decimal(decision.inputs.get("conversion", "1"))
        risk = intent.lot * abs(price - intent.stop_loss) * CONTRACT * rate
        others = sum(
            (self._risk(leg, at) for leg in self.facts.legs(intent.connection_id) if leg.leg_id != intent.leg_id), ZERO
        )
        limit = Decimal(decision.inputs["equity"]) * self.evidence.max_open_risk
        if risk + others * rate > limit + ROUNDING:
            yield self.broken(at, f"{what} adds {risk:f} to an open risk of {others * rate:f}, the limit is {limit:f}")

    def _risk(self, leg: Leg, at: float) -> Decimal:
        """Money that a leg can still lose at its stop, settle currency."""
        if leg.state not in LIVE or not leg.lot:
            return ZERO
        held = self.facts.holding(leg.connection_id, self.facts.symbol_id[leg.symbol]).ours
        lots = max(held * leg.side, ZERO)
        if leg.state is LegState.OPEN:
            return leg.planned_risk * min(leg.open_lot, lots) / leg.lot
        entry = self.facts.entry_of(leg)
        if entry is None:
            return ZERO
        order = self.evidence.venue.order(leg.connection_id, link_id=entry.intent.client_id)
        if order is not None:
            filled = min(order.filled, lots)
            return leg.planned_risk * ((order.leaves if order.status.working else ZERO) + filled) / leg.lot
        calls = self.seen.sent.get(entry.intent.client_id, [])
        unsent = not calls and at - entry.at > SEND_DEADLINE_S
        # The agent may know that it never arrived, and a slow database not yet.
        terms = self.seen.capabilities.get(leg.connection_id)
        final = terms is not None and any(at - call.at > terms.finality_s for call in calls[-1:])
        return ZERO if unsent or final or self.seen.states[entry.intent.client_id].settled else leg.planned_risk


class DecisionsExplain(Check):
    """INV-18: each step of each decision in the database is recomputed from its own text, bit for bit; the steps chain
    from nothing to the decision's lot, its stop is the planned stop moved by the buffer, its planned risk follows from
    lot, touch and stop, and the order accepted at the venue has that lot and left with that stop.

    The verdict of the filter is not recomputed: its thresholds are the policy's, of which the row has the version.
    """

    name = "INV-18"

    def on_accepted(self, order: SimOrder, at: float) -> Iterable[Violation]:
        """The order at the venue against its decision."""
        entry = self.seen.orders.get(ClientOrderId(order.ticket.link_id))
        if order.ticket.reduce_only or entry is None:
            return
        self.checked += 1
        decision, ticket = entry.decision, order.ticket
        if decision is None or not decision.accepted:
            yield self.broken(at, f"{order.account_id}: entry {ticket.link_id} has no accepting decision")
        elif (decision.lot, decision.stop_loss) != (ticket.lots, stop := self.seen.stop_sent(ticket)):
            yield self.broken(
                at,
                f"{order.account_id}: entry {ticket.link_id} has {ticket.lots:f} lots and stop {stop}, "
                f"its decision {decision.lot} and {decision.stop_loss}",
            )

    def at_end(self, final: Final, at: float) -> Iterable[Violation]:
        """Every row, as the database gives it back."""
        for decision in final.decisions:
            self.checked += 1
            wrong = _unexplained(decision)
            if wrong is not None:
                yield self.broken(
                    at, f"{decision.connection_id}: decision {decision.decision_id} on {decision.signal_id}: {wrong}"
                )


def worst_price(order: OrderTicket | OrderIntent, decision: Decision) -> Decimal | None:
    """The limit, else the touch that the decision recorded; None without either."""
    limit = order.price if isinstance(order, OrderTicket) else order.limit_price
    return limit if limit is not None else _touch(decision)


def _touch(decision: Decision) -> Decimal | None:
    text = decision.inputs.get("ask" if decision.side > 0 else "bid")
    return None if text is None else Decimal(text)


def _fits(lot: Decimal, terms: SimInstrument) -> bool:
    return terms.lot_min <= lot <= terms.lot_max and not lot % terms.lot_step


def _unexplained(decision: Decision) -> str | None:
    lot = ZERO
    for number, step in enumerate(decision.steps, 1):
        if step.lot_in != lot:
            return f"step {number} ({step.rule}) begins with {step.lot_in:f} lots after {lot:f}"
        try:
            again = recompute(step)
        except (ValueError, KeyError, DecimalException) as error:
            return f"step {number} ({step.rule}) cannot be recomputed: {error!r}"
        if again != step.lot_out:
            return f"step {number} ({step.rule}) gave {step.lot_out:f} lots, recomputed {again:f}"
        lot = step.lot_out
    if decision.accepted and not (decision.steps and lot > 0):
        return "accepted without steps that make a lot"
    if decision.steps and decision.lot != lot:
        return f"its steps end in {lot:f} lots, its lot is {decision.lot}"
    return _prices_unexplained(decision) if decision.steps else None


def _prices_unexplained(decision: Decision) -> str | None:
    planned, buffer, stop, touch = decision.planned_stop, decision.stop_buffer, decision.stop_loss, _touch(decision)
    if planned is None or buffer is None or stop is None or touch is None or decision.lot is None:
        return "a lot without stop, buffer or touch"
    if stop != planned - decision.side * buffer:
        return f"stop {stop:f} is not the planned {planned:f} moved by {buffer:f}"
    with localcontext(EXACT):
        risk = stored_up(decision.lot * abs(touch - stop) * Decimal(decision.inputs.get("contract_size", "1")))
    if decision.planned_risk != risk:
        return f"planned risk {decision.planned_risk} is not {risk:f}"
    return None

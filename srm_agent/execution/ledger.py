"""The memory of one connection: orders, legs and the fills already counted. Pure; the journal is its durable twin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from srm_agent.domain.ids import ClientOrderId, FillId, LegId, SignalId, Symbol
from srm_agent.domain.orders import Fill, OrderIntent, OrderPurpose, OrderReport, OrderState
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import Side
from srm_agent.execution import legs as leg_rules
from srm_agent.execution.tickets import Finality, Ticket, absorb_fill, absorb_report

KEPT_ENDED = 500
KEPT_FILLS = timedelta(days=7)
"""Market time for which a repeat of a counted fill is recognised by its id (older ones by the leg's opening)."""
KEPT_EARLY = 100
KEPT_SETTLED_S = 24 * 3600.0
KEPT_SETTLED = 2000
"""The last orders that ended are remembered for a day: one that executes late is ours, not foreign (INV-6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one report or fill changed. `fill` only when it was counted for the first time."""

    ticket: Ticket | None = None
    leg: Leg | None = None
    fill: Fill | None = None
    settled: bool = False
    """The order ended with this change."""
    opened: bool = False
    ended: bool = False
    """The leg closed, or its entry ended without a fill."""
    late: bool = False
    """A fill of an order that had been taken as ended (INV-6)."""
    refused: bool = False
    """It had been taken as ended by a refusal: it should never have executed."""

    @property
    def anything(self) -> bool:
        """Whether there is something to write."""
        return self.ticket is not None or self.fill is not None


class Ledger:
    """Tickets and legs of one connection."""

    def __init__(self, finality: Callable[[], Finality], contract_size: Callable[[Symbol], Decimal]) -> None:
        self._finality = finality
        self._contract_size = contract_size
        self.tickets: dict[ClientOrderId, Ticket] = {}
        self._live: dict[ClientOrderId, None] = {}
        """Those that have not ended: a day of ended ones is kept beside them, and this is asked all the time."""
        self.legs: dict[LegId, Leg] = {}
        self.ended: dict[LegId, Leg] = {}
        """The last legs that ended: a late fill may bring one back."""
        self._counted: dict[FillId, datetime | None] = {}
        """Fills already counted, with their market time (None: counted by an earlier process)."""
        self._early: dict[FillId, Fill] = {}
        """Closes of a leg whose entry has not been heard of yet."""
        self._newest: datetime | None = None

    # ---- what we do

    def plan(self, leg: Leg, intent: OrderIntent) -> None:
        """Reserve a leg and its entry order before anything is sent: it counts as filled from now on."""
        self.legs[leg.leg_id] = leg
        self._put(Ticket(intent=intent))

    def plan_exit(self, intent: OrderIntent, reason: CloseReason) -> None:
        """Note an exit order and why it is sent."""
        self._put(Ticket(intent=intent))
        if intent.leg_id is not None and (leg := self.legs.get(intent.leg_id)):
            self.legs[leg.leg_id] = replace(leg, closing_as=reason)

    def restore(
        self, legs: Iterable[Leg], tickets: Iterable[Ticket], counted: Iterable[FillId], ended: Iterable[Leg] = ()
    ) -> None:
        """Take over what the journal knows, at start."""
        self.legs.update((leg.leg_id, leg) for leg in legs)
        self.ended.update((leg.leg_id, leg) for leg in ended)
        for ticket in tickets:
            self._put(ticket)
        self._counted.update((fill, None) for fill in counted)

    def withdraw(self, client_id: ClientOrderId) -> None:
        """An order that was never committed: as if it had not been planned."""
        self.tickets.pop(client_id, None)
        self._live.pop(client_id, None)

    def mark_sent(self, client_id: ClientOrderId, now: float, touch: Decimal | None) -> None:
        """The order leaves now, with this touch on its side of the book."""
        ticket = self.tickets[client_id]
        if ticket.sent is None:
            self._put(replace(ticket, sent=now, touch_sent=touch))

    def set_leg(self, leg: Leg) -> None:
        """Replace an open leg (a modified stop or target)."""
        self.legs[leg.leg_id] = leg

    # ---- what we hear

    def take_fill(self, fill: Fill) -> tuple[Change, ...]:
        """Count an execution once, wherever it was heard (B7).

        A close that is heard before the entry it closes waits for it: more than one change when the entry comes.
        """
        changes = self._count(fill)
        if any(change.opened for change in changes):
            for early in [early for early in self._early.values() if early.symbol == fill.symbol]:
                del self._early[early.fill_id]
                changes += self._count(early)
        return changes

    def take_report(self, report: OrderReport, now: float) -> tuple[Change, ...]:
        """What the broker says about an order of ours; fills in it are counted first. Strangers' orders are ignored."""
        before = self.tickets.get(report.client_id)
        if before is None:
            return ()
        if before.state.settled and all(fill.fill_id in self._counted for fill in report.fills):
            return ()  # it ended, and nothing of this is new
        changes = [change for fill in report.fills for change in self.take_fill(fill)]
        known = self.tickets[report.client_id]
        after = absorb_report(known, report, finality=self._finality(), now=now)
        if after != known:
            self._put(after)
            settled = after.state.settled and not known.state.settled
            leg = self._entry_ended(after) if settled else None
            changes.append(Change(ticket=after, leg=leg, settled=settled, ended=leg is not None and not leg.lot))
        return tuple(changes)

    # ---- what is known

    def open_leg(self, symbol: Symbol) -> Leg | None:
        """The leg that holds (or is opening) this symbol, if any."""
        return next((leg for leg in self.legs.values() if leg.symbol == symbol), None)

    def busy(self, symbol: Symbol) -> bool:
        """Whether no new entry may go there: a leg is open or opening, or an order may still execute (C.3)."""
        return self.open_leg(symbol) is not None or any(ticket.intent.symbol == symbol for ticket in self.unsettled())

    def leg_of_signal(self, signal: SignalId) -> Leg | None:
        """The open leg of a signal."""
        return next((leg for leg in self.legs.values() if leg.signal_id == signal), None)

    @property
    def waiting(self) -> bool:
        """Some order has not ended."""
        return bool(self._live)

    def unsettled(self) -> list[Ticket]:
        """Orders that have not ended, oldest first."""
        return [self.tickets[client_id] for client_id in self._live]

    def finality(self) -> Finality:
        """When ABSENT may be believed at this broker."""
        return self._finality()

    def knows(self, fill_id: FillId) -> bool:
        """Whether this fill has been counted."""
        return fill_id in self._counted

    def ended_entries(self, symbol: Symbol, side: Side) -> list[Ticket]:
        """Entries on that side of a symbol that were taken as ended, newest first."""
        found = [
            ticket
            for ticket in self.tickets.values()
            if ticket.state.settled
            and ticket.intent.purpose is OrderPurpose.ENTRY
            and (ticket.intent.symbol, ticket.intent.side) == (symbol, side)
        ]
        return found[::-1]

    def exits_under_way(self, leg_id: LegId) -> list[Ticket]:
        """Unsettled orders that shrink this leg."""
        return [
            ticket
            for ticket in self.unsettled()
            if ticket.intent.leg_id == leg_id and ticket.intent.purpose is not OrderPurpose.ENTRY
        ]

    def forget_settled(self, older_than: float) -> None:
        """Drop ended orders whose last send was before that monotonic second, the oldest ended legs and old fills."""
        ended = [(key, ticket.intent.deadline) for key, ticket in self.tickets.items() if ticket.state.settled]
        for number, (client_id, deadline) in enumerate(ended):
            if deadline < older_than or number < len(ended) - KEPT_SETTLED:
                del self.tickets[client_id]
        for leg_id in list(self.ended)[: max(0, len(self.ended) - KEPT_ENDED)]:
            del self.ended[leg_id]
        for fill_id in list(self._early)[: max(0, len(self._early) - KEPT_EARLY)]:
            del self._early[fill_id]
        self._forget_fills()

    def _forget_fills(self) -> None:
        if self._newest is None:
            return
        # What an open leg makes us read again must be known as a repeat (the auditor asks from its opening on).
        opened = [leg.opened_at - timedelta(hours=1) for leg in self.legs.values() if leg.opened_at is not None]
        horizon = min([self._newest - KEPT_FILLS, *opened])
        kept = {fill_id: at or self._newest for fill_id, at in self._counted.items()}
        self._counted = {fill_id: at for fill_id, at in kept.items() if at >= horizon}

    def counted_since(self, since: datetime) -> list[FillId]:
        """Ids of fills counted that may be from that market time or later."""
        return [fill_id for fill_id, at in self._counted.items() if at is None or at >= since]

    def remembered_fills(self) -> int:
        """How many fill ids are kept."""
        return len(self._counted)

    def lose(self, leg_id: LegId) -> Leg | None:
        """The broker no longer has this leg and nobody can say how it ended: closed as FOREIGN, without a result."""
        leg = self.legs.get(leg_id)
        if leg is None:
            return None
        lost = replace(leg, state=LegState.CLOSED, close_reason=CloseReason.FOREIGN)
        self._place(lost)
        return lost

    # ---- details

    def _put(self, ticket: Ticket) -> None:
        client_id = ticket.intent.client_id
        self.tickets[client_id] = ticket
        if ticket.state.settled:
            self._live.pop(client_id, None)
        else:
            self._live[client_id] = None

    def _count(self, fill: Fill) -> tuple[Change, ...]:
        before = self.tickets.get(fill.client_id) if fill.client_id else None
        if before is not None and before.state.settled and fill.fill_id in self._counted:
            return ()
        ticket = absorb_fill(before, fill) if before is not None else None
        if ticket is not None:
            self._put(ticket)
        settled = ticket is not None and before is not None and ticket.state.settled and not before.state.settled
        grown_ticket = () if ticket is before else (Change(ticket=ticket, settled=settled),)
        if fill.fill_id in self._counted:
            return grown_ticket
        leg = self._leg_of(fill, ticket)
        if leg is None:
            if ticket is None:
                return ()  # not ours, or not yet known to be: it is judged anew when it is told again
            self._remember(fill)
            return (Change(ticket=ticket, fill=fill, settled=settled),)
        entry = ticket is not None and ticket.intent.purpose is OrderPurpose.ENTRY
        if not entry and leg.entry_price is None:
            self._early[fill.fill_id] = fill
            return grown_ticket
        self._remember(fill)
        if ticket is not None and entry:
            grown = leg_rules.opened(leg, fill, ticket.intent.lot)
        else:
            # The order says why it was sent, also after a restart.
            closing = leg if ticket is None else replace(leg, closing_as=_reason(ticket) or leg.closing_as)
            grown = leg_rules.reduced(closing, fill, self._contract_size(leg.symbol))
        self._place(grown)
        return (
            Change(
                ticket=ticket,
                leg=grown,
                fill=fill,
                settled=settled,
                opened=entry and leg.state is not LegState.OPEN,
                ended=grown.state is LegState.CLOSED and leg.state is not LegState.CLOSED,
                late=before is not None and before.state.settled,
                refused=before is not None and before.state is OrderState.REJECTED,
            ),
        )

    def _remember(self, fill: Fill) -> None:
        self._counted[fill.fill_id] = fill.at
        self._newest = fill.at if self._newest is None else max(self._newest, fill.at)

    def _leg_of(self, fill: Fill, ticket: Ticket | None) -> Leg | None:
        """Whose fill it is: its order's leg; else, on a netting venue, whatever closes our volume closes our leg.

        History from before the leg was opened concerns other legs, whoever sent those orders.
        """
        if ticket is not None and ticket.intent.leg_id is not None:
            leg_id = ticket.intent.leg_id
            own = self.legs.get(leg_id) or self.ended.get(leg_id)
            spent = own is not None and own.state is LegState.CLOSED and ticket.intent.purpose is not OrderPurpose.ENTRY
            if not spent:
                return own
            # Its own leg has nothing left: on a netting venue a late close takes from the leg that is open now.
            return self._closed_by(fill) or own
        return self._closed_by(fill)

    def _closed_by(self, fill: Fill) -> Leg | None:
        candidate = self.open_leg(fill.symbol)
        if candidate is None or fill.side is candidate.side:
            return None
        older = candidate.opened_at is not None and fill.at < candidate.opened_at
        return None if older else candidate

    def _entry_ended(self, ticket: Ticket) -> Leg | None:
        leg_id = ticket.intent.leg_id
        if ticket.intent.purpose is not OrderPurpose.ENTRY or leg_id is None or leg_id not in self.legs:
            return None
        leg = leg_rules.not_opened(self.legs[leg_id])
        self._place(leg)
        return leg

    def _place(self, leg: Leg) -> None:
        if leg.state in (LegState.CLOSED, LegState.NEVER_OPENED):
            self.legs.pop(leg.leg_id, None)
            self.ended[leg.leg_id] = leg
        else:
            self.ended.pop(leg.leg_id, None)
            self.legs[leg.leg_id] = leg


def _reason(ticket: Ticket) -> CloseReason | None:
    return CloseReason(ticket.intent.reason) if ticket.intent.reason in list(CloseReason) else None

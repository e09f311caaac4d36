"""The submission state machine (brokers.md C.3), without I/O: what a report or a fill makes of an order.

A `Ticket` is the memory of one order; `absorb` is the only way it changes. Fills are the truth about volume: a report
that claims more than the fills we have leaves the ticket WORKING until the missing fills are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from srm_agent.domain.ids import FillId
from srm_agent.domain.orders import Fill, OrderIntent, OrderReport, OrderState, Outcome
from srm_agent.domain.units import ZERO, stored
from srm_agent.ports import Capabilities, JournalRow

LEAST_ABSENCES = 5
"""INV-5: what an adapter thinks enough may be more than this, never less."""
FORGOTTEN_S = 60.0
"""An order that the broker had acknowledged and then no reading shows any more is given up after this long.

Left open for ever it would hold back every later exit of its leg (INV-10); a late fill brings it back (INV-6).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One order in memory. Monotonic seconds: `sent`, `acknowledged`, `filled` (last fill)."""

    intent: OrderIntent
    state: OrderState = OrderState.INTENT
    fills: dict[FillId, Fill] = field(default_factory=dict)
    terminal_lot: Decimal | None = None
    """Volume the broker says was executed in all, once the order is terminal there."""
    broker_order_id: str | None = None
    code: str = ""
    detail: str = ""
    absences: int = 0
    """Successful look-ups in a row that said ABSENT."""
    final_absences: int = 0
    """Those of them that came after the finality time; only these end a doubt (INV-5)."""
    touch_sent: Decimal | None = None
    sent: float | None = None
    acknowledged: float | None = None
    filled: float | None = None

    @property
    def filled_lot(self) -> Decimal:
        """Sum of the fills."""
        return sum((fill.lot for fill in self.fills.values()), ZERO)

    @property
    def average_price(self) -> Decimal | None:
        """Volume-weighted price of the fills, to stored precision."""
        lot = self.filled_lot
        if not lot:
            return None
        return stored(sum((fill.price * fill.lot for fill in self.fills.values()), ZERO) / lot)

    @property
    def fees(self) -> Decimal:
        """Sum of fees, positive = cost."""
        return sum((fill.fee for fill in self.fills.values()), ZERO)

    @property
    def in_doubt(self) -> bool:
        """It may be live, and nobody has said so."""
        return self.state in (OrderState.INTENT, OrderState.UNKNOWN)


def restored(row: JournalRow, now: float) -> Ticket:
    """A ticket from its journal row after a restart, settled or not.

    INTENT may have been sent before the crash, so it comes back as UNKNOWN (INV-5). Monotonic seconds of another
    process mean nothing here: the last possible send is before `now`, which becomes the deadline.
    """
    state = OrderState.UNKNOWN if row.state is OrderState.INTENT else row.state
    return Ticket(
        intent=replace(row.intent, deadline=now),
        state=state,
        broker_order_id=row.broker_order_id,
        code=row.code,
        absences=row.absences,
    )


def absorb_fill(ticket: Ticket, fill: Fill) -> Ticket:
    """A fill of this order.

    A known fill id changes nothing (B7); a late fill un-settles an order that was wrongly taken as ended (INV-6).
    """
    if fill.fill_id in ticket.fills:
        return ticket
    grown = replace(
        ticket,
        fills={**ticket.fills, fill.fill_id: fill},
        broker_order_id=ticket.broker_order_id or fill.broker_order_id,
        filled=fill.received,
        acknowledged=ticket.acknowledged if ticket.acknowledged is not None else fill.received,
        absences=0,
        final_absences=0,
    )
    return replace(grown, state=_state_by_volume(grown))


def absorb_report(ticket: Ticket, report: OrderReport, *, finality: Finality, now: float) -> Ticket:
    """What the broker said about this order. `now` is the monotonic second, for the finality of ABSENT."""
    for fill in report.fills:
        ticket = absorb_fill(ticket, fill)
    if report.outcome is Outcome.ABSENT:
        return _absent(ticket, finality, now)
    if ticket.state.settled:
        return ticket
    if report.outcome is Outcome.UNKNOWN:
        if ticket.state is not OrderState.INTENT:
            return ticket
        # It was sent once and will not be sent again: finality counts from now, not from the last permitted moment.
        sent_for_good = replace(ticket.intent, deadline=min(ticket.intent.deadline, now))
        return replace(ticket, intent=sent_for_good, state=OrderState.UNKNOWN, code=report.code, detail=report.detail)
    heard = replace(
        ticket,
        broker_order_id=report.broker_order_id or ticket.broker_order_id,
        acknowledged=ticket.acknowledged if ticket.acknowledged is not None else report.received or now,
        absences=0,
        final_absences=0,
    )
    match report.outcome:
        case Outcome.WORKING:
            return replace(heard, state=_state_by_volume(heard))
        case Outcome.FILLED:
            done = replace(heard, terminal_lot=report.filled_lot)
            return replace(done, state=_state_by_volume(done))
        case Outcome.REJECTED:
            if heard.fills:  # the fills are the truth; the refusal concerns the rest
                return replace(heard, terminal_lot=heard.filled_lot, state=OrderState.FILLED)
            return replace(heard, state=OrderState.REJECTED, code=report.code, detail=report.detail)


@dataclass(frozen=True, slots=True)
class Finality:
    """When ABSENT may be believed: `absences` times in a row, `seconds` after the last possible send (INV-5)."""

    seconds: float
    absences: int


def finality_of(capabilities: Capabilities) -> Finality:
    """What a venue promises, never less than INV-5 demands."""
    return Finality(capabilities.finality_s, max(LEAST_ABSENCES, capabilities.absences))


def final_from(ticket: Ticket, finality: Finality) -> float:
    """The monotonic second from which ABSENT counts towards the end of this doubt."""
    patience = finality.seconds if ticket.in_doubt else max(finality.seconds, FORGOTTEN_S)
    return ticket.intent.deadline + patience


def _absent(ticket: Ticket, finality: Finality, now: float) -> Ticket:
    if ticket.state.settled:
        return ticket
    known_there = not ticket.in_doubt
    state = ticket.state if known_there else OrderState.UNKNOWN
    final = ticket.final_absences + (now >= final_from(ticket, finality))
    counted = replace(ticket, state=state, absences=ticket.absences + 1, final_absences=final)
    if final >= finality.absences:
        if ticket.fills:
            return replace(counted, state=OrderState.FILLED, terminal_lot=ticket.filled_lot)
        return replace(counted, state=OrderState.ABANDONED, code="FORGOTTEN" if known_there else "ABSENT")
    return counted


def _state_by_volume(ticket: Ticket) -> OrderState:
    filled = ticket.filled_lot
    if filled >= ticket.intent.lot or (ticket.terminal_lot is not None and filled >= ticket.terminal_lot > 0):
        return OrderState.FILLED
    return OrderState.WORKING


def expired(intent: OrderIntent, now: float) -> bool:
    """Whether the order may no longer be sent (INV-5: finality counts from this moment)."""
    return now > intent.deadline

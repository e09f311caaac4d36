"""The submission state machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from srm_agent.domain.ids import ClientOrderId, ConnectionId, FillId, Symbol
from srm_agent.domain.orders import Fill, FillKind, OrderIntent, OrderPurpose, OrderReport, OrderState, Outcome
from srm_agent.domain.units import Side
from srm_agent.execution.tickets import Finality, Ticket, absorb_fill, absorb_report, finality_of
from srm_agent.ports import Capabilities

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
ID = ClientOrderId("srm1abc")
FINALITY = Finality(seconds=7, absences=3)


def an_intent(lot: str = "3", deadline: float = 100.0) -> OrderIntent:
    """An entry of that many lots."""
    return OrderIntent(
        client_id=ID,
        connection_id=ConnectionId("c1"),
        leg_id=None,
        signal_id=None,
        decision_id=None,
        purpose=OrderPurpose.ENTRY,
        symbol=Symbol("BTC/USDT:USDT"),
        side=Side.BUY,
        lot=Decimal(lot),
        limit_price=Decimal(100),
        stop_loss=Decimal(90),
        take_profit=None,
        reduce=None,
        reason="signal",
        created_at=AT,
        deadline=deadline,
    )


def a_fill(number: int, lot: str = "1", price: str = "100") -> Fill:
    """One execution."""
    return Fill(
        fill_id=FillId(f"f{number}"),
        client_id=ID,
        broker_order_id="b1",
        symbol=Symbol("BTC/USDT:USDT"),
        side=Side.BUY,
        lot=Decimal(lot),
        price=Decimal(price),
        fee=Decimal("0.1"),
        fee_currency="USDT",
        kind=FillKind.ORDER,
        at=AT,
        received=101.0,
    )


def a_report(outcome: Outcome, filled: str = "0") -> OrderReport:
    """What the broker says."""
    return OrderReport(client_id=ID, outcome=outcome, broker_order_id="b1", filled_lot=Decimal(filled), received=101.0)


def absorb(ticket: Ticket, report: OrderReport, now: float = 101.0) -> Ticket:
    """Take a report in."""
    return absorb_report(ticket, report, finality=FINALITY, now=now)


def test_acknowledgement_is_not_a_fill() -> None:
    """WORKING leaves the order open with nothing filled."""
    ticket = absorb(Ticket(intent=an_intent()), a_report(Outcome.WORKING))
    assert ticket.state is OrderState.WORKING
    assert not ticket.filled_lot


def test_a_terminal_report_waits_for_its_fills() -> None:
    """A report of 2 filled settles only when fills of 2 are there: fills are the truth about volume."""
    ticket = absorb(Ticket(intent=an_intent()), a_report(Outcome.FILLED, "2"))
    assert ticket.state is OrderState.WORKING
    ticket = absorb_fill(absorb_fill(ticket, a_fill(1)), a_fill(2, price="103"))
    assert ticket.state is OrderState.FILLED
    assert ticket.average_price == Decimal("101.5")


def test_unknown_is_not_rejected() -> None:
    """A lost reply leaves the order in doubt, and a later fill brings it back to life (INV-5)."""
    ticket = absorb(Ticket(intent=an_intent()), a_report(Outcome.UNKNOWN))
    assert ticket.state is OrderState.UNKNOWN
    assert absorb_fill(ticket, a_fill(1)).state is OrderState.WORKING


def test_absent_is_final_only_after_time_and_repetition() -> None:
    """ABSENT needs both the finality time from the last possible send and enough successful look-ups in a row."""
    ticket = absorb(Ticket(intent=an_intent(deadline=100)), a_report(Outcome.UNKNOWN))
    early = ticket
    for _ in range(10):
        early = absorb(early, a_report(Outcome.ABSENT), now=106.9)
    assert early.state is OrderState.UNKNOWN
    late = ticket
    for _ in range(2):
        late = absorb(late, a_report(Outcome.ABSENT), now=108)
    assert late.state is OrderState.UNKNOWN
    assert absorb(late, a_report(Outcome.ABSENT), now=108).state is OrderState.ABANDONED


def test_only_absences_after_the_finality_time_end_a_doubt() -> None:
    """A hundred before it and one after it prove as little as one (INV-5)."""
    ticket = absorb(Ticket(intent=an_intent(deadline=100)), a_report(Outcome.UNKNOWN))
    for _ in range(100):
        ticket = absorb(ticket, a_report(Outcome.ABSENT), now=106)
    ticket = absorb(ticket, a_report(Outcome.ABSENT), now=108)
    assert (ticket.state, ticket.absences, ticket.final_absences) == (OrderState.UNKNOWN, 101, 1)


def test_no_adapter_may_promise_less_than_five_absences() -> None:
    """Two are taken as five, eight as eight."""
    for promised, used in ((0, 5), (2, 5), (5, 5), (8, 8)):
        able = Capabilities(
            netting=True, atomic_protection=True, price_capped_entry=True, finality_s=7, absences=promised,
            read_only=False,
        )  # fmt: skip
        assert finality_of(able) == Finality(7, used)


def test_an_answer_about_the_order_ends_the_count_of_absences() -> None:
    """Absences must be consecutive: a sighting in between starts the count anew."""
    ticket = absorb(Ticket(intent=an_intent()), a_report(Outcome.UNKNOWN))
    ticket = absorb(absorb(ticket, a_report(Outcome.ABSENT)), a_report(Outcome.WORKING))
    assert ticket.absences == 0
    assert absorb(ticket, a_report(Outcome.ABSENT), now=1e9).state is OrderState.WORKING


def test_an_acknowledged_order_that_the_broker_forgot_is_given_up_after_a_minute() -> None:
    """WORKING and then ABSENT in every reading: not for ever, or the leg could never be closed (INV-10)."""
    ticket = absorb(Ticket(intent=an_intent(deadline=100)), a_report(Outcome.WORKING))
    for _ in range(10):
        ticket = absorb(ticket, a_report(Outcome.ABSENT), now=159)
    assert ticket.state is OrderState.WORKING
    ended = ticket
    for _ in range(FINALITY.absences):
        ended = absorb(ended, a_report(Outcome.ABSENT), now=161)
    assert (ended.state, ended.code) == (OrderState.ABANDONED, "FORGOTTEN")
    assert absorb_fill(ended, a_fill(1)).state is OrderState.WORKING


def test_a_rejection_with_fills_is_a_fill() -> None:
    """What was executed stands, whatever the refusal says about the rest."""
    ticket = absorb(absorb_fill(Ticket(intent=an_intent()), a_fill(1)), a_report(Outcome.REJECTED))
    assert ticket.state is OrderState.FILLED
    assert ticket.filled_lot == 1


def test_a_late_fill_reopens_what_was_taken_as_ended() -> None:
    """An order that was abandoned and executes all the same is seen (INV-6)."""
    ended = replace(Ticket(intent=an_intent("1")), state=OrderState.ABANDONED)
    assert absorb_fill(ended, a_fill(1)).state is OrderState.FILLED


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["report", "fill"])), max_size=30))
def test_fills_count_once_in_any_order_and_number_of_repeats(events: list[tuple[int, str]]) -> None:
    """However often and in whatever order fills and reports come, volume is the sum of distinct fills (B7)."""
    ticket = Ticket(intent=an_intent("5"))
    for number, kind in events:
        ticket = absorb_fill(ticket, a_fill(number)) if kind == "fill" else absorb(ticket, a_report(Outcome.WORKING))
    distinct = {number for number, kind in events if kind == "fill"}
    assert ticket.filled_lot == len(distinct)
    assert (ticket.state is OrderState.FILLED) == (len(distinct) == 5)

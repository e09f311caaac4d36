"""Closing as a desired state."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal

import pytest

from srm_agent.clock import ManualClock
from srm_agent.domain.ids import PositionRef
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.execution.exits import ExitPlan
from tests.unit.execution.conftest import START, a_leg, an_instrument

D = Decimal


class Closing:
    """An exit plan with a clock in hand."""

    def __init__(self, instrument: Instrument | None = None) -> None:
        self.clock = ManualClock(START)
        self.plan = ExitPlan(self.clock)
        self.instrument = instrument or an_instrument()

    def want(self, leg: Leg, fraction: str, label: str = "close:m1") -> None:
        """Ask for a close."""
        self.plan.want(leg, D(fraction), CloseReason.PROVIDER, label, self.instrument)

    def next(self, leg: Leg) -> OrderIntent | None:
        """The next attempt that is due, if any."""
        for _, wish in self.plan.due():
            return self.plan.next_intent(leg, wish, self.instrument, PositionRef("p"), 1)
        return None

    def lots(self, leg: Leg) -> list[Decimal]:
        """Lots of attempts that each fill at once, until nothing is left to close."""
        sent = []
        while (intent := self.next(leg)) is not None:
            sent.append(intent.lot)
            leg = replace(leg, closed_lot=leg.closed_lot + intent.lot)
            self.clock.advance(10)
        return sent


def open_leg(lot: str = "0.3", closed: str = "0") -> Leg:
    """An open leg."""
    return a_leg(state=LegState.OPEN, lot=D(lot), closed_lot=D(closed), entry_price=D(60_000), opened_at=START)


@pytest.mark.parametrize(
    ("lot", "fraction", "instrument", "sent"),
    [
        pytest.param("0.3", "1", {}, "0.3", id="all of it"),
        pytest.param("0.3", "0.5", {}, "0.15", id="half"),
        pytest.param("0.003", "0.5", {}, "0.002", id="half of an odd lot rounds up"),
        pytest.param("0.001", "0.1", {}, "0.001", id="a remainder below the smallest lot goes too"),
        pytest.param("0.05", "0.1", {"lot_min": D("0.02")}, "0.02", id="never less than the smallest lot"),
        pytest.param("0.03", "0.1", {"lot_min": D("0.02")}, "0.03", id="nor a remainder that could not be closed"),
    ],
)
def test_the_lot_of_a_close(lot: str, fraction: str, instrument: dict[str, Decimal], sent: str) -> None:
    """At least what was asked, on the grid, never a volume or remainder that the broker refuses."""
    closing = Closing(an_instrument(**instrument))
    leg = open_leg(lot)
    closing.want(leg, fraction)
    assert closing.lots(leg) == [D(sent)]


def test_a_part_fill_that_leaves_less_than_the_smallest_lot_is_closed_with_more() -> None:
    """What is left of a part close is below lot_min: the next attempt closes lot_min, not for ever nothing."""
    closing = Closing(an_instrument(lot_min=D("0.02")))
    closing.want(open_leg("0.3"), "0.5")
    closing.next(open_leg("0.3"))
    closing.clock.advance(1)
    intent = closing.next(open_leg("0.3", closed="0.14"))
    assert intent is not None
    assert intent.lot == D("0.02")


def test_two_part_closes_in_a_row_both_count() -> None:
    """Half, and half of what then remains, asked before the first has filled: a quarter stays."""
    closing = Closing()
    leg = open_leg("0.4")
    closing.want(leg, "0.5", "close:m1")
    closing.want(leg, "0.5", "close:m2")
    closing.want(leg, "0.5", "close:m2")
    assert closing.lots(leg) == [D("0.3")]


def test_a_part_close_of_a_leg_that_is_opening_concerns_what_will_fill() -> None:
    """Half of 0.3 asked, 0.1 filled: half of that is closed."""
    closing = Closing()
    closing.want(a_leg(), "0.5")
    assert closing.next(a_leg()) is None
    assert closing.lots(open_leg("0.1")) == [D("0.05")]


def test_attempts_back_off_and_each_has_its_own_id() -> None:
    """0.3 s doubling to 5 s; no client id is used twice, not even when the leg comes back to life."""
    closing, leg, seen, times = Closing(), open_leg(), set[str](), list[float]()
    closing.want(leg, "1", "late")
    for _ in range(400):
        if (intent := closing.next(leg)) is not None:
            assert intent.client_id not in seen
            seen.add(intent.client_id)
            times.append(round(closing.clock.monotonic() - 1000, 1))
        closing.clock.advance(0.1)
    assert [round(b - a, 1) for a, b in itertools.pairwise(times)][:6] == [0.3, 0.6, 1.2, 2.4, 4.8, 5.0]
    closing.plan.drop(leg.leg_id)
    closing.want(leg, "1", "late")
    again = closing.next(leg)
    assert again is not None
    assert again.client_id not in seen


def test_a_restart_repeats_the_first_id_only() -> None:
    """The first attempt's id is derived, so a repeat is recognised; later ones never meet an old process's."""
    first, second = Closing(), Closing()
    second.clock.advance(100)
    ids: list[list[str]] = []
    for closing in (first, second):
        closing.want(open_leg(), "1")
        ids.append([])
        for _ in range(3):
            intent = closing.next(open_leg())
            assert intent is not None
            ids[-1].append(intent.client_id)
            closing.clock.advance(10)
    assert ids[0][0] == ids[1][0]
    assert not set(ids[0][1:]) & set(ids[1][1:])


def test_a_new_request_is_tried_at_once() -> None:
    """The pause of an old request does not hold back a new one, nor does a smaller one loosen a larger."""
    closing, leg = Closing(), open_leg()
    closing.want(leg, "1")
    closing.next(leg)
    assert closing.next(leg) is None
    closing.want(leg, "0.5", "close:m2")
    intent = closing.next(leg)
    assert intent is not None
    assert intent.lot == D("0.3")


def test_exits_are_reduce_only_market_orders_on_the_other_side() -> None:
    """An exit carries the position, no price cap, and is an emergency where that is its reason."""
    closing, leg = Closing(), open_leg()
    closing.plan.want(leg, D(1), CloseReason.EMERGENCY, "late", closing.instrument)
    intent = closing.next(leg)
    assert intent is not None
    assert (intent.reduce, intent.limit_price, intent.side) == ("p", None, leg.side.opposite)
    assert intent.purpose is OrderPurpose.EMERGENCY


def test_a_request_is_pending_until_its_target_is_reached() -> None:
    """Also one that was merged into another; an ended leg ends its wishes."""
    closing, leg = Closing(), open_leg("0.4")
    closing.want(leg, "0.5", "close:m1")
    closing.want(leg, "1", "close:m2")
    assert closing.plan.pending(leg.leg_id, "close:m1")
    closing.lots(leg)
    assert not closing.plan.pending(leg.leg_id, "close:m1")
    assert not closing.plan.pending(leg.leg_id, "close:m2")

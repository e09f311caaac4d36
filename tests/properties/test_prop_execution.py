"""Arithmetic of legs: however fills are split, the money is the same."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from srm_agent.domain.trades import LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.execution.legs import closed_trade, opened, reduced
from tests.unit.execution.conftest import START, a_fill, a_leg

D = Decimal
LOTS = st.lists(st.integers(1, 500).map(lambda thousandths: D(thousandths) / 1000), min_size=1, max_size=6)
PRICES = st.decimals("1", "99999", places=1)
LATER = START + timedelta(hours=1)


@given(LOTS, st.data(), st.sampled_from(list(Side)), st.sampled_from([D(1), D(100), D("0.01")]))
def test_the_result_does_not_depend_on_how_fills_are_split(
    lots: list[Decimal], data: st.DataObject, side: Side, size: Decimal
) -> None:
    """For any split of entry and exit, pnl = side x (sum out - sum in) x contract size; R has its sign after fees."""
    intended = sum(lots, ZERO)
    leg = a_leg(side=side, lot=intended, planned_stop=D("0.5"))
    bought = ZERO
    for number, lot in enumerate(lots):
        price = data.draw(PRICES)
        bought += price * lot
        leg = opened(leg, a_fill(f"i{number}", str(lot), str(price), side=side), intended)
    assert leg.lot == intended
    assert abs(leg.planned_risk - 303) <= D("1e-6")
    sold, left, number = ZERO, intended, 0
    while left > 0:
        number += 1
        lot = min(left, D(data.draw(st.integers(1, 1500))) / 1000)
        price = data.draw(PRICES)
        sold += price * lot
        left -= lot
        leg = reduced(leg, a_fill(f"o{number}", str(lot), str(price), side=side.opposite, at=LATER), size)
    expected = int(side) * (sold - bought) * size
    assert leg.state is LegState.CLOSED
    # The average entry is kept to 1e-10: the error is at most that, times the volume.
    assert abs(leg.realised_pnl - expected) <= D("1e-9") * (1 + intended * size) * (number + len(lots))
    assert leg.fees == number + len(lots)
    trade = closed_trade(leg, size)
    assert trade is not None
    assert trade.net_pnl == leg.realised_pnl - leg.fees
    if abs(trade.r_multiple) > D("1e-9"):
        assert (trade.r_multiple > 0) == (trade.net_pnl > 0)
    risk = abs(trade.entry_price - leg.planned_stop) * leg.lot * size
    # R is a quotient of numbers kept to 1e-10: a tiny risk makes its error large.
    allowed = D("1e-9") * (1 + risk) + abs(trade.r_multiple) * D("1e-9")
    assert not risk or abs(trade.r_multiple * risk - trade.net_pnl) <= allowed


@given(LOTS, LOTS, st.sampled_from(list(Side)))
def test_closes_never_exceed_the_leg(entries: list[Decimal], exits: list[Decimal], side: Side) -> None:
    """Whatever the market closes under our leg, our share of it is at most what we opened (INV-12)."""
    intended = sum(entries, ZERO)
    leg = a_leg(side=side, lot=intended)
    for number, lot in enumerate(entries):
        leg = opened(leg, a_fill(f"i{number}", str(lot), side=side), intended)
    for number, lot in enumerate(exits):
        leg = reduced(leg, a_fill(f"o{number}", str(lot), side=side.opposite, at=LATER), D(1))
        assert ZERO <= leg.closed_lot <= leg.lot
    assert leg.closed_lot == min(intended, sum(exits, ZERO))
    assert (leg.state is LegState.CLOSED) == (leg.closed_lot == leg.lot)

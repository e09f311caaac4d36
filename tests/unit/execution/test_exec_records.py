"""What is left on paper: the spill file, and what an execution really cost."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srm_agent.domain.orders import OrderPurpose, OrderState
from srm_agent.domain.units import Side
from srm_agent.execution.slippage import Arrival, measured
from srm_agent.execution.spill import SpillFile
from srm_agent.execution.tickets import Ticket
from srm_agent.files import DiskFiles
from tests.unit.execution.conftest import ALPHA, C01, a_fill, a_leg, an_entry, an_instrument

D = Decimal


def test_a_spilt_exit_is_one_line_that_only_its_owner_reads(tmp_path: Path) -> None:
    """Each exit appends one JSON line with what it takes to find it at the broker."""
    path = tmp_path / "exits.c01.jsonl"
    exit_order = replace(an_entry(a_leg()), purpose=OrderPurpose.EXIT, side=Side.SELL)
    for _ in range(2):
        SpillFile(DiskFiles(tmp_path), C01).write(exit_order)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["client_id"] for row in rows] == [exit_order.client_id] * 2
    assert (rows[0]["lot"], rows[0]["side"], rows[0]["purpose"]) == ("0.3", "sell", "exit")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_refuses_says_so(tmp_path: Path) -> None:
    """OSError reaches the caller, who sends the exit all the same."""
    with pytest.raises(OSError, match="No such file"):
        SpillFile(DiskFiles(tmp_path / "none"), C01).write(an_entry(a_leg()))


PRICE = st.decimals("1000", "99000", places=1)


@given(PRICE, PRICE, PRICE, st.sampled_from(list(Side)), st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_cost_is_delay_plus_slippage_plus_fees(
    signal: Decimal, touch: Decimal, fill: Decimal, side: Side, lots: list[int]
) -> None:
    """Positive is worse for the follower on both sides; shortfall in money is the sum of its parts."""
    fills = [
        a_fill(number, str(D(lot) / 1000), str(fill), side=side, received=1000.25) for number, lot in enumerate(lots)
    ]
    ticket = Ticket(
        intent=an_entry(a_leg(side=side)),
        state=OrderState.FILLED,
        fills={item.fill_id: item for item in fills},
        touch_sent=touch,
        filled=1000.25,
    )
    arrival = Arrival(
        provider=ALPHA, venue="v", signal_price=signal, received=1000.0, touch_received=None, touch_decided=touch
    )
    cost = measured(ticket, arrival, an_instrument())
    assert cost.slippage == int(side) * (fill - touch)
    assert cost.delay_cost == int(side) * (touch - signal)
    lot = D(sum(lots)) / 1000
    assert cost.implementation_shortfall == int(side) * (fill - signal) * lot + len(lots)
    assert cost.latency_ms == 250
    assert cost.censored == ""


def test_an_entry_that_missed_is_kept_as_censored() -> None:
    """Nothing filled: no slippage is invented, the reason stands."""
    ticket = Ticket(intent=an_entry(a_leg()), state=OrderState.REJECTED, code="MISSED_PRICE")
    arrival = Arrival(
        provider=ALPHA, venue="v", signal_price=D(1), received=1000.0, touch_received=None, touch_decided=D(2)
    )
    cost = measured(ticket, arrival, an_instrument())
    assert cost.fill_price is None
    assert cost.slippage is None
    assert (cost.filled_lot, cost.censored) == (D(0), "MISSED_PRICE")

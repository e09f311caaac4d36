"""Losses in a row of one account."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from srm_agent.domain.ids import ConnectionId, LegId, ProviderKey, SignalId, Symbol
from srm_agent.domain.trades import ClosedTrade, CloseReason
from srm_agent.domain.units import Side
from srm_agent.protection.streak import LossStreak
from tests.unit.execution.conftest import C01, START


def a_trade(name: str, result: str, after_days: float = 0, connection: ConnectionId = C01) -> ClosedTrade:
    """A closed trade with that net result."""
    return ClosedTrade(
        leg_id=LegId(name),
        connection_id=connection,
        signal_id=SignalId(name),
        provider=ProviderKey.parse("alpha"),
        symbol=Symbol("X"),
        side=Side.BUY,
        lot=Decimal(1),
        entry_price=Decimal(1),
        exit_price=Decimal(1),
        net_pnl=Decimal(result),
        r_multiple=Decimal(0),
        planned_risk=Decimal(1),
        reward_to_risk=None,
        stop_kept=True,
        stop_slippage=None,
        close_reason=CloseReason.PROVIDER,
        opened_at=START,
        closed_at=START + timedelta(days=after_days),
    )


@pytest.mark.parametrize(
    ("results", "losses"),
    [
        pytest.param([], 0, id="nothing traded"),
        pytest.param(["-1", "-2", "-0.01"], 3, id="three losses, however small"),
        pytest.param(["-1", "-1", "0.01"], 0, id="a win ends it"),
        pytest.param(["-1", "5", "-1"], 1, id="it begins anew after the win"),
        pytest.param(["-1", "0", "-1"], 2, id="neither won nor lost changes nothing"),
    ],
)
def test_the_streak_counts_losses_since_the_last_win(results: list[str], losses: int) -> None:
    """By net result, fees included."""
    streak = LossStreak(C01)
    streak.restore(a_trade(f"l{number}", result) for number, result in enumerate(results))
    assert streak.losses(START, 5) == losses


def test_it_is_unknown_until_the_journal_was_read() -> None:
    """Trades of this process alone prove no streak: the lot takes the brake's floor until history was read."""
    streak = LossStreak(C01)
    streak.observe(a_trade("l1", "-1"))
    assert streak.losses(START, 5) is None
    streak.restore([])
    assert streak.losses(START, 5) == 1


def test_others_trades_and_repeats_do_not_count() -> None:
    """Another connection's losses are its own, and a trade told twice is one."""
    streak = LossStreak(C01)
    mine = a_trade("l1", "-1")
    streak.restore([mine, mine, replace(mine, leg_id=LegId("l2"), connection_id=ConnectionId("c02"))])
    assert streak.losses(START, 5) == 1


def test_five_days_after_the_last_loss_it_is_forgotten() -> None:
    """Whole to the last second; a further loss after such a gap is the first of a new streak."""
    streak = LossStreak(C01)
    streak.restore([a_trade("l1", "-1"), a_trade("l2", "-1", 4)])
    assert streak.losses(START + timedelta(days=9, seconds=-1), 5) == 2
    assert streak.losses(START + timedelta(days=9), 5) == 0
    streak.observe(a_trade("l3", "-1", 9))
    assert streak.losses(START + timedelta(days=9), 5) == 1

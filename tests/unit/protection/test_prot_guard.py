"""When an account must be closed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srm_agent.domain.accounts import CashFlow
from srm_agent.domain.ids import ConnectionId
from srm_agent.protection.drawdown_guard import DailyBase, DrawdownGuard, GuardLimits

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)


def a_guard(daily: str | None = None, zone: str = "UTC") -> DrawdownGuard:
    """Limits of 20 % drawdown and a daily loss, no mark yet."""
    limits = GuardLimits(
        max_drawdown=Decimal("0.20"),
        daily_loss=None if daily is None else Decimal(daily),
        daily_base=DailyBase.EQUITY,
        zone=ZoneInfo(zone),
    )
    return DrawdownGuard(ConnectionId("c1"), limits, None)


def observe(guard: DrawdownGuard, equity: str, at: datetime = AT) -> tuple[Decimal, bool, bool]:
    """Drawdown, breached, day over."""
    verdict = guard.observe(Decimal(equity), Decimal(1000), at, at)
    return verdict.drawdown, verdict.breached, verdict.day_over


def a_flow(amount: str, number: int = 1, kind: str = "deposit", after: float = 1) -> CashFlow:
    """Money that moved `after` seconds from the start."""
    return CashFlow(
        flow_id=f"f{number}", kind=kind, amount=Decimal(amount), currency="USDT", at=AT + timedelta(seconds=after)
    )


def test_floating_loss_alone_breaches() -> None:
    """Drawdown needs no closed trade (F17), and 20 % of the mark is the limit itself."""
    guard = a_guard()
    observe(guard, "1000")
    assert observe(guard, "800.01")[1] is False
    assert observe(guard, "800") == (Decimal("0.2"), True, False)


def test_the_mark_follows_equity_up_and_never_down() -> None:
    """The high-water mark is the highest equity seen."""
    guard = a_guard()
    for equity in ("1000", "1200", "1100"):
        observe(guard, equity)
    assert guard.drawdown(Decimal(960)) == Decimal("0.2")


def test_a_withdrawal_is_no_loss() -> None:
    """Taking out 30 % triggers nothing (F19)."""
    guard = a_guard()
    observe(guard, "1000")
    assert guard.on_flow(a_flow("-300", kind="withdrawal"), AT)
    assert observe(guard, "700")[1] is False


def test_a_deposit_does_not_hide_a_loss() -> None:
    """A deposit of 50 % and then the loss of 20 % of the new mark triggers (F19)."""
    guard = a_guard()
    observe(guard, "1000")
    guard.on_flow(a_flow("500"), AT)
    assert observe(guard, "1201")[1] is False
    assert observe(guard, "1200")[1] is True


def test_a_flow_counts_once_and_funding_is_a_result() -> None:
    """The same flow id twice moves the mark once; funding does not move it at all."""
    guard = a_guard()
    observe(guard, "1000")
    assert [guard.on_flow(a_flow("100"), AT) for _ in range(3)] == [True, False, False]
    assert guard.on_flow(a_flow("-50", 2, kind="funding", after=2), AT) is False
    assert guard.mark is not None
    assert guard.mark.high_water_mark == 1100


def test_flows_from_before_the_mark_are_in_it_already() -> None:
    """A deposit older than the first look does not count again."""
    guard = a_guard()
    observe(guard, "1000")
    assert guard.on_flow(a_flow("500", after=-60), AT) is False


def test_flows_of_the_same_moment_all_count_and_so_does_one_listed_late() -> None:
    """Two transfers in one millisecond, and an earlier one that the broker lists later, each move the mark."""
    guard = a_guard()
    observe(guard, "1000")
    counted = [guard.on_flow(a_flow("100", number, after=after), AT) for number, after in ((1, 9), (2, 9), (3, 5))]
    assert counted == [True, True, True]
    assert guard.mark is not None
    assert guard.mark.high_water_mark == 1300


def test_a_withdrawal_that_the_raised_mark_cannot_contain_counts() -> None:
    """A new high by prices alone, after the money left and before the broker's figure says so: no phantom drawdown."""
    guard = a_guard()
    observe(guard, "1000")
    later = AT + timedelta(seconds=10)
    guard.observe(Decimal(1010), Decimal(1000), later, AT, flows_in=AT + timedelta(seconds=5))
    assert guard.on_flow(a_flow("-505", kind="withdrawal", after=9), AT)
    assert observe(guard, "505", later)[:2] == (Decimal(0), False)


def test_a_restarted_mark_forgets_flows_that_its_equity_contains() -> None:
    """After an operator's resume drawdown is measured from there, older deposits included."""
    guard = a_guard()
    observe(guard, "1000")
    observe(guard, "700")
    assert guard.breaches(Decimal(700))
    guard.restart(Decimal(700), AT, flows_in=AT + timedelta(seconds=60))
    assert not guard.on_flow(a_flow("500", after=30), AT)
    assert observe(guard, "700")[1] is False


def test_the_day_begins_in_the_configured_zone() -> None:
    """The day's base is taken anew at midnight of the zone, not of UTC."""
    guard = a_guard(daily="0.05", zone="Asia/Jakarta")  # UTC+7: midnight is 17:00 UTC
    observe(guard, "1000", AT)
    assert observe(guard, "940", AT + timedelta(hours=4, minutes=59))[2] is True
    assert observe(guard, "940", AT + timedelta(hours=5))[2] is False


@pytest.mark.parametrize(
    ("zone", "midnight"),
    [
        pytest.param("Europe/London", datetime(2026, 3, 29, 0, tzinfo=UTC), id="the night the clocks go forward"),
        pytest.param("Europe/London", datetime(2026, 3, 29, 23, tzinfo=UTC), id="the night after, an hour earlier"),
        pytest.param("Europe/London", datetime(2026, 10, 24, 23, tzinfo=UTC), id="the night the clocks go back"),
        pytest.param("Europe/London", datetime(2026, 10, 26, 0, tzinfo=UTC), id="after a day of 25 hours"),
        pytest.param("America/New_York", datetime(2026, 3, 8, 5, tzinfo=UTC), id="New York, still on winter time"),
        pytest.param("America/New_York", datetime(2026, 3, 9, 4, tzinfo=UTC), id="New York, after a day of 23 hours"),
        pytest.param("UTC", datetime(2026, 3, 29, 0, tzinfo=UTC), id="UTC has no summer"),
    ],
)
def test_a_day_changes_at_midnight_also_when_the_clocks_do(zone: str, midnight: datetime) -> None:
    """One second before it the day's loss stands, at midnight a new day begins, whatever its length in hours."""
    guard = a_guard(daily="0.05", zone=zone)
    before = midnight - timedelta(seconds=1)
    observe(guard, "1000", before - timedelta(hours=2))
    assert observe(guard, "940", before)[2] is True
    assert observe(guard, "940", midnight)[2] is False
    assert observe(guard, "890", midnight + timedelta(hours=1))[2] is True


def test_a_spent_day_stays_spent() -> None:
    """Equity recovers within the day: no entries all the same until midnight; an operator's restart begins anew."""
    guard = a_guard(daily="0.05")
    observe(guard, "1000")
    assert observe(guard, "949", AT + timedelta(minutes=1))[2] is True
    assert observe(guard, "1010", AT + timedelta(minutes=2))[2] is True
    assert observe(guard, "1010", AT + timedelta(days=1))[2] is False
    assert observe(guard, "900", AT + timedelta(days=1, minutes=1))[2] is True
    guard.restart(Decimal(900), AT)
    assert observe(guard, "900", AT + timedelta(days=1, minutes=2))[2] is False


@pytest.mark.parametrize(
    ("base", "over"),
    [
        pytest.param("balance", False, id="balance 950: 4 % down"),
        pytest.param("equity", True, id="equity 1000: 8.8 % down"),
        pytest.param("larger", True, id="the larger of both"),
    ],
)
def test_the_days_base_is_the_chosen_one(base: str, over: bool) -> None:
    """The day begins with a floating profit of 50: what counts as the day's loss depends on the base."""
    limits = GuardLimits(
        max_drawdown=Decimal("0.5"), daily_loss=Decimal("0.05"), daily_base=DailyBase(base), zone=ZoneInfo("UTC")
    )
    guard = DrawdownGuard(ConnectionId("c01"), limits, None)
    guard.observe(Decimal(1000), Decimal(950), AT, AT)
    assert guard.observe(Decimal(912), Decimal(912), AT + timedelta(minutes=1), AT).day_over is over


@given(st.lists(st.decimals("1", "100000", places=2), min_size=1, max_size=50))
def test_drawdown_is_within_zero_and_one_and_measured_from_the_peak(path: list[Decimal]) -> None:
    """For any path of positive equity drawdown is (peak - equity) / peak."""
    guard = a_guard()
    peak = Decimal(0)
    for equity in path:
        verdict = guard.observe(equity, equity, AT, AT)
        peak = max(peak, equity)
        assert 0 <= verdict.drawdown < 1
        assert abs(verdict.drawdown - (peak - equity) / peak) <= Decimal("1e-10")

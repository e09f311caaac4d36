"""Closed trades, scores, provider metrics and history, over both runners and as properties."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from srm_agent.domain.ids import ProviderKey, ProviderKind
from srm_agent.store.metric_sums import Sums, TradeFacts, periods_of
from srm_agent.store.metrics import Metrics
from srm_agent.store.store import Store


async def test_a_closed_trade_counts_once(store: Store, a: Any, rows: Any) -> None:
    """Closing a leg writes the trade, its score and three metrics rows; repeating it changes nothing."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await store.journal.update([a.filled(), a.update(leg=a.closed_leg())])
    names = ("srm_closed_trades", "srm_provider_scores", "signal_provider_metrics", "execution_positions")
    await store.journal.close_trade(a.trade(), a.score())
    once = [await rows(name) for name in names]
    await store.journal.close_trade(a.trade(), a.score("10"))
    assert [await rows(name) for name in names] == once
    assert [len(found) for found in once] == [1, 1, 3, 1]
    assert await store.reads.latest_scores() == {a.alpha: a.score()}
    assert once[3][0]["pnl"] == Decimal("9.3")
    assert once[3][0]["pnl_percentage"] == Decimal("0.1851766122")
    (day,) = await store.reads.provider_metrics("daily")
    assert (day.total, day.winning, day.losing, day.win_rate) == (1, 1, 0, Decimal(100))
    assert (day.avg_slippage, day.max_slippage, day.avg_latency_ms) == (Decimal("0.2"), Decimal("0.2"), 85)
    assert (day.reward_to_risk, day.sl_compliance_rate) == (Decimal("1.5"), Decimal(100))
    assert (day.score, day.score_previous, day.trend) == (Decimal("63.25"), Decimal(50), "up")
    (week,), (month,) = await store.reads.provider_metrics("weekly"), await store.reads.provider_metrics("monthly")
    assert (week.period_start, month.period_start) == ("2026-01-05", "2026-01-01")


async def test_late_repeats_keep_the_net_result(store: Store, a: Any, rows: Any) -> None:
    """A repeated leg update after the trade was closed leaves the position's net result alone."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    closing = a.update(leg=a.closed_leg(realised_pnl=Decimal(11)))
    await store.journal.update([a.filled(), closing])
    await store.journal.close_trade(a.trade(), a.score())
    await store.journal.update([closing])
    assert [row["pnl"] for row in await rows("execution_positions")] == [Decimal("9.3")]


async def test_recent_measures_are_entries_oldest_first(store: Store, a: Any) -> None:
    """The last entries measured come back exactly, oldest first; a censored entry is kept."""
    censored = a.measure(
        filled_lot=Decimal(0), fill_price=None, slippage=None, slippage_pips=None, censored="MISSED_PRICE"
    )
    for name, measure in (("s1", a.measure()), ("s2", censored), ("s3", a.measure(lot=Decimal(3)))):
        await store.journal.record([a.decision(name)], [a.intent(name)], [a.leg(name)])
        await store.journal.update([a.update(client_id=a.intent(name).client_id, measure=measure)])
    assert list(await store.history.recent_measures(2)) == [censored, a.measure(lot=Decimal(3))]
    found = await store.reads.slippage()
    assert [(row.symbol, row.session, row.pips, row.censored) for row in found] == [
        ("EUR/USD", "LONDON", Decimal("0.2"), ""),
        ("EUR/USD", "LONDON", None, "MISSED_PRICE"),
        ("EUR/USD", "LONDON", Decimal("0.2"), ""),
    ]


numbers = st.decimals(-30, 30, places=4)


@settings(max_examples=30, deadline=None)
@given(
    trades=st.lists(
        st.tuples(st.integers(0, 40 * 24), numbers, st.booleans(), st.decimals(0, 100, places=2), st.booleans()),
        max_size=12,
    )
)
def test_incremental_metrics_equal_recomputation(raw: Any, a: Any, trades: list[Any]) -> None:
    """After any sequence of closes, in any market order, rebuilding every provider's metrics gives the same rows."""
    connection, tables = raw
    metrics = Metrics(tables)
    beta = ProviderKey(ProviderKind.USER, "beta")

    def snapshot() -> list[Any]:
        columns = [column for column in tables.metrics.c if column.name != "id"]
        keys = ("signal_provider_id", "period_type", "period_start")
        found = connection.execute(tables.metrics.select().with_only_columns(*columns)).mappings()
        return sorted((dict(row) for row in found), key=lambda row: tuple(str(row[key]) for key in keys))

    begun = connection.begin()
    try:
        for i, (hours, r, kept, shown, other) in enumerate(trades):
            provider = beta if other else a.alpha
            trade = a.trade(
                f"s{i}",
                provider=provider,
                r_multiple=r,
                net_pnl=r * 10,
                planned_risk=Decimal(10),
                stop_kept=kept,
                closed_at=a.start + timedelta(hours=hours),
            )
            assert metrics.close(connection, trade, replace(a.score(str(shown)), provider=provider), a.start)
        incremental = snapshot()
        assert metrics.rebuild(connection, a.start) == len(trades)
        assert snapshot() == incremental
        metrics.rebuild(connection, a.start, beta)
        assert snapshot() == incremental
    finally:
        begun.rollback()


def _facts(r: str, **changes: Any) -> TradeFacts:
    value = TradeFacts(
        r_multiple=Decimal(r), compliant=True, reward_to_risk=None, slippage=None, latency_ms=None, score=Decimal(60)
    )
    return replace(value, **changes)


def test_drawdown_of_the_r_curve() -> None:
    """From 100 up two R and down three, the deepest fall is 3/102 of the peak; a total loss is 100, not more."""
    sums = Sums()
    for r in ("2", "-1", "-2", "1"):
        sums = sums.add(_facts(r))
    assert sums.drawdown == Decimal(3) / 102 * 100
    assert sums.add(_facts("-200")).drawdown == 100


def test_zero_is_neither_win_nor_loss() -> None:
    """A trade that ends at exactly zero counts in the total only."""
    sums = Sums().add(_facts("0")).add(_facts("1"))
    assert (sums.total, sums.winning, sums.losing, sums.share(sums.winning)) == (2, 1, 0, Decimal(50))


@given(st.lists(numbers, max_size=20), st.decimals(-50, 50, places=10))
def test_sums_survive_their_text(values: list[Decimal], slippage: Decimal) -> None:
    """Sums written as text and read again are equal, so adding goes on exactly."""
    sums = Sums()
    for r in values:
        sums = sums.add(_facts(str(r), slippage=slippage, latency_ms=abs(slippage), reward_to_risk=slippage))
    assert Sums.parse(sums.to_text()) == sums


zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=zones))
def test_periods_contain_their_instant(instant: datetime) -> None:
    """Day, ISO week and month contain a close's date in UTC, whatever its zone; weeks start on Monday."""
    day, week, month = periods_of(instant)
    instant = instant.astimezone(UTC)
    assert day.start == day.end == instant.date()
    assert week.start.isoweekday() == 1
    assert (week.end - week.start).days == 6
    assert month.start.day == 1
    assert (month.end + timedelta(days=1)).day == 1
    assert all(period.start <= instant.date() <= period.end for period in (week, month))

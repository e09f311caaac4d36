"""Closed trades, scores, provider metrics and history through their ports, on every store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from srm_agent.domain.ids import ProviderKey, ProviderKind
from srm_agent.domain.orders import OrderPurpose, OrderState
from srm_agent.errors import StoreBroken
from srm_agent.ports import History
from srm_agent.store.records import ProviderMetrics
from tests.contract.store.conftest import KeptStore, Values

BETA = ProviderKey(ProviderKind.USER, "beta")


async def metrics(store: KeptStore, kind: str) -> list[ProviderMetrics]:
    """The rows of one kind of period."""
    return [row for row in await store.book.metrics() if row.period_type == kind]


async def traded(store: KeptStore, a: Values, name: str = "s1", **measured: Any) -> None:
    """An entry that was filled and measured."""
    await store.journal.record([a.decision(name)], [a.intent(name)], [a.leg(name)])
    await store.journal.update([a.update(client_id=a.intent(name).client_id, measure=a.measure(**measured))])


async def test_a_closed_trade_counts_once(store: KeptStore, a: Values) -> None:
    """Closing a leg writes the trade, its score and three metrics rows; the first call of a leg stands."""
    await traded(store, a)
    await store.journal.close_trade(a.trade(), a.score())
    await store.journal.close_trade(a.trade(net_pnl=Decimal(-5), r_multiple=Decimal(-1)), a.score("10"))
    assert list(await store.book.trades()) == [a.trade()]
    assert [(record.leg_id, record.score) for record in await store.book.scores()] == [(a.trade().leg_id, a.score())]
    (day,), (week,), (month,) = [await metrics(store, kind) for kind in ("daily", "weekly", "monthly")]
    assert (day.provider, day.total, day.winning, day.losing, day.win_rate) == (a.alpha, 1, 1, 0, Decimal(100))
    assert (day.avg_slippage, day.max_slippage, day.avg_latency_ms) == (Decimal("0.2"), Decimal("0.2"), 85)
    assert (day.reward_to_risk, day.sl_compliance_rate, day.max_drawdown) == (Decimal("1.5"), Decimal(100), Decimal(0))
    assert (day.score, day.score_previous, day.trend) == (Decimal("63.25"), Decimal(50), "up")
    assert (day.period_start, week.period_start, month.period_start) == ("2026-01-05", "2026-01-05", "2026-01-01")


async def test_a_trade_that_cannot_be_stored_leaves_nothing(store: KeptStore, a: Values) -> None:
    """Trade, score and metrics are one transaction; afterwards the same trade can be closed."""
    for trade, score in (
        (a.trade(net_pnl=Decimal("NaN")), a.score()),
        (a.trade(), a.score(mean=float("nan"))),
        (a.trade(), a.score("Infinity")),
    ):
        with pytest.raises(StoreBroken):
            await store.journal.close_trade(trade, score)
    assert (await store.book.trades(), await store.book.scores(), await store.book.metrics()) == ([], [], [])
    await store.journal.close_trade(a.trade(), a.score())
    assert len(await store.book.metrics()) == 3


async def test_unmeasured_costs_are_unknown_not_zero(store: KeptStore, a: Values) -> None:
    """A trade without a measured entry leaves slippage, latency and reward of its period unknown."""
    await store.journal.close_trade(a.trade(reward_to_risk=None), a.score())
    (day,) = await metrics(store, "daily")
    assert (day.avg_slippage, day.max_slippage, day.avg_latency_ms, day.reward_to_risk) == (None, None, None, None)


async def test_only_the_entry_is_measured_for_the_provider(store: KeptStore, a: Values) -> None:
    """What an exit cost is kept and does not count as the provider's slippage, nor as an entry for learning."""
    way_out = a.intent(leg="close:1", purpose=OrderPurpose.EXIT)
    await store.journal.record([a.decision()], [a.intent(), way_out], [a.leg()])
    await store.journal.update([a.update(client_id=way_out.client_id, measure=a.measure(slippage_pips=Decimal(99)))])
    await store.journal.close_trade(a.trade(), a.score())
    assert [row.avg_slippage for row in await metrics(store, "daily")] == [None]
    assert [record.purpose for record in await store.book.measures()] == [OrderPurpose.EXIT]
    assert await store.history.recent_measures(5) == []


async def test_a_measure_after_the_close_still_counts(store: KeptStore, a: Values) -> None:
    """An entry measured, or measured anew, after its trade had closed appears in its periods."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await store.journal.close_trade(a.trade(), a.score())
    for lot, pips in (("0.02", "0.2"), ("0.05", "0.4")):
        measure = a.measure(filled_lot=Decimal(lot), slippage_pips=Decimal(pips))
        await store.journal.update([a.update(OrderState.WORKING, measure=measure)])
        assert [row.avg_slippage for row in await store.book.metrics()] == [Decimal(pips)] * 3


async def test_periods_sum_their_trades(store: KeptStore, a: Values) -> None:
    """Trades of several days, weeks, months and providers count in their own periods, and a rebuild says the same."""
    plan = [
        ("s1", 0, "2", a.alpha, "60"),
        ("s2", 1, "-1.5", a.alpha, "55"),
        ("s3", 8, "-1", a.alpha, "40"),
        ("s4", 0, "0", BETA, "50.5"),
        ("s5", 40, "1", a.alpha, "41"),
        ("s6", 0, "-3", a.alpha, "39.75"),
    ]
    for name, days, r, provider, shown in plan:
        await traded(store, a, name, slippage_pips=None, slippage_bps=Decimal(len(name) + days) / 3)
        trade = a.trade(name, provider=provider, r_multiple=Decimal(r), net_pnl=Decimal(r) * 10,
                        planned_risk=Decimal(10), closed_at=a.start + timedelta(days=days))  # fmt: skip
        await store.journal.close_trade(trade, replace(a.score(shown), provider=provider))
    found = [(r.provider.id, r.period_type, r.period_start, r.total, r.winning, r.losing, r.trend)
             for r in await store.book.metrics()]  # fmt: skip
    assert found == [
        ("alpha", "daily", "2026-01-05", 2, 1, 1, "down"),
        ("alpha", "daily", "2026-01-06", 1, 0, 1, "down"),
        ("alpha", "daily", "2026-01-13", 1, 0, 1, "down"),
        ("alpha", "daily", "2026-02-14", 1, 1, 0, "up"),
        ("alpha", "monthly", "2026-01-01", 4, 1, 3, "down"),
        ("alpha", "monthly", "2026-02-01", 1, 1, 0, "up"),
        ("alpha", "weekly", "2026-01-05", 3, 1, 2, "down"),
        ("alpha", "weekly", "2026-01-12", 1, 0, 1, "down"),
        ("alpha", "weekly", "2026-02-09", 1, 1, 0, "up"),
        ("beta", "daily", "2026-01-05", 1, 0, 0, "stable"),
        ("beta", "monthly", "2026-01-01", 1, 0, 0, "stable"),
        ("beta", "weekly", "2026-01-05", 1, 0, 0, "stable"),
    ]
    month = next(r for r in await metrics(store, "monthly") if r.period_start == "2026-01-01")
    assert (month.max_drawdown, month.sl_compliance_rate) == (Decimal("5.3921568627"), Decimal(50))
    assert (month.avg_slippage, month.max_slippage) == (Decimal("1.4166666667"), Decimal("3.3333333333"))
    before = await store.book.metrics()
    assert await store.journal.rebuild_metrics() == len(plan)
    assert await store.book.metrics() == before


async def test_history_is_in_market_order(store: KeptStore, a: Values) -> None:
    """Closed trades come back exactly, by market close and then leg id, whatever order they were recorded in."""
    history: History = store.history
    trades = [a.trade(f"s{i}", closed_at=a.start + timedelta(minutes=m)) for i, m in enumerate((30, 10, 20, 10))]
    for trade in trades:
        await store.journal.close_trade(trade, a.score())
    assert list(await history.closed_trades()) == sorted(trades, key=lambda t: (t.closed_at, t.leg_id))
    assert list(await store.book.trades()) == trades


async def test_recent_measures_are_entries_oldest_first(store: KeptStore, a: Values) -> None:
    """The last entries measured come back exactly, oldest first; a censored one is kept, a new value keeps its row."""
    censored: dict[str, Any] = {
        "filled_lot": Decimal(0), "fill_price": None, "slippage": None, "slippage_pips": None,
        "censored": "MISSED_PRICE",
    }  # fmt: skip
    await traded(store, a, "s1", lot=Decimal(1))
    await traded(store, a, "s2", **censored)
    await traded(store, a, "s3", lot=Decimal(3))
    assert list(await store.history.recent_measures(2)) == [a.measure(**censored), a.measure(lot=Decimal(3))]
    await traded(store, a, "s2", lot=Decimal(2))
    assert [measure.lot for measure in await store.history.recent_measures(9)] == [Decimal(1), Decimal(2), Decimal(3)]
    assert await store.history.recent_measures(0) == []

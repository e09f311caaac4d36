"""Closed trades, measures, scores, and a provider's metrics per day, ISO week and month of the market close."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

from simulator.memory_store.exact import Columns, exact, instant, known, measured, real
from simulator.memory_store.tables import Period, Tables
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import LegId, ProviderKey
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.trades import ClosedTrade
from srm_agent.store.metric_sums import COMPLIANT_LOSS, UNSCORED, Sums, TradeFacts, periods_of
from srm_agent.store.records import MeasureRecord, ProviderMetrics

_TRADE = Columns[ClosedTrade](
    {
        "lot": exact,
        **dict.fromkeys(("entry_price", "exit_price", "net_pnl", "r_multiple", "planned_risk"), measured),
        **dict.fromkeys(("reward_to_risk", "stop_slippage"), known(measured)),
        **dict.fromkeys(("opened_at", "closed_at"), instant),
    }
)
_SCORE = Columns[ProviderScore](
    {
        **dict.fromkeys(("mean", "deviation", "platform_mean", "effective_trades", "prior_weight"), real),
        "shown": measured,
    }
)
_MEASURE = Columns[ExecutionMeasure](
    {
        **dict.fromkeys(("lot", "filled_lot", "signal_price", "touch_decided", "touch_sent"), exact),
        "touch_received": known(exact),
        "fees": measured,
        **dict.fromkeys(
            ("fill_price", "slippage", "slippage_pips", "slippage_bps", "slippage_money", "delay_cost",
             "implementation_shortfall", "latency_ms", "sent_ms", "acknowledged_ms"),
            known(measured),
        ),
    }
)  # fmt: skip


def put_measure(tables: Tables, intent: OrderIntent, measure: ExecutionMeasure) -> bool:
    """Insert, or replace where more has been filled since; False when nothing changed."""
    found = tables.measures.get(intent.client_id)
    if found is not None and measure.filled_lot <= found.measure.filled_lot:
        return False
    stored = _MEASURE.stored(measure)
    if found is not None:
        tables.measures.put(intent.client_id, replace(found, measure=stored))
        return True
    record = MeasureRecord(client_id=intent.client_id, leg_id=intent.leg_id, purpose=intent.purpose, measure=stored)
    tables.measures.put(intent.client_id, record)
    if intent.leg_id is not None and intent.purpose is OrderPurpose.ENTRY:
        tables.entry_measures.put(intent.leg_id, intent.client_id)
    return True


def close_trade(tables: Tables, trade: ClosedTrade, score: ProviderScore) -> None:
    """Record a closed trade with its score and add it to its periods; the first call of a leg stands."""
    if trade.leg_id in tables.trades:
        return
    stored, last = _TRADE.stored(trade), _last_score(tables, trade.provider)
    low, high = score.interval
    kept = replace(_SCORE.stored(score), provider=trade.provider, interval=(measured(low), measured(high)))
    tables.trades.put(trade.leg_id, stored)
    tables.scores.put(trade.leg_id, kept)
    tables.last_scores.put(trade.provider, trade.leg_id)
    _add(tables, stored, kept.shown, UNSCORED if last is None else last)


def _last_score(tables: Tables, provider: ProviderKey) -> Decimal | None:
    leg_id = tables.last_scores.get(provider)
    score = None if leg_id is None else tables.scores.get(leg_id)
    return None if score is None else score.shown


def _add(tables: Tables, trade: ClosedTrade, shown: Decimal, before: Decimal) -> None:
    facts = _facts(tables, trade, shown)
    for period in periods_of(trade.closed_at):
        key = (trade.provider, period.kind, period.start.isoformat())
        sums = tables.sums.get(key) or Sums(score_before=before)
        tables.sums.put(key, sums.add(facts))


def _facts(tables: Tables, trade: ClosedTrade, shown: Decimal) -> TradeFacts:
    client_id = tables.entry_measures.get(trade.leg_id)
    found = None if client_id is None else tables.measures.get(client_id)
    entry = None if found is None else found.measure
    slippage = None
    if entry is not None:
        slippage = entry.slippage_bps if entry.slippage_pips is None else entry.slippage_pips
    return TradeFacts(
        r_multiple=trade.r_multiple,
        compliant=trade.stop_kept and trade.net_pnl >= -COMPLIANT_LOSS * trade.planned_risk,
        reward_to_risk=trade.reward_to_risk,
        slippage=slippage,
        latency_ms=None if entry is None else entry.latency_ms,
        score=shown,
    )


def remeasured(tables: Tables, leg_id: LegId | None) -> None:
    """An entry was measured (again) after its trade had closed: the provider's metrics are rebuilt."""
    trade = None if leg_id is None else tables.trades.get(leg_id)
    if trade is not None:
        rebuild(tables, trade.provider)


def rebuild(tables: Tables, provider: ProviderKey | None = None) -> int:
    """Recompute from the recorded trades, of one provider or all; how many trades these were."""
    for key in tables.sums.keys():  # noqa: SIM118
        if provider in (None, key[0]):
            tables.sums.drop(key)
    last: dict[ProviderKey, Decimal] = {}
    count = 0
    for leg_id, trade in tables.trades.items():
        score = tables.scores.get(leg_id)
        if score is None or provider not in (None, trade.provider):
            continue
        _add(tables, trade, score.shown, last.get(trade.provider, UNSCORED))
        last[trade.provider] = score.shown
        count += 1
    return count


def metrics_of(period: Period, sums: Sums) -> ProviderMetrics:
    """A row of `signal_provider_metrics`, rounded as its columns round."""
    provider, kind, start = period
    latency = sums.latency_sum / sums.latency_count if sums.latency_count else None
    return ProviderMetrics(
        provider=provider,
        period_type=kind,
        period_start=start,
        total=sums.total,
        winning=sums.winning,
        losing=sums.losing,
        win_rate=measured(sums.share(sums.winning)),
        avg_slippage=measured(sums.slippage_sum / sums.slippage_count) if sums.slippage_count else None,
        max_slippage=None if sums.slippage_worst is None else measured(sums.slippage_worst),
        avg_latency_ms=None if latency is None else int(latency.to_integral_value(ROUND_HALF_UP)),
        max_drawdown=measured(sums.drawdown),
        reward_to_risk=measured(sums.ratio_sum / sums.ratio_count) if sums.ratio_count else None,
        sl_compliance_rate=measured(sums.share(sums.compliant)),
        score=measured(sums.score),
        score_previous=measured(sums.score_before),
        trend=sums.trend,
    )

"""Flat domain values as table rows and back, exactly."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import RowMapping

from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.domain.orders import Fill, FillKind, OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.trades import ClosedTrade, CloseReason, Leg, LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.ports import JournalRow
from srm_agent.store.records import FillRecord, ProviderMetrics
from srm_agent.store.statements import Values

INTENT_FIELDS = (
    "client_id", "connection_id", "leg_id", "signal_id", "decision_id", "symbol", "lot", "limit_price", "stop_loss",
    "take_profit", "reduce", "reason", "created_at", "deadline", "fence", "target",
)  # fmt: skip
FILL_FIELDS = (
    "fill_id", "client_id", "broker_order_id", "symbol", "lot", "price", "fee", "fee_currency", "received",
)  # fmt: skip
LEG_FIELDS = (
    "leg_id", "connection_id", "signal_id", "decision_id", "symbol", "lot", "closed_lot", "entry_price", "exit_value",
    "fees", "realised_pnl", "planned_stop", "stop_loss", "take_profit", "planned_risk", "opened_at", "closed_at",
    "stop_kept",
)  # fmt: skip
MEASURE_FIELDS = (
    "connection_id", "venue", "symbol", "lot", "filled_lot", "signal_price", "touch_received", "touch_decided",
    "touch_sent", "fill_price", "slippage", "slippage_pips", "slippage_bps", "slippage_money", "delay_cost",
    "implementation_shortfall", "fees", "latency_ms", "censored", "sent_ms",
    "acknowledged_ms",
)  # fmt: skip
TRADE_FIELDS = (
    "leg_id", "connection_id", "signal_id", "symbol", "lot", "entry_price", "exit_price", "net_pnl", "r_multiple",
    "planned_risk", "reward_to_risk", "stop_kept", "stop_slippage", "opened_at", "closed_at",
)  # fmt: skip
SCORE_FIELDS = (
    "mean", "deviation", "platform_mean", "shown", "trades", "effective_trades", "prior_weight", "sufficient",
    "version",
)  # fmt: skip


def _fields(value: object, names: tuple[str, ...]) -> dict[str, object]:
    return {name: getattr(value, name) for name in names}


def intent_row(intent: OrderIntent) -> dict[str, object]:
    """A journal row in its first state."""
    return _fields(intent, INTENT_FIELDS) | {
        "purpose": intent.purpose.value,
        "side": int(intent.side),
        "requests": json.dumps(intent.requests) if intent.requests else None,
        "state": OrderState.INTENT.value,
        "filled_lot": ZERO,
        "code": "",
        "detail": "",
        "absences": 0,
        "updated_at": intent.created_at,
    }


def journal_row(row: RowMapping) -> JournalRow:
    """The inverse of `intent_row`, with what became of it."""
    intent = OrderIntent(
        purpose=OrderPurpose(row["purpose"]),
        side=Side(row["side"]),
        requests=tuple(json.loads(row["requests"])) if row["requests"] else (),
        **{name: row[name] for name in INTENT_FIELDS},
    )
    return JournalRow(
        intent=intent,
        state=OrderState(row["state"]),
        filled_lot=row["filled_lot"],
        average_price=row["average_price"],
        broker_order_id=row["broker_order_id"],
        code=row["code"],
        absences=row["absences"],
        updated_at=row["updated_at"],
    )


def fill_row(connection: ConnectionId, fill: Fill, leg_id: str | None, recorded_at: datetime) -> dict[str, object]:
    """One execution of one connection."""
    return _fields(fill, FILL_FIELDS) | {
        "connection_id": connection,
        "leg_id": leg_id,
        "side": int(fill.side),
        "kind": fill.kind.value,
        "market_at": fill.at,
        "recorded_at": recorded_at,
    }


def leg_row(leg: Leg) -> dict[str, object]:
    """A leg without its stamps."""
    return _fields(leg, LEG_FIELDS) | {
        "provider": str(leg.provider),
        "side": int(leg.side),
        "state": leg.state.value,
        "close_reason": leg.close_reason.value if leg.close_reason else None,
        "closing_as": leg.closing_as.value if leg.closing_as else None,
    }


def leg_of(row: RowMapping) -> Leg:
    """The inverse of `leg_row`."""
    return Leg(
        provider=ProviderKey.parse(row["provider"]),
        side=Side(row["side"]),
        state=LegState(row["state"]),
        close_reason=CloseReason(row["close_reason"]) if row["close_reason"] else None,
        closing_as=CloseReason(row["closing_as"]) if row["closing_as"] else None,
        **{name: row[name] for name in LEG_FIELDS},
    )


def measure_row(measure: ExecutionMeasure) -> dict[str, object]:
    """A measure without the order it belongs to."""
    return _fields(measure, MEASURE_FIELDS) | {"provider": str(measure.provider), "side": int(measure.side)}


def measure_of(row: RowMapping) -> ExecutionMeasure:
    """The inverse of `measure_row`."""
    return ExecutionMeasure(
        provider=ProviderKey.parse(row["provider"]),
        side=Side(row["side"]),
        **{name: row[name] for name in MEASURE_FIELDS},
    )


def trade_row(trade: ClosedTrade) -> dict[str, object]:
    """A closed trade without its stamp."""
    return _fields(trade, TRADE_FIELDS) | {
        "provider": str(trade.provider),
        "side": int(trade.side),
        "close_reason": trade.close_reason.value,
    }


def trade_of(row: RowMapping) -> ClosedTrade:
    """The inverse of `trade_row`."""
    return ClosedTrade(
        provider=ProviderKey.parse(row["provider"]),
        side=Side(row["side"]),
        close_reason=CloseReason(row["close_reason"]),
        **{name: row[name] for name in TRADE_FIELDS},
    )


def score_row(score: ProviderScore) -> Values:
    """A score without the trade that led to it."""
    return _fields(score, SCORE_FIELDS) | {
        "provider": str(score.provider),
        "interval_low": score.interval[0],
        "interval_high": score.interval[1],
    }


def score_of(row: RowMapping) -> ProviderScore:
    """The inverse of `score_row`."""
    return ProviderScore(
        provider=ProviderKey.parse(row["provider"]),
        interval=(row["interval_low"], row["interval_high"]),
        **{name: row[name] for name in SCORE_FIELDS},
    )


def metrics_of(row: RowMapping) -> ProviderMetrics:
    """A row of `signal_provider_metrics`."""
    return ProviderMetrics(
        provider=ProviderKey.parse(f"{row['signal_provider_type']}:{row['signal_provider_id']}"),
        period_type=row["period_type"],
        period_start=row["period_start"].isoformat(),
        total=row["total_signals"],
        winning=row["winning_signals"],
        losing=row["losing_signals"],
        win_rate=row["win_rate"],
        avg_slippage=row["avg_slippage"],
        max_slippage=row["max_slippage"],
        avg_latency_ms=row["avg_latency_ms"],
        max_drawdown=row["max_drawdown"],
        reward_to_risk=row["reward_to_risk_ratio"],
        sl_compliance_rate=row["sl_compliance_rate"],
        score=row["performance_score"],
        score_previous=row["performance_score_previous"],
        trend=row["score_trend"],
    )


def fill_of(row: RowMapping) -> FillRecord:
    """The inverse of `fill_row`."""
    fill = Fill(
        side=Side(row["side"]),
        kind=FillKind(row["kind"]),
        at=row["market_at"],
        **{name: row[name] for name in FILL_FIELDS},
    )
    return FillRecord(connection_id=row["connection_id"], fill=fill, leg_id=row["leg_id"])

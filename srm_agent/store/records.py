"""Rows as people and auditors read them, free of SQL: the in-memory store of the simulation answers in them too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from srm_agent.domain.accounts import CashFlow
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, ProviderKey
from srm_agent.domain.orders import Fill, OrderPurpose
from srm_agent.domain.signals import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class EquityMark:
    """One point of a connection's equity curve; drawdown is a fraction."""

    connection_id: ConnectionId
    at: datetime
    equity: Decimal
    balance: Decimal
    drawdown: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """Who did what to a halt."""

    at: datetime
    operator: str
    action: str
    scope: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMetrics:
    """A row of `signal_provider_metrics`; rates and drawdown in percent, None = unknown."""

    provider: ProviderKey
    period_type: str
    period_start: str
    total: int
    winning: int
    losing: int
    win_rate: Decimal
    avg_slippage: Decimal | None
    max_slippage: Decimal | None
    avg_latency_ms: int | None
    max_drawdown: Decimal
    reward_to_risk: Decimal | None
    sl_compliance_rate: Decimal
    score: Decimal
    score_previous: Decimal
    trend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """An accepted message; `finished_at` is None until every follower's decision on it is committed (INV-3)."""

    signal: Signal
    body_sha256: str
    answer: str
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRecord:
    """An execution with the leg it belongs to, None where that is not known."""

    connection_id: ConnectionId
    fill: Fill
    leg_id: LegId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRecord:
    """What an order cost, with the order."""

    client_id: ClientOrderId
    leg_id: LegId | None
    purpose: OrderPurpose
    measure: ExecutionMeasure


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecord:
    """The score that a closed trade led to."""

    leg_id: LegId
    score: ProviderScore


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord:
    """A cash flow of a connection."""

    connection_id: ConnectionId
    flow: CashFlow


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """Who writes for a connection; the owner is empty after a release. The fencing token only grows (INV-17)."""

    connection_id: ConnectionId
    owner: str
    fence: int
    expires_at: datetime

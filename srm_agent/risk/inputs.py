"""Everything a decision may look at. What is not here cannot influence it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, Equity
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.forecasts import ProviderScore, SlippageForecast
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import MarketContext, Quote
from srm_agent.domain.policies import CopySettings, PolicyInForce
from srm_agent.domain.signals import OpenSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What the connection already carries, money in account currency; in-flight and UNKNOWN count as filled."""

    legs: int
    """Open or opening legs of ours."""
    symbol_busy: bool
    """A leg of this symbol exists (decides on netting venues only)."""
    open_risk: Decimal
    """Money at the stops of all legs."""
    symbol_notional: Decimal
    total_notional: Decimal
    margin_reserved: Decimal
    """Margin of what is in flight and not yet in the broker's own figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionInputs:
    """One signal, one connection, one moment. None means unknown."""

    signal: OpenSignal
    connection_id: ConnectionId
    now: datetime
    """Wall clock."""
    now_monotonic: float
    instrument: Instrument | None
    quote: Quote | None
    context: MarketContext | None
    forecast: SlippageForecast | None
    score: ProviderScore
    equity: Equity | None
    account: AccountSnapshot | None
    conversion: Decimal | None
    """Account currency per unit of settle currency."""
    exposure: Exposure
    state: ConnectionState
    halted_by: ReasonCode | None
    """AGENT_HALTED, PROVIDER_HALTED or SYMBOL_HALTED."""
    drawdown: Decimal | None
    """Fraction, 0-1."""
    losses_in_a_row: int | None
    """Closed trades of this connection lost since its last win."""
    daily_loss_reached: bool
    duplicate: bool
    closed_before_open: bool
    score_was_rejected: bool
    """This provider's last signal was refused for its score: it must reach `readmit_above` (hysteresis)."""
    netting: bool
    copy: CopySettings
    policy: PolicyInForce
    model_versions: Mapping[str, str]

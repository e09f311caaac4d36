"""What learning tells a decision: a slippage forecast and a provider's score."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from srm_agent.domain.ids import ConnectionId, ProviderKey, Symbol
from srm_agent.domain.market import MarketContext
from srm_agent.domain.units import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastRequest:
    """What a slippage forecast may look at, all known before sending."""

    symbol: Symbol
    side: Side
    venue: str
    context: MarketContext
    pip_size: Decimal | None
    tick_size: Decimal
    latency_s: float | None
    """Smoothed received-to-filled latency of this venue, None before the first fill."""
    queue_lot: Decimal
    """Volume this platform has already sent for this signal at this venue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlippageForecast:
    """Expected and upper (90 %) slippage in price units, positive = worse; entry and stop exit apart."""

    entry_mean: Decimal
    entry_upper: Decimal
    stop_mean: Decimal
    stop_upper: Decimal
    provenance: str
    """Which rung of the ladder spoke: `scale_prior`, ..."""
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderScore:
    """Posterior of a provider's expectancy in R per trade, net of copying costs.

    `mean`, `deviation` steer decisions; `shown` = 100 x P(expectancy > 0) is for people, with its interval.
    """

    provider: ProviderKey
    mean: float
    deviation: float
    platform_mean: float
    shown: Decimal
    interval: tuple[Decimal, Decimal]
    """Shown score at the ends of a 90 % posterior interval of the mean."""
    trades: int
    effective_trades: float
    prior_weight: float
    """Share of the posterior mean that comes from peers, 0-1."""
    sufficient: bool
    version: str

    @property
    def probability_positive(self) -> Decimal:
        """P(expectancy > 0), 0-1."""
        return self.shown / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionMeasure:
    """What an entry or stop really cost, for learning: everything is kept, nothing clipped or dropped.

    Touches in price units; slippage price units positive worse; None where not measurable (nothing filled: censored).
    """

    connection_id: ConnectionId
    venue: str
    symbol: Symbol
    provider: ProviderKey
    side: Side
    lot: Decimal
    filled_lot: Decimal
    signal_price: Decimal
    touch_received: Decimal | None
    touch_decided: Decimal
    touch_sent: Decimal
    fill_price: Decimal | None
    slippage: Decimal | None
    slippage_pips: Decimal | None
    slippage_bps: Decimal | None
    slippage_money: Decimal | None
    delay_cost: Decimal | None
    implementation_shortfall: Decimal | None
    fees: Decimal
    latency_ms: Decimal | None
    """received -> filled."""
    censored: str
    """Empty, or why there is no fill (`MISSED_PRICE`)."""
    sent_ms: Decimal | None = None
    """received -> sent."""
    acknowledged_ms: Decimal | None = None
    """received -> the broker's first word about it."""

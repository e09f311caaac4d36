"""The scale prior."""

import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srm_agent.domain.forecasts import ExecutionMeasure, ForecastRequest
from srm_agent.domain.ids import ConnectionId, ProviderKey, ProviderKind, Symbol
from srm_agent.domain.market import MarketContext, TradingSession
from srm_agent.domain.units import Side
from srm_agent.learning.slippage_prior import ScalePriorForecaster
from srm_agent.ports import Forecaster


def a_request(
    *,
    spread: str = "0.0001",
    pace: str | None = "0.00002",
    latency_s: float | None = 0.25,
    pip: str | None = "0.0001",
    tick: str = "0.00001",
) -> ForecastRequest:
    """EURUSD with a spread of one pip and a pace of 0.2 pip per root second."""
    return ForecastRequest(
        symbol=Symbol("EURUSD"),
        side=Side.BUY,
        venue="bybit",
        context=MarketContext(
            symbol=Symbol("EURUSD"),
            at=datetime(2026, 3, 4, 12, tzinfo=UTC),
            session=TradingSession.LONDON,
            iso_weekday=3,
            spread=Decimal(spread),
            spread_median=None,
            atr=None,
            atr_period=14,
            atr_timeframe_s=900,
            volatility_index=None,
            volatility_per_root_second=None if pace is None else Decimal(pace),
        ),
        pip_size=None if pip is None else Decimal(pip),
        tick_size=Decimal(tick),
        latency_s=latency_s,
        queue_lot=Decimal(0),
    )


def a_measure(latency_ms: str | None, venue: str = "bybit") -> ExecutionMeasure:
    """A fill of which only the latency matters here."""
    price = Decimal("1.1")
    return ExecutionMeasure(
        connection_id=ConnectionId("c"),
        venue=venue,
        symbol=Symbol("EURUSD"),
        provider=ProviderKey(ProviderKind.CHANNEL_SOURCE, "alpha"),
        side=Side.BUY,
        lot=Decimal(1),
        filled_lot=Decimal(1),
        signal_price=price,
        touch_received=None,
        touch_decided=price,
        touch_sent=price,
        fill_price=price,
        slippage=Decimal(0),
        slippage_pips=None,
        slippage_bps=None,
        slippage_money=None,
        delay_cost=None,
        implementation_shortfall=None,
        fees=Decimal(0),
        latency_ms=None if latency_ms is None else Decimal(latency_ms),
        censored="",
    )


def test_scale_by_hand() -> None:
    """Half a pip of spread + 0.2 pip x sqrt(0.25 s) + 0.05 pip = 0.65 pip; mean 0.6, bound 2.5 times that."""
    forecaster: Forecaster = ScalePriorForecaster()
    forecast = forecaster.forecast(a_request())
    assert forecast.entry_mean == forecast.stop_mean == Decimal("0.000039")
    assert forecast.entry_upper == forecast.stop_upper == Decimal("0.0001625")
    assert forecast.provenance == "scale_prior"
    assert forecast.version.startswith("scale_prior@")


def test_without_a_pip_the_floor_is_half_a_tick() -> None:
    """Crypto has no pip: 0.5 tick stands in for 0.05 pip."""
    forecast = ScalePriorForecaster().forecast(a_request(pip=None, tick="0.1", spread="0.2", pace="0", latency_s=1.0))
    assert forecast.entry_mean == Decimal("0.6") * Decimal("0.15")


def test_unknown_pace_is_said_and_cautious() -> None:
    """Without volatility the forecast comes from the spread alone, three times as wide, and says so."""
    forecast = ScalePriorForecaster().forecast(a_request(pace=None))
    assert forecast.provenance == "scale_prior:volatility_unknown"
    assert forecast.entry_mean == Decimal("0.6") * (Decimal("0.00015") + Decimal("0.000005"))


def test_latency_comes_from_the_request_then_the_venue_then_caution() -> None:
    """A venue's smoothed latency is used where the request has none; before the first fill it is assumed and said."""
    forecaster = ScalePriorForecaster()
    unknown = forecaster.forecast(a_request(latency_s=None))
    assert unknown.provenance == "scale_prior:latency_unknown"
    forecaster.observe(a_measure("1000"))
    forecaster.observe(a_measure("2000"))
    forecaster.observe(a_measure(None))
    assert forecaster.latency_s("bybit") == pytest.approx(1.1)
    assert forecaster.latency_s("elsewhere") is None
    assert forecaster.forecast(a_request(latency_s=None)) == forecaster.forecast(a_request(latency_s=1.1))
    assert forecaster.forecast(a_request(latency_s=0.25)).entry_mean < unknown.entry_mean


@pytest.mark.parametrize("latency", [math.nan, math.inf, -1.0, 1e300])
def test_an_impossible_latency_is_not_believed(latency: float) -> None:
    """NaN, infinite and negative latencies count as unknown, endless ones as a minute."""
    forecast = ScalePriorForecaster().forecast(a_request(latency_s=latency))
    assert Decimal(0) < forecast.entry_upper < Decimal("0.01")


finite = st.decimals(Decimal("1e-9"), Decimal(10**6), places=9)


@given(finite, st.none() | finite, st.none() | st.floats(0, 100), st.none() | finite, finite)
def test_every_forecast_is_positive_and_ordered(
    spread: Decimal, pace: Decimal | None, latency: float | None, pip: Decimal | None, tick: Decimal
) -> None:
    """For all inputs the bound is at least the mean and both are non-negative; a wider spread never costs less."""
    forecaster = ScalePriorForecaster()

    def forecast_at(width: Decimal) -> tuple[Decimal, Decimal]:
        forecast = forecaster.forecast(
            a_request(
                spread=str(width),
                pace=None if pace is None else str(pace),
                latency_s=latency,
                pip=None if pip is None else str(pip),
                tick=str(tick),
            )
        )
        return forecast.entry_mean, forecast.entry_upper

    mean, upper = forecast_at(spread)
    assert 0 <= mean <= upper
    assert forecast_at(spread * 2) >= (mean, upper)

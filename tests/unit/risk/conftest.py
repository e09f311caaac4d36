"""An ordinary signal at an ordinary moment: every gate is open."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, Equity
from srm_agent.domain.forecasts import ProviderScore, SlippageForecast
from srm_agent.domain.ids import ConnectionId, ProviderKey, ProviderKind, SignalId, Symbol
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.domain.market import MarketContext, Quote, TradingSession
from srm_agent.domain.policies import (
    BrakePolicy,
    BufferPolicy,
    CopySettings,
    Evidence,
    FilterPolicy,
    LadderPolicy,
    LimitPolicy,
    MissingStop,
    Policy,
    PolicyInForce,
    ScorePolicy,
    SizeMode,
)
from srm_agent.domain.signals import OpenSignal, Receipt
from srm_agent.domain.units import InAtr, InPips, Side
from srm_agent.risk.inputs import DecisionInputs, Exposure

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
SYMBOL = Symbol("EURUSD")
PROVIDER = ProviderKey(ProviderKind.CHANNEL_SOURCE, "alpha")


@pytest.fixture
def policy() -> Policy:
    """Gates in pips, buffer 1-3 pips, 2 % risk ceiling."""
    return Policy(
        name="demo",
        filter=FilterPolicy(
            signal_ttl_s=Decimal(30),
            quote_max_age_s=Decimal(3),
            max_entry_drift=InPips(Decimal(5)),
            max_expected_slippage=InPips(Decimal(2)),
            max_spread=InPips(Decimal(3)),
            missing_stop=MissingStop.REFUSE,
            preset_stop=None,
            min_stop=InAtr(Decimal("0.2")),
            max_stop=InPips(Decimal(500)),
            max_positions=5,
            duplicate_window_s=Decimal(60),
        ),
        buffer=BufferPolicy(
            minimum=InPips(Decimal(1)),
            maximum=InPips(Decimal(3)),
            max_share=Decimal("0.15"),
            calm_is_zero=False,
            spread_share=Decimal("0.8"),
        ),
        score=ScorePolicy(
            evidence=Evidence.ASSUMED,
            reject_below=Decimal("0.2"),
            readmit_above=Decimal("0.3"),
            slope=Decimal(6),
            caution=Decimal("0.5"),
            floor=Decimal("0.3"),
            max_up=Decimal(1),
        ),
        ladder=LadderPolicy(start=Decimal("0.08"), stop=Decimal("0.2"), floor=Decimal("0.25")),
        brake=BrakePolicy(free_losses=3, step=Decimal("0.1"), floor=Decimal("0.5"), days=5),
        limits=LimitPolicy(
            max_risk=Decimal("0.02"),
            max_open_risk=Decimal("0.06"),
            max_symbol_notional=None,
            max_total_notional=Decimal(20),
            max_margin_use=Decimal("0.5"),
            max_slippage=InPips(Decimal(3)),
        ),
    )


@pytest.fixture
def inputs(policy: Policy) -> DecisionInputs:
    """Buy EURUSD at 1.1001, stop 1.0981 (20 pips), 10,000 USD, 1 % risk: 0.5 lots before any factor."""
    return DecisionInputs(
        signal=OpenSignal(
            signal_id=SignalId("channel_source:alpha/1"),
            provider=PROVIDER,
            symbol=SYMBOL,
            side=Side.BUY,
            signal_price=Decimal("1.1000"),
            stop_loss=Decimal("1.0981"),
            take_profit=Decimal("1.1041"),
            provider_lot=None,
            receipt=Receipt(message_id="m1", received_at=NOW, received=1000.0, issued_at=NOW - timedelta(seconds=1)),
        ),
        connection_id=ConnectionId("c01"),
        now=NOW + timedelta(seconds=1),
        now_monotonic=1001.0,
        instrument=Instrument(
            symbol=SYMBOL,
            asset_class=AssetClass.FX,
            base_currency="EUR",
            quote_currency="USD",
            settle_currency="USD",
            tick_size=Decimal("0.00001"),
            pip_size=Decimal("0.0001"),
            lot_min=Decimal("0.01"),
            lot_max=Decimal(50),
            lot_step=Decimal("0.01"),
            contract_size=Decimal(100000),
            max_leverage=Decimal(100),
        ),
        quote=Quote(symbol=SYMBOL, bid=Decimal("1.1000"), ask=Decimal("1.1001"), at=NOW, received=1000.5),
        context=MarketContext(
            symbol=SYMBOL,
            at=NOW,
            session=TradingSession.LONDON,
            iso_weekday=3,
            spread=Decimal("0.0001"),
            spread_median=Decimal("0.0001"),
            atr=Decimal("0.0010"),
            atr_period=14,
            atr_timeframe_s=900,
            volatility_index=Decimal(60),
            volatility_per_root_second=Decimal("0.00002"),
        ),
        forecast=SlippageForecast(
            entry_mean=Decimal("0.00004"),
            entry_upper=Decimal("0.0002"),
            stop_mean=Decimal("0.00006"),
            stop_upper=Decimal("0.0002"),
            provenance="scale_prior",
            version="1",
        ),
        score=ProviderScore(
            provider=PROVIDER,
            mean=0.1,
            deviation=0.1,
            platform_mean=0.0,
            shown=Decimal("84.13"),
            interval=(Decimal(25), Decimal(99)),
            trades=40,
            effective_trades=35.0,
            prior_weight=0.4,
            sufficient=True,
            version="1",
        ),
        equity=Equity(value=Decimal(10000), complete=True, age_s=0.5),
        account=AccountSnapshot(
            currency="USD",
            balance=Decimal(10000),
            equity=Decimal(10000),
            margin_used=Decimal(0),
            margin_free=Decimal(10000),
            at=NOW,
            received=1000.0,
        ),
        conversion=Decimal(1),
        exposure=Exposure(
            legs=0,
            symbol_busy=False,
            open_risk=Decimal(0),
            symbol_notional=Decimal(0),
            total_notional=Decimal(0),
            margin_reserved=Decimal(0),
        ),
        state=ConnectionState.ACTIVE,
        halted_by=None,
        drawdown=Decimal("0.02"),
        losses_in_a_row=0,
        daily_loss_reached=False,
        duplicate=False,
        closed_before_open=False,
        score_was_rejected=False,
        netting=True,
        copy=CopySettings(
            size_mode=SizeMode.RISK_PERCENT,
            risk_per_trade=Decimal("0.01"),
            fixed_lot=None,
            risk_multiplier=Decimal(1),
            max_lot=None,
            max_positions=None,
        ),
        policy=PolicyInForce(policy),
        model_versions={"score": "1", "slippage": "1"},
    )

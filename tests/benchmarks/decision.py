"""An ordinary decision, and the bare arithmetic of its rules as reference."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, Equity
from srm_agent.domain.forecasts import ProviderScore, SlippageForecast
from srm_agent.domain.ids import ConnectionId, ProviderKey, ProviderKind, SignalId, Symbol
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.domain.market import MarketContext, Quote, TradingSession
from srm_agent.domain.policies import CopySettings, PolicyInForce, SizeMode
from srm_agent.domain.signals import OpenSignal, Receipt
from srm_agent.domain.units import ONE, ZERO, Side
from srm_agent.risk.inputs import DecisionInputs, Exposure
from srm_agent.risk.pipeline import decide
from srm_agent.settings import load

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
SYMBOL = Symbol("EUR/USDT:USDT")
PROVIDER = ProviderKey(ProviderKind.CHANNEL_SOURCE, "alpha")
DEMO = Path(__file__).resolve().parents[2] / "config" / "demo.toml"


def _inputs() -> DecisionInputs:
    policy = load(DEMO).policies.of(AssetClass.FX).domain("fx")
    signal = OpenSignal(
        signal_id=SignalId("channel_source:alpha/1"), provider=PROVIDER, symbol=SYMBOL, side=Side.BUY,
        signal_price=Decimal("1.10000"), stop_loss=Decimal("1.09800"), take_profit=Decimal("1.10400"),
        provider_lot=None,
        receipt=Receipt(message_id="m", received_at=NOW, received=100.0, issued_at=NOW - timedelta(seconds=1)),
    )  # fmt: skip
    instrument = Instrument(
        symbol=SYMBOL, asset_class=AssetClass.FX, base_currency="EUR", quote_currency="USDT", settle_currency="USDT",
        tick_size=Decimal("0.00001"), pip_size=Decimal("0.0001"), lot_min=Decimal(1), lot_max=Decimal(10**7),
        lot_step=Decimal(1), contract_size=ONE, max_leverage=Decimal(100),
    )  # fmt: skip
    context = MarketContext(
        symbol=SYMBOL, at=NOW, session=TradingSession.LONDON, iso_weekday=3, spread=Decimal("0.00006"),
        spread_median=Decimal("0.00005"), atr=Decimal("0.0008"), atr_period=14, atr_timeframe_s=900,
        volatility_index=Decimal(50), volatility_per_root_second=Decimal("0.00001"),
    )  # fmt: skip
    score = ProviderScore(
        provider=PROVIDER, mean=0.02, deviation=0.08, platform_mean=0.0, shown=Decimal(60),
        interval=(Decimal(20), Decimal(90)), trades=12, effective_trades=11.0, prior_weight=0.7, sufficient=True,
        version="bench",
    )  # fmt: skip
    return DecisionInputs(
        signal=signal, connection_id=ConnectionId("c1"), now=NOW, now_monotonic=100.2, instrument=instrument,
        quote=Quote(symbol=SYMBOL, bid=Decimal("1.09998"), ask=Decimal("1.10004"), at=NOW, received=100.1),
        context=context,
        forecast=SlippageForecast(
            entry_mean=Decimal("0.00003"), entry_upper=Decimal("0.0001"), stop_mean=Decimal("0.00003"),
            stop_upper=Decimal("0.0001"), provenance="scale_prior", version="bench",
        ),
        score=score, equity=Equity(value=Decimal(10_000), complete=True, age_s=0.1),
        account=AccountSnapshot(
            currency="USDT", balance=Decimal(10_000), equity=Decimal(10_000), margin_used=ZERO,
            margin_free=Decimal(10_000), at=NOW, received=100.0,
        ),
        conversion=ONE,
        exposure=Exposure(
            legs=0, symbol_busy=False, open_risk=ZERO, symbol_notional=ZERO, total_notional=ZERO, margin_reserved=ZERO
        ),
        state=ConnectionState.ACTIVE, halted_by=None, drawdown=Decimal("0.01"), losses_in_a_row=0,
        daily_loss_reached=False,
        duplicate=False, closed_before_open=False, score_was_rejected=False, netting=True,
        copy=CopySettings(
            size_mode=SizeMode.RISK_PERCENT, risk_per_trade=Decimal("0.01"), fixed_lot=None, risk_multiplier=ONE,
            max_lot=None, max_positions=None,
        ),
        policy=PolicyInForce(policy), model_versions={"slippage": "bench", "score": "bench"},
    )  # fmt: skip


def a_decision() -> tuple[Callable[[], object], Callable[[], Decimal]]:
    """The pipeline on these inputs, and its arithmetic without checks, steps or record."""
    inputs = _inputs()
    assert decide(inputs).accepted, decide(inputs).reason

    def rules() -> Decimal:
        distance = Decimal("1.10004") - Decimal("1.09800")
        base = Decimal(10_000) * Decimal("0.01") / distance
        lot = base * max(Decimal("0.3"), min(ONE, 1 + 6 * (Decimal("0.02") - Decimal("0.5") * Decimal("0.08"))))
        lot *= distance / (distance + Decimal("0.0001") + Decimal("0.00003") + Decimal("0.00003"))
        lot = min(lot, Decimal(10_000) * Decimal("0.02") / (distance + Decimal("0.0004")))
        lot = min(lot, Decimal(10_000) * 20 / Decimal("1.10034"))
        return (lot / ONE).to_integral_value(ROUND_FLOOR)

    return lambda: decide(inputs), rules

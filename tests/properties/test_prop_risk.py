"""What no decision may ever do, for all inputs (INV-11, INV-12, INV-18)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, Equity
from srm_agent.domain.decisions import Decision, ReasonCode, canonical_json
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
from srm_agent.domain.units import Distance, InAtr, InBps, InPips, Side
from srm_agent.risk import lot_size
from srm_agent.risk.explain import recompute, sentence, waterfall
from srm_agent.risk.inputs import DecisionInputs, Exposure
from srm_agent.risk.pipeline import decide
from srm_agent.risk.rules import EXACT
from srm_agent.risk.texts import Language

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
PROVIDER = ProviderKey(ProviderKind.CHANNEL_SOURCE, "alpha")
FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def dec(low: str, high: str, places: int = 6) -> st.SearchStrategy[Decimal]:
    """Decimals in a closed range."""
    return st.decimals(Decimal(low), Decimal(high), places=places, allow_nan=False, allow_infinity=False)


fractions_of_one = dec("0", "1", 4)
bps_or_atr: st.SearchStrategy[Distance] = st.one_of(
    st.builds(InBps, dec("0", "50", 2)), st.builds(InAtr, dec("0", "3", 2))
)
any_unit: st.SearchStrategy[Distance] = st.one_of(st.builds(InPips, dec("0", "30", 2)), bps_or_atr)

Value = TypeVar("Value")

FIELDS = (
    *("signal_price", "stop_loss", "take_profit", "bid", "ask", "equity", "account", "conversion", "drawdown"),
    *("tick_size", "lot_step", "lot_min", "lot_max", "contract_size", "min_notional", "max_leverage"),
    *("none", "floats", "copy", "exposure", "received"),
)


def altered(value: Value, /, **changes: object) -> Value:
    """`dataclasses.replace` for tests that break types on purpose."""
    return replace(value, **changes)  # type: ignore[type-var]


@st.composite
def instruments(draw: st.DrawFn) -> Instrument:
    """Ordinary and adversarial contract terms: tiny and huge ticks, contracts and grids."""
    tick = draw(st.sampled_from(["0.00000001", "0.00001", "0.0003", "0.01", "0.1", "1", "7"]))
    step = draw(st.sampled_from(["0.00001", "0.001", "0.003", "0.01", "0.1", "1", "100"]))
    grid = Decimal(step)
    return Instrument(
        symbol=Symbol("X"),
        asset_class=AssetClass.CRYPTO,
        base_currency="X",
        quote_currency="USD",
        settle_currency="USD",
        tick_size=Decimal(tick),
        pip_size=draw(st.sampled_from([None, Decimal(tick), Decimal(tick) * 10])),
        lot_min=grid * draw(st.integers(1, 20)),
        lot_max=grid * draw(st.integers(20, 10**7)) + draw(st.sampled_from([Decimal(0), grid / 3])),
        lot_step=grid,
        contract_size=draw(st.sampled_from(["0.00001", "0.1", "1", "10", "100000", "3.7"]).map(Decimal)),
        min_notional=draw(st.sampled_from(["0", "0", "5"]).map(Decimal)),
        stops_distance=Decimal(tick) * draw(st.sampled_from([0, 0, 3])),
        max_leverage=draw(st.sampled_from(["1", "30", "500"]).map(Decimal)),
    )


@st.composite
def policies(draw: st.DrawFn, distances: st.SearchStrategy[Distance]) -> Policy:
    """Policies with every switch somewhere, gates wide enough that most signals reach their lot."""
    far = InBps(Decimal(9000))
    return Policy(
        name="test",
        filter=FilterPolicy(
            signal_ttl_s=Decimal(30),
            quote_max_age_s=Decimal(3),
            max_entry_drift=far,
            max_expected_slippage=draw(st.sampled_from([None, far])),
            max_spread=draw(st.sampled_from([None, far])),
            missing_stop=draw(st.sampled_from(list(MissingStop))),
            preset_stop=draw(st.none() | distances),
            min_stop=None,
            max_stop=None,
            max_positions=10,
            duplicate_window_s=Decimal(60),
        ),
        buffer=BufferPolicy(
            minimum=draw(distances),
            maximum=draw(distances),
            max_share=draw(fractions_of_one),
            calm_is_zero=draw(st.booleans()),
            spread_share=Decimal("0.8"),
        ),
        score=ScorePolicy(
            evidence=draw(st.sampled_from(list(Evidence))),
            reject_below=Decimal("0.2"),
            readmit_above=Decimal("0.3"),
            slope=Decimal(6),
            caution=Decimal("0.5"),
            floor=Decimal("0.3"),
            max_up=draw(st.sampled_from(["1", "1.5", "0.8"]).map(Decimal)),
        ),
        ladder=LadderPolicy(start=Decimal("0.08"), stop=Decimal("0.2"), floor=Decimal("0.25")),
        brake=BrakePolicy(
            free_losses=draw(st.integers(0, 5)), step=draw(dec("0", "1", 2)), floor=draw(dec("0.1", "1", 2)), days=5
        ),
        limits=LimitPolicy(
            max_risk=draw(dec("0.001", "0.1", 4)),
            max_open_risk=draw(dec("0.001", "0.3", 4)),
            max_symbol_notional=draw(st.none() | dec("1", "50", 2)),
            max_total_notional=draw(st.none() | dec("1", "50", 2)),
            max_margin_use=draw(dec("0.05", "1", 2)),
            max_slippage=draw(distances),
        ),
    )


@st.composite
def all_inputs(draw: st.DrawFn) -> DecisionInputs:
    """A market, an account, a follower and a signal that mostly fits them."""
    instrument = draw(instruments())
    tick = instrument.tick_size
    side = draw(st.sampled_from(list(Side)))
    ticks = draw(st.integers(100, 10**7))
    bid = tick * ticks
    quote = Quote(symbol=Symbol("X"), bid=bid, ask=bid + tick * draw(st.integers(0, 30)), at=NOW, received=1000.0)
    away = tick * draw(st.integers(1, ticks // 2)) + draw(st.sampled_from([Decimal(0), tick / 3]))
    stop = quote.touch(side.opposite) - side * away
    target = quote.touch(side) + side * tick * draw(st.integers(1, ticks // 2))
    conversion = draw(st.sampled_from(["1", "0.0000654321", "15283.7", "1.0837"]).map(Decimal))
    # Enough for at least something in most draws: a multiple of what the smallest lot needs as margin or risk.
    need = max(away * 20, bid / instrument.max_leverage) * instrument.contract_size * instrument.lot_min * conversion
    equity = (need * draw(st.sampled_from(["0.7", "8", "70", "900", "100000"]).map(Decimal))).quantize(
        Decimal("1e-9"), context=EXACT
    ) + Decimal("1e-9")
    small = st.integers(0, 300).map(lambda ticks: tick * ticks)
    context = MarketContext(
        symbol=Symbol("X"),
        at=NOW,
        session=TradingSession.LONDON,
        iso_weekday=3,
        spread=quote.spread,
        spread_median=draw(st.none() | small),
        atr=draw(st.none() | small),
        atr_period=14,
        atr_timeframe_s=900,
        volatility_index=draw(st.none() | dec("0", "100", 2)),
        volatility_per_root_second=None,
    )
    forecast = SlippageForecast(
        entry_mean=draw(small) - tick,
        entry_upper=draw(small),
        stop_mean=draw(small),
        stop_upper=draw(small),
        provenance="test",
        version="1",
    )
    mean = draw(st.floats(-0.5, 0.5))
    score = ProviderScore(
        provider=PROVIDER,
        mean=mean,
        deviation=draw(st.floats(0.01, 0.4)),
        platform_mean=draw(st.floats(-0.2, 0.2)),
        shown=draw(dec("15", "100", 2)),
        interval=(Decimal(0), Decimal(100)),
        trades=3,
        effective_trades=3.0,
        prior_weight=0.9,
        sufficient=False,
        version="1",
    )
    return DecisionInputs(
        signal=OpenSignal(
            signal_id=SignalId("s"),
            provider=PROVIDER,
            symbol=Symbol("X"),
            side=side,
            signal_price=quote.touch(side),
            stop_loss=draw(st.sampled_from([*[stop] * 9, None])),
            take_profit=draw(st.sampled_from([target, None])),
            provider_lot=None,
            receipt=Receipt(message_id="m", received_at=NOW, received=1000.0, issued_at=NOW - timedelta(seconds=1)),
        ),
        connection_id=ConnectionId("c"),
        now=NOW + timedelta(seconds=1),
        now_monotonic=1001.0,
        instrument=instrument,
        quote=quote,
        context=draw(st.sampled_from([context, context, None])),
        forecast=draw(st.sampled_from([forecast, forecast, None])),
        score=score,
        equity=Equity(value=equity, complete=True, age_s=1.0),
        account=AccountSnapshot(
            currency="USD",
            balance=equity,
            equity=equity,
            margin_used=Decimal(0),
            margin_free=equity,
            at=NOW,
            received=1000.0,
        ),
        conversion=conversion,
        exposure=Exposure(
            legs=0,
            symbol_busy=False,
            open_risk=draw(st.sampled_from([Decimal(0), equity / 100])),
            symbol_notional=draw(st.sampled_from([Decimal(0), equity])),
            total_notional=draw(st.sampled_from([Decimal(0), equity * 2])),
            margin_reserved=draw(st.sampled_from([Decimal(0), equity / 10])),
        ),
        state=ConnectionState.ACTIVE,
        halted_by=None,
        drawdown=draw(st.none() | dec("-0.1", "0.5", 3)),
        losses_in_a_row=draw(st.none() | st.integers(0, 20)),
        daily_loss_reached=False,
        duplicate=False,
        closed_before_open=False,
        score_was_rejected=draw(st.booleans()),
        netting=draw(st.booleans()),
        copy=CopySettings(
            size_mode=draw(st.sampled_from(list(SizeMode))),
            risk_per_trade=draw(dec("0.01", "0.2", 4)),
            fixed_lot=draw(dec("0.9", "1000", 3)) * instrument.lot_min,
            risk_multiplier=draw(dec("0.5", "10", 2)),
            max_lot=draw(st.none() | dec("0.5", "1000", 3).map(lambda times: times * instrument.lot_min)),
            max_positions=None,
        ),
        policy=PolicyInForce(draw(policies(bps_or_atr if instrument.pip_size is None else any_unit))),
        model_versions={"slippage": "1", "score": "1"},
    )


def known_numbers(inputs: DecisionInputs) -> tuple[Instrument, Fraction, Fraction]:
    """Instrument, equity and conversion, exact."""
    assert inputs.instrument is not None
    assert inputs.equity is not None
    assert inputs.conversion is not None
    return inputs.instrument, Fraction(inputs.equity.value), Fraction(inputs.conversion)


def decided(inputs: DecisionInputs) -> tuple[Decision, Fraction, Fraction, Fraction]:
    """An accepted decision with its lot, limit price and stop, exact."""
    decision = decide(inputs)
    assume(decision.accepted)
    assert decision.lot is not None
    assert decision.limit_price is not None
    assert decision.stop_loss is not None
    return decision, Fraction(decision.lot), Fraction(decision.limit_price), Fraction(decision.stop_loss)


@FEW
@given(all_inputs())
def test_money_at_risk_stays_within_the_cap(inputs: DecisionInputs) -> None:
    """INV-11: from the worst price the order may fill at, or the touch, to the buffered stop, in exact fractions."""
    decision, lot, limit, stop = decided(inputs)
    instrument, equity, conversion = known_numbers(inputs)
    assert inputs.quote is not None
    touch = Fraction(inputs.quote.touch(decision.side))
    distance = max(abs(limit - stop), abs(touch - stop))
    money = lot * distance * Fraction(instrument.contract_size) * conversion
    limits = inputs.policy.policy.limits
    assert money <= equity * Fraction(limits.max_risk)
    assert money + Fraction(inputs.exposure.open_risk) <= equity * Fraction(limits.max_open_risk)
    value = lot * max(limit, touch) * Fraction(instrument.contract_size) * conversion
    if limits.max_symbol_notional is not None:
        assert value + Fraction(inputs.exposure.symbol_notional) <= equity * Fraction(limits.max_symbol_notional)
    if limits.max_total_notional is not None:
        assert value + Fraction(inputs.exposure.total_notional) <= equity * Fraction(limits.max_total_notional)
    used = value / Fraction(instrument.max_leverage) + Fraction(inputs.exposure.margin_reserved)
    assert used <= equity * Fraction(limits.max_margin_use)


@FEW
@given(all_inputs())
def test_lots_are_on_the_grid_never_up_and_nothing_or_sendable(inputs: DecisionInputs) -> None:
    """INV-12: a lot is 0 or within the broker's sizes, on the step, and never above what was asked x max_up."""
    decision = decide(inputs)
    instrument, _, _ = known_numbers(inputs)
    if not decision.accepted:
        assert decision.lot in (None, 0)
        return
    assert decision.lot is not None
    lot, step = Fraction(decision.lot), Fraction(instrument.lot_step)
    assert instrument.lot_min <= decision.lot <= instrument.lot_max
    assert (lot / step).denominator == 1
    asked = next(s.lot_out for s in decision.steps if s.rule == "copy_multiplier")
    assert decision.lot <= asked * max(inputs.policy.policy.score.max_up, Decimal(1))
    for cap in (inputs.copy.max_lot,):
        assert cap is None or decision.lot <= cap


@FEW
@given(all_inputs())
def test_every_waterfall_chains_ends_in_the_lot_and_recomputes(inputs: DecisionInputs) -> None:
    """INV-18: no residual: steps chain from 0 to exactly the decision's lot, each recomputed from its text alone."""
    decision = decide(inputs)
    lot = Decimal(0)
    for step in decision.steps:
        assert step.lot_in == lot
        assert recompute(step) == step.lot_out
        lot = step.lot_out
        if step.rule not in ("base_risk", "base_fixed", "copy_multiplier", "score_multiplier"):
            assert step.lot_out <= step.lot_in
    assert lot == (decision.lot or 0)
    assert [bar.lot_out for bar in waterfall(decision)] == [step.lot_out for step in decision.steps]
    canonical_json([[step.rule, dict(step.inputs)] for step in decision.steps])
    canonical_json(dict(decision.inputs))


@FEW
@given(all_inputs(), st.integers(1, 10**5))
def test_a_wider_stop_never_gives_a_larger_lot(inputs: DecisionInputs, ticks: int) -> None:
    """The stop moved further away shrinks the lot or leaves it, with every buffer, factor and cap in force."""
    assume(inputs.signal.stop_loss is not None and inputs.copy.size_mode is SizeMode.RISK_PERCENT)
    assert inputs.signal.stop_loss is not None
    assert inputs.instrument is not None
    stop = inputs.signal.stop_loss - inputs.signal.side * inputs.instrument.tick_size * ticks
    near = decide(inputs)
    far = decide(replace(inputs, signal=replace(inputs.signal, stop_loss=stop)))
    assume(near.lot is not None and far.lot is not None)
    assert far.lot is not None
    assert near.lot is not None
    assert far.lot <= near.lot


@FEW
@given(all_inputs())
def test_the_stop_moves_away_from_entry_only_and_within_its_bounds(inputs: DecisionInputs) -> None:
    """The stop sent is on the grid, at or beyond the provider's, at most a tick and the allowed share further."""
    decision, _, limit, stop = decided(inputs)
    instrument, _, _ = known_numbers(inputs)
    assert decision.planned_stop is not None
    assert decision.stop_buffer is not None
    assert inputs.quote is not None
    tick = Fraction(instrument.tick_size)
    assert (stop / tick).denominator == 1
    assert (limit / tick).denominator == 1
    shift = int(decision.side) * (Fraction(decision.planned_stop) - stop)
    assert shift == Fraction(decision.stop_buffer) >= 0
    distance = abs(Fraction(inputs.quote.touch(decision.side)) - Fraction(decision.planned_stop))
    assert shift < Fraction(inputs.policy.policy.buffer.max_share) * distance + tick
    assert stop > 0


@FEW
@given(all_inputs(), st.data())
def test_decide_never_raises(inputs: DecisionInputs, data: st.DataObject) -> None:
    """Whatever is missing, NaN, infinite, negative or huge: the answer is a decision, and a sentence for it."""
    odd = st.sampled_from(["NaN", "sNaN", "Infinity", "-Infinity", "-1", "0", "1e30", "1e-30", "1e400", "1e-400"])
    bad = odd.map(Decimal)
    assert inputs.instrument is not None
    assert inputs.quote is not None
    assert inputs.equity is not None
    assert inputs.account is not None
    choice = data.draw(st.sampled_from(FIELDS))
    value = data.draw(bad)
    number = data.draw(st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e308]))
    if choice in ("signal_price", "stop_loss", "take_profit"):
        inputs = replace(inputs, signal=altered(inputs.signal, **{choice: value}))
    elif choice in ("bid", "ask"):
        inputs = replace(inputs, quote=altered(inputs.quote, **{choice: value}))
    elif choice == "equity":
        inputs = replace(inputs, equity=altered(inputs.equity, value=value))
    elif choice == "account":
        inputs = replace(inputs, account=altered(inputs.account, margin_free=value, balance=value))
    elif choice in ("conversion", "drawdown"):
        inputs = altered(inputs, **{choice: value})
    elif choice == "none":
        name = data.draw(st.sampled_from(["instrument", "quote", "context", "forecast", "equity", "account"]))
        inputs = altered(inputs, **{name: None})
    elif choice == "floats":
        inputs = replace(
            inputs,
            score=replace(inputs.score, mean=number, deviation=number),
            equity=altered(inputs.equity, age_s=data.draw(st.sampled_from([1.0, number]))),
        )
    elif choice == "copy":
        inputs = replace(inputs, copy=replace(inputs.copy, risk_multiplier=value, fixed_lot=value))
    elif choice == "exposure":
        inputs = replace(inputs, exposure=replace(inputs.exposure, open_risk=value, margin_reserved=value))
    elif choice == "received":
        inputs = replace(inputs, quote=altered(inputs.quote, received=number))
    else:
        inputs = replace(inputs, instrument=altered(inputs.instrument, **{choice: value}))
    decision = decide(inputs)
    assert decision.accepted is (decision.reason is ReasonCode.ACCEPTED)
    if decision.accepted:
        assert decision.lot is not None
        assert decision.lot.is_finite()
        assert decision.lot > 0
    for language in Language:
        assert sentence(decision, language)


scores = st.fixed_dictionaries(
    {
        "evidence": st.sampled_from([evidence.value for evidence in Evidence]),
        "deviation": dec("0", "1").map(str),
        "platform_mean": dec("-1", "1").map(str),
        "slope": dec("0", "10", 2).map(str),
        "caution": dec("0", "2", 2).map(str),
        "floor": st.just("0.3"),
        "max_up": st.sampled_from(["0.8", "1", "1.5"]),
    }
)


@given(scores, dec("-2", "2"), dec("-2", "2"))
def test_the_score_multiplier_is_monotone_and_bounded(rule: dict[str, str], first: Decimal, second: Decimal) -> None:
    """A better mean never lowers the lot, and the factor stays within floor (or 0.9) and max_up (or 1.1)."""
    low, high = (
        lot_size.score_factor({**rule, "mean": str(mean)}) for mean in (min(first, second), max(first, second))
    )
    assert low <= high <= Decimal(rule["max_up"])
    if rule["evidence"] == Evidence.ASSUMED.value:
        assert low >= Decimal("0.3")
    else:
        assert min(Decimal("0.9"), Decimal(rule["max_up"])) <= low
        assert high <= Decimal("1.1")


@given(dec("0.00001", "1000"), dec("-10", "100"), dec("-10", "100"), dec("0", "100"), dec("0", "1000"))
def test_the_slippage_factor_never_raises_a_lot(
    distance: Decimal, entry: Decimal, stop: Decimal, buffer: Decimal, lot: Decimal
) -> None:
    """D / (D + b + e + x) is at most 1 even when better prices than the touch are expected."""
    values = {"distance": distance, "entry_slippage": entry, "stop_slippage": stop, "buffer": buffer}
    assert lot_size.slippage_factor({key: str(value) for key, value in values.items()}, lot) <= lot


@given(st.integers(0, 50), st.integers(0, 50), dec("0", "1"), dec("0", "1"), dec("0", "100"))
def test_the_brake_never_rises_with_the_losses(
    first: int, second: int, step: Decimal, floor: Decimal, lot: Decimal
) -> None:
    """More losses in a row never give a larger lot, nor any lot below the floor's; an unknown streak gives that."""
    rule = {"free_losses": "3", "step": str(step), "floor": str(floor)}
    few, many, unknown = (
        lot_size.loss_streak({**rule, "losses": text}, lot)
        for text in (str(min(first, second)), str(max(first, second)), "unknown")
    )
    assert lot >= few >= many >= unknown


@given(dec("-1", "2"), dec("-1", "2"), dec("0", "100"))
def test_the_ladder_never_rises_with_the_drawdown(first: Decimal, second: Decimal, lot: Decimal) -> None:
    """A deeper drawdown never gives a larger lot; unknown drawdown gives the smallest one."""
    rung = {"start": "0.08", "stop": "0.2", "floor": "0.25"}
    shallow, deep, unknown = (
        lot_size.drawdown_ladder({**rung, "drawdown": text}, lot)
        for text in (str(min(first, second)), str(max(first, second)), "unknown")
    )
    assert lot >= shallow >= deep >= unknown

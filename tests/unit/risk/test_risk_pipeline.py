"""From a signal to a decision: every refusal, the order of the gates, and the lot by hand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, localcontext

import pytest

from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.ids import decision_id
from srm_agent.domain.policies import Evidence, MissingStop, Policy, PolicyInForce, SizeMode
from srm_agent.domain.units import Distance, InAtr, InBps, InPips, Side, floor_to_step, stored_down
from srm_agent.risk.explain import recompute, sentence
from srm_agent.risk.inputs import DecisionInputs
from srm_agent.risk.pipeline import decide
from srm_agent.risk.texts import Language

Change = Callable[[DecisionInputs], DecisionInputs]
R = ReasonCode


def filtered(inputs: DecisionInputs, **changes: object) -> DecisionInputs:
    """The same with another filter policy."""
    policy = inputs.policy.policy
    changed = replace(policy.filter, **changes)  # type: ignore[arg-type]
    return replace(inputs, policy=PolicyInForce(replace(policy, filter=changed)))


def limited(inputs: DecisionInputs, **changes: object) -> DecisionInputs:
    """The same with other limits."""
    policy = inputs.policy.policy
    changed = replace(policy.limits, **changes)  # type: ignore[arg-type]
    return replace(inputs, policy=PolicyInForce(replace(policy, limits=changed)))


def signalled(inputs: DecisionInputs, **changes: object) -> DecisionInputs:
    """The same with another signal."""
    return replace(inputs, signal=replace(inputs.signal, **changes))  # type: ignore[arg-type]


def termed(inputs: DecisionInputs, **changes: object) -> DecisionInputs:
    """The same with other contract terms."""
    assert inputs.instrument is not None
    return replace(inputs, instrument=replace(inputs.instrument, **changes))  # type: ignore[arg-type]


def held(inputs: DecisionInputs, **changes: object) -> DecisionInputs:
    """The same with another exposure."""
    return replace(inputs, exposure=replace(inputs.exposure, **changes))  # type: ignore[arg-type]


def quoted(inputs: DecisionInputs, bid: str, ask: str) -> DecisionInputs:
    """The same at another price."""
    assert inputs.quote is not None
    return replace(inputs, quote=replace(inputs.quote, bid=Decimal(bid), ask=Decimal(ask)))


def aged(inputs: DecisionInputs, seconds: float) -> DecisionInputs:
    """The same decided later, quote and equity fresh."""
    assert inputs.quote is not None
    later = inputs.now_monotonic + seconds
    return replace(
        inputs,
        now=inputs.now + timedelta(seconds=seconds),
        now_monotonic=later,
        quote=replace(inputs.quote, received=later),
    )


def equitied(inputs: DecisionInputs, **changes: object) -> DecisionInputs:
    """The same with another knowledge of equity."""
    assert inputs.equity is not None
    return replace(inputs, equity=replace(inputs.equity, **changes))  # type: ignore[arg-type]


def scored(inputs: DecisionInputs, shown: str, *, before: bool = False) -> DecisionInputs:
    """The same with another probability of profit."""
    return replace(inputs, score=replace(inputs.score, shown=Decimal(shown)), score_was_rejected=before)


def foreseen(inputs: DecisionInputs, entry_mean: str) -> DecisionInputs:
    """The same with another expected slippage."""
    assert inputs.forecast is not None
    return replace(inputs, forecast=replace(inputs.forecast, entry_mean=Decimal(entry_mean)))


REFUSALS: list[tuple[str, Change, ReasonCode, dict[str, str]]] = [
    ("the agent is halted", lambda i: replace(i, halted_by=R.AGENT_HALTED), R.AGENT_HALTED, {}),
    ("the connection is reducing", lambda i: replace(i, state=ConnectionState.REDUCING), R.CONNECTION_REDUCING, {}),
    (
        "the connection is halted",
        lambda i: replace(i, state=ConnectionState.HALTED),
        R.CONNECTION_HALTED,
        {"state": "HALTED"},
    ),
    (
        "the connection is being flattened",
        lambda i: replace(i, state=ConnectionState.FLATTENING),
        R.CONNECTION_HALTED,
        {"state": "FLATTENING"},
    ),
    ("the provider is halted", lambda i: replace(i, halted_by=R.PROVIDER_HALTED), R.PROVIDER_HALTED, {}),
    ("the symbol is halted", lambda i: replace(i, halted_by=R.SYMBOL_HALTED), R.SYMBOL_HALTED, {}),
    ("a leg is open on a netting venue", lambda i: held(i, symbol_busy=True), R.SYMBOL_BUSY, {}),
    ("no instrument", lambda i: replace(i, instrument=None), R.INSTRUMENT_UNKNOWN, {}),
    ("not tradable", lambda i: termed(i, tradable=False), R.INSTRUMENT_NOT_TRADABLE, {"tradable": "false"}),
    ("a tick of zero", lambda i: termed(i, tick_size=Decimal(0)), R.INSTRUMENT_NOT_TRADABLE, {"tick_size": "0"}),
    ("a duplicate", lambda i: replace(i, duplicate=True), R.DUPLICATE_SIGNAL, {"window_s": "60"}),
    ("closed before it opened", lambda i: replace(i, closed_before_open=True), R.CLOSED_BEFORE_OPEN, {}),
    ("30 s later", lambda i: aged(i, 30.0), R.SIGNAL_STALE, {"age_s": "32", "allowed_s": "30"}),
    (
        "issued long ago",
        lambda i: signalled(i, receipt=replace(i.signal.receipt, issued_at=i.now - timedelta(hours=1))),
        R.SIGNAL_STALE,
        {"age_s": "3600", "allowed_s": "30"},
    ),
    (
        "the wall clock was set back while the signal waited",
        lambda i: replace(aged(i, 100.0), now=i.now - timedelta(hours=1)),
        R.SIGNAL_STALE,
        {"age_s": "102", "allowed_s": "30"},
    ),
    ("no quote", lambda i: replace(i, quote=None), R.QUOTE_MISSING, {}),
    ("a NaN quote", lambda i: quoted(i, "NaN", "1.1"), R.QUOTE_MISSING, {}),
    ("a crossed quote", lambda i: quoted(i, "1.2", "1.1"), R.QUOTE_MISSING, {}),
    (
        "an old quote",
        lambda i: replace(i, now_monotonic=1004.0),
        R.QUOTE_STALE,
        {"age_s": "3.5", "allowed_s": "3"},
    ),
    ("no equity", lambda i: replace(i, equity=None), R.EQUITY_UNKNOWN, {"known": "false"}),
    ("no account", lambda i: replace(i, account=None), R.EQUITY_UNKNOWN, {"known": "false"}),
    ("incomplete equity", lambda i: equitied(i, complete=False), R.EQUITY_UNKNOWN, {"complete": "false"}),
    ("old equity", lambda i: equitied(i, age_s=5.1), R.EQUITY_UNKNOWN, {"age_s": "5.1", "allowed_s": "5.0"}),
    (
        "equity of unknown age",
        lambda i: equitied(i, age_s=float("nan")),
        R.EQUITY_UNKNOWN,
        {"age_s": "nan", "allowed_s": "5.0"},
    ),
    ("an empty account", lambda i: equitied(i, value=Decimal(0)), R.EQUITY_UNKNOWN, {"equity": "0"}),
    ("no conversion rate", lambda i: replace(i, conversion=None), R.CONVERSION_UNKNOWN, {}),
    ("a conversion rate of zero", lambda i: replace(i, conversion=Decimal(0)), R.CONVERSION_UNKNOWN, {}),
    ("no stop", lambda i: signalled(i, stop_loss=None), R.STOP_MISSING, {}),
    (
        "no stop and a preset that needs an ATR",
        lambda i: replace(
            filtered(signalled(i, stop_loss=None), missing_stop=MissingStop.PRESET, preset_stop=InAtr(Decimal(2))),
            context=None,
        ),
        R.STOP_MISSING,
        {"preset_stop": "2 ATR"},
    ),
    (
        "a stop above the price",
        lambda i: signalled(i, stop_loss=Decimal("1.1005")),
        R.STOP_WRONG_SIDE,
        {"stop": "1.1005", "price": "1.1"},
    ),
    (
        "a stop between bid and ask, which would trigger at once",
        lambda i: signalled(i, stop_loss=Decimal("1.10005")),
        R.STOP_WRONG_SIDE,
        {"stop": "1.10005", "price": "1.1"},
    ),
    (
        "a target below the price",
        lambda i: signalled(i, take_profit=Decimal("1.09")),
        R.TARGET_WRONG_SIDE,
        {"target": "1.09", "price": "1.1001"},
    ),
    (
        "a stop inside the broker's level",
        lambda i: termed(i, stops_distance=Decimal("0.002")),
        R.STOP_TOO_CLOSE,
        {"distance": "0.0019", "allowed": "0.002"},
    ),
    (
        "a stop within a fifth of the ATR",
        lambda i: signalled(i, stop_loss=Decimal("1.09995")),
        R.STOP_TOO_CLOSE,
        {"distance": "0.00015", "allowed": "0.0002"},
    ),
    (
        "a stop a thousand pips away",
        lambda i: signalled(i, stop_loss=Decimal("1.0001")),
        R.STOP_TOO_FAR,
        {"distance": "0.1", "allowed": "0.05"},
    ),
    (
        "a provider below the threshold",
        lambda i: scored(i, "19.9"),
        R.SCORE_TOO_LOW,
        {"probability": "0.199", "allowed": "0.2", "trades": "40"},
    ),
    (
        "a refused provider that has not recovered enough",
        lambda i: scored(i, "29", before=True),
        R.SCORE_TOO_LOW,
        {"probability": "0.29", "allowed": "0.3", "trades": "40"},
    ),
    (
        "slippage",
        lambda i: foreseen(i, "0.00021"),
        R.SLIPPAGE_TOO_HIGH,
        {"expected": "0.00021", "allowed": "0.0002"},
    ),
    (
        "the price has left",
        lambda i: quoted(i, "1.1005", "1.1006"),
        R.ENTRY_EXPIRED,
        {"drift": "0.0006", "allowed": "0.0005"},
    ),
    (
        "a wide spread",
        lambda i: quoted(i, "1.0999", "1.1003"),
        R.SPREAD_TOO_WIDE,
        {"spread": "0.0004", "allowed": "0.0003"},
    ),
    ("five legs", lambda i: held(i, legs=5), R.TOO_MANY_POSITIONS, {"legs": "5", "allowed": "5"}),
    (
        "the follower's own maximum",
        lambda i: replace(held(i, legs=1), copy=replace(i.copy, max_positions=1)),
        R.TOO_MANY_POSITIONS,
        {"legs": "1", "allowed": "1"},
    ),
    ("today's loss", lambda i: replace(i, daily_loss_reached=True), R.DAILY_LOSS_REACHED, {}),
    (
        "pips without a pip",
        lambda i: termed(i, pip_size=None),
        R.THRESHOLD_UNKNOWN,
        {
            "gates": "max_stop,max_expected_slippage,max_entry_drift,max_spread,"
            "max_slippage,buffer_minimum,buffer_maximum"
        },
    ),
    (
        "open risk is used up",
        lambda i: held(i, open_risk=Decimal(600)),
        R.RISK_BUDGET_EXHAUSTED,
        {"lot": "0", "lot_min": "0.01"},
    ),
    (
        "no margin",
        lambda i: held(i, margin_reserved=Decimal(4995)),
        R.MARGIN_EXHAUSTED,
        {"lot": "0.0045438022", "lot_min": "0.01"},
    ),
    (
        "exposure",
        lambda i: held(i, total_notional=Decimal(200000)),
        R.EXPOSURE_EXHAUSTED,
        {"lot": "0", "lot_min": "0.01"},
    ),
    (
        "below the smallest value",
        lambda i: termed(i, min_notional=Decimal(100000)),
        R.BELOW_MIN_NOTIONAL,
        {"lot": "0.4347826086", "lot_min": "0.01", "min_notional": "100000"},
    ),
    (
        "a small account",
        lambda i: equitied(i, value=Decimal(100)),
        R.BELOW_MIN_LOT,
        {"lot": "0.004347826", "lot_min": "0.01"},
    ),
    (
        "a fixed size that was never set",
        lambda i: replace(i, copy=replace(i.copy, size_mode=SizeMode.FIXED)),
        R.THRESHOLD_UNKNOWN,
        {"gates": "fixed_lot"},
    ),
]


@pytest.mark.parametrize(("change", "reason", "numbers"), [pytest.param(*case[1:], id=case[0]) for case in REFUSALS])
def test_refusal(inputs: DecisionInputs, change: Change, reason: ReasonCode, numbers: dict[str, str]) -> None:
    """Each refusal has its stable code and exactly its numbers, and no lot."""
    decision = decide(change(inputs))
    assert (decision.reason, dict(decision.numbers)) == (reason, numbers)
    assert not decision.accepted
    assert not decision.lot


def test_gates_are_asked_in_the_order_of_the_codes(inputs: DecisionInputs) -> None:
    """With two gates shut, the one that stands earlier in ReasonCode answers."""
    order = list(ReasonCode)
    simple = [case for case in REFUSALS if order.index(case[2]) <= order.index(R.DAILY_LOSS_REACHED)]
    together: DecisionInputs = inputs
    for _, change, reason, _ in reversed([case for case in simple if case[0] in COMPATIBLE]):
        together = change(together)
        assert decide(together).reason is reason


COMPATIBLE = {
    "the agent is halted",
    "the connection is reducing",
    "a leg is open on a netting venue",
    "not tradable",
    "a duplicate",
    "closed before it opened",
    "issued long ago",
    "an old quote",
    "old equity",
    "no conversion rate",
    "a stop above the price",
    "a target below the price",
    "a provider below the threshold",
    "slippage",
    "five legs",
    "today's loss",
}


def test_the_lot_by_hand(inputs: DecisionInputs) -> None:
    """100 USD over 20 pips is 0.5; a buffer of 2 pips and 1 pip of slippage leave 20/23 of it: 0.43 on the grid."""
    decision = decide(inputs)
    assert decision.accepted
    assert decision.reason is R.ACCEPTED
    assert decision.decision_id == decision_id(inputs.connection_id, inputs.signal.signal_id)
    assert decision.stop_loss == Decimal("1.09790")
    assert decision.stop_buffer == Decimal("0.0002")
    assert decision.limit_price == Decimal("1.10040")
    assert decision.take_profit == Decimal("1.1041")
    assert [(step.rule, step.lot_out) for step in decision.steps] == [
        ("base_risk", Decimal("0.5")),
        ("copy_multiplier", Decimal("0.5")),
        ("score_multiplier", Decimal("0.5")),
        ("slippage_factor", Decimal("0.4347826086")),
        ("drawdown_ladder", Decimal("0.4347826086")),
        ("lot_step", Decimal("0.43")),
    ]
    assert decision.lot == Decimal("0.43")
    assert decision.planned_risk == Decimal("94.6")
    assert decision.inputs["stop_buffer_reason"] == "needed"
    assert decision.inputs["entry_drift"] == "0.0001"


def test_a_sell_is_the_mirror_of_a_buy(inputs: DecisionInputs) -> None:
    """The same distances on the other side give the same lot, limit below the bid, stop above."""
    sell = signalled(
        inputs,
        side=Side.SELL,
        signal_price=Decimal("1.1001"),
        stop_loss=Decimal("1.1020"),
        take_profit=Decimal("1.096"),
    )
    decision = decide(sell)
    assert decision.lot == Decimal("0.43")
    assert decision.limit_price == Decimal("1.0997")
    assert decision.stop_loss == Decimal("1.1022")


def test_a_price_better_than_the_signal_is_no_expired_entry(inputs: DecisionInputs) -> None:
    """Drift counts in the adverse direction only."""
    assert decide(quoted(inputs, "1.0990", "1.0991")).accepted


def test_unknown_atr_opens_its_gates_and_is_recorded(inputs: DecisionInputs) -> None:
    """Without a context no gate in ATR blocks; the record says which ones stood open."""
    decision = decide(replace(inputs, context=None))
    assert decision.accepted
    assert decision.inputs["gate_min_stop"] == "unknown"
    assert "atr" not in decision.inputs


def test_an_unknown_price_allowance_is_none_at_all(inputs: DecisionInputs) -> None:
    """If the allowance is in ATR and the ATR unknown, the order may fill at the touch only."""
    decision = decide(replace(limited(inputs, max_slippage=InAtr(Decimal(1))), context=None))
    assert decision.limit_price == Decimal("1.1001")
    assert decision.inputs["gate_max_slippage"] == "unknown"


def test_without_a_forecast_the_lot_is_smaller_not_larger(inputs: DecisionInputs) -> None:
    """Unknown slippage is taken as the most the order allows, and the step says so."""
    decision = decide(replace(inputs, forecast=None))
    step = next(step for step in decision.steps if step.rule == "slippage_factor")
    assert step.inputs["forecast"] == "unknown"
    assert decision.lot is not None
    assert decision.lot < Decimal("0.43")


def test_unknown_drawdown_takes_the_lowest_rung(inputs: DecisionInputs) -> None:
    """A drawdown that is not known shrinks the lot to the ladder's floor."""
    decision = decide(replace(inputs, drawdown=None))
    assert decision.lot == Decimal("0.10")


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        pytest.param(0, "1", id="none"),
        pytest.param(3, "1", id="three are free"),
        pytest.param(4, "0.9", id="the fourth takes a tenth"),
        pytest.param(6, "0.7", id="each further one another tenth"),
        pytest.param(8, "0.5", id="down to a half"),
        pytest.param(30, "0.5", id="and never less"),
        pytest.param(None, "0.5", id="unknown is the floor"),
    ],
)
def test_losses_in_a_row_brake_the_lot(inputs: DecisionInputs, losses: int | None, factor: str) -> None:
    """Lot x max(0.5, 1 - 0.1 x (losses - 3)): a recorded step that can be recomputed, and a sentence in two tongues."""
    decision = decide(replace(inputs, losses_in_a_row=losses))
    braked = Decimal("0.4347826086") * Decimal(factor)
    assert decision.lot == floor_to_step(braked, Decimal("0.01"))
    steps = [step for step in decision.steps if step.rule == "loss_streak"]
    assert bool(steps) == (factor != "1")
    for step in steps:
        assert recompute(step) == step.lot_out == stored_down(braked)
        assert step.inputs["losses"] == ("unknown" if losses is None else str(losses))
    assert decision.inputs.get("losses_in_a_row") == (None if losses is None else str(losses))
    without = PolicyInForce(_without_brake(inputs))
    assert decide(replace(inputs, losses_in_a_row=losses, policy=without)).lot == Decimal("0.43")


def test_the_brake_is_explained_in_both_languages(inputs: DecisionInputs) -> None:
    """After nine losses the brake is the biggest change, though the buffer takes its share; both tongues say so."""
    decision = decide(replace(inputs, losses_in_a_row=9))
    assert "losses in a row (9) take off 50 %" in sentence(decision, Language.EN)
    assert "kerugian beruntun akun ini (9) menguranginya 50 %" in sentence(decision, Language.ID)


def _without_brake(inputs: DecisionInputs) -> Policy:
    policy = inputs.policy.policy
    return replace(policy, brake=replace(policy.brake, floor=Decimal(1)))


def test_the_preset_stop_stands_in(inputs: DecisionInputs) -> None:
    """A signal without stop takes the preset's distance from the touch, and the decision records it as planned."""
    preset = filtered(
        signalled(inputs, stop_loss=None), missing_stop=MissingStop.PRESET, preset_stop=InPips(Decimal(40))
    )
    decision = decide(preset)
    assert decision.accepted
    assert decision.planned_stop == Decimal("1.0961")
    assert "signal_stop" not in decision.inputs


@pytest.mark.parametrize(
    ("distance", "drift", "accepted"),
    [
        (InPips(Decimal(5)), "1.1005", True),
        (InBps(Decimal("4.5")), "1.1005", False),
        (InAtr(Decimal("0.4")), "1.1005", False),
        (InAtr(Decimal("0.5")), "1.1005", True),
    ],
)
def test_every_unit_of_distance_works_as_a_threshold(
    inputs: DecisionInputs, distance: Distance, drift: str, accepted: bool
) -> None:
    """Exactly the allowed drift still passes, in pips, basis points or ATR."""
    changed = quoted(filtered(inputs, max_entry_drift=distance), "1.10045", drift)
    assert decide(changed).accepted is accepted


def test_measured_evidence_refuses_nobody_and_stays_near_one(inputs: DecisionInputs) -> None:
    """Until differences are proved, the worst score costs a tenth of the lot."""
    policy = inputs.policy.policy
    measured = replace(policy, score=replace(policy.score, evidence=Evidence.MEASURED))
    bad = replace(scored(inputs, "1"), policy=PolicyInForce(measured))
    decision = decide(replace(bad, score=replace(bad.score, mean=-1.0)))
    assert decision.accepted
    step = next(step for step in decision.steps if step.rule == "score_multiplier")
    assert step.lot_out == step.lot_in * Decimal("0.9")


def test_hysteresis_readmits_at_the_higher_threshold(inputs: DecisionInputs) -> None:
    """25 % is enough for a provider in good standing, 30 % for one that was refused."""
    assert decide(scored(inputs, "25")).accepted
    assert decide(scored(inputs, "30", before=True)).accepted


def test_fixed_lots_never_exceed_the_risk_ceiling(inputs: DecisionInputs) -> None:
    """A fixed lot of 10 on 10,000 USD is cut by the 2 % ceiling, measured from the worst price to the buffered stop."""
    decision = decide(replace(inputs, copy=replace(inputs.copy, size_mode=SizeMode.FIXED, fixed_lot=Decimal(10))))
    assert decision.accepted
    assert decision.limit_price is not None
    assert decision.stop_loss is not None
    assert decision.lot == Decimal("0.8")  # 200 USD / (25 pips x 10 USD)
    assert [step.rule for step in decision.steps][-2:] == ["risk_cap", "lot_step"]


def test_the_followers_largest_lot_binds(inputs: DecisionInputs) -> None:
    """`max_lot` is a ceiling of the follower's own, recorded because it bound."""
    decision = decide(replace(inputs, copy=replace(inputs.copy, max_lot=Decimal("0.2"))))
    assert decision.lot == Decimal("0.2")
    assert "max_lot" in [step.rule for step in decision.steps]


def test_a_hedging_venue_takes_a_second_leg(inputs: DecisionInputs) -> None:
    """SYMBOL_BUSY exists on netting venues only."""
    assert decide(replace(held(inputs, symbol_busy=True), netting=False)).accepted


def test_equal_inputs_give_an_equal_decision_in_any_arithmetic_context(inputs: DecisionInputs) -> None:
    """The ambient decimal context changes nothing (INV-18)."""
    plain = decide(inputs)
    with localcontext() as context:
        context.prec = 5
        assert decide(inputs) == plain

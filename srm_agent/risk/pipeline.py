"""From one signal to one decision for one follower: filter, stop buffer, lot, limits, record.

Pure: equal inputs give an equal decision. It never raises: arithmetic that fails on impossible numbers refuses
(INV-14), because a decision that dies takes the other followers' decisions with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext

from srm_agent.domain.decisions import Decision, ReasonCode, Step
from srm_agent.domain.ids import decision_id
from srm_agent.domain.policies import SizeMode
from srm_agent.domain.units import ONE, ZERO, distance_in_price, from_float, limit_inside, plain, stored_up
from srm_agent.risk.inputs import DecisionInputs
from srm_agent.risk.lot_size import UNKNOWN, streak_factor
from srm_agent.risk.record import known
from srm_agent.risk.rules import EXACT, LotPath
from srm_agent.risk.signal_filter import Admitted, Refusal, admit
from srm_agent.risk.stop_buffer import Adjustment, buffer_stop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    """What the order will carry. `stop_shift` = |planned stop - stop|, rounding included."""

    limit: Decimal
    stop: Decimal
    stop_shift: Decimal
    buffer: Adjustment | None
    limit_unknown: bool


def decide(inputs: DecisionInputs) -> Decision:
    """The verdict with its reason, numbers and steps; see the module."""
    with localcontext(EXACT):
        try:
            return _decide(inputs)
        except (ArithmeticError, ValueError) as error:
            refusal = Refusal(ReasonCode.THRESHOLD_UNKNOWN, {"gates": f"arithmetic:{type(error).__name__}"})
            return _refused(inputs, refusal, known(inputs))


def _decide(inputs: DecisionInputs) -> Decision:
    record = known(inputs)
    admitted = admit(inputs)
    if isinstance(admitted, Refusal):
        return _refused(inputs, admitted, record)
    prices = _prices(inputs, admitted)
    for gate in admitted.open_gates:
        record[f"gate_{gate}"] = UNKNOWN
    if prices.limit_unknown:
        record["gate_max_slippage"] = UNKNOWN
    if prices.buffer is not None:
        record["stop_buffer_reason"] = prices.buffer.why
    if inputs.copy.size_mode is SizeMode.FIXED and inputs.copy.fixed_lot is None:
        return _refused(inputs, Refusal(ReasonCode.THRESHOLD_UNKNOWN, {"gates": "fixed_lot"}), record)
    path = LotPath(admitted.instrument.lot_min, admitted.instrument.lot_step)
    _ask(path, inputs, admitted, prices)
    _limit(path, inputs, admitted, prices)
    before_grid = path.lot
    _fit_grid(path, admitted, prices)
    accepted = path.lot > 0
    reason = ReasonCode.ACCEPTED if accepted else path.culprit
    numbers = {} if accepted else {"lot": plain(before_grid), "lot_min": plain(admitted.instrument.lot_min)}
    if reason is ReasonCode.BELOW_MIN_NOTIONAL:
        numbers["min_notional"] = plain(admitted.instrument.min_notional)
    return _decision(inputs, Refusal(reason, numbers), record, admitted, prices, path)


def _prices(inputs: DecisionInputs, admitted: Admitted) -> _Prices:
    """Limit at the touch +- max_slippage (at the touch itself while that is unknown) and the buffered stop."""
    side, instrument = inputs.signal.side, admitted.instrument
    atr = None if inputs.context is None else inputs.context.atr
    policy = inputs.policy.policy
    allowed = distance_in_price(policy.limits.max_slippage, instrument, admitted.touch, atr)
    limit = limit_inside(admitted.touch + side * (allowed or ZERO), side, instrument.tick_size)
    stop, buffer = buffer_stop(
        side=side,
        stop=admitted.planned_stop,
        distance=admitted.distance,
        price=admitted.touch,
        instrument=instrument,
        context=inputs.context,
        forecast=inputs.forecast,
        policy=policy.buffer,
    )
    return _Prices(
        limit=max(limit, instrument.tick_size),
        stop=stop,
        stop_shift=abs(admitted.planned_stop - stop),
        buffer=buffer,
        limit_unknown=allowed is None,
    )


def _ask(path: LotPath, inputs: DecisionInputs, admitted: Admitted, prices: _Prices) -> None:
    """What the settings ask for and what the factors leave of it."""
    copy, policy = inputs.copy, inputs.policy.policy
    distance = plain(admitted.distance)
    if copy.size_mode is SizeMode.FIXED and copy.fixed_lot is not None:
        path.apply("base_fixed", {"fixed_lot": plain(copy.fixed_lot)})
    else:
        equity = {"equity": plain(admitted.equity.value), "risk_fraction": plain(copy.risk_per_trade)}
        path.apply("base_risk", {**equity, **_unit(admitted, "distance", distance)})
    path.apply("copy_multiplier", {"multiplier": plain(copy.risk_multiplier)})
    score, rule = inputs.score, policy.score
    path.apply(
        "score_multiplier",
        {
            "evidence": rule.evidence.value,
            "mean": plain(from_float(score.mean)),
            "deviation": plain(from_float(score.deviation)),
            "platform_mean": plain(from_float(score.platform_mean)),
            "slope": plain(rule.slope),
            "caution": plain(rule.caution),
            "floor": plain(rule.floor),
            "max_up": plain(rule.max_up),
        },
    )
    path.apply("slippage_factor", {"distance": distance, **_reserve(inputs, admitted, prices)})
    ladder = policy.ladder
    path.apply(
        "drawdown_ladder",
        {
            "drawdown": UNKNOWN if inputs.drawdown is None else plain(inputs.drawdown),
            "start": plain(ladder.start),
            "stop": plain(ladder.stop),
            "floor": plain(ladder.floor),
        },
    )
    brake = policy.brake
    streak = {
        "losses": UNKNOWN if inputs.losses_in_a_row is None else str(inputs.losses_in_a_row),
        "free_losses": str(brake.free_losses),
        "step": plain(brake.step),
        "floor": plain(brake.floor),
    }
    if streak_factor(streak) < ONE:
        path.apply("loss_streak", streak)


def _reserve(inputs: DecisionInputs, admitted: Admitted, prices: _Prices) -> dict[str, str]:
    """Buffer and expected slippages, price units. Without a forecast the most that the order allows is assumed."""
    buffer = {"buffer": plain(prices.stop_shift)}
    if inputs.forecast is None:
        worst = abs(prices.limit - admitted.touch)
        return {**buffer, "entry_slippage": plain(worst), "stop_slippage": plain(worst), "forecast": UNKNOWN}
    entry, stop = inputs.forecast.entry_mean, inputs.forecast.stop_mean
    return {**buffer, "entry_slippage": plain(max(entry, ZERO)), "stop_slippage": plain(max(stop, ZERO))}


def _limit(path: LotPath, inputs: DecisionInputs, admitted: Admitted, prices: _Prices) -> None:
    """The ceilings, in the order of their strictness of purpose; recorded where they bind."""
    limits, exposure, account = inputs.policy.policy.limits, inputs.exposure, admitted.account
    worst = max(abs(prices.limit - prices.stop), abs(admitted.touch - prices.stop))
    equity = {"equity": plain(admitted.equity.value)}
    at_stop = {**equity, **_unit(admitted, "distance", plain(worst))}
    at_price = {**equity, **_unit(admitted, "price", plain(max(prices.limit, admitted.touch)))}
    if inputs.copy.max_lot is not None:
        path.cap("max_lot", {"max_lot": plain(inputs.copy.max_lot)}, ReasonCode.BELOW_MIN_LOT)
    risk = ReasonCode.RISK_BUDGET_EXHAUSTED
    path.cap("risk_cap", {**at_stop, "max_risk": plain(limits.max_risk)}, risk)
    open_risk = {"max_open_risk": plain(limits.max_open_risk), "used": plain(exposure.open_risk)}
    path.cap("open_risk", {**at_stop, **open_risk}, risk)
    notionals = (
        ("symbol_notional", limits.max_symbol_notional, exposure.symbol_notional),
        ("total_notional", limits.max_total_notional, exposure.total_notional),
    )
    for rule, limit, used in notionals:
        if limit is not None:
            values = {**at_price, "limit": plain(limit), "used": plain(used)}
            path.cap(rule, values, ReasonCode.EXPOSURE_EXHAUSTED)
    margin = {
        "max_margin_use": plain(limits.max_margin_use),
        "margin_used": plain(account.margin_used),
        "margin_free": plain(account.margin_free),
        "margin_reserved": plain(exposure.margin_reserved),
        "leverage": plain(admitted.instrument.max_leverage),
    }
    path.cap("margin", {**at_price, **margin}, ReasonCode.MARGIN_EXHAUSTED)


def _fit_grid(path: LotPath, admitted: Admitted, prices: _Prices) -> None:
    """The broker's sizes: down to the grid, or nothing."""
    instrument = admitted.instrument
    path.cap("lot_max", {"lot_max": plain(instrument.lot_max)}, ReasonCode.BELOW_MIN_LOT)
    path.apply("lot_step", {"lot_step": plain(instrument.lot_step)})
    path.cap("lot_min", {"lot_min": plain(instrument.lot_min)}, ReasonCode.BELOW_MIN_LOT)
    value = {
        "min_notional": plain(instrument.min_notional),
        "price": plain(min(prices.limit, admitted.touch)),
        "contract_size": plain(instrument.contract_size),
    }
    path.cap("min_notional", value, ReasonCode.BELOW_MIN_NOTIONAL)


def _unit(admitted: Admitted, key: str, value: str) -> dict[str, str]:
    """What turns one lot into account money over a distance or at a price."""
    return {
        key: value,
        "contract_size": plain(admitted.instrument.contract_size),
        "conversion": plain(admitted.conversion),
    }


def _refused(inputs: DecisionInputs, refusal: Refusal, record: Mapping[str, str]) -> Decision:
    return _decision(inputs, refusal, record, None, None, None)


def _decision(
    inputs: DecisionInputs,
    verdict: Refusal,
    record: Mapping[str, str],
    admitted: Admitted | None,
    prices: _Prices | None,
    path: LotPath | None,
) -> Decision:
    signal = inputs.signal
    lot = None if path is None else path.lot
    risk: Decimal | None = None
    if admitted is not None and prices is not None and lot is not None:
        risk = stored_up(admitted.instrument.loss(lot, abs(admitted.touch - prices.stop)))
    steps: tuple[Step, ...] = () if path is None else tuple(path.steps)
    return Decision(
        decision_id=decision_id(inputs.connection_id, signal.signal_id),
        signal_id=signal.signal_id,
        connection_id=inputs.connection_id,
        provider=signal.provider,
        symbol=signal.symbol,
        side=signal.side,
        accepted=verdict.reason is ReasonCode.ACCEPTED,
        reason=verdict.reason,
        numbers=verdict.numbers,
        steps=steps,
        lot=lot,
        limit_price=None if prices is None else prices.limit,
        stop_loss=None if prices is None else prices.stop,
        planned_stop=signal.stop_loss if admitted is None else admitted.planned_stop,
        stop_buffer=None if prices is None else prices.stop_shift,
        take_profit=signal.take_profit if admitted is None else admitted.take_profit,
        planned_risk=risk,
        inputs=record,
        policy_version=inputs.policy.version,
        arm=inputs.policy.arm,
        model_versions=inputs.model_versions,
        decided_at=inputs.now,
    )

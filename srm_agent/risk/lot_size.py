"""What lot the follower's settings ask for, and the factors that make it smaller.

Each rule is a pure function of its recorded text inputs and the lot so far. The pipeline and `explain.recompute` call
the same function with the same text, so a stored step is recomputed bit for bit (INV-18). Every lot is rounded down
to what the store keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from srm_agent.domain.policies import Evidence
from srm_agent.domain.units import ONE, ZERO, stored_down

Rule = Callable[[Mapping[str, str], Decimal], Decimal]

UNKNOWN = "unknown"
"""Recorded where a truth was missing and the rule took its cautious branch."""

MEASURED_FLOOR = Decimal("0.9")
MEASURED_CEILING = Decimal("1.1")


def base_risk(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Equity x risk fraction / money lost by one lot from the touch to the provider's stop (learning.md 3)."""
    del lot_in
    money = Decimal(inputs["equity"]) * Decimal(inputs["risk_fraction"])
    per_lot = Decimal(inputs["distance"]) * Decimal(inputs["contract_size"]) * Decimal(inputs["conversion"])
    return stored_down(max(money / per_lot, ZERO))


def base_fixed(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """The follower's fixed lot."""
    del lot_in
    return stored_down(max(Decimal(inputs["fixed_lot"]), ZERO))


def copy_multiplier(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """The follower's own multiplier for this provider."""
    return stored_down(lot_in * max(Decimal(inputs["multiplier"]), ZERO))


def score_factor(inputs: Mapping[str, str]) -> Decimal:
    """The factor of `score_multiplier`, monotone in the mean.

    ASSUMED: clip(1 + slope x (mean - caution x deviation), floor, max_up).
    MEASURED: clip(1 + slope x (mean - platform mean), 0.9, min(1.1, max_up)): while differences between providers are
    unproved on the operator's data, a platform whose common mean is a little negative must not punish everybody.
    """
    mean = Decimal(inputs["mean"])
    slope = Decimal(inputs["slope"])
    max_up = Decimal(inputs["max_up"])
    if inputs["evidence"] == Evidence.ASSUMED.value:
        raw = ONE + slope * (mean - Decimal(inputs["caution"]) * Decimal(inputs["deviation"]))
        low, high = Decimal(inputs["floor"]), max_up
    else:
        raw = ONE + slope * (mean - Decimal(inputs["platform_mean"]))
        low, high = MEASURED_FLOOR, min(MEASURED_CEILING, max_up)
    return max(min(max(raw, low), high), ZERO)


def score_multiplier(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Lot x `score_factor`."""
    return stored_down(lot_in * score_factor(inputs))


def slippage_factor(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Lot x D / (D + buffer + expected entry slippage + expected stop slippage): derived, never above 1.

    It is exactly what keeps the risked money at the buffered stop what the settings ask for; the buffer is counted
    here and nowhere else (learning.md 3).
    """
    distance = Decimal(inputs["distance"])
    reserve = sum((max(Decimal(inputs[key]), ZERO) for key in ("buffer", "entry_slippage", "stop_slippage")), ZERO)
    return stored_down(lot_in * distance / (distance + reserve))


def drawdown_ladder(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Lot x factor: 1 until `start`, linear to `floor` at `stop`; the floor where the drawdown is unknown."""
    start, stop, floor = Decimal(inputs["start"]), Decimal(inputs["stop"]), Decimal(inputs["floor"])
    floor = min(max(floor, ZERO), ONE)
    if inputs["drawdown"] == UNKNOWN:
        return stored_down(lot_in * floor)
    drawdown = Decimal(inputs["drawdown"])
    if drawdown <= start:
        return lot_in
    if drawdown >= stop:
        return stored_down(lot_in * floor)
    return stored_down(lot_in * (ONE - (ONE - floor) * (drawdown - start) / (stop - start)))


def loss_streak(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Lot x max(floor, 1 - step x (losses in a row - free_losses)); the floor where the streak is unknown."""
    return stored_down(lot_in * streak_factor(inputs))


def streak_factor(inputs: Mapping[str, str]) -> Decimal:
    """The factor of `loss_streak`, 0 to 1."""
    floor = min(max(Decimal(inputs["floor"]), ZERO), ONE)
    if inputs["losses"] == UNKNOWN:
        return floor
    excess = max(Decimal(inputs["losses"]) - Decimal(inputs["free_losses"]), ZERO)
    return min(max(ONE - max(Decimal(inputs["step"]), ZERO) * excess, floor), ONE)


RULES: Mapping[str, Rule] = {
    "base_risk": base_risk,
    "base_fixed": base_fixed,
    "copy_multiplier": copy_multiplier,
    "score_multiplier": score_multiplier,
    "slippage_factor": slippage_factor,
    "drawdown_ladder": drawdown_ladder,
    "loss_streak": loss_streak,
}

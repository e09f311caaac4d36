"""Hard ceilings and the broker's grid. A cap never raises a lot; the grid rounds down, never up (INV-11, INV-12)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from srm_agent.domain.units import STORED, ZERO, floor_to_step, stored_down
from srm_agent.risk.lot_size import Rule


def _largest(budget: Decimal, per_lot: Decimal) -> Decimal:
    """Largest stored lot whose cost stays within the budget; 0 without budget."""
    if budget <= 0:
        return ZERO
    lot = stored_down(budget / per_lot)
    # The quotient may have been rounded up in its last digit.
    return max(lot - STORED, ZERO) if lot * per_lot > budget else lot


def _money_per_lot(inputs: Mapping[str, str], key: str) -> Decimal:
    return Decimal(inputs[key]) * Decimal(inputs["contract_size"]) * Decimal(inputs["conversion"])


def max_lot(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """The follower's largest lot."""
    return min(lot_in, max(Decimal(inputs["max_lot"]), ZERO))


def risk_cap(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """INV-11: money from the order's worst price to the buffered stop stays within equity x max_risk."""
    budget = Decimal(inputs["equity"]) * Decimal(inputs["max_risk"])
    return min(lot_in, _largest(budget, _money_per_lot(inputs, "distance")))


def open_risk(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """All open legs' money at their stops, this one included, stays within equity x max_open_risk."""
    budget = Decimal(inputs["equity"]) * Decimal(inputs["max_open_risk"]) - Decimal(inputs["used"])
    return min(lot_in, _largest(budget, _money_per_lot(inputs, "distance")))


def notional(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Value of the positions (of one symbol or of all) stays within equity x limit."""
    budget = Decimal(inputs["equity"]) * Decimal(inputs["limit"]) - Decimal(inputs["used"])
    return min(lot_in, _largest(budget, _money_per_lot(inputs, "price")))


def margin(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Margin stays within the free margin and within equity x max_margin_use, what is in flight counted as used."""
    reserved = Decimal(inputs["margin_reserved"])
    allowed = Decimal(inputs["equity"]) * Decimal(inputs["max_margin_use"]) - Decimal(inputs["margin_used"])
    budget = min(Decimal(inputs["margin_free"]), allowed) - reserved
    return min(lot_in, _largest(budget * Decimal(inputs["leverage"]), _money_per_lot(inputs, "price")))


def lot_max(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """The broker's largest lot."""
    return min(lot_in, Decimal(inputs["lot_max"]))


def lot_step(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Down to the broker's grid, never up."""
    step = Decimal(inputs["lot_step"])
    lot = floor_to_step(lot_in, step)
    return max(lot - step, ZERO) if lot > lot_in else lot


def lot_min(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Below the broker's smallest lot nothing is sent: rounding up would risk more than was asked for."""
    return lot_in if lot_in >= Decimal(inputs["lot_min"]) else ZERO


def min_notional(inputs: Mapping[str, str], lot_in: Decimal) -> Decimal:
    """Below the broker's smallest order value (settle currency, at the order's cheaper price) nothing is sent."""
    value = lot_in * Decimal(inputs["price"]) * Decimal(inputs["contract_size"])
    return lot_in if value >= Decimal(inputs["min_notional"]) else ZERO


RULES: Mapping[str, Rule] = {
    "max_lot": max_lot,
    "risk_cap": risk_cap,
    "open_risk": open_risk,
    "symbol_notional": notional,
    "total_notional": notional,
    "margin": margin,
    "lot_max": lot_max,
    "lot_step": lot_step,
    "lot_min": lot_min,
    "min_notional": min_notional,
}

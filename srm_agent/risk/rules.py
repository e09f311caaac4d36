"""The register of lot rules, the arithmetic they run in, and the path of a lot through them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

from srm_agent.domain.decisions import ReasonCode, Step
from srm_agent.domain.units import ZERO, floor_to_step
from srm_agent.risk import limits, lot_size
from srm_agent.risk.lot_size import Rule

RULES: Mapping[str, Rule] = {**lot_size.RULES, **limits.RULES}

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Fixed, so that a recomputation elsewhere gives the same digits whatever the ambient context is."""


class LotPath:
    """A lot on its way: each rule applied is recorded, so steps chain from the first to exactly the last lot."""

    def __init__(self, lot_floor: Decimal, lot_grid: Decimal) -> None:
        self._lot_floor = lot_floor
        self._lot_grid = lot_grid
        self.lot = ZERO
        self.steps: list[Step] = []
        self.culprit = ReasonCode.BELOW_MIN_LOT
        """Which cap took the lot below the smallest one."""

    def apply(self, rule: str, inputs: Mapping[str, str]) -> None:
        """Apply and record."""
        lot_out = RULES[rule](inputs, self.lot)
        self.steps.append(Step(rule, inputs, self.lot, lot_out))
        self.lot = lot_out

    def cap(self, rule: str, inputs: Mapping[str, str], code: ReasonCode) -> None:
        """Apply; record only if it binds."""
        lot_in = self.lot
        if RULES[rule](inputs, lot_in) == lot_in:
            return
        self.apply(rule, inputs)
        if self._sendable(lot_in) and not self._sendable(self.lot):
            self.culprit = code

    def _sendable(self, lot: Decimal) -> bool:
        return floor_to_step(lot, self._lot_grid) >= self._lot_floor

"""The synthetic order book of one symbol: a touch, a ladder behind it, and what our accounts have taken from it."""

from __future__ import annotations

from decimal import Decimal

from simulator.terms import SimInstrument
from srm_agent.domain.units import ZERO, Side, floor_to_step

LEVELS = 400
"""Levels on each side; what an order wants beyond them is not executed (Bybit's market orders have a price band)."""


class Book:
    """Bid, ask and depth of one symbol. What is taken comes back with the next `move`."""

    def __init__(self, terms: SimInstrument) -> None:
        self._terms = terms
        self._step = terms.tick_size * terms.level_ticks
        self.bid = ZERO
        self.ask = ZERO
        self.at_ms = 0
        self._level_lots = terms.level_lots
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}

    @property
    def lot_step(self) -> Decimal:
        """The lot grid in force."""
        return self._terms.lot_step

    def set_terms(self, terms: SimInstrument) -> None:
        """Other terms from now on. Raises ValueError where the prices of now would be off the new grid."""
        if self.bid % terms.tick_size or self.ask % terms.tick_size:
            raise ValueError(
                f"{terms.symbol_id}: {self.bid} / {self.ask} are no multiples of the new tick {terms.tick_size}"
            )
        self._terms = terms
        self._step = terms.tick_size * terms.level_ticks

    @property
    def open(self) -> bool:
        """A price is known."""
        return self.bid > 0

    @property
    def mark(self) -> Decimal:
        """Middle of bid and ask, exact: values positions and margins."""
        return (self.bid + self.ask) / 2

    def move(self, bid: Decimal, ask: Decimal, at_ms: int, depth: float) -> None:
        """Set the touch and refill the ladder. Raises ValueError for a crossed book, an off-grid price or a step back.

        `depth` scales the lots on a level (rounded down to the lot grid, at least one step).
        """
        if not 0 < bid < ask:
            raise ValueError(f"{self._terms.symbol_id}: bid must be > 0 and below ask, was {bid} / {ask}")
        if bid % self._terms.tick_size or ask % self._terms.tick_size:
            raise ValueError(
                f"{self._terms.symbol_id}: prices must be multiples of {self._terms.tick_size}, was {bid} / {ask}"
            )
        if at_ms < self.at_ms:
            raise ValueError(f"{self._terms.symbol_id}: market time must not go back from {self.at_ms}, was {at_ms}")
        if depth <= 0:
            raise ValueError(f"{self._terms.symbol_id}: depth must be > 0, was {depth}")
        lots = floor_to_step(self._terms.level_lots * Decimal(repr(float(depth))), self._terms.lot_step)
        self._level_lots = max(lots, self._terms.lot_step)
        self.bid, self.ask, self.at_ms = bid, ask, at_ms
        self._taken = {Side.BUY: ZERO, Side.SELL: ZERO}

    def touch(self, side: Side) -> Decimal:
        """The announced price that an order of `side` meets: a buy the ask, a sell the bid."""
        return self.ask if side is Side.BUY else self.bid

    def touch_lots(self, side: Side) -> Decimal:
        """Lots still offered at the touch to an order of `side`."""
        return max(self._level_lots - self._taken[side], ZERO)

    def walk(self, side: Side, lots: Decimal, limit: Decimal | None) -> list[tuple[Decimal, Decimal]]:
        """What an order of `side` would get now: (price, lots), best first, nothing beyond `limit`; changes nothing."""
        plan: list[tuple[Decimal, Decimal]] = []
        index, skip = divmod(self._taken[side], self._level_lots)
        for level in range(int(index), LEVELS):
            price = self.touch(side) + side * level * self._step
            if price <= 0 or lots <= 0 or (limit is not None and (price - limit) * side > 0):
                break
            part = min(self._level_lots - skip, lots)
            plan.append((price, part))
            lots -= part
            skip = ZERO
        return plan

    def take(self, side: Side, lots: Decimal) -> None:
        """Remove what a fill of an order of `side` consumed, until the next move."""
        self._taken[side] += lots

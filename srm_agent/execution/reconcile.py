"""Our legs against the broker's net positions, pure. A failed read never comes here: it is not "flat" (INV-7)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import Symbol
from srm_agent.domain.orders import BrokerPosition
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO


class Finding(StrEnum):
    """What a comparison can show."""

    FOREIGN = "foreign"
    """The broker holds more than our legs (or the other side): reported, left alone, no entries on the symbol."""
    MISSING = "missing"
    """The broker holds less than our legs: look for the fills that explain it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One symbol on which journal and broker disagree. `excess` = broker - ours, signed lots."""

    finding: Finding
    symbol: Symbol
    excess: Decimal
    leg: Leg | None
    position: BrokerPosition | None


def compare(legs: Iterable[Leg], positions: Iterable[BrokerPosition], in_doubt: frozenset[Symbol]) -> list[Difference]:
    """Differences by symbol; symbols with an order in doubt are skipped, their truth is still under way."""
    held = {position.symbol: position for position in positions if position.lot}
    ours: dict[Symbol, list[Leg]] = {}
    for leg in legs:
        if leg.state is LegState.OPEN:
            ours.setdefault(leg.symbol, []).append(leg)
    found = []
    for symbol in sorted({*held, *ours}):
        if symbol in in_doubt:
            continue
        mine = ours.get(symbol, [])
        position = held.get(symbol)
        expected = sum((int(leg.side) * leg.open_lot for leg in mine), ZERO)
        actual = int(position.side) * position.lot if position else ZERO
        first: Leg | None = mine[0] if mine else None
        if actual != expected:
            shrunk = first is not None and ZERO <= actual * int(first.side) < expected * int(first.side)
            found.append(
                Difference(Finding.MISSING if shrunk else Finding.FOREIGN, symbol, actual - expected, first, position)
            )
    return found

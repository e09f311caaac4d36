"""Closing as a desired state: each leg has an open lot it should come down to, and attempts follow until it has.

A close is reduce-only, so a repeated one does no harm; each attempt has its own client id (INV-1 is about entries).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from srm_agent.clock import Clock
from srm_agent.domain.ids import LegId, PositionRef, client_order_id
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import ZERO, floor_to_step

SEND_DEADLINE_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.3, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A leg should hold no more than `target` lots."""

    target: Decimal
    reason: CloseReason
    label: str
    """Names the request (`close:<message>`, `late`), part of the client id."""
    attempts: int = 0
    not_before: float = 0.0


class ExitPlan:
    """The wishes of one connection."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wishes: dict[LegId, Wish] = {}

    def want(self, leg: Leg, fraction: Decimal, reason: CloseReason, label: str, instrument: Instrument) -> None:
        """Close `fraction` of what is open; the remainder is rounded down, so a part close never closes too little."""
        target = ZERO if fraction >= 1 else floor_to_step(leg.open_lot * (1 - fraction), instrument.lot_step)
        if target < instrument.lot_min:
            target = ZERO  # a remainder below the smallest lot could never be closed by itself
        known = self._wishes.get(leg.leg_id)
        if known is not None and known.target <= target and known.label == label:
            return
        self._wishes[leg.leg_id] = Wish(
            target=min(target, known.target) if known else target, reason=reason, label=label
        )

    def due(self) -> list[tuple[LegId, Wish]]:
        """Wishes whose next attempt may go now."""
        now = self._clock.monotonic()
        return [(leg_id, wish) for leg_id, wish in self._wishes.items() if wish.not_before <= now]

    def next_intent(
        self, leg: Leg, wish: Wish, instrument: Instrument, reference: PositionRef, fence: int
    ) -> OrderIntent | None:
        """The next attempt, or None when nothing (more) is to be closed. Volume never exceeds our own leg (INV-12)."""
        lot = floor_to_step(leg.open_lot - wish.target, instrument.lot_step)
        if leg.state is LegState.OPENING:
            return None  # its entry is still under way: the wish stands
        if leg.state is not LegState.OPEN or lot <= 0:
            self._wishes.pop(leg.leg_id, None)
            return None
        attempt = wish.attempts + 1
        pause = min(FIRST_PAUSE_S * 2**wish.attempts, LONGEST_PAUSE_S)
        now = self._clock.monotonic()
        self._wishes[leg.leg_id] = replace(wish, attempts=attempt, not_before=now + pause)
        return OrderIntent(
            client_id=client_order_id(leg.connection_id, leg.signal_id, wish.label, attempt),
            connection_id=leg.connection_id,
            leg_id=leg.leg_id,
            signal_id=leg.signal_id,
            decision_id=leg.decision_id,
            purpose=OrderPurpose.EMERGENCY if wish.reason is CloseReason.EMERGENCY else OrderPurpose.EXIT,
            symbol=leg.symbol,
            side=leg.side.opposite,
            lot=lot,
            limit_price=None,
            stop_loss=None,
            take_profit=None,
            reduce=reference,
            reason=wish.reason.value,
            created_at=self._clock.wall(),
            deadline=now + SEND_DEADLINE_S,
            fence=fence,
        )

    def drop(self, leg_id: LegId) -> None:
        """The leg has ended."""
        self._wishes.pop(leg_id, None)

    def wanted(self, leg_id: LegId) -> Wish | None:
        """The wish for a leg, if any."""
        return self._wishes.get(leg_id)

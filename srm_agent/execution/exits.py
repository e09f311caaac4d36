"""Closing as a desired state: each leg has an open lot it should come down to, and attempts follow until it has.

A close is reduce-only, so a repeated one does no harm; each attempt has its own client id (INV-1 is about entries).
What a request leaves of its leg is fixed at its first attempt and written with it: a request that is repeated after a
crash closes no more than it asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
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
REMEMBERED = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A leg should hold no more than `target` lots."""

    keep: Decimal
    """The share of the leg that may stay, for a leg whose volume is not known yet."""
    target: Decimal | None
    """None while the leg is opening."""
    reason: CloseReason
    label: str
    """Names the request (`close:<message>`, `late`), part of the client id."""
    requests: tuple[str, ...]
    """Labels of all requests that this wish fulfils."""
    attempts: int = 0
    not_before: float = 0.0


class ExitPlan:
    """The wishes of one connection."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wishes: dict[LegId, Wish] = {}
        self._numbers: dict[tuple[LegId, str], int] = {}
        self._fixed: dict[LegId, dict[str, Decimal]] = {}
        """What each request that was tried leaves of its leg."""
        self._hopeless: dict[LegId, Decimal] = {}
        """Volume that the venue does not let us close: not tried again until it changes."""

    def restore(self, exits: Iterable[OrderIntent]) -> None:
        """Take over what an earlier process has tried, oldest first."""
        for intent in exits:
            if intent.leg_id is None or intent.target is None:
                continue
            self._fix(intent.leg_id, intent.requests, intent.target)
            for label in intent.requests:  # the derived first id of each may be taken
                self._numbers[intent.leg_id, label] = max(1, self._numbers.get((intent.leg_id, label), 1))

    def want(self, leg: Leg, fraction: Decimal, reason: CloseReason, label: str, instrument: Instrument | None) -> None:
        """Close `fraction` of what is open after the requests before this one; a repeated request changes nothing.

        `instrument` None: the venue has not told its terms yet; the volume is found when it has.
        """
        known = self._wishes.get(leg.leg_id)
        if (known is not None and label in known.requests) or self._hopeless.get(leg.leg_id) == leg.open_lot:
            return
        keep = max(ZERO, 1 - fraction)
        fixed = self._fixed.get(leg.leg_id, {}).get(label)
        if fixed is not None:
            target: Decimal | None = fixed if known is None or known.target is None else min(fixed, known.target)
            if known is None and leg.state is LegState.OPEN and leg.open_lot <= fixed:
                return  # an earlier process has done it
        elif leg.entry_price is None or instrument is None:
            target = None
        else:
            asked = leg.open_lot if known is None or known.target is None else min(leg.open_lot, known.target)
            target = remainder(asked, keep, instrument)
        self._wishes[leg.leg_id] = Wish(
            keep=keep if known is None else keep * known.keep,
            target=target,
            reason=reason,
            label=label,
            requests=(*(known.requests if known else ()), label),
        )

    @property
    def idle(self) -> bool:
        """Nothing is to be closed."""
        return not self._wishes

    def due(self) -> list[tuple[LegId, Wish]]:
        """Wishes whose next attempt may go now."""
        now = self._clock.monotonic()
        return [(leg_id, wish) for leg_id, wish in self._wishes.items() if wish.not_before <= now]

    def next_intent(
        self, leg: Leg, wish: Wish, instrument: Instrument, reference: PositionRef, fence: int
    ) -> OrderIntent | None:
        """The next attempt, or None when nothing (more) is to be closed. Volume never exceeds our own leg (INV-12)."""
        if leg.state is LegState.OPENING:
            return None  # its entry is still under way: the wish stands
        target = remainder(leg.open_lot, wish.keep, instrument) if wish.target is None else wish.target
        lot = closing_lot(leg.open_lot, target, instrument)
        if leg.state is not LegState.OPEN or lot <= 0:
            self._wishes.pop(leg.leg_id, None)
            return None
        self._fix(leg.leg_id, wish.requests, target)
        pause = min(FIRST_PAUSE_S * 2 ** min(wish.attempts, 10), LONGEST_PAUSE_S)
        now = self._clock.monotonic()
        self._wishes[leg.leg_id] = replace(wish, target=target, attempts=wish.attempts + 1, not_before=now + pause)
        return OrderIntent(
            client_id=client_order_id(leg.connection_id, leg.signal_id, wish.label, self._number(leg, wish)),
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
            target=target,
            requests=wish.requests,
        )

    def everything(self, leg_id: LegId) -> bool:
        """Whether the whole leg is to be closed: then a second close of it does no harm."""
        wish = self._wishes.get(leg_id)
        return wish is not None and (wish.keep == ZERO or wish.target == ZERO)

    def give_up(self, leg: Leg) -> None:
        """The venue does not let us close this volume: no more attempts until it changes."""
        self._hopeless[leg.leg_id] = leg.open_lot
        self._wishes.pop(leg.leg_id, None)

    def shrunk(self, leg: Leg) -> None:
        """The leg has less volume: its wish is fulfilled when that is its target."""
        wish = self._wishes.get(leg.leg_id)
        if wish is not None and wish.target is not None and leg.open_lot <= wish.target:
            del self._wishes[leg.leg_id]

    def drop(self, leg_id: LegId) -> None:
        """The leg has ended."""
        for memory in (self._wishes, self._fixed, self._hopeless):
            memory.pop(leg_id, None)

    def pending(self, leg_id: LegId, label: str) -> bool:
        """Whether that request has not been fulfilled yet."""
        wish = self._wishes.get(leg_id)
        return wish is not None and label in wish.requests

    def _fix(self, leg_id: LegId, requests: Iterable[str], target: Decimal) -> None:
        known = self._fixed.setdefault(leg_id, {})
        for label in requests:
            known.setdefault(label, target)

    def _number(self, leg: Leg, wish: Wish) -> int:
        """The attempt's number in its client id: 1, then milliseconds of the wall clock.

        An id is never used twice, not by a wish that comes back and not by the next process: a venue would answer a
        repeated id with the old order. Only the first is derived, so that a repeat after a crash is recognised there.
        """
        key = (leg.leg_id, wish.label)
        last = self._numbers.pop(key, 0)
        number = 1 if not last else max(last + 1, int(self._clock.wall().timestamp() * 1000))
        self._numbers[key] = number
        if len(self._numbers) > REMEMBERED:
            del self._numbers[next(iter(self._numbers))]
        return number


def remainder(lot: Decimal, keep: Decimal, instrument: Instrument) -> Decimal:
    """What may stay of `lot`, rounded down; 0 where a smaller position could not be closed by itself."""
    asked = floor_to_step(lot * keep, instrument.lot_step)
    if lot <= asked:
        return lot
    rest = lot - max(floor_to_step(lot - asked, instrument.lot_step), instrument.lot_min)
    return rest if keep > 0 and rest >= instrument.lot_min else ZERO


def closing_lot(held: Decimal, target: Decimal, instrument: Instrument) -> Decimal:
    """What to close to come down to `target`: on the grid, at least lot_min, leaving nothing below lot_min.

    Volume off the grid is closed in two steps: what lies on it, then the rest exactly as it is (venues that let dust
    go take it only so).
    """
    if held <= target:
        return ZERO
    lot = max(floor_to_step(held - target, instrument.lot_step), instrument.lot_min)
    if held - lot >= instrument.lot_min:
        return lot
    on_grid = floor_to_step(held, instrument.lot_step)
    return on_grid if on_grid >= instrument.lot_min else held


def is_dust(lot: Decimal, instrument: Instrument) -> bool:
    """Volume below the smallest order: some venues let it be closed, some do not."""
    return lot < instrument.lot_min

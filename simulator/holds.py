"""Orders that the venue sits on: a part is executed at once, the rest later or never (B6, B8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from simulator.records import SimOrder, StopKind
from srm_agent.domain.units import ZERO, Side, floor_to_step

OnHeld = Callable[[SimOrder], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What happens to the next order of a kind. `fraction` of its lots is executed at once, rounded down to the grid.

    `on_held` set: the rest stays working until `Venue.release`, and the order is told to it; None: it is withdrawn.
    `stops`: concerns an order by which the venue closes at a stop or target, not one that the account sends.
    """

    fraction: Decimal
    on_held: OnHeld | None = None
    stops: bool = False
    reduce_only: bool | None = None
    """True: exits only, False: entries only, None: either."""
    side: Side | None = None

    def concerns(self, order: SimOrder) -> bool:
        """This order is of the kind."""
        return (
            self.stops is (order.stop_kind in (StopKind.STOP_LOSS, StopKind.TAKE_PROFIT))
            and self.reduce_only in (None, order.ticket.reduce_only)
            and self.side in (None, order.ticket.side)
        )

    def part(self, lots: Decimal, step: Decimal) -> Decimal:
        """Lots that are executed at once."""
        return floor_to_step(lots * self.fraction, step)


class Holds:
    """Plans by account, and the orders held."""

    def __init__(self) -> None:
        self._plans: dict[str, list[Hold]] = {}
        self._held: dict[str, None] = {}

    def plan(self, account_id: str, hold: Hold) -> None:
        """For the account's next order that it concerns. Raises ValueError outside 0 <= fraction < 1."""
        if not ZERO <= hold.fraction < 1:
            raise ValueError(f"fraction must be >= 0 and below 1, was {hold.fraction}")
        self._plans.setdefault(account_id, []).append(hold)

    def forget_plans(self) -> None:
        """Orders to come are executed as usual."""
        self._plans.clear()

    def take(self, order: SimOrder) -> Hold | None:
        """The plan that concerns this fresh order, consumed."""
        plans = self._plans.get(order.account_id)
        for hold in plans or ():
            if hold.concerns(order) and plans is not None:
                plans.remove(hold)
                return hold
        return None

    def keep(self, order: SimOrder) -> None:
        """Sit on it."""
        self._held[order.order_id] = None

    def holds(self, order_id: str) -> bool:
        """The venue sits on this order."""
        return order_id in self._held

    def let_go(self, order_id: str) -> None:
        """Not any more."""
        self._held.pop(order_id, None)

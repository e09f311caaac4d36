"""Changes of stop and target at the broker: one at a time per leg, and read back afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from srm_agent import failpoints
from srm_agent.clock import Clock
from srm_agent.domain.ids import LegId
from srm_agent.domain.trades import Leg
from srm_agent.execution.stop_rules import with_stop

if TYPE_CHECKING:
    from srm_agent.execution.desk import Desk

NEVER = float("-inf")


class StopChanges:
    """The stops of one connection's legs, as we change them."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._locks: dict[LegId, asyncio.Lock] = {}
        self._ended: dict[LegId, float] = {}
        """When our last change of a leg's stop ended, monotonic."""

    async def move(self, leg: Leg, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Change them at the broker, then in the ledger; None keeps. Raises OrderRefused, BrokerUnreachable."""
        if stop_loss is None and take_profit is None:
            return
        await self.set(leg, stop_loss, take_profit)
        current = self._desk.ledger.legs.get(leg.leg_id)
        if current is not None:
            moved = replace(current, take_profit=take_profit or current.take_profit)
            self._desk.put_leg(moved if stop_loss is None else self._with_stop(moved, stop_loss))

    async def set(self, leg: Leg, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Change them at the broker only. Raises OrderRefused, BrokerUnreachable, NotAuthorised."""
        lock = self._locks.setdefault(leg.leg_id, asyncio.Lock())
        try:
            async with lock:
                asyncio.get_running_loop().call_soon(failpoints.reached, "CP7")
                await self._desk.broker.protect(self._desk.reference(leg), leg.symbol, stop_loss, take_profit)
        finally:
            if leg.leg_id in self._desk.ledger.legs:
                self._ended[leg.leg_id] = self._clock.monotonic()
                self._desk.keeper.look_soon(leg.leg_id)

    def settled(self, leg: Leg, begun: float) -> bool:
        """Whether a read begun at that monotonic second shows no change of ours half done."""
        lock = self._locks.get(leg.leg_id)
        return (lock is None or not lock.locked()) and self._ended.get(leg.leg_id, NEVER) < begun

    def adopt(self, leg: Leg, stop_loss: Decimal) -> None:
        """Somebody else has set this stop, and it stands."""
        current = self._desk.ledger.legs.get(leg.leg_id)
        if current is not None:
            self._desk.put_leg(self._with_stop(current, stop_loss))

    def note_not_kept(self, leg: Leg) -> None:
        """The provider asked for a wider stop: it counts against its stop-loss compliance, granted or not."""
        current = self._desk.ledger.legs.get(leg.leg_id)
        if current is not None and current.stop_kept:
            self._desk.put_leg(replace(current, stop_kept=False))

    def forget(self, leg_id: LegId) -> None:
        """The leg has ended."""
        self._locks.pop(leg_id, None)
        self._ended.pop(leg_id, None)

    def _with_stop(self, leg: Leg, stop_loss: Decimal) -> Leg:
        instrument = self._desk.instrument(leg)
        return (
            replace(leg, stop_loss=stop_loss)
            if instrument is None
            else with_stop(leg, stop_loss, instrument.contract_size)
        )

"""A provider's changes of stop and target, as a desired state per leg; risk is never loosened beyond the plan.

Where the policy allows widening, the risk cap is the bound (INV-11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import LegId
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised
from srm_agent.execution.stop_rules import buffer_of, farthest_stop, frozen, loosens, moved_stop, nearest_stop

if TYPE_CHECKING:
    from srm_agent.execution.desk import Desk

log = structlog.get_logger()

TURN_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.3, 5.0
TRIES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What the provider last asked for; None keeps."""

    stop_loss: Decimal | None
    take_profit: Decimal | None
    tries: int = 0
    not_before: float = 0.0


class StopMover:
    """Applies the latest wish per leg as soon as the leg is open; a newer wish replaces an older one."""

    def __init__(self, desk: Desk, clock: Clock, instrument: Callable[[Leg], Instrument | None]) -> None:
        self._desk = desk
        self._clock = clock
        self._instrument = instrument
        self._moves: dict[LegId, Move] = {}
        self._buffers: dict[LegId, Decimal] = {}
        self._work = asyncio.Event()

    def restore(self, buffers: Mapping[LegId, Decimal]) -> None:
        """Take over the buffers of legs whose stop may have been moved by an earlier process."""
        self._buffers.update(buffers)

    def want(self, leg: Leg, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Ask for a stop and target; what is None keeps what was asked before."""
        if stop_loss is not None and loosens(leg, stop_loss):
            self._desk.stops.note_not_kept(leg)
        # The first move hides the buffer (the stop in force is then beyond the stated one): later moves keep it.
        self._buffers.setdefault(leg.leg_id, buffer_of(leg))
        before = self._moves.get(leg.leg_id)
        self._moves[leg.leg_id] = Move(
            stop_loss=stop_loss if stop_loss is not None or before is None else before.stop_loss,
            take_profit=take_profit if take_profit is not None or before is None else before.take_profit,
        )
        self._work.set()

    def pending(self, leg_id: LegId) -> bool:
        """Whether something asked for has not been set yet."""
        return leg_id in self._moves

    async def run(self) -> None:
        """Work for ever."""
        while True:
            if not self._moves:
                self._work.clear()
                await self._work.wait()
            await asyncio.gather(*(self._try(leg_id) for leg_id in list(self._moves)))
            self._buffers = {key: buffer for key, buffer in self._buffers.items() if key in self._desk.ledger.legs}
            await asyncio.sleep(TURN_S)

    async def _try(self, leg_id: LegId) -> None:
        move, leg, now = self._moves[leg_id], self._desk.ledger.legs.get(leg_id), self._clock.monotonic()
        if leg is None:
            del self._moves[leg_id]
            return
        instrument = self._instrument(leg)
        if leg.state is not LegState.OPEN or now < move.not_before or instrument is None:
            return
        if frozen(leg.side, leg.stop_loss, self._desk.exit_touch(leg), instrument):
            self._moves[leg_id] = replace(
                move, not_before=now + FIRST_PAUSE_S
            )  # it is about to be hit, or is free soon
            return
        try:
            await self._desk.stops.move(leg, self._stop(leg, move, instrument), move.take_profit)
        except NotAuthorised as error:
            self._desk.not_authorised(error)
            self._done(leg_id, move)
        except BrokerUnreachable as error:
            pause = min(FIRST_PAUSE_S * 2**move.tries, LONGEST_PAUSE_S)
            if move.tries + 1 >= TRIES:
                log.error("stop could not be moved", leg=leg_id, error=str(error))
                self._done(leg_id, move)
            elif self._moves.get(leg_id) is move:
                self._moves[leg_id] = replace(move, tries=move.tries + 1, not_before=now + pause)
        except BrokerError as error:
            log.warning("stop or target refused", leg=leg_id, error=str(error))
            self._done(leg_id, move)
        else:
            self._done(leg_id, move)

    def _stop(self, leg: Leg, move: Move, instrument: Instrument) -> Decimal | None:
        """The stop to set; None where the one in force stays."""
        if move.stop_loss is None:
            return None
        side, buffer = int(leg.side), self._buffers.get(leg.leg_id, ZERO)
        widest = None
        if self._desk.stop_policy(leg).allow_widening:
            widest = farthest_stop(leg, instrument, self._desk.risk_cap(leg))
        stop = moved_stop(leg, move.stop_loss, instrument.tick_size, buffer, farthest=widest)
        touch = self._desk.exit_touch(leg)
        if touch is None:
            return stop
        # Nearer than the broker takes (or past the market): as near as it takes, so that it is hit at once.
        nearest = nearest_stop(leg.side, touch, instrument)
        if side * (stop - nearest) <= 0:
            return stop
        return nearest if leg.stop_loss is None or side * (nearest - leg.stop_loss) > 0 else None

    def _done(self, leg_id: LegId, move: Move) -> None:
        if self._moves.get(leg_id) is move:
            del self._moves[leg_id]

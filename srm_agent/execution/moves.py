"""A provider's changes of stop and target, as a desired state per leg; risk is never loosened beyond the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import LegId
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO, stop_away
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised

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


def buffer_of(leg: Leg) -> Decimal:
    """How far the stop in force lies beyond the stated one, price units, >= 0."""
    return ZERO if leg.stop_loss is None else max(ZERO, int(leg.side) * (leg.planned_stop - leg.stop_loss))


def moved_stop(leg: Leg, asked: Decimal, tick: Decimal, buffer: Decimal) -> Decimal:
    """The stop to set: what was asked, moved away by the leg's own buffer, never farther than the stop in force.

    Rounded away from entry; a looser stop than the present one is held at the present one (the platform's compliance
    guard: learning.md 4.2).
    """
    side = int(leg.side)
    wanted = stop_away(asked - side * buffer, leg.side, tick)
    if leg.stop_loss is None:
        return wanted
    return max(wanted, leg.stop_loss) if side > 0 else min(wanted, leg.stop_loss)


def loosens(leg: Leg, asked: Decimal) -> bool:
    """Whether the provider asks for a stop farther from entry than the one it stated, or than the one in force."""
    side = int(leg.side)
    nearest = leg.planned_stop if leg.stop_loss is None else max(side * leg.planned_stop, side * leg.stop_loss) * side
    return side * asked < side * nearest


class StopMover:
    """Applies the latest wish per leg as soon as the leg is open; a newer wish replaces an older one."""

    def __init__(self, desk: Desk, clock: Clock, instrument: Callable[[Leg], Instrument | None]) -> None:
        self._desk = desk
        self._clock = clock
        self._instrument = instrument
        self._moves: dict[LegId, Move] = {}
        self._buffers: dict[LegId, Decimal] = {}
        self._work = asyncio.Event()

    def want(self, leg: Leg, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Ask for a stop and target; what is None keeps what was asked before."""
        if stop_loss is not None and loosens(leg, stop_loss):
            self._desk.note_stop_not_kept(leg)
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
        buffer = self._buffers.get(leg_id, ZERO)
        stop = None if move.stop_loss is None else moved_stop(leg, move.stop_loss, instrument.tick_size, buffer)
        try:
            await self._desk.protect(leg, stop, move.take_profit)
        except NotAuthorised as error:
            self._desk.not_authorised(str(error))
            self._done(leg_id, move)
        except BrokerUnreachable as error:
            pause = min(FIRST_PAUSE_S * 2**move.tries, LONGEST_PAUSE_S)
            if move.tries + 1 >= TRIES:
                log.error("stop could not be moved", leg=leg_id, error=str(error))
                self._done(leg_id, move)
            elif self._moves.get(leg_id) is move:
                self._moves[leg_id] = Move(
                    stop_loss=move.stop_loss,
                    take_profit=move.take_profit,
                    tries=move.tries + 1,
                    not_before=now + pause,
                )
        except BrokerError as error:
            log.warning("stop or target refused", leg=leg_id, stop=str(stop), error=str(error))
            self._done(leg_id, move)
        else:
            self._done(leg_id, move)

    def _done(self, leg_id: LegId, move: Move) -> None:
        if self._moves.get(leg_id) is move:
            del self._moves[leg_id]

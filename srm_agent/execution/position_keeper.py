"""Keeps a stop at the broker under every position of ours (INV-4): read back, set again, and closed if that fails.

The read is the truth: an event or a reply only makes the keeper look. What is missing or looser than the leg's stop
is set again at first sight; what stays so for half a minute while the broker can be reached is closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from srm_agent import failpoints
from srm_agent.clock import Clock
from srm_agent.domain.ids import LegId
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import BrokerPosition
from srm_agent.domain.policies import ForeignStopChange
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import ONE, ZERO, plain
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised
from srm_agent.execution.stop_rules import Cover, cover, frozen, nearest_stop, room_to, wanted_stop

if TYPE_CHECKING:
    from srm_agent.execution.desk import Desk

log = structlog.get_logger()

LOOK_S = 2.0
"""How old the picture of an open position may be."""
HURRY_S = 0.5
"""While something is being mended, or has not been read back yet."""
NAKED_CLOSE_S = 30.0
ASK_AGAIN_S = 4.0
FLAG_AFTER_S = 1.0
"""A looser stop is taken for somebody's wish (policy `flag`) only when a second read confirms it."""
WIDER = Decimal("1.5")
"""How much more room the next try takes after a refusal of a broker that does not tell its stops level."""
WIDEST = 2
"""Times the leg's own distance from entry to stop: no stand-in is farther from the market than this."""


@dataclass(slots=True)
class Bare:
    """A leg without the stop it should have. Seconds are monotonic."""

    since: float
    found: Cover
    tries: int = 0
    room: Decimal = ZERO
    """Distance from the market that refusals have taught us."""
    asked: float = float("-inf")
    """When a stop was last asked for."""
    told: bool = False
    closing: bool = False


class PositionKeeper:
    """One account. Nothing here waits for the database, the stream or the entry queue."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        self._desk = desk
        self._clock = clock
        self._bare: dict[LegId, Bare] = {}
        self._unread: dict[LegId, None] = {}
        """Opened or changed, and not read back since."""
        self._verified: dict[LegId, None] = {}
        """Read back with its stop at least once: what is missing now was taken away."""
        self._blind: float | None = None
        """Since when reads fail: that time does not count against the broker."""
        self._wake = asyncio.Event()

    def look_soon(self, leg_id: LegId | None = None) -> None:
        """Read back now; with a leg: its stop is new or was changed."""
        if leg_id is not None:
            self._unread[leg_id] = None
        self._wake.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                async with asyncio.timeout(HURRY_S if self._bare or self._unread else LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if self._due():
                await self.look()
                await asyncio.sleep(0.05)  # a storm of events is one look

    def _due(self) -> bool:
        """Whether something is open that no reading younger than two seconds shows to be well."""
        legs = self._open_legs()
        if not legs:
            for memory in (self._bare, self._unread, self._verified):
                memory.clear()
            return False
        if self._bare or self._unread:
            return True
        fresh = self._clock.monotonic() - LOOK_S
        return any(self._desk.seen_at(leg.symbol) <= fresh or not self._looks_well(leg) for leg in legs)

    def _looks_well(self, leg: Leg) -> bool:
        position, instrument = self._desk.positions.get(leg.symbol), self._desk.instrument(leg)
        if position is None or instrument is None or position.side is not leg.side:
            return True  # nothing of ours to keep; volumes are the auditor's
        return cover(leg, position, instrument.tick_size) is Cover.WHOLE

    async def look(self) -> None:
        """One read of all positions, and what follows from it."""
        begun = self._clock.monotonic()
        unread, self._unread = self._unread, {}
        try:
            positions = await self._desk.broker.positions()
        except BrokerError as error:
            self._unread = unread | self._unread
            if self._blind is None:
                self._blind = begun
            self._desk.failed(error)
            log.info("positions could not be read", connection=self._desk.connection_id, error=str(error))
            return
        self._sighted(begun)
        if unread:
            failpoints.reached("CP6")
        self._desk.see_positions(positions)
        legs = self._open_legs()
        here = {leg.leg_id for leg in legs}
        self._bare = {leg_id: found for leg_id, found in self._bare.items() if leg_id in here}
        self._verified = {leg_id: None for leg_id in self._verified if leg_id in here}
        await asyncio.gather(*(self._judge(leg, begun) for leg in legs))
        self._desk.auditor.glance()

    def _sighted(self, now: float) -> None:
        """The broker answers again: the clocks go on from where they stood."""
        if self._blind is not None:
            for found in self._bare.values():
                found.since += now - self._blind
            self._blind = None

    def _open_legs(self) -> list[Leg]:
        return [leg for leg in self._desk.ledger.legs.values() if leg.state is LegState.OPEN]

    async def _judge(self, leg: Leg, begun: float) -> None:
        position, instrument = self._desk.positions.get(leg.symbol), self._desk.instrument(leg)
        if position is None or instrument is None or position.side is not leg.side:
            self._bare.pop(leg.leg_id, None)
            return
        state = cover(leg, position, instrument.tick_size)
        if state in (Cover.TIGHTER, Cover.LOOSER) and not self._desk.stops.settled(leg, begun):
            return  # a change of our own is under way: the next read tells
        match state:
            case Cover.WHOLE:
                self._well(leg)
            case Cover.TIGHTER if self._desk.moves.pending(leg.leg_id):
                return  # it may be what the provider has asked for: the mover tells
            case Cover.TIGHTER:
                self._adopt(leg, position, "notice", "tighter stop kept")
            case Cover.MISSING | Cover.PARTIAL | Cover.LOOSER:
                await self._mend(leg, position, instrument, state)

    def _well(self, leg: Leg) -> None:
        found = self._bare.pop(leg.leg_id, None)
        if found is not None and leg.leg_id in self._verified and not found.told:
            text = f"{leg.symbol}: the stop was {found.found.value}, {plain(wanted_stop(leg))} stands again"
            self._desk.tell("warning", "stop set again", text)
        self._verified[leg.leg_id] = None

    def _adopt(self, leg: Leg, position: BrokerPosition, level: str, title: str) -> None:
        """Somebody set another stop and may: the leg has it from now on."""
        assert position.stop_loss is not None
        self._bare.pop(leg.leg_id, None)
        failpoints.reached("CP12")
        was, stop = wanted_stop(leg), position.stop_loss
        self._desk.stops.adopt(leg, stop)
        text = f"{leg.symbol}: somebody moved the stop from {plain(was)} to {plain(stop)}"
        self._desk.tell(level, title, text)

    async def _mend(self, leg: Leg, position: BrokerPosition, instrument: Instrument, state: Cover) -> None:
        now = self._clock.monotonic()
        bare = self._bare.setdefault(leg.leg_id, Bare(since=now, found=state))
        touch, wanted = self._desk.exit_touch(leg), wanted_stop(leg)
        if touch is not None and room_to(leg.side, wanted, touch) <= 0:
            return self._close(leg, bare, f"the market has passed its stop {plain(wanted)}")
        stop = self._settable(leg, touch, instrument, bare)
        if state is Cover.LOOSER and self._left_alone(leg, position, bare, now):
            return None
        if now - bare.since >= NAKED_CLOSE_S:
            self._close(leg, bare, f"its stop could not be set for {NAKED_CLOSE_S:.0f} s")
        if frozen(leg.side, position.stop_loss, touch, instrument):
            return None
        if state is Cover.LOOSER and position.stop_loss and int(leg.side) * (stop - position.stop_loss) <= 0:
            # As near as the broker seems to take it: we watch the rest of the way, and ask for ours now and then.
            if now - bare.asked < ASK_AGAIN_S:
                return None
            stop = wanted
        if not bare.told and bare.tries:
            self._tell_once(leg, position, bare)
        await self._set(leg, position, stop, bare, touch)
        return None

    def _left_alone(self, leg: Leg, position: BrokerPosition, bare: Bare, now: float) -> bool:
        """Whether the policy leaves a stop alone that somebody has loosened; it is then the leg's own."""
        if self._desk.stop_policy(leg).foreign_change is not ForeignStopChange.FLAG:
            return False
        if bare.found is not Cover.LOOSER or bare.tries:
            return False
        if now - bare.since >= FLAG_AFTER_S:
            self._adopt(leg, position, "page", "looser stop")
        return True

    def _tell_once(self, leg: Leg, position: BrokerPosition, bare: Bare) -> None:
        """Not at the first try: a venue may list a fresh position before its stop."""
        bare.told = True
        has = "none" if not position.stop_loss else plain(position.stop_loss)
        self._desk.tell(
            "page",
            "position without its stop",
            f"{leg.symbol}: stop at the broker is {has} ({bare.found.value}), {plain(wanted_stop(leg))} is being set",
        )

    def _settable(self, leg: Leg, touch: Decimal | None, instrument: Instrument, bare: Bare) -> Decimal:
        """The leg's stop, or while that is too near to the market the nearest that the broker takes (B9)."""
        wanted = wanted_stop(leg)
        if touch is None:
            return wanted
        nearest = nearest_stop(leg.side, touch, instrument, bare.room)
        return wanted if int(leg.side) * (nearest - wanted) >= 0 else nearest

    async def _set(self, leg: Leg, position: BrokerPosition, stop: Decimal, bare: Bare, touch: Decimal | None) -> None:
        bare.tries += 1
        bare.asked = self._clock.monotonic()
        # A target that the market has passed would have the stop refused with it: only the first try carries it.
        target = leg.take_profit if bare.tries == 1 and position.take_profit is None else None
        self._unread[leg.leg_id] = None
        try:
            await self._desk.stops.set(leg, stop, target)
        except BrokerUnreachable as error:
            log.warning("stop not set yet", leg=leg.leg_id, stop=plain(stop), error=str(error))
        except NotAuthorised as error:
            self._desk.not_authorised(error)
        except BrokerError as error:
            log.warning("stop refused", leg=leg.leg_id, stop=plain(stop), tries=bare.tries, error=str(error))
            if touch is not None and bare.tries > 1:
                most = WIDEST * abs((leg.entry_price or touch) - wanted_stop(leg))
                bare.room = min(most, max(bare.room, room_to(leg.side, stop, touch)) * WIDER)
        else:
            log.warning("stop set again", leg=leg.leg_id, stop=plain(stop), was=bare.found.value, tries=bare.tries)

    def _close(self, leg: Leg, bare: Bare, why: str) -> None:
        if bare.closing:
            return
        bare.closing = True
        log.error("position is closed", leg=leg.leg_id, reason=why, bare_s=round(self._clock.monotonic() - bare.since))
        self._desk.tell("page", "position without its stop is closed", f"{leg.symbol}: {why}")
        self._desk.close(leg, ONE, CloseReason.EMERGENCY, "naked")

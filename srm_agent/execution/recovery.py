"""What a process must know of the one before it: read from the journal, and from the spill file beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import ConnectionId, FillId, LegId
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.trades import Leg
from srm_agent.domain.units import ZERO
from srm_agent.execution.spill import SpillFile, Spilt
from srm_agent.execution.tickets import Ticket, restored
from srm_agent.ports import Journal, JournalRow

log = structlog.get_logger()

REACH_BACK = timedelta(hours=1)
SETTLED_SINCE = timedelta(hours=24)
"""Orders that ended within a day may still execute late (INV-6): they are known again after a restart."""
_EPOCH = datetime.fromisoformat("1970-01-02T00:00:00+00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The memory of a desk at its start."""

    legs: tuple[Leg, ...]
    """OPENING or OPEN."""
    ended: tuple[Leg, ...]
    """Legs whose orders may still execute late."""
    tickets: tuple[Ticket, ...]
    counted: Mapping[FillId, LegId | None]
    exits: tuple[OrderIntent, ...]
    """Exits that were tried for these legs, oldest first."""
    buffers: Mapping[LegId, Decimal]
    """How far the stop of each open leg's entry lay beyond the provider's, price units, >= 0."""
    damaged: int
    """Lines of the spill file that nobody can read."""

    def entered(self) -> frozenset[LegId]:
        """Legs for which an order was sent, or may have been (INV-1)."""
        known = [leg.leg_id for leg in self.legs]
        asked = [ticket.intent.leg_id for ticket in self.tickets]
        return frozenset(name for name in [*known, *asked, *self.counted.values()] if name is not None)


async def recover(journal: Journal, connection: ConnectionId, spill: SpillFile, clock: Clock) -> Recovered:
    """Everything that may still live at the broker. Spilt exits are journalled first. Raises StoreError."""
    damaged = await _take_spilt(journal, spill)
    legs = await journal.open_legs(connection)
    unsettled = await journal.unsettled(connection)
    settled = await journal.settled_since(connection, clock.wall() - SETTLED_SINCE)
    names = {leg.leg_id for leg in legs}
    others = [row.intent.leg_id for row in [*settled, *unsettled] if row.intent.leg_id not in names]
    ended = await journal.legs(list(dict.fromkeys(name for name in others if name is not None)))
    # Fills of every leg that can be told again must be known as repeats: the broker's history goes back a day.
    opened = [leg.opened_at for leg in [*legs, *ended] if leg.opened_at is not None]
    counted = await journal.known_fills(connection, min(opened, default=_EPOCH) - REACH_BACK)
    own = await journal.orders_of([leg.leg_id for leg in legs])
    now = clock.monotonic()
    rows = {row.intent.client_id: row for row in [*settled, *unsettled]}
    return Recovered(
        legs=tuple(legs),
        ended=tuple(ended),
        tickets=tuple(restored(row, now) for row in rows.values()),
        counted={FillId(fill): leg for fill, leg in counted.items()},
        exits=tuple(row.intent for row in [*own, *settled] if row.intent.purpose is not OrderPurpose.ENTRY),
        buffers=_buffers(legs, own),
        damaged=damaged,
    )


async def _take_spilt(journal: Journal, spill: SpillFile) -> int:
    """Exits that only the spill file knows become rows of the journal; the file goes after their commit."""
    try:
        spilt = spill.read()
    except (OSError, UnicodeDecodeError) as error:
        # Positions must be watched all the same (F25); the file stays for a person.
        log.error("the spill file cannot be read", file=spill.where(), error=repr(error))
        return 1
    if spilt == Spilt():
        return 0
    await journal.record([], spilt.intents, [])
    try:
        spill.forget()
    except OSError as error:
        log.warning("the spill file stays and is read again", file=spill.where(), error=repr(error))
    log.info("spilt exits are in the journal", exits=len(spilt.intents), damaged=len(spilt.damaged))
    return len(spilt.damaged)


def _buffers(legs: Iterable[Leg], rows: Iterable[JournalRow]) -> dict[LegId, Decimal]:
    """From the stop that the entry carried: a move hides it, and the same message must set the same stop again."""
    stops = {
        row.intent.leg_id: row.intent.stop_loss
        for row in rows
        if row.intent.purpose is OrderPurpose.ENTRY and row.intent.stop_loss is not None
    }
    return {
        leg.leg_id: max(ZERO, int(leg.side) * (leg.planned_stop - stops[leg.leg_id]))
        for leg in legs
        if leg.leg_id in stops
    }

"""Legs and executions. A repeated or late write never takes a leg back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import structlog

from simulator.memory_store.exact import Columns, exact, instant, known, measured, real
from simulator.memory_store.tables import LegEntry, Tables
from srm_agent.domain.ids import ConnectionId, LegId
from srm_agent.domain.orders import Fill
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO
from srm_agent.store.records import FillRecord

_LEG = Columns[Leg](
    {
        **dict.fromkeys(("lot", "closed_lot", "planned_stop"), exact),
        **dict.fromkeys(("stop_loss", "take_profit"), known(exact)),
        **dict.fromkeys(("exit_value", "fees", "realised_pnl", "planned_risk"), measured),
        "entry_price": known(measured),
        **dict.fromkeys(("opened_at", "closed_at"), known(instant)),
    }
)
_FILL = Columns[Fill]({"lot": exact, "price": exact, "fee": measured, "at": instant, "received": real})
_OPEN = (LegState.OPENING, LegState.OPEN)
_STAGE = {LegState.OPENING: 0, LegState.NEVER_OPENED: 1, LegState.OPEN: 2, LegState.CLOSED: 3}
_log = structlog.get_logger("srm_agent.store.executions")
"""The same words in the log as the store in SQL, so that a seed has one trace on both."""


def add_legs(tables: Tables, legs: Sequence[Leg], at: datetime) -> None:
    """Insert those that are not there yet; the others stay as they are."""
    new = {leg.leg_id: leg for leg in legs if leg.leg_id not in tables.legs}
    for leg in new.values():
        instant(at)
        _set_leg(tables, LegEntry(len(tables.legs), _LEG.stored(leg), shown=False))


def put_leg(tables: Tables, leg: Leg, at: datetime) -> None:
    """Insert or advance; an older picture (less volume traded, or an earlier state) changes nothing.

    A late entry fill may reopen a closed leg: it has traded more.
    """
    entry = tables.legs.get(leg.leg_id)
    if entry is None:
        instant(at)
        entry, stands = LegEntry(len(tables.legs), _LEG.stored(leg), shown=False), leg
        _set_leg(tables, entry)
    else:
        stands = entry.leg
        if _progress(leg) >= _progress(stands) and leg != stands:
            instant(at)
            entry, stands = LegEntry(entry.number, _LEG.stored(leg), entry.shown), leg
            _set_leg(tables, entry)
    _show(tables, entry, stands)


def _show(tables: Tables, entry: LegEntry, leg: Leg) -> None:
    """Whether the platform's table of positions would have a row of this leg; only its absence is ever told."""
    if entry.shown or leg.entry_price is None or leg.state in (LegState.OPENING, LegState.NEVER_OPENED):
        return
    if leg.leg_id not in tables.entry_logs:
        _log.info("leg_without_entry_log", leg_id=leg.leg_id, connection_id=leg.connection_id)
        return
    _set_leg(tables, LegEntry(entry.number, entry.leg, shown=True))


def _set_leg(tables: Tables, entry: LegEntry) -> None:
    leg_id = entry.leg.leg_id
    tables.legs.put(leg_id, entry)
    if entry.leg.state in _OPEN:
        tables.open_legs.put(leg_id, entry)
    elif leg_id in tables.open_legs:
        tables.open_legs.drop(leg_id)


def _progress(leg: Leg) -> tuple[Decimal, int]:
    """Volume traded so far (in and out), then the state."""
    filled = leg.lot if leg.state in (LegState.OPEN, LegState.CLOSED) else ZERO
    return filled + leg.closed_lot, _STAGE[leg.state]


def open_legs(tables: Tables, of: ConnectionId) -> list[Leg]:
    """OPENING or OPEN, oldest first."""
    entries = [entry for entry in tables.open_legs.values() if entry.leg.connection_id == of]
    return [entry.leg for entry in sorted(entries, key=lambda entry: entry.number)]


def some_legs(tables: Tables, legs: Sequence[LegId]) -> list[Leg]:
    """These legs, whatever became of them, oldest first."""
    found = [entry for entry in map(tables.legs.get, dict.fromkeys(legs)) if entry is not None]
    return [entry.leg for entry in sorted(found, key=lambda entry: entry.number)]


def exits_of(legs: Sequence[Leg]) -> dict[tuple[str, int], LegId | None]:
    """Which leg a fill of that symbol and side closes; None where it could be more than one."""
    exits: dict[tuple[str, int], LegId | None] = {}
    for leg in legs:
        key = (str(leg.symbol), int(leg.side.opposite))
        exits[key] = None if key in exits else leg.leg_id
    return exits


def add_fills(
    tables: Tables,
    of: ConnectionId,
    fills: Sequence[Fill],
    exits: Mapping[tuple[str, int], LegId | None],
    leg_id: LegId | None,
    at: datetime,
) -> int:
    """Insert those that are not there yet; how many these were.

    A fill belongs to `leg_id`, else to its order's leg, else to the leg that `exits` names for its symbol and side.
    """
    new = {fill.fill_id: fill for fill in fills if (of, fill.fill_id) not in tables.fills}
    for fill in new.values():
        instant(at)
        whose = leg_id or _leg_of_order(tables, fill) or exits.get((fill.symbol, int(fill.side)))
        stored, number = _FILL.stored(fill), len(tables.fills)
        tables.fills.put((of, fill.fill_id), FillRecord(connection_id=of, fill=stored, leg_id=whose))
        tables.fill_times(of).add(stored.at, number, fill.fill_id)
    return len(new)


def _leg_of_order(tables: Tables, fill: Fill) -> LegId | None:
    order = None if fill.client_id is None else tables.orders.get(fill.client_id)
    return None if order is None else order.row.intent.leg_id


def fills_since(tables: Tables, of: ConnectionId, since: datetime) -> dict[str, LegId | None]:
    """Fill ids with their legs, since that market time, in the order of recording."""
    found: dict[str, LegId | None] = {}
    for fill_id in tables.fill_times(of).since(instant(since)):
        record = tables.fills.get((of, fill_id))
        found[fill_id] = None if record is None else record.leg_id
    return found

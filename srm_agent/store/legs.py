"""Legs: our shares of positions. A repeated or late write never takes a leg back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, bindparam, insert, select, update

from srm_agent.domain.ids import ConnectionId, LegId
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO
from srm_agent.store.rows import LEG_FIELDS, leg_of, leg_row
from srm_agent.store.schema import Tables
from srm_agent.store.statements import chunks, insert_all, known, known_statement, many

_RANK = {LegState.OPENING: 0, LegState.NEVER_OPENED: 1, LegState.OPEN: 2, LegState.CLOSED: 3}


def progress(leg: Leg) -> tuple[Decimal, int]:
    """How far a leg has come: volume traded so far (in and out), then its state."""
    filled = leg.lot if leg.state in (LegState.OPEN, LegState.CLOSED) else ZERO
    return filled + leg.closed_lot, _RANK[leg.state]


class Legs:
    """One row a leg."""

    def __init__(self, tables: Tables) -> None:
        self._table = table = tables.legs
        self._known = known_statement(table.c.leg_id)
        self._get = select(table).where(table.c.leg_id == bindparam("id"))
        self._open = (
            select(table)
            .where(
                table.c.connection_id == bindparam("of"),
                table.c.state.in_([LegState.OPENING.value, LegState.OPEN.value]),
            )
            .order_by(table.c.id)
        )
        self._some = select(table).where(table.c.leg_id.in_(many()))
        changing = (*LEG_FIELDS[1:], "provider", "side", "state", "close_reason", "closing_as", "updated_at")
        self._update = (
            update(table)
            .where(table.c.leg_id == bindparam("which"))
            .values({name: bindparam(f"new_{name}") for name in changing})
        )
        self._position = (
            update(table)
            .where(table.c.leg_id == bindparam("which"))
            .values(execution_position_id=bindparam("position"))
        )

    def add(self, connection: Connection, legs: Sequence[Leg], at: datetime) -> None:
        """Insert those that are not there yet; the others stay as they are."""
        there = known(connection, self._known, (leg.leg_id for leg in legs))
        new = {leg.leg_id: leg for leg in legs if leg.leg_id not in there}
        rows = [leg_row(leg) | {"created_at": at, "updated_at": at} for leg in new.values()]
        insert_all(connection, self._table, rows)

    def put(self, connection: Connection, leg: Leg, at: datetime) -> tuple[Leg, int | None]:
        """Insert or advance; an older picture (less volume traded, or an earlier state) changes nothing.

        A late entry fill may reopen a closed leg: it has traded more. Returns the leg as it now stands and the id of
        its `execution_positions` row, None if it has none.
        """
        found = connection.execute(self._get, {"id": leg.leg_id}).mappings().first()
        if found is None:
            connection.execute(insert(self._table), leg_row(leg) | {"created_at": at, "updated_at": at})
            return leg, None
        stands = leg_of(found)
        if progress(leg) >= progress(stands) and leg != stands:
            values = {f"new_{name}": value for name, value in leg_row(leg).items() if name != "leg_id"}
            connection.execute(self._update, values | {"which": leg.leg_id, "new_updated_at": at})
            stands = leg
        return stands, found["execution_position_id"]

    def get(self, connection: Connection, leg_id: str) -> tuple[Leg, int | None] | None:
        """A leg and the id of its `execution_positions` row."""
        found = connection.execute(self._get, {"id": leg_id}).mappings().first()
        return None if found is None else (leg_of(found), found["execution_position_id"])

    def link(self, connection: Connection, leg_id: str, position: int) -> None:
        """Remember the leg's `execution_positions` row."""
        connection.execute(self._position, {"which": leg_id, "position": position})

    def open(self, connection: Connection, of: ConnectionId) -> list[Leg]:
        """OPENING or OPEN, oldest first."""
        return [leg_of(row) for row in connection.execute(self._open, {"of": of}).mappings()]

    def some(self, connection: Connection, legs: Sequence[LegId]) -> list[Leg]:
        """These legs, oldest first."""
        rows = [row for keys in chunks(legs) for row in connection.execute(self._some, {"keys": keys}).mappings()]
        return [leg_of(row) for row in sorted(rows, key=lambda row: int(row["id"]))]

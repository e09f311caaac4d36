"""Executions, once each per connection and fill id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from srm_agent.domain.ids import ConnectionId, LegId
from srm_agent.domain.orders import Fill
from srm_agent.store.rows import fill_row
from srm_agent.store.schema import Tables
from srm_agent.store.statements import insert_all, many


class Fills:
    """Rows are written once and never change."""

    def __init__(self, tables: Tables) -> None:
        self._table = table = tables.fills
        orders = tables.orders
        self._known = select(table.c.fill_id).where(
            table.c.connection_id == bindparam("of"), table.c.fill_id.in_(many())
        )
        self._leg_of_order = select(orders.c.leg_id).where(orders.c.client_id == bindparam("id"))
        self._since = (
            select(table.c.fill_id, table.c.leg_id)
            .where(table.c.connection_id == bindparam("of"), table.c.market_at >= bindparam("since"))
            .order_by(table.c.id)
        )

    def add(
        self,
        connection: Connection,
        of: ConnectionId,
        fills: Sequence[Fill],
        exits: Mapping[tuple[str, int], LegId | None],
        leg_id: LegId | None,
        at: datetime,
    ) -> int:
        """Insert those that are not there yet; how many these were.

        A fill belongs to `leg_id`, else to its order's leg, else to the leg that `exits` names for its symbol and side.
        """
        if not fills:
            return 0
        wanted = list(dict.fromkeys(fill.fill_id for fill in fills))
        there = frozenset(connection.execute(self._known, {"of": of, "keys": wanted}).scalars())
        new = {fill.fill_id: fill for fill in fills if fill.fill_id not in there}
        rows = [
            fill_row(of, fill, leg_id or self._leg(connection, fill) or exits.get((fill.symbol, int(fill.side))), at)
            for fill in new.values()
        ]
        insert_all(connection, self._table, rows)
        return len(rows)

    def _leg(self, connection: Connection, fill: Fill) -> str | None:
        if fill.client_id is None:
            return None
        return connection.execute(self._leg_of_order, {"id": fill.client_id}).scalar()

    def since(self, connection: Connection, of: ConnectionId, since: datetime) -> dict[str, LegId | None]:
        """Fill ids with their legs, since that market time."""
        rows = connection.execute(self._since, {"of": of, "since": since})
        return {str(fill): None if leg is None else LegId(leg) for fill, leg in rows}

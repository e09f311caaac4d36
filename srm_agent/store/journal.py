"""The order journal: intents before the wire, updates that never take anything back, and what they cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy import Connection, bindparam, insert, select, update

from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ConnectionId, LegId, SignalId
from srm_agent.domain.orders import Fill, OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.errors import StoreBroken
from srm_agent.ports import JournalRow, OrderUpdate
from srm_agent.store.decisions import Decisions
from srm_agent.store.executions import Executions
from srm_agent.store.fills import Fills
from srm_agent.store.leases import Leases
from srm_agent.store.legs import Legs
from srm_agent.store.metrics import Metrics
from srm_agent.store.predictions import Predictions
from srm_agent.store.rows import intent_row, journal_row, measure_row
from srm_agent.store.schema import Tables
from srm_agent.store.statements import Keys, chunks, insert_all, known, known_statement, many

LATE_FILL = "LATE_FILL"
"""Code of an order that executed after it was settled as refused or abandoned (INV-6: flatten and page)."""
_UNSETTLED = [state.value for state in OrderState if not state.settled]
_SETTLED = [state.value for state in OrderState if state.settled]
_NOT_EXECUTED = (OrderState.REJECTED, OrderState.ABANDONED)
_log = structlog.get_logger(__name__)


class OrderJournal:
    """Everything that is written together with an order, in the caller's transaction."""

    def __init__(self, tables: Tables) -> None:
        signals = Keys(tables.signal_keys, "signal_id")
        connections = Keys(tables.connection_keys, "connection_id")
        self._decisions, self._legs, self._fills = Decisions(tables), Legs(tables), Fills(tables)
        self._executions = Executions(tables, signals, connections)
        self._predictions = Predictions(tables, signals, connections)
        self._leases, self._metrics = Leases(tables), Metrics(tables)
        self._table = table = tables.orders
        measures = tables.measures
        self._known = known_statement(table.c.client_id)
        self._get = select(table).where(table.c.client_id == bindparam("id"))
        self._unsettled = (
            select(table)
            .where(table.c.connection_id == bindparam("of"), table.c.state.in_(_UNSETTLED))
            .order_by(table.c.id)
        )
        self._settled = (
            select(table)
            .where(
                table.c.connection_id == bindparam("of"),
                table.c.updated_at >= bindparam("since", type_=table.c.updated_at.type),
                table.c.state.in_(_SETTLED),
            )
            .order_by(table.c.id)
        )
        self._of_legs = select(table).where(table.c.leg_id.in_(many()))
        changing = ("state", "filled_lot", "average_price", "broker_order_id", "code", "absences", "updated_at")
        self._update = (
            update(table)
            .where(table.c.client_id == bindparam("which"))
            .values({name: bindparam(f"new_{name}") for name in changing} | {"detail": bindparam("told")})
        )
        self._insert_measure = insert(measures)
        self._measured = select(measures.c.filled_lot).where(measures.c.client_id == bindparam("id"))
        self._remeasure = update(measures).where(measures.c.client_id == bindparam("which"))

    def record(
        self,
        connection: Connection,
        decisions: Sequence[Decision],
        intents: Sequence[OrderIntent],
        legs: Sequence[Leg],
        at: datetime,
    ) -> None:
        """Insert what is not there yet, with a pending execution log and a prediction per new entry.

        Raises LeaseLost when an entry's fence is not that of the connection's lease (INV-17); exits always pass.
        """
        self._decisions.add(connection, decisions)
        self._legs.add(connection, legs, at)
        there = known(connection, self._known, (intent.client_id for intent in intents))
        new = {intent.client_id: intent for intent in intents if intent.client_id not in there}
        entries = [intent for intent in new.values() if intent.purpose is OrderPurpose.ENTRY]
        self._leases.guard(connection, {intent.connection_id: intent.fence for intent in entries})
        given = {str(decision.decision_id): decision for decision in decisions}
        decided = [(intent, self._decision(connection, intent.decision_id, given)) for intent in entries]
        logs = self._executions.open_logs(connection, decided)
        self._predictions.add(connection, decided, logs)
        rows = [intent_row(intent) | {"execution_log_id": logs.get(intent.client_id)} for intent in new.values()]
        insert_all(connection, self._table, rows)

    def _decision(
        self, connection: Connection, decision_id: str | None, given: Mapping[str, Decision]
    ) -> Decision | None:
        if decision_id is None:
            return None
        return given.get(decision_id) or self._decisions.get(connection, decision_id)

    def apply(self, connection: Connection, change: OrderUpdate) -> None:
        """One update with its fills, leg and measure. A settled state never changes, volume never shrinks.

        Raises StoreBroken for an order that was never recorded.
        """
        found = connection.execute(self._get, {"id": change.client_id}).mappings().first()
        if found is None:
            raise StoreBroken(f"the journal has no order {change.client_id!r}; record the intent before its updates")
        before = journal_row(found)
        leg_id = change.leg.leg_id if change.leg is not None else before.intent.leg_id
        news = self._fills.add(connection, before.intent.connection_id, change.fills, {}, leg_id, change.at)
        after = _advanced(before, change, late=news > 0)
        log_id: int | None = found["execution_log_id"]
        if after != before:
            self._write(connection, after, change.detail, change.at)
            if log_id is not None:
                self._executions.advance_log(connection, log_id, after, change.detail, change.at)
        if change.leg is not None:
            self._put_leg(connection, change.leg, change.at)
        if change.measure is not None and self._put_measure(connection, before.intent, change.measure, change.at):
            if log_id is not None:
                self._executions.measured(connection, log_id, change.measure, change.at)
                self._predictions.measured(connection, log_id, change.measure, change.at)
            self._metrics.remeasured(connection, before.intent.leg_id, change.at)

    def _write(self, connection: Connection, row: JournalRow, detail: str, at: datetime) -> None:
        connection.execute(
            self._update,
            {
                "which": row.intent.client_id,
                "told": detail,
                "new_state": row.state.value,
                "new_filled_lot": row.filled_lot,
                "new_average_price": row.average_price,
                "new_broker_order_id": row.broker_order_id,
                "new_code": row.code,
                "new_absences": row.absences,
                "new_updated_at": at,
            },
        )

    def _put_leg(self, connection: Connection, leg: Leg, at: datetime) -> None:
        stands, position = self._legs.put(connection, leg, at)
        decision = None if position is not None else self._decisions.get(connection, leg.decision_id)
        number = self._executions.put_position(connection, stands, position, decision, at)
        if number is not None:
            self._legs.link(connection, leg.leg_id, number)

    def _put_measure(
        self, connection: Connection, intent: OrderIntent, measure: ExecutionMeasure, at: datetime
    ) -> bool:
        """Insert, or replace where more has been filled since; False when nothing changed."""
        filled = connection.execute(self._measured, {"id": intent.client_id}).scalar()
        row = measure_row(measure) | {"recorded_at": at}
        if filled is None:
            own = {"client_id": intent.client_id, "leg_id": intent.leg_id, "purpose": intent.purpose.value}
            connection.execute(self._insert_measure, row | own)
            return True
        if measure.filled_lot <= filled:
            return False
        connection.execute(self._remeasure.values(row), {"which": intent.client_id})
        return True

    def add_fills(
        self, connection: Connection, of: ConnectionId, fills: Sequence[Fill], legs: Sequence[Leg], at: datetime
    ) -> None:
        """Fills that no order of ours asked for, with the legs they changed."""
        self._fills.add(connection, of, fills, _exits(legs), None, at)
        for leg in legs:
            self._put_leg(connection, leg, at)

    def unsettled(self, connection: Connection, of: ConnectionId) -> list[JournalRow]:
        """INTENT, WORKING or UNKNOWN, oldest first."""
        return [journal_row(row) for row in connection.execute(self._unsettled, {"of": of}).mappings()]

    def settled_since(self, connection: Connection, of: ConnectionId, since: datetime) -> list[JournalRow]:
        """FILLED, REJECTED or ABANDONED and changed since then, oldest first."""
        rows = connection.execute(self._settled, {"of": of, "since": since}).mappings()
        return [journal_row(row) for row in rows]

    def orders_of(self, connection: Connection, legs: Sequence[LegId]) -> list[JournalRow]:
        """Every order of these legs, oldest first."""
        rows = [row for keys in chunks(legs) for row in connection.execute(self._of_legs, {"keys": keys}).mappings()]
        return [journal_row(row) for row in sorted(rows, key=lambda row: int(row["id"]))]

    def decided(self, connection: Connection, signal: SignalId) -> tuple[ConnectionId, ...]:
        """Whose decision on this signal is committed, by id."""
        return self._decisions.decided(connection, signal)

    def legs(self, connection: Connection, legs: Sequence[LegId]) -> list[Leg]:
        """These legs, oldest first."""
        return self._legs.some(connection, legs)

    def open_legs(self, connection: Connection, of: ConnectionId) -> list[Leg]:
        """OPENING or OPEN, oldest first."""
        return self._legs.open(connection, of)

    def known_fills(self, connection: Connection, of: ConnectionId, since: datetime) -> dict[str, LegId | None]:
        """Fill ids since that market time, with their legs."""
        return self._fills.since(connection, of, since)

    def close_trade(self, connection: Connection, trade: ClosedTrade, score: ProviderScore, at: datetime) -> None:
        """The trade, its score, the provider's metrics, and the net result of the position; once per leg."""
        if not self._metrics.close(connection, trade, score, at):
            return
        found = self._legs.get(connection, trade.leg_id)
        if found is not None and found[1] is not None:
            self._executions.end_position(connection, found[1], trade, at)


def _exits(legs: Sequence[Leg]) -> dict[tuple[str, int], LegId | None]:
    """Which leg a fill of that symbol and side closes; None where it could be more than one."""
    exits: dict[tuple[str, int], LegId | None] = {}
    for leg in legs:
        key = (str(leg.symbol), int(leg.side.opposite))
        exits[key] = None if key in exits else leg.leg_id
    return exits


def _advanced(before: JournalRow, change: OrderUpdate, *, late: bool) -> JournalRow:
    """What the row becomes. `late`: the update brought executions that were not known."""
    grown = change.filled_lot > before.filled_lot
    broker_id = before.broker_order_id or change.broker_order_id
    if before.state.settled:
        code = before.code
        if before.state in _NOT_EXECUTED and (late or grown):
            code = LATE_FILL
            _log.error("late_fill", client_id=before.intent.client_id, connection_id=before.intent.connection_id)
        after = replace(before, code=code, broker_order_id=broker_id)
    else:
        back = change.state is OrderState.INTENT  # only an older picture says so
        after = replace(
            before,
            state=before.state if back else change.state,
            code=change.code,
            broker_order_id=broker_id,
            absences=change.absences,
        )
    if grown:
        after = replace(after, filled_lot=change.filled_lot, average_price=change.average_price)
    elif change.filled_lot == before.filled_lot and change.average_price is not None:
        after = replace(after, average_price=change.average_price)
    return after if after == before else replace(after, updated_at=change.at)

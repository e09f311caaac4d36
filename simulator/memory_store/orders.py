"""The order journal: intents before the wire, updates that never take anything back, and what they cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from simulator.memory_store import legs as leg_rows
from simulator.memory_store import metrics
from simulator.memory_store.exact import Columns, exact, instant, known, mapping, measured, real, written
from simulator.memory_store.leases import guard
from simulator.memory_store.tables import OrderEntry, Session, Tables
from srm_agent.clock import Clock
from srm_agent.domain.decisions import Decision, Step
from srm_agent.domain.forecasts import ProviderScore
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, SignalId
from srm_agent.domain.orders import Fill, OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.domain.units import ZERO
from srm_agent.errors import StoreBroken
from srm_agent.ports import JournalRow, OrderUpdate

LATE_FILL = "LATE_FILL"
"""Code of an order that executed after it was settled as refused or abandoned (INV-6)."""
_NOT_EXECUTED = (OrderState.REJECTED, OrderState.ABANDONED)


def _labels(value: object) -> object:
    """A tuple of the store's own."""
    return tuple(value)  # type: ignore[arg-type]  # the field is a tuple of labels


_INTENT = Columns[OrderIntent](
    {
        "lot": exact,
        **dict.fromkeys(("limit_price", "stop_loss", "take_profit"), known(exact)),
        "created_at": instant,
        "deadline": real,
        "target": known(exact),
        "requests": _labels,
    }
)
_ROW = Columns[JournalRow]({"filled_lot": exact, "average_price": known(measured), "updated_at": instant})
_DECISION = Columns[Decision](
    {
        **dict.fromkeys(("numbers", "inputs", "model_versions"), mapping),
        **dict.fromkeys(
            ("lot", "limit_price", "stop_loss", "planned_stop", "stop_buffer", "take_profit", "planned_risk"),
            known(written),
        ),
    }
)
_log = structlog.get_logger("srm_agent.store.journal")
"""The same words in the log as the store in SQL, so that a seed has one trace on both."""


class MemoryJournal:
    """`ports.Journal`. The clock stamps when a row was written; nothing is decided by it."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock

    async def record(self, decisions: Sequence[Decision], intents: Sequence[OrderIntent], legs: Sequence[Leg]) -> None:
        """See the port. Raises LeaseLost (a StoreBroken) for an entry under another fencing token."""
        with self._session.writing() as tables:
            _add_decisions(tables, decisions)
            leg_rows.add_legs(tables, legs, self._clock.wall())
            new = {intent.client_id: intent for intent in intents if intent.client_id not in tables.orders}
            entries = [intent for intent in new.values() if intent.purpose is OrderPurpose.ENTRY]
            guard(tables, {intent.connection_id: intent.fence for intent in entries})
            for intent in new.values():
                _add_order(tables, intent)

    async def update(self, updates: Sequence[OrderUpdate]) -> None:
        """See the port. A settled order keeps its state; executions after a refusal set the code `LATE_FILL`."""
        with self._session.writing() as tables:
            for change in updates:
                _apply(tables, change)

    async def record_fills(self, connection: ConnectionId, fills: Sequence[Fill], legs: Sequence[Leg]) -> None:
        """See the port. A fill is tied to the one leg of `legs` with its symbol that its side closes."""
        with self._session.writing() as tables:
            at = self._clock.wall()
            leg_rows.add_fills(tables, connection, fills, leg_rows.exits_of(legs), None, at)
            for leg in legs:
                leg_rows.put_leg(tables, leg, at)

    async def unsettled(self, connection: ConnectionId) -> Sequence[JournalRow]:
        """See the port."""
        entries = self._session.reading().unsettled.values()
        found = [entry for entry in entries if entry.row.intent.connection_id == connection]
        return [entry.row for entry in sorted(found, key=lambda entry: entry.number)]

    async def open_legs(self, connection: ConnectionId) -> Sequence[Leg]:
        """See the port."""
        return leg_rows.open_legs(self._session.reading(), connection)

    async def known_fills(self, connection: ConnectionId, since: datetime) -> Mapping[str, LegId | None]:
        """See the port."""
        return leg_rows.fills_since(self._session.reading(), connection, since)

    async def decided(self, signal: SignalId) -> Sequence[ConnectionId]:
        """See the port."""
        return self._session.reading().deciders.get(signal) or ()

    async def settled_since(self, connection: ConnectionId, since: datetime) -> Sequence[JournalRow]:
        """See the port."""
        tables = self._session.reading()
        return [entry.row for entry in _entries(tables, tables.settled(connection).since(instant(since)))]

    async def orders_of(self, legs: Sequence[LegId]) -> Sequence[JournalRow]:
        """See the port."""
        tables = self._session.reading()
        ids = [client_id for leg_id in dict.fromkeys(legs) for client_id in tables.orders_by_leg.get(leg_id) or ()]
        return [entry.row for entry in _entries(tables, ids)]

    async def legs(self, legs: Sequence[LegId]) -> Sequence[Leg]:
        """See the port."""
        return leg_rows.some_legs(self._session.reading(), legs)

    async def close_trade(self, trade: ClosedTrade, score: ProviderScore) -> None:
        """See the port; the first call of a leg stands."""
        with self._session.writing() as tables:
            metrics.close_trade(tables, trade, score)

    async def rebuild_metrics(self) -> int:
        """Recompute all provider metrics from the recorded trades; how many trades these were."""
        with self._session.writing() as tables:
            return metrics.rebuild(tables)


def _entries(tables: Tables, ids: Iterable[ClientOrderId]) -> list[OrderEntry]:
    """Orders that are there, oldest first."""
    found = [entry for entry in map(tables.orders.get, ids) if entry is not None]
    return sorted(found, key=lambda entry: entry.number)


def _add_decisions(tables: Tables, decisions: Sequence[Decision]) -> None:
    new = {found.decision_id: found for found in decisions if found.decision_id not in tables.decisions}
    records = [_record(decision) for decision in new.values()]
    for decision in records:
        if decision.lot is not None:
            exact(decision.lot)
        tables.decisions.put(decision.decision_id, replace(decision, decided_at=instant(decision.decided_at)))
        others = tables.deciders.get(decision.signal_id) or ()
        tables.deciders.put(decision.signal_id, tuple(sorted((*others, decision.connection_id))))


def _record(decision: Decision) -> Decision:
    """A decision as its canonical text gives it back. Raises InvalidOperation for a signalling NaN."""
    steps = tuple(
        Step(step.rule, mapping(step.inputs), written(step.lot_in), written(step.lot_out)) for step in decision.steps
    )
    return replace(_DECISION.stored(decision), steps=steps)


def _add_order(tables: Tables, intent: OrderIntent) -> None:
    kept = _INTENT.stored(intent)
    row = JournalRow(
        intent=kept,
        state=OrderState.INTENT,
        filled_lot=exact(ZERO),
        average_price=None,
        broker_order_id=None,
        code="",
        absences=0,
        updated_at=kept.created_at,
    )
    logged = intent.purpose is OrderPurpose.ENTRY and intent.signal_id is not None
    entry = OrderEntry(len(tables.orders), row, "", logged)
    tables.orders.put(intent.client_id, entry)
    tables.unsettled.put(intent.client_id, entry)
    if intent.leg_id is not None:
        tables.orders_by_leg.put(intent.leg_id, (*(tables.orders_by_leg.get(intent.leg_id) or ()), intent.client_id))
        if logged and intent.leg_id not in tables.entry_logs:
            tables.entry_logs.put(intent.leg_id, intent.client_id)


def _apply(tables: Tables, change: OrderUpdate) -> None:
    """One update with its fills, leg and measure. A settled state never changes, volume never shrinks."""
    entry = tables.orders.get(change.client_id)
    if entry is None:
        raise StoreBroken(f"the journal has no order {change.client_id!r}; record the intent before its updates")
    before, intent = entry.row, entry.row.intent
    leg_id = change.leg.leg_id if change.leg is not None else intent.leg_id
    news = leg_rows.add_fills(tables, intent.connection_id, change.fills, {}, leg_id, change.at)
    after = _advanced(before, change, late=news > 0)
    if after != before:
        _set_order(tables, entry, replace(entry, row=_ROW.stored(after), detail=change.detail))
    if change.leg is not None:
        leg_rows.put_leg(tables, change.leg, change.at)
    if change.measure is not None and metrics.put_measure(tables, intent, change.measure):
        instant(change.at)
        metrics.remeasured(tables, intent.leg_id)


def _set_order(tables: Tables, before: OrderEntry, entry: OrderEntry) -> None:
    client_id = entry.row.intent.client_id
    tables.orders.put(client_id, entry)
    if not entry.row.state.settled:
        tables.unsettled.put(client_id, entry)
        return
    settled = tables.settled(entry.row.intent.connection_id)
    if before.row.state.settled:
        settled.drop(before.row.updated_at, entry.number, client_id)
    else:
        tables.unsettled.drop(client_id)
    settled.add(entry.row.updated_at, entry.number, client_id)


def _advanced(before: JournalRow, change: OrderUpdate, *, late: bool) -> JournalRow:
    """What the row becomes. `late`: the update brought executions that were not known."""
    grown = change.filled_lot > before.filled_lot
    state, code, absences = before.state, before.code, before.absences
    filled, price = before.filled_lot, before.average_price
    if not state.settled:
        # INTENT comes from an older picture only.
        state = state if change.state is OrderState.INTENT else change.state
        code, absences = change.code, change.absences
    elif state in _NOT_EXECUTED and (late or grown):
        code = LATE_FILL
        _log.error("late_fill", client_id=before.intent.client_id, connection_id=before.intent.connection_id)
    if grown:
        filled, price = change.filled_lot, change.average_price
    elif change.filled_lot == filled and change.average_price is not None:
        price = change.average_price
    after = replace(
        before,
        state=state,
        filled_lot=filled,
        average_price=price,
        broker_order_id=before.broker_order_id or change.broker_order_id,
        code=code,
        absences=absences,
    )
    return after if after == before else replace(after, updated_at=change.at)

"""`execution_logs` and `execution_positions`: what the platform shows of our orders and legs.

Slippage, its forecast and the stop buffer stand in pips; where the instrument has no pip, in basis points of the price
(`response_data.unit` of a measured log says which). The exact values stand in the agent's own tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

import structlog
from sqlalchemy import BindParameter, Connection, bindparam, func, insert, select, update

from srm_agent.domain.decisions import Decision, canonical_json
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.orders import OrderIntent, OrderState
from srm_agent.domain.trades import ClosedTrade, CloseReason, Leg, LegState
from srm_agent.domain.units import ZERO
from srm_agent.ports import JournalRow
from srm_agent.store.codec import decision_record, text
from srm_agent.store.schema import Tables
from srm_agent.store.statements import Keys, insert_with_ids

_log = structlog.get_logger(__name__)
_CLOSED_AS = {
    CloseReason.TAKE_PROFIT: "tp",
    CloseReason.STOP_LOSS: "sl",
    CloseReason.LIQUIDATION: "liquidation",
}
_PERCENT = Decimal(100)
_BPS = Decimal(10_000)


def known_number(inputs: Mapping[str, str], key: str) -> Decimal | None:
    """A number of a decision's inputs; None where it is absent or no finite number (`unknown`)."""
    try:
        value = Decimal(inputs[key])
    except (KeyError, InvalidOperation):
        return None
    return value if value.is_finite() else None


def in_unit(distance: Decimal | None, decision: Decision) -> tuple[Decimal | None, str]:
    """A price distance in pips, or basis points of the signal price where there is no pip; and the unit's name."""
    pip = known_number(decision.inputs, "pip_size")
    if pip:
        return (None if distance is None else distance / pip), "pips"
    price = known_number(decision.inputs, "signal_price")
    return (None if distance is None or not price else distance / price * _BPS), "bps"


class Executions:
    """Writes the platform's two execution tables; never decides anything by them."""

    def __init__(self, tables: Tables, signals: Keys, connections: Keys) -> None:
        self._signals, self._connections = signals, connections
        self._logs = logs = tables.execution_logs
        positions = tables.execution_positions
        orders = tables.orders
        telling: dict[str, BindParameter[object]] = {
            name: bindparam(f"new_{name}") for name in ("order_id", "entry_price", "status", "error_message")
        }
        self._log_update = (
            update(logs)
            .where(logs.c.id == bindparam("which"))
            .values(
                telling
                | {
                    "executed_at": func.coalesce(
                        logs.c.executed_at, bindparam("executed", type_=logs.c.executed_at.type)
                    )
                }
                | {"updated_at": bindparam("at")}
            )
        )
        measuring: dict[str, BindParameter[object]] = {
            name: bindparam(f"new_{name}") for name in ("slippage", "latency_ms", "response_data")
        }
        self._log_measure = (
            update(logs).where(logs.c.id == bindparam("which")).values(measuring | {"updated_at": bindparam("at")})
        )
        self._entry = (
            select(orders.c.execution_log_id, orders.c.broker_order_id, logs.c.signal_id, logs.c.connection_id)
            .join(logs, logs.c.id == orders.c.execution_log_id)
            .where(orders.c.leg_id == bindparam("leg"))
            .order_by(orders.c.id)
            .limit(1)
        )
        moving = ("quantity", "entry_price", "sl_price", "tp_price", "status", "pnl", "closed_at", "closed_reason")
        self._move = (
            update(positions)
            .where(positions.c.id == bindparam("which"))
            .values({name: bindparam(f"new_{name}") for name in moving} | {"updated_at": bindparam("at")})
        )
        self._insert = insert(positions)
        self._status = select(positions.c.status, positions.c.pnl).where(positions.c.id == bindparam("id"))
        self._end = (
            update(positions)
            .where(positions.c.id == bindparam("which"))
            .values(pnl=bindparam("money"), pnl_percentage=bindparam("percent"), updated_at=bindparam("at"))
        )

    def open_logs(
        self, connection: Connection, entries: Sequence[tuple[OrderIntent, Decision | None]]
    ) -> dict[str, int]:
        """One pending log per entry; the log's id by client id."""
        listed = [(intent, decision) for intent, decision in entries if intent.signal_id is not None]
        if not listed:
            return {}
        signals = self._signals.ids(connection, (str(intent.signal_id) for intent, _ in listed))
        connections = self._connections.ids(connection, (intent.connection_id for intent, _ in listed))
        rows = [
            _log_row(intent, decision)
            | {"signal_id": signals[str(intent.signal_id)], "connection_id": connections[intent.connection_id]}
            for intent, decision in listed
        ]
        numbers = insert_with_ids(connection, self._logs, rows)
        return {intent.client_id: number for (intent, _), number in zip(listed, numbers, strict=True)}

    def advance_log(self, connection: Connection, log_id: int, row: JournalRow, detail: str, at: datetime) -> None:
        """Bring a log to what the journal says. UNKNOWN stays `pending`; `failed` only after a definitive refusal."""
        told = ": ".join(part for part in (row.code, detail) if part)
        connection.execute(
            self._log_update,
            {
                "which": log_id,
                "at": at,
                "executed": at if row.filled_lot > 0 else None,
                "new_order_id": row.broker_order_id,
                "new_entry_price": row.average_price,
                "new_status": log_status(row),
                "new_error_message": told or None,
            },
        )

    def measured(self, connection: Connection, log_id: int, measure: ExecutionMeasure, at: datetime) -> None:
        """What the entry cost, with its latency."""
        cost, unit = slippage_of(measure)
        latency = measure.latency_ms
        values = {
            "which": log_id,
            "at": at,
            "new_slippage": cost,
            "new_latency_ms": None if latency is None else int(latency.to_integral_value(ROUND_HALF_UP)),
            "new_response_data": {"unit": unit, "bps": text(measure.slippage_bps), "censored": measure.censored},
        }
        connection.execute(self._log_measure, values)

    def put_position(
        self, connection: Connection, leg: Leg, position: int | None, decision: Decision | None, at: datetime
    ) -> int | None:
        """Insert or move the leg's row; its id when it was inserted. A leg that never opened has none."""
        if leg.entry_price is None or leg.state in (LegState.OPENING, LegState.NEVER_OPENED):
            return None
        moving = _moving(leg)
        if position is not None:
            now = connection.execute(self._status, {"id": position}).one()
            if now.status != "open" and moving["status"] != "open":
                moving["pnl"] = now.pnl  # the net result stands since `close_trade`
            values = {f"new_{name}": value for name, value in moving.items()}
            connection.execute(self._move, values | {"which": position, "at": at})
            return None
        entry = connection.execute(self._entry, {"leg": leg.leg_id}).first()
        if entry is None:
            _log.info("leg_without_entry_log", leg_id=leg.leg_id, connection_id=leg.connection_id)
            return None
        row = moving | {
            "signal_id": entry.signal_id,
            "connection_id": entry.connection_id,
            "execution_log_id": entry.execution_log_id,
            "order_id": entry.broker_order_id,
            "symbol": leg.symbol,
            "direction": leg.side.word,
            "pnl_percentage": ZERO,
            "created_at": at,
            "updated_at": at,
        }
        key = connection.execute(self._insert, row | _why(decision)).inserted_primary_key
        return None if key is None else int(key[0])

    def end_position(self, connection: Connection, position: int, trade: ClosedTrade, at: datetime) -> None:
        """The net result, and the move of the price in percent (positive = in our favour)."""
        move = int(trade.side) * (trade.exit_price - trade.entry_price) / trade.entry_price * _PERCENT
        connection.execute(self._end, {"which": position, "money": trade.net_pnl, "percent": move, "at": at})


def slippage_of(measure: ExecutionMeasure) -> tuple[Decimal | None, str]:
    """Slippage in pips, in basis points where there is no pip; and the unit's name."""
    if measure.slippage_pips is not None:
        return measure.slippage_pips, "pips"
    return measure.slippage_bps, "bps"


def log_status(row: JournalRow) -> str:
    """The platform's word for a state of the journal."""
    if row.state is OrderState.FILLED:
        return "partial" if row.filled_lot < row.intent.lot else "executed"
    if row.filled_lot > 0:
        return "partial"
    return {OrderState.REJECTED: "failed", OrderState.ABANDONED: "cancelled"}.get(row.state, "pending")


def _log_row(intent: OrderIntent, decision: Decision | None) -> dict[str, object]:
    inputs = {} if decision is None else decision.inputs
    weekday = known_number(inputs, "iso_weekday")
    return {
        "execution_type": "market" if intent.limit_price is None else "limit",
        "symbol": intent.symbol,
        "direction": intent.side.word,
        "quantity": intent.lot,
        "market_atr": known_number(inputs, "atr"),
        "trading_session": inputs.get("session"),
        "day_of_week": None if weekday is None else int(weekday),
        "volatility_index": known_number(inputs, "volatility_index"),
        "signal_provider_id": None if decision is None else decision.provider.id,
        "signal_provider_type": None if decision is None else decision.provider.kind.value,
        "sl_price": intent.stop_loss,
        "tp_price": intent.take_profit,
        "status": "pending",
        "created_at": intent.created_at,
        "updated_at": intent.created_at,
    }


def _moving(leg: Leg) -> dict[str, object]:
    status = "open"
    if leg.state is LegState.CLOSED:
        status = "liquidated" if leg.close_reason is CloseReason.LIQUIDATION else "closed"
    return {
        "quantity": leg.lot,
        "entry_price": leg.entry_price,
        "sl_price": leg.stop_loss,
        "tp_price": leg.take_profit,
        "status": status,
        "pnl": leg.realised_pnl - leg.fees,
        "closed_at": leg.closed_at,
        "closed_reason": None if leg.close_reason is None else _CLOSED_AS.get(leg.close_reason, "manual"),
    }


def _why(decision: Decision | None) -> dict[str, object]:
    """What SRM changed and expected, from the decision."""
    if decision is None:
        return {}
    return {
        "srm_adjusted_lot": decision.lot,
        "predicted_slippage": in_unit(known_number(decision.inputs, "forecast_entry_mean"), decision)[0],
        "performance_score_at_entry": known_number(decision.inputs, "score_shown"),
        "srm_sl_buffer": in_unit(decision.stop_buffer, decision)[0],
        "srm_adjustment_reason": canonical_json(decision_record(decision)["steps"]),
    }

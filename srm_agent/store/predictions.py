"""`srm_predictions`: what was forecast for an entry, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, case, update

from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.orders import OrderIntent
from srm_agent.domain.units import ZERO
from srm_agent.store.executions import in_unit, known_number
from srm_agent.store.schema import Tables
from srm_agent.store.statements import Keys, insert_all

_SLIPPAGE = "slippage"


class Predictions:
    """One slippage row per entry that had a forecast; where there was none, there is no row (unknown is not 0).

    `model_type` is `<provenance>:<unit>` (`scale_prior:pips`); `accuracy` stays NULL, for a share of hits says nothing
    about a forecast (learning.md), and `confidence_score` is the column's 0, for the same reason.
    """

    def __init__(self, tables: Tables, signals: Keys, connections: Keys) -> None:
        self._signals, self._connections = signals, connections
        self._table = table = tables.predictions
        unit_cost = case(
            (table.c.model_type.endswith(":pips"), bindparam("pips", type_=table.c.actual_value.type)),
            else_=bindparam("bps", type_=table.c.actual_value.type),
        )
        self._actual = (
            update(table)
            .where(table.c.execution_log_id == bindparam("log"), table.c.prediction_type == _SLIPPAGE)
            .values(actual_value=unit_cost, updated_at=bindparam("at"))
        )

    def add(
        self, connection: Connection, entries: Sequence[tuple[OrderIntent, Decision | None]], logs: Mapping[str, int]
    ) -> None:
        """Rows for the entries that have just got a log."""
        told = [
            (intent, decision)
            for intent, decision in entries
            if decision is not None and intent.client_id in logs and _forecast(decision) is not None
        ]
        if not told:
            return
        signals = self._signals.ids(connection, (decision.signal_id for _, decision in told))
        connections = self._connections.ids(connection, (decision.connection_id for _, decision in told))
        rows = [
            _row(decision)
            | {
                "execution_log_id": logs[intent.client_id],
                "signal_id": signals[decision.signal_id],
                "connection_id": connections[decision.connection_id],
                "created_at": intent.created_at,
                "updated_at": intent.created_at,
            }
            for intent, decision in told
        ]
        insert_all(connection, self._table, rows)

    def measured(self, connection: Connection, log_id: int, measure: ExecutionMeasure, at: datetime) -> None:
        """What it really was, in the forecast's own unit."""
        values = {"log": log_id, "pips": measure.slippage_pips, "bps": measure.slippage_bps, "at": at}
        connection.execute(self._actual, values)


def _forecast(decision: Decision) -> object:
    return in_unit(known_number(decision.inputs, "forecast_entry_mean"), decision)[0]


def _row(decision: Decision) -> dict[str, object]:
    inputs = decision.inputs
    value, unit = in_unit(known_number(inputs, "forecast_entry_mean"), decision)
    weekday = known_number(inputs, "iso_weekday")
    versions = decision.model_versions
    version = versions.get("forecast") or versions.get("slippage")
    return {
        "prediction_type": _SLIPPAGE,
        "symbol": decision.symbol,
        "trading_session": inputs.get("session"),
        "day_of_week": None if weekday is None else int(weekday),
        "market_atr": known_number(inputs, "atr"),
        "volatility_index": known_number(inputs, "volatility_index"),
        "signal_provider_id": decision.provider.id,
        "predicted_value": value,
        "confidence_score": ZERO,
        "model_version": None if version is None else version[:50],
        "model_type": f"{inputs.get('forecast_provenance', 'unnamed')[:40]}:{unit}",
    }

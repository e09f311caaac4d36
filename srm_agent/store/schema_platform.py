"""Tables that the platform knows too: its column names (platform.md), types wide standalone and narrow attached."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    ForeignKey,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem

from srm_agent.store.columns import BIG, PRECISION, SCALE, NarrowDecimal, UtcDateTime
from srm_agent.store.names import Names

OPTIONS: dict[str, Any] = {
    f"{family}_{key}": value
    for family in ("mysql", "mariadb")
    for key, value in {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()
}
"""Keyword arguments of every table: keys compare byte by byte (`'abc' = 'ABC '` in MySQL's default collation)."""


def identity() -> Column[int]:
    """The surrogate key every table of the platform has."""
    return Column("id", BIG, primary_key=True, autoincrement=True)


def stamps() -> tuple[Column[datetime], Column[datetime]]:
    """Laravel's pair of stamps."""
    return Column("created_at", UtcDateTime()), Column("updated_at", UtcDateTime())


class PlatformTables:
    """Execution rows, provider metrics, predictions, model versions and experiments."""

    def __init__(self, names: Names, metadata: MetaData) -> None:
        self._names, self._metadata = names, metadata
        self._executions()
        self._learning()
        self._experiments()

    def _table(self, name: str, *items: SchemaItem) -> Table:
        return Table(name, self._metadata, identity(), *items, *stamps(), **OPTIONS)

    def _number(self, name: str, precision: int, scale: int, *, nullable: bool = True) -> Column[Decimal]:
        """Standalone the stored scale; attached the platform's narrow column. Neither ever fails an insert."""
        if not self._names.attached:
            precision, scale = PRECISION, SCALE
        return Column(name, NarrowDecimal(precision, scale, name), nullable=nullable)

    def _executions(self) -> None:
        names = self._names
        self.execution_logs = self._table(
            names.platform("execution_logs"),
            Column("signal_id", BIG, nullable=False),
            Column("connection_id", BIG, nullable=False, index=True),
            Column("execution_type", String(16), nullable=False),
            Column("order_id", String(190)),
            Column("symbol", String(64), nullable=False),
            Column("direction", String(4), nullable=False),
            self._number("quantity", 20, 8, nullable=False),
            self._number("entry_price", 20, 8),
            self._number("slippage", 8, 4),
            Column("latency_ms", Integer),
            self._number("market_atr", 10, 4),
            Column("trading_session", String(16)),
            Column("day_of_week", SmallInteger),
            self._number("volatility_index", 8, 4),
            Column("signal_provider_id", String(190)),
            Column("signal_provider_type", String(16)),
            self._number("sl_price", 20, 8),
            self._number("tp_price", 20, 8),
            Column("status", String(16), nullable=False),
            Column("executed_at", UtcDateTime()),
            Column("error_message", Text),
            Column("response_data", JSON),
        )
        self.execution_positions = self._table(
            names.platform("execution_positions"),
            Column("signal_id", BIG, nullable=False),
            Column("connection_id", BIG, nullable=False, index=True),
            Column("execution_log_id", BIG, ForeignKey(self.execution_logs.c.id), nullable=False, index=True),
            Column("order_id", String(190)),
            Column("symbol", String(64), nullable=False),
            Column("direction", String(4), nullable=False),
            self._number("quantity", 20, 8, nullable=False),
            self._number("srm_adjusted_lot", 10, 4),
            self._number("entry_price", 20, 8, nullable=False),
            self._number("predicted_slippage", 8, 4),
            self._number("performance_score_at_entry", 5, 2),
            self._number("current_price", 20, 8),
            self._number("sl_price", 20, 8),
            self._number("srm_sl_buffer", 8, 4),
            Column("srm_adjustment_reason", Text),
            self._number("tp_price", 20, 8),
            Column("status", String(16), nullable=False),
            self._number("pnl", 20, 8, nullable=False),
            self._number("pnl_percentage", 10, 4, nullable=False),
            Column("closed_at", UtcDateTime()),
            Column("closed_reason", String(16)),
            Column("last_price_update_at", UtcDateTime()),
        )

    def _learning(self) -> None:
        names, unknown_allowed = self._names, not self._names.attached
        self.metrics = self._table(
            names.metrics(),
            Column("signal_provider_id", String(190), nullable=False),
            Column("signal_provider_type", String(16), nullable=False),
            Column("period_start", Date, nullable=False),
            Column("period_end", Date, nullable=False),
            Column("period_type", String(16), nullable=False),
            Column("total_signals", Integer, nullable=False),
            Column("winning_signals", Integer, nullable=False),
            Column("losing_signals", Integer, nullable=False),
            self._number("win_rate", 5, 2, nullable=False),
            self._number("avg_slippage", 8, 4, nullable=unknown_allowed),
            self._number("max_slippage", 8, 4, nullable=unknown_allowed),
            Column("avg_latency_ms", Integer, nullable=unknown_allowed),
            self._number("max_drawdown", 5, 2, nullable=False),
            self._number("reward_to_risk_ratio", 8, 4, nullable=unknown_allowed),
            self._number("sl_compliance_rate", 5, 2, nullable=False),
            self._number("performance_score", 5, 2, nullable=False),
            self._number("performance_score_previous", 5, 2, nullable=False),
            Column("score_trend", String(8), nullable=False),
            Column("calculated_at", UtcDateTime()),
            UniqueConstraint("signal_provider_id", "signal_provider_type", "period_type", "period_start"),
        )
        self.predictions = self._table(
            names.platform("srm_predictions"),
            Column("execution_log_id", BIG, index=True),
            Column("signal_id", BIG),
            Column("connection_id", BIG),
            Column("prediction_type", String(32), nullable=False),
            Column("symbol", String(64)),
            Column("trading_session", String(16)),
            Column("day_of_week", SmallInteger),
            self._number("market_atr", 10, 4),
            self._number("volatility_index", 8, 4),
            Column("signal_provider_id", String(190)),
            self._number("predicted_value", 10, 4, nullable=False),
            self._number("confidence_score", 5, 2, nullable=False),
            self._number("actual_value", 10, 4),
            self._number("accuracy", 5, 2),
            Column("model_version", String(50)),
            Column("model_type", String(50)),
        )
        self.model_versions = self._table(
            names.platform("srm_model_versions"),
            Column("model_type", String(32), nullable=False),
            Column("version", String(50), nullable=False),
            Column("status", String(16), nullable=False),
            Column("parameters", JSON),
            Column("training_data_count", Integer, nullable=False),
            Column("training_date_start", UtcDateTime()),
            Column("training_date_end", UtcDateTime()),
            self._number("accuracy", 5, 2),
            self._number("mse", 10, 6),
            self._number("r2_score", 5, 4),
            self._number("validation_accuracy", 5, 2),
            self._number("validation_mse", 10, 6),
            Column("deployed_at", UtcDateTime()),
            Column("deprecated_at", UtcDateTime()),
            Column("notes", Text),
            UniqueConstraint("model_type", "version"),
        )

    def _experiments(self) -> None:
        names = self._names
        self.ab_tests = self._table(
            names.platform("srm_ab_tests"),
            Column("name", String(190), nullable=False),
            Column("description", Text),
            Column("status", String(16), nullable=False),
            self._number("pilot_group_percentage", 5, 2, nullable=False),
            Column("test_duration_days", Integer, nullable=False),
            Column("control_logic", JSON),
            Column("pilot_logic", JSON),
            Column("start_date", Date),
            Column("end_date", Date),
            Column("pilot_group_size", Integer, nullable=False),
            Column("control_group_size", Integer, nullable=False),
            self._number("pilot_avg_pnl", 10, 2),
            self._number("control_avg_pnl", 10, 2),
            self._number("pilot_avg_drawdown", 5, 2),
            self._number("control_avg_drawdown", 5, 2),
            self._number("pilot_win_rate", 5, 2),
            self._number("control_win_rate", 5, 2),
            self._number("p_value", 8, 6),
            Column("is_significant", Boolean, nullable=False, server_default=text("0")),
            Column("decision", String(16)),
            Column("decision_notes", Text),
            Column("created_by_admin_id", BIG),
        )
        self.ab_test_assignments = Table(
            names.platform("srm_ab_test_assignments"),
            self._metadata,
            identity(),
            Column("ab_test_id", BIG, ForeignKey(self.ab_tests.c.id), nullable=False, index=True),
            Column("user_id", BIG),
            Column("connection_id", BIG),
            Column("group_type", String(16), nullable=False),
            Column("assigned_at", UtcDateTime(), nullable=False),
            UniqueConstraint("ab_test_id", "connection_id"),
            **OPTIONS,
        )

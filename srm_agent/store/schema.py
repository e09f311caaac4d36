"""All tables: `Tables(names)`. Instants called `market_at`, `opened_at`, `closed_at` are the venue's; others ours."""

from __future__ import annotations

from functools import cache

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import SchemaItem

from srm_agent.store.columns import BIG, ExactDecimal, MeasuredDecimal, UtcDateTime
from srm_agent.store.names import STANDALONE, Names
from srm_agent.store.schema_platform import OPTIONS, PlatformTables, identity

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Names of constraints and indexes; the first column only, for MySQL allows 64 characters."""
KEY = 190
"""Characters of a textual key: several fit into one MySQL index of 3072 bytes."""


def key(name: str, *, nullable: bool = False, index: bool = False) -> Column[str]:
    """A textual key column."""
    return Column(name, String(KEY), nullable=nullable, index=index)


class Tables(PlatformTables):
    """The platform's tables and the agent's own, under one name mapping."""

    def __init__(self, names: Names = STANDALONE) -> None:
        self.names = names
        self.metadata = MetaData(naming_convention=NAMING)
        super().__init__(names, self.metadata)
        self._keys()
        self._signals()
        self._orders()
        self._legs()
        self._results()
        self._protection()
        self._leases()

    def _own(self, name: str, *items: SchemaItem) -> Table:
        return Table(self.names.own(name), self.metadata, *items, **OPTIONS)

    def _keys(self) -> None:
        self.signal_keys = self._own("signal_keys", identity(), Column("signal_id", String(KEY), unique=True))
        self.connection_keys = self._own(
            "connection_keys", identity(), Column("connection_id", String(KEY), unique=True)
        )

    def _signals(self) -> None:
        self.messages = self._own(
            "messages",
            identity(),
            key("provider"),
            key("message_id"),
            key("signal_id", index=True),
            Column("action", String(16), nullable=False),
            # Set for opens only: NULLs are distinct, so the unique key binds opens alone.
            Column("opening_signal_id", String(KEY), unique=True),
            Column("signal", Text, nullable=False),
            Column("body_sha256", String(64), nullable=False),
            Column("answer", Text, nullable=False),
            Column("issued_at", UtcDateTime(), nullable=False),
            Column("received_at", UtcDateTime(), nullable=False),
            Column("finished_at", UtcDateTime(), index=True),
            UniqueConstraint("provider", "message_id"),
        )
        self.tombstones = self._own(
            "tombstones",
            Column("signal_id", String(KEY), primary_key=True),
            key("provider"),
            key("message_id"),
            Column("received_at", UtcDateTime(), nullable=False),
        )
        self.decisions = self._own(
            "decisions",
            identity(),
            Column("decision_id", String(40), nullable=False, unique=True),
            key("signal_id", index=True),
            key("connection_id", index=True),
            key("provider"),
            Column("symbol", String(64), nullable=False),
            Column("accepted", Boolean, nullable=False),
            Column("reason", String(40), nullable=False, index=True),
            Column("lot", ExactDecimal()),
            Column("policy_version", String(KEY), nullable=False),
            Column("arm", String(40), nullable=False),
            Column("session", String(16)),
            Column("market_at", UtcDateTime()),
            Column("decided_at", UtcDateTime(), nullable=False, index=True),
            Column("record", Text, nullable=False),
        )

    def _orders(self) -> None:
        self.orders = self._own(
            "orders",
            identity(),
            Column("client_id", String(40), nullable=False, unique=True),
            key("connection_id"),
            Column("leg_id", String(40), index=True),
            Column("signal_id", String(KEY)),
            Column("decision_id", String(40), index=True),
            Column("purpose", String(16), nullable=False, index=True),
            Column("symbol", String(64), nullable=False),
            Column("side", SmallInteger, nullable=False),
            Column("lot", ExactDecimal(), nullable=False),
            Column("limit_price", ExactDecimal()),
            Column("stop_loss", ExactDecimal()),
            Column("take_profit", ExactDecimal()),
            Column("reduce", String(KEY)),
            Column("reason", String(KEY), nullable=False),
            Column("created_at", UtcDateTime(), nullable=False),
            Column("deadline", Double, nullable=False),
            Column("fence", BIG, nullable=False),
            Column("target", ExactDecimal()),
            Column("requests", Text),
            Column("state", String(16), nullable=False),
            Column("filled_lot", ExactDecimal(), nullable=False),
            Column("average_price", MeasuredDecimal()),
            Column("broker_order_id", String(KEY)),
            Column("code", String(64), nullable=False),
            Column("detail", Text, nullable=False),
            Column("absences", Integer, nullable=False),
            Column("updated_at", UtcDateTime(), nullable=False),
            Column("execution_log_id", BIG),
            Index(None, "connection_id", "state"),
            Index(None, "updated_at", "connection_id"),
        )
        self.fills = self._own(
            "fills",
            identity(),
            key("connection_id"),
            key("fill_id"),
            Column("client_id", String(40), index=True),
            Column("leg_id", String(40), index=True),
            Column("broker_order_id", String(KEY), nullable=False),
            Column("symbol", String(64), nullable=False),
            Column("side", SmallInteger, nullable=False),
            Column("lot", ExactDecimal(), nullable=False),
            Column("price", ExactDecimal(), nullable=False),
            Column("fee", MeasuredDecimal(), nullable=False),
            Column("fee_currency", String(16), nullable=False),
            Column("kind", String(16), nullable=False),
            Column("market_at", UtcDateTime(), nullable=False),
            Column("received", Double, nullable=False),
            Column("recorded_at", UtcDateTime(), nullable=False),
            UniqueConstraint("connection_id", "fill_id"),
            Index(None, "connection_id", "market_at"),
        )

    def _legs(self) -> None:
        self.legs = self._own(
            "legs",
            identity(),
            Column("leg_id", String(40), nullable=False, unique=True),
            key("connection_id"),
            key("signal_id"),
            Column("decision_id", String(40), nullable=False),
            key("provider"),
            Column("symbol", String(64), nullable=False),
            Column("side", SmallInteger, nullable=False),
            Column("state", String(16), nullable=False),
            Column("lot", ExactDecimal(), nullable=False),
            Column("closed_lot", ExactDecimal(), nullable=False),
            Column("entry_price", MeasuredDecimal()),
            Column("exit_value", MeasuredDecimal(), nullable=False),
            Column("fees", MeasuredDecimal(), nullable=False),
            Column("realised_pnl", MeasuredDecimal(), nullable=False),
            Column("planned_stop", ExactDecimal(), nullable=False),
            Column("stop_loss", ExactDecimal()),
            Column("take_profit", ExactDecimal()),
            Column("planned_risk", MeasuredDecimal(), nullable=False),
            Column("opened_at", UtcDateTime()),
            Column("closed_at", UtcDateTime()),
            Column("close_reason", String(16)),
            Column("closing_as", String(16)),
            Column("stop_kept", Boolean, nullable=False),
            Column("created_at", UtcDateTime(), nullable=False),
            Column("updated_at", UtcDateTime(), nullable=False),
            Column("execution_position_id", BIG),
            Index(None, "connection_id", "state"),
        )

    def _results(self) -> None:
        self.measures = self._own(
            "measures",
            identity(),
            Column("client_id", String(40), nullable=False, unique=True),
            Column("leg_id", String(40), index=True),
            Column("purpose", String(16), nullable=False),
            key("connection_id"),
            Column("venue", String(64), nullable=False),
            Column("symbol", String(64), nullable=False),
            key("provider"),
            Column("side", SmallInteger, nullable=False),
            Column("lot", ExactDecimal(), nullable=False),
            Column("filled_lot", ExactDecimal(), nullable=False),
            Column("signal_price", ExactDecimal(), nullable=False),
            Column("touch_received", ExactDecimal()),
            Column("touch_decided", ExactDecimal(), nullable=False),
            Column("touch_sent", ExactDecimal(), nullable=False),
            Column("fill_price", MeasuredDecimal()),
            Column("slippage", MeasuredDecimal()),
            Column("slippage_pips", MeasuredDecimal()),
            Column("slippage_bps", MeasuredDecimal()),
            Column("slippage_money", MeasuredDecimal()),
            Column("delay_cost", MeasuredDecimal()),
            Column("implementation_shortfall", MeasuredDecimal()),
            Column("fees", MeasuredDecimal(), nullable=False),
            Column("latency_ms", MeasuredDecimal()),
            Column("sent_ms", MeasuredDecimal()),
            Column("acknowledged_ms", MeasuredDecimal()),
            Column("censored", String(64), nullable=False),
            Column("recorded_at", UtcDateTime(), nullable=False),
        )
        self.closed_trades = self._own(
            "closed_trades",
            identity(),
            Column("leg_id", String(40), nullable=False, unique=True),
            key("connection_id"),
            key("signal_id"),
            key("provider", index=True),
            Column("symbol", String(64), nullable=False),
            Column("side", SmallInteger, nullable=False),
            Column("lot", ExactDecimal(), nullable=False),
            Column("entry_price", MeasuredDecimal(), nullable=False),
            Column("exit_price", MeasuredDecimal(), nullable=False),
            Column("net_pnl", MeasuredDecimal(), nullable=False),
            Column("r_multiple", MeasuredDecimal(), nullable=False),
            Column("planned_risk", MeasuredDecimal(), nullable=False),
            Column("reward_to_risk", MeasuredDecimal()),
            Column("stop_kept", Boolean, nullable=False),
            Column("stop_slippage", MeasuredDecimal()),
            Column("close_reason", String(16), nullable=False),
            Column("opened_at", UtcDateTime(), nullable=False),
            Column("closed_at", UtcDateTime(), nullable=False, index=True),
            Column("recorded_at", UtcDateTime(), nullable=False),
        )
        self.provider_scores = self._own(
            "provider_scores",
            identity(),
            Column("leg_id", String(40), nullable=False, unique=True),
            key("provider", index=True),
            Column("mean", Double, nullable=False),
            Column("deviation", Double, nullable=False),
            Column("platform_mean", Double, nullable=False),
            Column("shown", MeasuredDecimal(), nullable=False),
            Column("interval_low", MeasuredDecimal(), nullable=False),
            Column("interval_high", MeasuredDecimal(), nullable=False),
            Column("trades", Integer, nullable=False),
            Column("effective_trades", Double, nullable=False),
            Column("prior_weight", Double, nullable=False),
            Column("sufficient", Boolean, nullable=False),
            Column("version", String(KEY), nullable=False),
            Column("market_at", UtcDateTime(), nullable=False),
            Column("recorded_at", UtcDateTime(), nullable=False),
        )
        self.metric_sums = self._own(
            "metric_sums",
            identity(),
            key("provider"),
            Column("period_type", String(16), nullable=False),
            Column("period_start", String(10), nullable=False),
            Column("state", Text, nullable=False),
            Column("metrics_id", BIG, nullable=False),
            UniqueConstraint("provider", "period_type", "period_start"),
        )

    def _protection(self) -> None:
        self.protection_marks = self._own(
            "protection_marks",
            Column("connection_id", String(KEY), primary_key=True),
            Column("high_water_mark", MeasuredDecimal(), nullable=False),
            Column("start_equity", MeasuredDecimal(), nullable=False),
            Column("day", String(10), nullable=False),
            Column("day_base", MeasuredDecimal(), nullable=False),
            Column("last_flow_at", UtcDateTime()),
            Column("updated_at", UtcDateTime(), nullable=False),
        )
        self.halts = self._own(
            "halts",
            Column("scope", String(16), primary_key=True),
            Column("key", String(KEY), primary_key=True),
            Column("state", String(16), nullable=False),
            Column("reason", Text, nullable=False),
            Column("set_at", UtcDateTime(), nullable=False),
            Column("set_by", String(KEY), nullable=False),
        )
        self.audit_log = self._own(
            "audit_log",
            identity(),
            Column("at", UtcDateTime(), nullable=False, index=True),
            key("operator"),
            Column("action", String(32), nullable=False),
            Column("scope", String(16), nullable=False),
            key("key"),
            Column("detail", Text, nullable=False),
        )
        self.equity_marks = self._own(
            "equity_marks",
            identity(),
            key("connection_id"),
            Column("at", UtcDateTime(), nullable=False),
            Column("equity", MeasuredDecimal(), nullable=False),
            Column("balance", MeasuredDecimal(), nullable=False),
            Column("drawdown", MeasuredDecimal(), nullable=False),
            UniqueConstraint("connection_id", "at"),
        )
        self.cash_flows = self._own(
            "cash_flows",
            identity(),
            key("connection_id"),
            key("flow_id"),
            Column("kind", String(16), nullable=False),
            Column("amount", MeasuredDecimal(), nullable=False),
            Column("currency", String(16), nullable=False),
            Column("at", UtcDateTime(), nullable=False),
            UniqueConstraint("connection_id", "flow_id"),
        )

    def _leases(self) -> None:
        self.leases = self._own(
            "leases",
            Column("connection_id", String(KEY), primary_key=True),
            key("owner"),
            Column("fence", BIG, nullable=False),
            Column("expires_at", UtcDateTime(), nullable=False),
        )


@cache
def tables_of(names: Names) -> Tables:
    """The tables of a name mapping, built once in a process (they are read, never changed)."""
    return Tables(names)

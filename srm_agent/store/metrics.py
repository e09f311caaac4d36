"""Closed trades, scores, and `signal_provider_metrics` per day, ISO week and month of the market close."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from srm_agent.domain.forecasts import ProviderScore
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.trades import ClosedTrade
from srm_agent.domain.units import ZERO, stored
from srm_agent.store.metric_sums import COMPLIANT_LOSS, UNSCORED, Period, Sums, TradeFacts, periods_of
from srm_agent.store.rows import score_row, trade_of, trade_row
from srm_agent.store.schema import Tables


class Metrics:
    """Incremental, and equal to `rebuild` from the recorded trades (a test says so)."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        trades, scores, sums = tables.closed_trades, tables.provider_scores, tables.metric_sums
        measures = tables.measures
        self._insert_trade, self._insert_score = insert(trades), insert(scores)
        self._insert_metrics, self._insert_sums = insert(tables.metrics), insert(sums)
        self._set_metrics = (
            update(tables.metrics)
            .where(tables.metrics.c.id == bindparam("which"))
            .values({name: bindparam(f"new_{name}") for name in (*self._values(Sums()), "calculated_at", "updated_at")})
        )
        self._trade = select(trades).where(trades.c.leg_id == bindparam("leg"))
        self._last_score = (
            select(scores.c.shown).where(scores.c.provider == bindparam("of")).order_by(scores.c.id.desc()).limit(1)
        )
        self._sums = select(sums.c.id, sums.c.state, sums.c.metrics_id).where(
            sums.c.provider == bindparam("of"),
            sums.c.period_type == bindparam("kind"),
            sums.c.period_start == bindparam("start"),
        )
        self._set_sums = update(sums).where(sums.c.id == bindparam("which")).values(state=bindparam("sums"))
        self._entry = (
            select(measures.c.slippage_pips, measures.c.slippage_bps, measures.c.latency_ms)
            .where(measures.c.leg_id == bindparam("leg"), measures.c.purpose == "entry")
            .order_by(measures.c.id.desc())
            .limit(1)
        )
        self._all = (
            select(trades, scores.c.shown).join(scores, scores.c.leg_id == trades.c.leg_id).order_by(trades.c.id)
        )

    def close(self, connection: Connection, trade: ClosedTrade, score: ProviderScore, at: datetime) -> bool:
        """Record a closed trade with its score and add it to its periods; False if it was there already."""
        if connection.execute(self._trade, {"leg": trade.leg_id}).first() is not None:
            return False
        provider = str(trade.provider)
        last = connection.execute(self._last_score, {"of": provider}).scalar()
        stamps = {"leg_id": trade.leg_id, "recorded_at": at}
        connection.execute(self._insert_trade, trade_row(trade) | stamps)
        row = dict(score_row(score)) | stamps | {"provider": provider, "market_at": trade.closed_at}
        connection.execute(self._insert_score, row)
        facts = self._facts(connection, trade, score.shown)
        for period in periods_of(trade.closed_at):
            found = connection.execute(
                self._sums, {"of": provider, "kind": period.kind, "start": period.start.isoformat()}
            ).first()
            sums = (
                Sums(score_before=last if last is not None else UNSCORED) if found is None else Sums.parse(found.state)
            )
            sums = sums.add(facts)
            if found is None:
                self._insert(connection, trade.provider, period, sums, at)
            else:
                connection.execute(self._set_sums, {"which": found.id, "sums": sums.to_text()})
                values = {f"new_{name}": value for name, value in (self._values(sums) | _stamps(at)).items()}
                connection.execute(self._set_metrics, values | {"which": found.metrics_id})
        return True

    def remeasured(self, connection: Connection, leg_id: str | None, at: datetime) -> None:
        """An entry was measured (again) after its trade had closed: the provider's metrics are rebuilt."""
        if leg_id is None:
            return
        row = connection.execute(self._trade, {"leg": leg_id}).mappings().first()
        if row is not None:
            self.rebuild(connection, at, trade_of(row).provider)

    def rebuild(self, connection: Connection, at: datetime, provider: ProviderKey | None = None) -> int:
        """Recompute from the recorded trades, of one provider or all; how many trades these were."""
        own, metrics = self._tables.metric_sums, self._tables.metrics
        wanted = own.c.provider == str(provider) if provider is not None else own.c.id > 0
        numbers = list(connection.execute(select(own.c.metrics_id).where(wanted)).scalars())
        connection.execute(delete(own).where(wanted))
        for number in numbers:
            connection.execute(delete(metrics).where(metrics.c.id == number))
        found: dict[tuple[ProviderKey, Period], Sums] = {}
        last: dict[ProviderKey, Decimal] = {}
        count = 0
        for trade, shown in self._recorded(connection, provider):
            facts = self._facts(connection, trade, shown)
            for period in periods_of(trade.closed_at):
                key = (trade.provider, period)
                sums = found.get(key) or Sums(score_before=last.get(trade.provider, UNSCORED))
                found[key] = sums.add(facts)
            last[trade.provider] = shown
            count += 1
        for (of, period), sums in found.items():
            self._insert(connection, of, period, sums, at)
        return count

    def _recorded(self, connection: Connection, provider: ProviderKey | None) -> Iterator[tuple[ClosedTrade, Decimal]]:
        statement = self._all
        if provider is not None:
            statement = statement.where(self._tables.closed_trades.c.provider == str(provider))
        for row in connection.execute(statement).mappings().all():
            yield trade_of(row), row["shown"]

    def _facts(self, connection: Connection, trade: ClosedTrade, shown: Decimal) -> TradeFacts:
        entry = connection.execute(self._entry, {"leg": trade.leg_id}).first()
        slippage = None
        if entry is not None:
            slippage = entry.slippage_bps if entry.slippage_pips is None else entry.slippage_pips
        # Rounded as the columns round, so that a rebuild sees the same numbers.
        compliant = trade.stop_kept and stored(trade.net_pnl) >= -COMPLIANT_LOSS * stored(trade.planned_risk)
        return TradeFacts(
            r_multiple=stored(trade.r_multiple),
            compliant=compliant,
            reward_to_risk=None if trade.reward_to_risk is None else stored(trade.reward_to_risk),
            slippage=slippage,
            latency_ms=None if entry is None else entry.latency_ms,
            score=stored(shown),
        )

    def _insert(self, connection: Connection, provider: ProviderKey, period: Period, sums: Sums, at: datetime) -> None:
        row = self._values(sums) | {
            "signal_provider_id": provider.id,
            "signal_provider_type": provider.kind.value,
            "period_type": period.kind,
            "period_start": period.start,
            "period_end": period.end,
            "created_at": at,
        }
        key = connection.execute(self._insert_metrics, row | _stamps(at)).inserted_primary_key
        assert key is not None
        connection.execute(
            self._insert_sums,
            {
                "provider": str(provider),
                "period_type": period.kind,
                "period_start": period.start.isoformat(),
                "state": sums.to_text(),
                "metrics_id": int(key[0]),
            },
        )

    def _values(self, sums: Sums) -> dict[str, object]:
        # The platform's columns are NOT NULL with default 0; in our own database unknown is NULL.
        unknown = ZERO if self._tables.names.attached else None
        latency = sums.latency_sum / sums.latency_count if sums.latency_count else unknown
        return {
            "total_signals": sums.total,
            "winning_signals": sums.winning,
            "losing_signals": sums.losing,
            "win_rate": sums.share(sums.winning),
            "avg_slippage": sums.slippage_sum / sums.slippage_count if sums.slippage_count else unknown,
            "max_slippage": unknown if sums.slippage_worst is None else sums.slippage_worst,
            "avg_latency_ms": None if latency is None else int(latency.to_integral_value(ROUND_HALF_UP)),
            "max_drawdown": sums.drawdown,
            "reward_to_risk_ratio": sums.ratio_sum / sums.ratio_count if sums.ratio_count else unknown,
            "sl_compliance_rate": sums.share(sums.compliant),
            "performance_score": sums.score,
            "performance_score_previous": sums.score_before,
            "score_trend": sums.trend,
        }


def _stamps(at: datetime) -> dict[str, object]:
    return {"calculated_at": at, "updated_at": at}

"""What the demonstration saw: collected by an observer of the flow, nothing computed twice."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil

from srm_agent.domain.accounts import Equity
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.domain.market import MarketContext
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.domain.trades import ClosedTrade


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergency:
    """An emergency close as it was seen."""

    connection: ConnectionId
    reason: str
    closing_orders: int | None
    """None while it goes on; then how many orders closed what was open."""

    @property
    def flat(self) -> bool:
        """Whether the account was read to be flat."""
        return self.closing_orders is not None


@dataclass(slots=True)
class Story:
    """An Observer that remembers."""

    opening_signals: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    measures: list[tuple[ExecutionMeasure, str]] = field(default_factory=list)
    """With the trading session of the decision."""
    trades: list[ClosedTrade] = field(default_factory=list)
    scores: dict[ProviderKey, ProviderScore] = field(default_factory=dict)
    emergencies: list[Emergency] = field(default_factory=list)
    equity: dict[ConnectionId, Equity] = field(default_factory=dict)
    recent: deque[Signal | Decision | ExecutionMeasure | ClosedTrade | Emergency] = field(
        default_factory=lambda: deque(maxlen=40)
    )
    explained: Decision | None = None
    """The accepted decision whose lot was changed by the most rules."""
    _sessions: dict[tuple[ConnectionId, str], str] = field(default_factory=dict)
    """Of the decision under way by connection and symbol (there is only one at a time on a netting venue)."""

    def saw_signal(self, signal: Signal, context: MarketContext | None) -> None:
        """Count openings."""
        if isinstance(signal, OpenSignal):
            self.opening_signals += 1
        self.recent.append(signal)

    def saw_decision(self, decision: Decision) -> None:
        """Count by reason; keep the most telling one for the waterfall."""
        if decision.accepted:
            self.accepted += 1
            self._sessions[decision.connection_id, decision.symbol] = decision.inputs.get("session", "")
            if self.explained is None or _telling(decision) > _telling(self.explained):
                self.explained = decision
        else:
            self.refused[decision.reason.value] += 1
        self.recent.append(decision)

    def saw_execution(self, measure: ExecutionMeasure) -> None:
        """Keep every entry, also those that filled nothing."""
        self.measures.append((measure, self._sessions.get((measure.connection_id, measure.symbol), "")))
        self.recent.append(measure)

    def saw_trade(self, trade: ClosedTrade, score: ProviderScore) -> None:
        """Keep the trade and the newest score."""
        self.trades.append(trade)
        self.scores[trade.provider] = score
        self.recent.append(trade)

    def saw_emergency(self, connection: ConnectionId, reason: str, closing_orders: int | None) -> None:
        """Keep both ends of an emergency close."""
        self.emergencies.append(Emergency(connection=connection, reason=reason, closing_orders=closing_orders))
        self.recent.append(self.emergencies[-1])

    def saw_equity(self, connection: ConnectionId, equity: Equity | None) -> None:
        """The newest equity."""
        if equity is not None:
            self.equity[connection] = equity

    def slippage_pips(self) -> dict[str, list[Decimal]]:
        """Slippage of filled entries by symbol."""
        found: dict[str, list[Decimal]] = {}
        for measure, _ in self.measures:
            if measure.slippage_pips is not None:
                found.setdefault(measure.symbol, []).append(measure.slippage_pips)
        return found

    def latencies_ms(self) -> list[Decimal]:
        """received -> filled of filled entries."""
        return [measure.latency_ms for measure, _ in self.measures if measure.latency_ms is not None]


def _telling(decision: Decision) -> int:
    return len([step for step in decision.steps if step.lot_in != step.lot_out])


def quantile(values: list[Decimal], share: float) -> Decimal | None:
    """Nearest-rank quantile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered), max(1, ceil(share * len(ordered)))) - 1]


def mean(values: list[Decimal]) -> Decimal | None:
    """Arithmetic mean; None of nothing."""
    return sum(values, Decimal(0)) / len(values) if values else None

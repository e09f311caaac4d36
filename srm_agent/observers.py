"""Who wants to see what happens, as it happens: the demonstration's screen now, other displays later."""

from __future__ import annotations

from typing import Protocol

from srm_agent.domain.accounts import Equity
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.market import MarketContext
from srm_agent.domain.signals import Signal
from srm_agent.domain.trades import ClosedTrade


class Observer(Protocol):
    """Called synchronously; must be quick and must not raise (a raised error is logged and forgotten)."""

    def saw_signal(self, signal: Signal, context: MarketContext | None) -> None:
        """A committed signal is about to be processed."""
        ...

    def saw_decision(self, decision: Decision) -> None:
        """A verdict for one connection."""
        ...

    def saw_execution(self, measure: ExecutionMeasure) -> None:
        """An entry order ended; what it cost."""
        ...

    def saw_trade(self, trade: ClosedTrade, score: ProviderScore) -> None:
        """A leg closed; the provider's new score."""
        ...

    def saw_emergency(self, connection: ConnectionId, reason: str, closing_orders: int | None) -> None:
        """An emergency close began (None), or the account is flat after that many closing orders.

        Zero of them: the brokers' own stops had closed everything before.
        """
        ...

    def saw_equity(self, connection: ConnectionId, equity: Equity | None) -> None:
        """Equity, about once a second."""
        ...

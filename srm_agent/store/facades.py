"""The ports of `srm_agent.ports` over a runner: each method is one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from srm_agent.clock import Clock
from srm_agent.domain.accounts import CashFlow, Halt, HaltScope, ProtectionMark
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ConnectionId, LegId, ProviderKey, SignalId
from srm_agent.domain.orders import Fill, OrderIntent
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.ports import IntakeResult, JournalRow, OrderUpdate
from srm_agent.store.history import TradeHistory
from srm_agent.store.journal import OrderJournal
from srm_agent.store.leases import Leases
from srm_agent.store.messages import Messages
from srm_agent.store.metrics import Metrics
from srm_agent.store.protection import Protection
from srm_agent.store.runner import StoreRunner
from srm_agent.store.schema import Tables


class SqlJournal:
    """`ports.Journal`. The clock stamps when a row was written; nothing is decided by it."""

    def __init__(self, runner: StoreRunner, tables: Tables, clock: Clock) -> None:
        self._runner, self._clock = runner, clock
        self._orders, self._metrics = OrderJournal(tables), Metrics(tables)

    async def record(self, decisions: Sequence[Decision], intents: Sequence[OrderIntent], legs: Sequence[Leg]) -> None:
        """See the port. Raises LeaseLost (a StoreBroken) for an entry under another fencing token."""
        await self._runner.run(self._orders.record, decisions, intents, legs, self._clock.wall())

    async def update(self, updates: Sequence[OrderUpdate]) -> None:
        """See the port. A settled order keeps its state; executions after a refusal set the code `LATE_FILL`."""
        await self._runner.run(self._update, tuple(updates))

    def _update(self, connection: Connection, updates: Sequence[OrderUpdate]) -> None:
        for change in updates:
            self._orders.apply(connection, change)

    async def record_fills(self, connection: ConnectionId, fills: Sequence[Fill], legs: Sequence[Leg]) -> None:
        """See the port. A fill is tied to the one leg of `legs` with its symbol that its side closes."""
        await self._runner.run(self._orders.add_fills, connection, fills, legs, self._clock.wall())

    async def unsettled(self, connection: ConnectionId) -> Sequence[JournalRow]:
        """See the port."""
        return await self._runner.read(self._orders.unsettled, connection)

    async def open_legs(self, connection: ConnectionId) -> Sequence[Leg]:
        """See the port."""
        return await self._runner.read(self._orders.open_legs, connection)

    async def known_fills(self, connection: ConnectionId, since: datetime) -> Mapping[str, LegId | None]:
        """See the port."""
        return await self._runner.read(self._orders.known_fills, connection, since)

    async def decided(self, signal: SignalId) -> Sequence[ConnectionId]:
        """See the port."""
        return await self._runner.read(self._orders.decided, signal)

    async def settled_since(self, connection: ConnectionId, since: datetime) -> Sequence[JournalRow]:
        """See the port."""
        return await self._runner.read(self._orders.settled_since, connection, since)

    async def orders_of(self, legs: Sequence[LegId]) -> Sequence[JournalRow]:
        """See the port."""
        return await self._runner.read(self._orders.orders_of, legs)

    async def legs(self, legs: Sequence[LegId]) -> Sequence[Leg]:
        """See the port."""
        return await self._runner.read(self._orders.legs, legs)

    async def close_trade(self, trade: ClosedTrade, score: ProviderScore) -> None:
        """See the port; the first call of a leg stands."""
        await self._runner.run(self._orders.close_trade, trade, score, self._clock.wall())

    async def rebuild_metrics(self) -> int:
        """Recompute all provider metrics from the recorded trades; how many trades these were."""
        return await self._runner.run(self._metrics.rebuild, self._clock.wall())


class SqlProtection:
    """`ports.ProtectionStore`."""

    def __init__(self, runner: StoreRunner, tables: Tables) -> None:
        self._runner, self._rows = runner, Protection(tables)

    async def mark(self, connection: ConnectionId) -> ProtectionMark | None:
        """See the port."""
        return await self._runner.read(self._rows.mark, connection)

    async def save_mark(self, mark: ProtectionMark) -> None:
        """See the port."""
        await self._runner.run(self._rows.save_mark, mark)

    async def halts(self) -> Sequence[Halt]:
        """See the port; oldest first."""
        return await self._runner.read(self._rows.halts)

    async def save_halt(self, halt: Halt) -> None:
        """See the port. An older halt, or an earlier state of the same one, changes nothing."""
        await self._runner.run(self._rows.save_halt, halt)

    async def clear_halt(self, scope: HaltScope, key: str, operator: str, at: datetime) -> bool:
        """See the port."""
        return await self._runner.run(self._rows.clear_halt, scope, key, operator, at)

    async def record_equity(
        self, connection: ConnectionId, at: datetime, equity: Decimal, balance: Decimal, drawdown: Decimal
    ) -> None:
        """See the port."""
        await self._runner.run(self._rows.add_equity, connection, at, equity, balance, drawdown)

    async def record_flows(self, connection: ConnectionId, flows: Sequence[CashFlow]) -> None:
        """See the port."""
        await self._runner.run(self._rows.add_flows, connection, flows)


class SqlSignalLog:
    """`ports.SignalLog`."""

    def __init__(self, runner: StoreRunner, tables: Tables) -> None:
        self._runner, self._messages = runner, Messages(tables)

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """See the port."""
        return await self._runner.run(self._messages.accept, signal, body_sha256, answer)

    async def unfinished(self) -> Sequence[Signal]:
        """See the port."""
        return await self._runner.read(self._messages.unfinished)

    async def finish(self, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """See the port."""
        await self._runner.run(self._messages.finish, provider, message_id, at)

    async def opening(self, signal_id: SignalId) -> OpenSignal | None:
        """See the port."""
        return await self._runner.read(self._messages.opening, signal_id)

    async def closed_before_open(self, signal_id: SignalId) -> bool:
        """See the port."""
        return await self._runner.read(self._messages.closed_before_open, signal_id)


class SqlHistory:
    """`ports.History`."""

    def __init__(self, runner: StoreRunner, tables: Tables) -> None:
        self._runner, self._rows = runner, TradeHistory(tables)

    async def closed_trades(self) -> Sequence[ClosedTrade]:
        """See the port."""
        return await self._runner.read(self._rows.closed_trades)

    async def recent_measures(self, count: int) -> Sequence[ExecutionMeasure]:
        """See the port."""
        return await self._runner.read(self._rows.recent_measures, count)


class SqlLeases:
    """One writer per connection, by the wall clock of this machine."""

    def __init__(self, runner: StoreRunner, tables: Tables, clock: Clock) -> None:
        self._runner, self._clock, self._rows = runner, clock, Leases(tables)

    async def acquire(self, connection_id: ConnectionId, owner: str, ttl_s: float) -> int | None:
        """The fencing token (grows with every new holder); None while another owner holds the lease."""
        return await self._runner.run(self._rows.acquire, connection_id, owner, ttl_s, self._clock.wall())

    async def renew(self, connection_id: ConnectionId, owner: str, fence: int, ttl_s: float) -> bool:
        """Extend; False when it ran out or is another's: stop entries, acquire again."""
        return await self._runner.run(self._rows.renew, connection_id, owner, fence, ttl_s, self._clock.wall())

    async def release(self, connection_id: ConnectionId, owner: str, fence: int) -> bool:
        """Give it back; False when it was not ours."""
        return await self._runner.run(self._rows.release, connection_id, owner, fence, self._clock.wall())

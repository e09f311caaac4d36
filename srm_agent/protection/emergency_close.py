"""Closes an account: a desired state pursued until a successful read shows flat (INV-9).

It needs the broker and nothing else: no database, model, feed, filter or entry queue. Closes are reduce-only market
orders, so sending one twice does no harm; the truth is read anew before each pass, largest risk first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.accounts import EmergencyScope
from srm_agent.domain.ids import ClientOrderId, ProviderKey, ProviderKind, Symbol, client_order_id, signal_id
from srm_agent.domain.orders import BrokerPosition, OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import ZERO
from srm_agent.errors import BrokerError, SrmError
from srm_agent.ports import Broker

log = structlog.get_logger()

AT_ONCE = 8
SEND_DEADLINE_S = 10.0
LONGEST_PAUSE_S = 5.0
ITSELF = ProviderKey(ProviderKind.CHANNEL_SOURCE, "emergency")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyParts:
    """What an emergency close is made of. The callbacks must not block and may fail: they are only told."""

    broker: Broker
    clock: Clock
    scope: EmergencyScope
    interval_s: float
    ours: Callable[[Symbol], Decimal]
    """Volume of our own legs on a symbol, signed."""
    announce: Callable[[OrderIntent], None]
    """Told before an order leaves, so that its fills find their leg."""
    heard: Callable[[OrderReport], None]


class EmergencyClose:
    """One account, one episode (named by `epoch`, so that its client ids are its own)."""

    def __init__(self, parts: EmergencyParts, epoch: str) -> None:
        self._parts = parts
        self._epoch = epoch
        self._pass = 0
        self.sent = 0

    async def until_flat(self) -> int:
        """Close until a successful read shows nothing in scope; the number of passes. Never gives up."""
        pause = self._parts.interval_s
        while True:
            self._pass += 1
            try:
                left = await self._one_pass()
            except BrokerError as error:
                log.warning(
                    "emergency close could not read", connection=self._parts.broker.connection_id, error=str(error)
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            if not left:
                return self._pass
            pause = self._parts.interval_s
            await asyncio.sleep(pause)

    async def _one_pass(self) -> bool:
        """Withdraw working entries, close what a fresh read shows; False when that read showed nothing."""
        broker = self._parts.broker
        working = await broker.open_orders()
        ours_only = self._parts.scope is EmergencyScope.OWN
        mine = [order for order in working if not ours_only or order.client_id.startswith("srm1")]
        for order in mine:
            await self._withdraw(order)
        positions = largest_first([p for p in await broker.positions() if self._volume(p) > 0])
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for position in positions:
                group.create_task(self._close(position, slots))
        return bool(positions) or bool(mine)

    def _volume(self, position: BrokerPosition) -> Decimal:
        if self._parts.scope is EmergencyScope.ACCOUNT:
            return position.lot
        ours = self._parts.ours(position.symbol) * int(position.side)
        return max(ZERO, min(position.lot, ours))

    async def _withdraw(self, order: OrderReport) -> None:
        if order.symbol is None:
            return
        try:
            await self._parts.broker.cancel(order.client_id, order.symbol)
        except BrokerError as error:
            log.info("order not withdrawn in this pass", client_id=order.client_id, error=str(error))

    async def _close(self, position: BrokerPosition, slots: asyncio.Semaphore) -> None:
        intent = self._intent(position)
        async with slots:
            self._tell(lambda: self._parts.announce(intent))
            self.sent += 1
            try:
                report = await self._parts.broker.submit(intent)
            except SrmError as error:
                log.warning("close not delivered in this pass", symbol=position.symbol, error=str(error))
                report = OrderReport(client_id=intent.client_id, outcome=Outcome.UNKNOWN, code=type(error).__name__)
            self._tell(lambda: self._parts.heard(report))

    def _intent(self, position: BrokerPosition) -> OrderIntent:
        clock = self._parts.clock
        return OrderIntent(
            client_id=self._client_id(position.symbol),
            connection_id=self._parts.broker.connection_id,
            leg_id=None,
            signal_id=None,
            decision_id=None,
            purpose=OrderPurpose.EMERGENCY,
            symbol=position.symbol,
            side=position.side.opposite,
            lot=self._volume(position),
            limit_price=None,
            stop_loss=None,
            take_profit=None,
            reduce=position.ref,
            reason="emergency",
            created_at=clock.wall(),
            deadline=clock.monotonic() + SEND_DEADLINE_S,
        )

    def _client_id(self, symbol: Symbol) -> ClientOrderId:
        return client_order_id(
            self._parts.broker.connection_id, signal_id(ITSELF, symbol), f"flatten:{self._epoch}", self._pass
        )

    def _tell(self, callback: Callable[[], None]) -> None:
        """A defect of the listener must not stop the close (K6)."""
        try:
            callback()
        except Exception:
            log.exception("listener of the emergency close failed")


def largest_first(positions: Sequence[BrokerPosition]) -> list[BrokerPosition]:
    """Largest notional first."""
    return sorted(positions, key=lambda p: p.lot * p.entry_price, reverse=True)

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
    unresolved: Callable[[], bool]
    """Whether an entry may still turn into a position: then it is not flat yet (INV-7)."""


class EmergencyClose:
    """One account, one episode; `epoch` names it and the process, so that its client ids are its own."""

    def __init__(self, parts: EmergencyParts, epoch: str) -> None:
        self._parts = parts
        self._epoch = epoch
        self._pass = 0
        self._pause = parts.interval_s
        self._doubtful: dict[ClientOrderId, Symbol] = {}
        self.sent = 0

    async def until_flat(self) -> int:
        """Close until a successful read shows nothing in scope; the number of passes. Never gives up, never raises."""
        while not await self._one_pass():
            await asyncio.sleep(self._pause)
        return self._pass

    async def _one_pass(self) -> bool:
        """Withdraw working entries, close what a fresh read shows; True when reads showed nothing of either.

        The list of working orders may be unreadable: positions are closed all the same, and flat waits for it.
        """
        self._pass += 1
        await self._ask_about_doubts()
        flat, idle = await asyncio.gather(self._close_all(), self._withdraw_all())
        return flat and idle and not self._unresolved()

    def _unresolved(self) -> bool:
        try:
            return self._parts.unresolved()
        except Exception:
            log.exception("listener of the emergency close failed")
            return False

    async def _close_all(self) -> bool:
        """True when a successful read showed nothing in scope."""
        try:
            positions = [p for p in await self._parts.broker.positions() if self._volume(p) > 0]
        except Exception as error:  # unreachable, or a defect on the way: neither may leave the account open (K6)
            log.warning(
                "emergency close could not read", connection=self._parts.broker.connection_id, error=repr(error)
            )
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
            return False
        self._pause = self._parts.interval_s
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._close(position, slots) for position in largest_first(positions)))
        return not positions

    async def _ask_about_doubts(self) -> None:
        """With volume of others beside ours, a close whose reply was lost must be known before it is repeated."""
        doubtful, self._doubtful = self._doubtful, {}
        if self._parts.scope is EmergencyScope.ACCOUNT:
            return
        for client_id, symbol in doubtful.items():
            try:
                report = await self._parts.broker.lookup(client_id, symbol)
            except Exception as error:
                log.info("close in doubt could not be looked up", client_id=client_id, error=repr(error))
                continue
            self._tell(lambda report=report: self._parts.heard(report))  # type: ignore[misc]

    def _volume(self, position: BrokerPosition) -> Decimal:
        if self._parts.scope is EmergencyScope.ACCOUNT:
            return position.lot
        ours = self._parts.ours(position.symbol) * int(position.side)
        return max(ZERO, min(position.lot, ours))

    async def _withdraw_all(self) -> bool:
        """Withdraw working orders in scope; True when a successful read showed none."""
        try:
            working = await self._parts.broker.open_orders()
        except Exception as error:
            log.warning("working orders could not be read in this pass", error=repr(error))
            return False
        ours_only = self._parts.scope is EmergencyScope.OWN
        mine = [order for order in working if not ours_only or order.client_id.startswith("srm1")]
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._withdraw(order, slots) for order in mine))
        return not mine

    async def _withdraw(self, order: OrderReport, slots: asyncio.Semaphore) -> None:
        if order.symbol is None:
            return
        async with slots:
            try:
                await self._parts.broker.cancel(order.client_id, order.symbol)
            except Exception as error:
                log.info("order not withdrawn in this pass", client_id=order.client_id, error=repr(error))

    async def _close(self, position: BrokerPosition, slots: asyncio.Semaphore) -> None:
        async with slots:
            intent = self._intent(position)
            self._tell(lambda: self._parts.announce(intent))
            self.sent += 1
            try:
                report = await self._parts.broker.submit(intent)
            except Exception as error:  # whatever it was, the next pass reads anew; the others must go on
                log.warning("close not delivered in this pass", symbol=position.symbol, error=repr(error))
                report = OrderReport(client_id=intent.client_id, outcome=Outcome.UNKNOWN, code=type(error).__name__)
            if report.outcome in (Outcome.UNKNOWN, Outcome.WORKING):
                self._doubtful[intent.client_id] = position.symbol
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

"""Equity that moved without a trade: REDUCING, read the cash flows within 5 s, then decide (INV-13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import BrokerError
from srm_agent.ports import Broker, ProtectionStore
from srm_agent.protection.drawdown_guard import DrawdownGuard

log = structlog.get_logger()

PATIENCE_S = 5.0
RETRY_S = 0.3
OVERLAP = timedelta(minutes=10)


class CashDoubt:
    """Reads what was paid in and out of one account, when told to, and keeps it for the store."""

    def __init__(
        self,
        broker: Broker,
        guard: DrawdownGuard,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[object, object, None]], object],
        on_end: Callable[[], None],
        hear: Callable[[AccountSnapshot], None],
        currency: Callable[[], str | None],
        tell: Callable[[str], None],
    ) -> None:
        self._currency = currency
        self._tell = tell
        self._jump: Decimal | None = None
        self._not_valued: dict[str, None] = {}
        """Flows a person was told about: read again with every overlap, told once."""
        self._broker = broker
        self._guard = guard
        self._clock = clock
        self._spawn = spawn
        self._on_end = on_end
        self._hear = hear
        self._again = False
        self._until: float | None = None
        self._unsaved: list[CashFlow] = []

    @property
    def reading(self) -> bool:
        """Whether the cash flows are being read: equity is known, what it means is not."""
        return self._until is not None

    @property
    def waiting(self) -> bool:
        """`reading`, and the patience for it has not run out."""
        return self._until is not None and self._clock.monotonic() < self._until

    def take(self, flows: Iterable[CashFlow]) -> bool:
        """Flows that were read: each moves the mark once, by id. True when one was new."""
        measured = [one for flow in flows if (one := self._in_account_currency(flow)) is not None]
        fresh = [flow for flow in measured if self._guard.on_flow(flow, self._clock.wall())]
        self._unsaved += fresh
        return bool(fresh)

    def _in_account_currency(self, flow: CashFlow) -> CashFlow | None:
        """A flow in another coin is worth what equity jumped by when it moved; without such a jump it is not valued."""
        currency = self._currency()
        if flow.currency == currency or flow.kind not in ("deposit", "withdrawal"):
            return flow
        known = self._guard.mark
        if known is not None and known.last_flow_at is not None and flow.at <= known.last_flow_at:
            return None
        jump = self._jump
        if jump is None or currency is None or (jump > 0) != (flow.amount > 0):
            if flow.flow_id not in self._not_valued:
                self._not_valued[flow.flow_id] = None
                self._tell(f"{flow.kind} of {flow.amount} {flow.currency}: not valued, the high-water mark stays")
            return None
        self._jump = None
        self._tell(f"{flow.kind} of {flow.amount} {flow.currency}: valued at the jump of equity, {jump} {currency}")
        return replace(flow, amount=jump, currency=currency)

    def raise_(self, connection: ConnectionId, why: str, jump: Decimal) -> None:
        """Doubt: equity means nothing until the flows have been read, or five seconds have passed.

        `jump` is what moved without an explanation, in account currency.
        """
        self._jump = jump
        if self._until is not None:
            self._again = True  # what moved during a reading may not be in it
            return
        log.info("unexplained equity", connection=connection, why=why)
        self._until = self._clock.monotonic() + PATIENCE_S
        self._spawn(self._read(connection))

    async def _read(self, connection: ConnectionId) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._explain(connection)
        except TimeoutError:
            log.warning("cash flows could not be read in time", connection=connection)
        finally:
            self._until = None
        self._on_end()

    async def _explain(self, connection: ConnectionId) -> None:
        """Read the flows; where they explain nothing, one more figure: one from just before a jump of prices, heard
        just after it, is no money, and would be believed until the next."""
        asked = False
        while True:
            self._again = False
            try:
                if not await self._read_flows() and not asked:
                    figure = await self._broker.account()
                    asked = True
                    self._hear(figure)
            except BrokerError as error:
                log.info("cash flows could not be read", connection=connection, error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if not self._again:
                return

    async def _read_flows(self) -> bool:
        """True when there was a new one. Raises BrokerError."""
        mark = self._guard.mark
        if mark is None or mark.last_flow_at is None:
            return False
        return self.take(await self._broker.cash_flows(mark.last_flow_at - OVERLAP))

    async def save(self, connection: ConnectionId, store: ProtectionStore) -> None:
        """Write the flows that were found. Raises StoreError; they are then written next time."""
        if self._unsaved:
            flows = list(self._unsaved)
            await store.record_flows(connection, flows)
            del self._unsaved[: len(flows)]

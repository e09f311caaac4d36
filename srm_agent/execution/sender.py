"""Sends each order once; every doubt becomes UNKNOWN (INV-5), and no entry ever holds back an exit (INV-10)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from zlib import crc32

import structlog

from srm_agent import failpoints
from srm_agent.clock import Clock
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.ids import Symbol
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, NotAuthorised
from srm_agent.execution.ledger import Ledger
from srm_agent.execution.tickets import expired
from srm_agent.ports import Broker

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0
"""Before an order that was provably not delivered goes again: doubled each time, a quarter more or less (B15)."""
REQUOTED, TRIES = frozenset({"REQUOTE"}), 2
"""An entry refused for its price goes once more, with the same id, while the fresh price is within its limit (B1)."""
ENTRIES_AT_ONCE, EXITS_AT_ONCE = 4, 16
"""Requests in flight per account; the venue's own limits are kept by the adapter's budget, which reserves for exits."""


class Sender:
    """The lane of one connection: a slow broker delays nobody else, and an entry never delays an exit."""

    def __init__(
        self,
        broker: Broker,
        ledger: Ledger,
        clock: Clock,
        *,
        gate: Callable[[OrderIntent], ReasonCode | None],
        touch: Callable[[Symbol, Side], Decimal | None],
        on_report: Callable[[OrderReport], None],
        on_not_authorised: Callable[[NotAuthorised], None],
    ) -> None:
        self._broker = broker
        self._ledger = ledger
        self._clock = clock
        self._gate = gate
        self._touch = touch
        self._on_report = on_report
        self._on_not_authorised = on_not_authorised
        self._waiting: deque[OrderIntent] = deque()
        self._work = asyncio.Event()
        self._entry_slots = asyncio.Semaphore(ENTRIES_AT_ONCE)
        self._exit_slots = asyncio.Semaphore(EXITS_AT_ONCE)

    def enqueue(self, intent: OrderIntent) -> None:
        """Queue an order whose intent is committed."""
        self._waiting.append(intent)
        self._work.set()

    async def run(self) -> None:
        """Send for ever. Entries and exits have slots of their own, so that no hung reply holds back an exit."""
        async with asyncio.TaskGroup() as group:
            while True:
                while self._waiting:
                    intent = self._waiting.popleft()
                    group.create_task(self._in_its_slot(intent), name=f"send {intent.client_id}")
                self._work.clear()
                await self._work.wait()

    async def _in_its_slot(self, intent: OrderIntent) -> None:
        slots = self._entry_slots if intent.purpose is OrderPurpose.ENTRY else self._exit_slots
        async with slots:
            await self._send(intent)

    async def _send(self, intent: OrderIntent) -> None:
        undelivered, requoted = 0, 0
        while True:
            now = self._clock.monotonic()
            if expired(intent, now):
                return self._not_sent(intent, ReasonCode.NOT_SENT_IN_TIME)
            if (closed := self._gate(intent)) is not None:
                return self._not_sent(intent, closed)
            self._ledger.mark_sent(intent.client_id, now, self._touch(intent.symbol, intent.side))
            failpoints.reached("CP3")
            # Runs as soon as the request has been handed over and its reply is awaited.
            asyncio.get_running_loop().call_soon(failpoints.reached, "CP4")
            try:
                report = await self._broker.submit(intent)
            except BrokerUnreachable as error:
                # Provably nothing happened (port's contract): the same id may go again until the deadline.
                log.info("order not delivered", client_id=intent.client_id, error=str(error))
                await asyncio.sleep(_pause(intent, undelivered))
                undelivered += 1
                continue
            except NotAuthorised as error:
                self._on_not_authorised(error)
                return self._not_sent(intent, ReasonCode.HALTED_BEFORE_SEND, str(error))
            except Exception as error:  # whatever it was, the order may be live (INV-5)
                log.exception("order in doubt", client_id=intent.client_id)
                report = OrderReport(
                    client_id=intent.client_id, outcome=Outcome.UNKNOWN, code=type(error).__name__, detail=str(error)
                )
            failpoints.reached("CP5")
            if intent.purpose is OrderPurpose.ENTRY and _refused_for_its_price(report):
                requoted += 1
                if requoted < TRIES and await self._still_within_limit(intent):
                    log.info("requoted, sent again", client_id=intent.client_id, detail=report.detail)
                    continue
            return self._on_report(report)

    async def _still_within_limit(self, intent: OrderIntent) -> bool:
        """Whether the fresh price is one that the decision allowed: its limit was part of the risk that was decided."""
        await asyncio.sleep(FIRST_PAUSE_S)
        touch = self._touch(intent.symbol, intent.side)
        if touch is None or intent.limit_price is None:
            return False
        return int(intent.side) * (touch - intent.limit_price) <= 0

    def _not_sent(self, intent: OrderIntent, reason: ReasonCode, detail: str = "") -> None:
        ticket = self._ledger.tickets.get(intent.client_id)
        if ticket is not None and ticket.sent is not None and reason is not ReasonCode.NOT_SENT_IN_TIME:
            log.info("order withdrawn after an undelivered try", client_id=intent.client_id, reason=reason)
        self._on_report(
            OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code=reason.value, detail=detail)
        )


def _refused_for_its_price(report: OrderReport) -> bool:
    """Proof that nothing was done, because the price had moved: the only refusal after which the same order may go."""
    return report.outcome is Outcome.REJECTED and report.code in REQUOTED and not report.fills


def _pause(intent: OrderIntent, undelivered: int) -> float:
    """Back-off whose jitter comes from the order's id: orders that fail together do not come back together."""
    spread = crc32(f"{intent.client_id}/{undelivered}".encode()) / 2**32
    return min(FIRST_PAUSE_S * 2.0 ** min(undelivered, 10), LONGEST_PAUSE_S) * (0.75 + spread / 2)

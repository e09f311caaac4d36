"""Closes an account: a desired state pursued until successful reads show flat (INV-9).

It needs the broker and nothing else: no database, model, feed, filter or entry queue. Closes are reduce-only orders on
a named position, so sending one twice does no harm. The truth is read again while closes are under way, so that a
reply that never comes holds back nothing; largest risk goes first, at the venue's pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TypeVar

import structlog

from srm_agent import failpoints
from srm_agent.clock import Clock
from srm_agent.domain.accounts import EmergencyScope
from srm_agent.domain.ids import (
    ClientOrderId,
    PositionRef,
    ProviderKey,
    ProviderKind,
    Symbol,
    client_order_id,
    signal_id,
)
from srm_agent.domain.orders import BrokerPosition, OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import ZERO, Side
from srm_agent.errors import NotAuthorised
from srm_agent.ports import Broker
from srm_agent.protection.close_doubts import CloseDoubts
from srm_agent.protection.close_ladder import Pursuit
from srm_agent.protection.pace import Pace

log = structlog.get_logger()
T = TypeVar("T")

AT_ONCE = 8
SEND_DEADLINE_S = 10.0
READ_PATIENCE_S, SEND_PATIENCE_S = 5.0, 2.5
"""A call that has not come back by then is given up; what it did is read. A close that got lost before the broker must
leave time for another one within INV-9's 5 s; one that was only slow finds a second one harmless."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_UNDER_A_BAD_KEY_S = 0.1, 1.0, 5.0
"""After a failed read: soon, then more and more patiently."""
SURE_AFTER_S = 3.0
"""An empty list is believed at once if the account's margin says the same, after so long if nothing else is known."""
DENIED_FOR_S = 60.0
"""It is not believed for so long while margin is in use, or our own books hold volume that no fill has closed (B26)."""
TELL_AFTER_S = 30.0
ITSELF = ProviderKey(ProviderKind.CHANNEL_SOURCE, "emergency")
OURS = "srm1"
"""Our client ids begin with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyParts:
    """What an emergency close is made of. The callbacks must not block and may fail: none of them is needed."""

    broker: Broker
    clock: Clock
    scope: EmergencyScope
    interval_s: float
    """Between two reads while closes are under way."""
    closes_per_s: float
    """What the venue takes (its budget for closes), after a burst of `AT_ONCE`."""
    ours: Callable[[Symbol], Decimal]
    """Volume of our own legs on a symbol, signed."""
    notional: Callable[[BrokerPosition], Decimal]
    """What a position is worth: the largest goes first."""
    wide_limit: Callable[[Symbol, Side], Decimal | None]
    """A price far beyond the market for a closing order of that side, on the tick grid; None where it is unknown."""
    announce: Callable[[OrderIntent], None]
    """Told before an order leaves, so that its fills find their leg."""
    heard: Callable[[OrderReport], None]
    unresolved: Callable[[], bool]
    """Whether an entry may still turn into a position: then it is not flat yet (INV-7)."""
    page: Callable[[str], None]
    """Told once about each thing that does not close by itself."""
    seen: Callable[[Sequence[BrokerPosition]], None]
    """Told what each successful read showed in scope."""
    held: Callable[[], bool] = lambda: False
    """Whether our own books, by fills, still hold volume."""


class EmergencyClose:
    """One account, one episode; `epoch` names it and the process, so that its client ids are its own."""

    def __init__(self, parts: EmergencyParts, epoch: str) -> None:
        self._parts = parts
        self._epoch = epoch
        self._passes = 0
        self._failures = {"positions": 0, "orders": 0, "margin": 0}
        """Times in a row that each of them could not be read."""
        self._longest_pause = LONGEST_PAUSE_S
        self._pace = Pace(parts.closes_per_s, AT_ONCE, parts.clock)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._doubts = CloseDoubts(parts.broker, parts.clock, lambda report: self._tell(parts.heard, report))
        self._seen: dict[PositionRef, BrokerPosition] = {}
        self._pursuits: dict[PositionRef, Pursuit] = {}
        self._closing: dict[PositionRef, asyncio.Task[None]] = {}
        self._withdrawing: asyncio.Task[bool] | None = None
        self._rest_over = asyncio.Event()
        self._told: dict[str, None] = {}
        self._began = parts.clock.monotonic()
        self._empty_since: float | None = None
        self.sent = 0

    async def until_flat(self) -> int:
        """Close until successful reads show nothing in scope; the number of passes. Never gives up, never raises."""
        try:
            while not await self._one_pass():
                await self._rest()
        finally:
            await self._leave()
        return self._passes

    # ---- one pass: read, then start what is due

    async def _one_pass(self) -> bool:
        self._passes += 1
        positions = await self._read()
        if positions is None:
            return False
        if self._parts.scope is EmergencyScope.OWN:
            await self._doubts.ask()
        self._start_due(positions)
        if positions:
            self._empty_since = None
            if self._withdrawing is None:
                # Working entries go beside the closes; whether they are gone is asked once nothing is held.
                self._withdrawing = asyncio.create_task(self._withdraw())
            if self._parts.clock.monotonic() - self._began >= TELL_AFTER_S:
                self._page(f"not flat after {TELL_AFTER_S:.0f} s: {len(positions)} positions are left", "slow")
            return False
        return await self._surely_flat()

    async def _read(self) -> list[BrokerPosition] | None:
        """Positions in scope, largest first; None when they could not be read."""
        try:
            async with asyncio.timeout(READ_PATIENCE_S):
                found = await self._parts.broker.positions()
            positions = self._largest_first([p for p in found if self._volume(p) > 0])
        except Exception as error:  # unreachable, or a defect on the way: neither may leave the account open (K6)
            log.warning(
                "emergency close could not read", connection=self._parts.broker.connection_id, error=repr(error)
            )
            if isinstance(error, NotAuthorised):
                self._page(f"the broker refuses the credentials: {error}", "credentials")
            self._longest_pause = PAUSE_UNDER_A_BAD_KEY_S if isinstance(error, NotAuthorised) else LONGEST_PAUSE_S
            self._failures["positions"] += 1
            return None
        self._failures["positions"] = 0
        self._seen = {position.ref: position for position in positions}
        self._tell(self._parts.seen, positions)
        return positions

    def _start_due(self, positions: Sequence[BrokerPosition]) -> None:
        now = self._parts.clock.monotonic()
        for position in positions:
            ref = position.ref
            if ref in self._closing or self._pursuits.get(ref, Pursuit()).not_before > now:
                continue
            if self._parts.scope is EmergencyScope.OWN and self._must_wait(position):
                continue
            task = asyncio.create_task(self._close(ref))
            self._closing[ref] = task
            task.add_done_callback(partial(self._closed, ref))

    def _closed(self, ref: PositionRef, task: asyncio.Task[None]) -> None:
        del self._closing[ref]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("close failed, the next pass tries again", position=ref, error=repr(error))
        if not self._closing:
            self._rest_over.set()

    def _must_wait(self, position: BrokerPosition) -> bool:
        """With volume of others beside ours, a close whose reply was lost must be known before it is repeated."""
        return position.symbol in self._doubts.symbols and position.lot > self._volume(position)

    async def _rest(self) -> None:
        """Until it is time to read again, or every close under way has come back."""
        self._rest_over.clear()
        pause = self._parts.interval_s
        if failures := max(self._failures.values()):
            pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), self._longest_pause)
        try:
            async with asyncio.timeout(pause):
                await self._rest_over.wait()
        except TimeoutError:
            return

    async def _surely_flat(self) -> bool:
        """Nothing is held. Flat: no working order either, no entry in doubt, and a second source agrees (B26).

        Orders are read before positions: an entry that fills in between is then seen by one of the two.
        """
        if not await self._withdraw():
            return False
        again, used = await asyncio.gather(self._read(), self._margin_used())
        if again is None:
            return False
        if again:
            self._empty_since = None
            return False
        now = self._parts.clock.monotonic()
        self._empty_since = now if self._empty_since is None else self._empty_since
        empty_s = now - self._empty_since
        try:
            if (used or self._parts.held()) and empty_s < DENIED_FOR_S:
                if empty_s >= TELL_AFTER_S:
                    self._page(
                        "no position is listed, but margin is in use or our books hold volume: look there", "lie"
                    )
                return False
            return (used is not None or empty_s >= SURE_AFTER_S) and not self._parts.unresolved()
        except Exception:
            log.exception("listener of the emergency close failed")
            return False

    async def _margin_used(self) -> bool | None:
        """The second source; None where it could not be asked."""
        if self._parts.scope is EmergencyScope.OWN:
            return None  # positions of others may use margin
        try:
            async with asyncio.timeout(READ_PATIENCE_S):
                used = (await self._parts.broker.account()).margin_used
        except Exception as error:
            log.info("margin could not be read", error=repr(error))
            self._failures["margin"] += 1
            return None
        self._failures["margin"] = 0
        return used > ZERO

    async def _leave(self) -> None:
        """Closes whose reply is still awaited are in doubt from here on; nothing of this episode runs on."""
        waiting = [*self._closing.values(), *([self._withdrawing] if self._withdrawing else [])]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    # ---- working orders

    async def _withdraw(self, symbol: Symbol | None = None) -> bool:
        """Withdraw working orders in scope (of one symbol); True when a successful read showed none."""
        try:
            async with asyncio.timeout(READ_PATIENCE_S):
                working = await self._parts.broker.open_orders()
        except Exception as error:
            log.warning("working orders could not be read in this pass", error=repr(error))
            self._failures["orders"] += 1
            return False
        self._failures["orders"] = 0
        ours_only = self._parts.scope is EmergencyScope.OWN
        mine = [
            order
            for order in working
            if (not ours_only or order.client_id.startswith(OURS)) and symbol in (None, order.symbol)
        ]
        slots = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._withdraw_one(order, slots) for order in mine))
        return not mine

    async def _withdraw_one(self, order: OrderReport, slots: asyncio.Semaphore) -> None:
        if order.symbol is None:
            return
        async with slots:
            try:
                await self._pace.take()
                async with asyncio.timeout(SEND_PATIENCE_S):
                    await self._parts.broker.cancel(order.client_id, order.symbol)
            except Exception as error:
                log.info("order not withdrawn in this pass", client_id=order.client_id, error=repr(error))

    # ---- one close

    async def _close(self, ref: PositionRef) -> None:
        async with self._slots:
            await self._pace.take()
            position, pursuit = self._seen.get(ref), self._pursuits.get(ref, Pursuit())
            if position is None or self._volume(position) <= 0:
                return  # gone while it waited for its turn
            if pursuit.cancel_first:
                await self._withdraw(position.symbol)
                failpoints.reached("CP14")
            report = await self._send(self._intent(position, pursuit))
            failpoints.reached("CP9")
            self._pursuits[ref] = pursuit = pursuit.after(report, self._parts.clock.monotonic())
            if pursuit.worth_telling:
                self._page(f"{position.symbol} does not close: {pursuit.code} {report.detail}".rstrip(), ref)

    async def _send(self, intent: OrderIntent) -> OrderReport:
        """Once; whatever happens, its listener hears how it ended."""
        self._tell(self._parts.announce, intent)
        self.sent += 1
        code = "GIVEN_UP"
        report: OrderReport | None = None
        try:
            async with asyncio.timeout(SEND_PATIENCE_S):
                report = await self._parts.broker.submit(intent)
        except Exception as error:  # whatever it was, the next pass reads anew; the others must go on
            log.warning("close not delivered in this pass", symbol=intent.symbol, error=repr(error))
            code = type(error).__name__
        finally:
            report = report or OrderReport(client_id=intent.client_id, outcome=Outcome.UNKNOWN, code=code)
            if self._parts.scope is EmergencyScope.OWN and report.outcome in (Outcome.UNKNOWN, Outcome.WORKING):
                self._doubts.note(intent.client_id, intent.symbol)
            self._tell(self._parts.heard, report)
        return report

    def _intent(self, position: BrokerPosition, pursuit: Pursuit) -> OrderIntent:
        clock, side = self._parts.clock, position.side.opposite
        return OrderIntent(
            client_id=self._client_id(position.symbol),
            connection_id=self._parts.broker.connection_id,
            leg_id=None,
            signal_id=None,
            decision_id=None,
            purpose=OrderPurpose.EMERGENCY,
            symbol=position.symbol,
            side=side,
            lot=self._volume(position),
            limit_price=self._wide_limit(position.symbol, side) if pursuit.wide_limit else None,
            stop_loss=None,
            take_profit=None,
            reduce=position.ref,
            reason="emergency",
            created_at=clock.wall(),
            deadline=clock.monotonic() + SEND_DEADLINE_S,
        )

    def _client_id(self, symbol: Symbol) -> ClientOrderId:
        return client_order_id(
            self._parts.broker.connection_id, signal_id(ITSELF, symbol), f"flatten:{self._epoch}", self.sent + 1
        )

    # ---- what others know; a defect of theirs must not stop the close (K6)

    def _volume(self, position: BrokerPosition) -> Decimal:
        """What of a position is in scope, lots."""
        if self._parts.scope is EmergencyScope.ACCOUNT:
            return position.lot
        ours = self._parts.ours(position.symbol) * int(position.side)
        return max(ZERO, min(position.lot, ours))

    def _largest_first(self, positions: list[BrokerPosition]) -> list[BrokerPosition]:
        try:
            return sorted(positions, key=self._parts.notional, reverse=True)
        except Exception:
            log.exception("positions could not be ordered by their worth")
            return positions

    def _wide_limit(self, symbol: Symbol, side: Side) -> Decimal | None:
        try:
            return self._parts.wide_limit(symbol, side)
        except Exception:
            log.exception("no price for a limit order")
            return None

    def _page(self, text: str, about: str) -> None:
        if about not in self._told:
            self._told[about] = None
            self._tell(self._parts.page, text)

    def _tell(self, listener: Callable[[T], None], what: T) -> None:
        try:
            listener(what)
        except Exception:
            log.exception("listener of the emergency close failed")

"""Closing accounts without the daemon: latch first, then pursue flat (K4). Needs a broker, and a file if there is one.

It may run beside a daemon that does the same: closes are reduce-only, and both share the file of halts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, EmergencyScope, Halt, HaltScope
from srm_agent.domain.ids import ClientOrderId, ConnectionId, Symbol
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderReport
from srm_agent.domain.units import ZERO, Side, stored
from srm_agent.errors import BrokerError, BrokerUnreachable, ConfigurationError, NotAuthorised
from srm_agent.flatten_known import Known
from srm_agent.ports import Broker, MarketFeed
from srm_agent.protection.close_values import notional, wide_limit
from srm_agent.protection.emergency_close import OURS, EmergencyClose, EmergencyParts
from srm_agent.protection.halt_file import HaltFile, flat, latched

log = structlog.get_logger()

LATCH_TRIES = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
READ_PATIENCE_S = 5.0
FILLS_REACH_BACK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenRules:
    """How an account is closed; see ProtectionRules."""

    scope: EmergencyScope
    interval_s: float
    closes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """One position as it was first seen, and what became of it. Money in the settle currency, None: not known."""

    symbol: Symbol
    side: Side
    lot: Decimal
    entry_price: Decimal
    exit_price: Decimal | None
    result: Decimal | None
    """side x (exit - entry) x lot x contract size - fees."""
    currency: str


@dataclass(slots=True, kw_only=True)
class Flattened:
    """How it ended for one connection."""

    connection: ConnectionId
    flat: bool = False
    orders: int = 0
    seconds: float = 0.0
    closed: list[Closed] = field(default_factory=list)
    left: list[BrokerPosition] = field(default_factory=list)
    """As last seen in scope; empty and not flat: never read."""
    before: AccountSnapshot | None = None
    after: AccountSnapshot | None = None
    troubles: list[str] = field(default_factory=list)


def latch(halts: HaltFile, connections: Sequence[ConnectionId], reason: str, by: str, at: datetime) -> str:
    """FLATTENING for each of them in the file of halts; empty, or why the file does not take it (INV-8)."""
    new = [
        Halt(
            scope=HaltScope.CONNECTION,
            key=connection,
            state=ConnectionState.FLATTENING,
            reason=reason,
            set_at=at,
            set_by=by,
        )
        for connection in connections
    ]
    trouble = ""
    for _ in range(LATCH_TRIES):
        try:
            for halt in new:
                halts.update(lambda known, halt=halt: latched(known, halt))  # type: ignore[misc]
        except OSError as error:
            trouble = f"{type(error).__name__}: {error}"
        else:
            return ""
    return trouble


class AccountFlattener:
    """One account. `progress` is told what is left after each successful read."""

    def __init__(
        self,
        broker: Broker,
        feed: MarketFeed,
        clock: Clock,
        known: Known,
        rules: FlattenRules,
        progress: Callable[[ConnectionId, Sequence[BrokerPosition], int], None],
        *,
        opening: asyncio.Lock,
    ) -> None:
        self._broker = broker
        self._feed = feed
        self._opening = opening
        """Of the venue: accounts share its feed, which is opened once."""
        self._clock = clock
        self._known = known
        self._rules = rules
        self._progress = progress
        self._sent: dict[ClientOrderId, None] = {}
        self._first: dict[Symbol, tuple[BrokerPosition, Decimal]] = {}
        """Each position as it was first seen, and what of it was in scope."""
        self._began_at: datetime | None = None
        """Market time: executions of ours are later."""
        self._touch: dict[tuple[Symbol, Side], Decimal] = {}
        self._close: EmergencyClose | None = None
        self.result = Flattened(connection=broker.connection_id)

    async def run(self, timeout_s: float) -> Flattened:
        """Until a successful read shows flat, or the time is over. What a broker raises ends in `troubles`."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._pursue()
        except TimeoutError:
            self._trouble(f"not flat after {timeout_s:g} s")
        except (BrokerError, ConfigurationError) as error:
            self._trouble(_words(error))
        self.result.seconds = self._clock.monotonic() - began
        if self._close is not None:
            self.result.orders = self._close.sent
        try:
            async with asyncio.timeout(READ_PATIENCE_S):
                await self._account_for_it()
        except (BrokerError, TimeoutError) as error:
            self._trouble(f"what it cost could not be read: {_words(error)}")
        return self.result

    async def _pursue(self) -> None:
        await self._open()
        beside = [asyncio.create_task(self._known.chaser.run()), asyncio.create_task(self._read_before())]
        try:
            if self._rules.scope is EmergencyScope.OWN:
                await self._learn(for_ever=True)  # without it, nobody knows what is ours now
            else:
                beside.append(asyncio.create_task(self._learn(for_ever=False)))
            self._close = EmergencyClose(self._parts(), f"command/{self._clock.wall().isoformat()}")
            await self._close.until_flat()
            self.result.flat = True
            self.result.left = []
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _open(self) -> None:
        """Again and again while nobody answers. Raises NotAuthorised, ConfigurationError where that is of no use."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self._opening:
                    await self._feed.open()
                await self._broker.open()
                break
            except BrokerUnreachable as error:
                self._trouble(f"not reached: {error}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
        if self._broker.capabilities.read_only:
            raise NotAuthorised("the key may only read, so it cannot close anything")

    async def _learn(self, *, for_ever: bool) -> None:
        """Executions that the journal has not seen."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(READ_PATIENCE_S):
                    return await self._known.learn(self._feed)
            except (BrokerError, TimeoutError) as error:
                self._trouble(f"executions since the journal's last entry could not be read: {_words(error)}")
            if not for_ever:
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _read_before(self) -> None:
        """Equity and market time, for the account of it afterwards."""
        try:
            async with asyncio.timeout(READ_PATIENCE_S):
                self.result.before = await self._broker.account()
                self._began_at = self.result.before.at
                for position in (await self._broker.positions())[:1]:
                    # The venue's own clock: that of an account's figures may be ours.
                    self._began_at = (await self._feed.quote(position.symbol)).at
        except (BrokerError, TimeoutError) as error:
            self._trouble(f"equity could not be read: {_words(error)}")

    def _parts(self) -> EmergencyParts:
        known, rules = self._known, self._rules
        return EmergencyParts(
            broker=self._broker,
            clock=self._clock,
            scope=rules.scope,
            interval_s=rules.interval_s,
            closes_per_s=rules.closes_per_s,
            ours=known.ours,
            notional=lambda position: notional(position, known.instruments.get(position.symbol), None),
            wide_limit=lambda symbol, side: wide_limit(
                known.instruments.get(symbol), self._touch.get((symbol, side)), side
            ),
            announce=self._announce,
            heard=self._heard,
            unresolved=known.entries_in_doubt,
            page=self._trouble,
            seen=self._seen,
        )

    def _announce(self, intent: OrderIntent) -> None:
        self._sent[intent.client_id] = None
        self._known.announce(intent)

    def _heard(self, report: OrderReport) -> None:
        self._known.heard(report)

    def _seen(self, positions: Sequence[BrokerPosition]) -> None:
        for position in positions:
            self._first.setdefault(position.symbol, (position, self._in_scope(position)))
            # Without quotes the entry price is what a wide limit can go by.
            self._touch.setdefault((position.symbol, position.side.opposite), position.entry_price)
        self.result.left = list(positions)
        self._progress(self._broker.connection_id, positions, 0 if self._close is None else self._close.sent)

    def _in_scope(self, position: BrokerPosition) -> Decimal:
        if self._rules.scope is EmergencyScope.ACCOUNT:
            return position.lot
        return max(ZERO, min(position.lot, self._known.ours(position.symbol) * int(position.side)))

    def _trouble(self, text: str) -> None:
        if text not in self.result.troubles:
            self.result.troubles.append(text)

    # ---- afterwards

    async def _account_for_it(self) -> None:
        fills: list[Fill] = []
        if self._began_at is not None:
            self.result.after = await self._broker.account()
            told = await self._broker.fills(self._began_at - FILLS_REACH_BACK)
            fills = [fill for fill in told if fill.client_id in self._sent]
        for symbol, (position, volume) in self._first.items():
            terms = await self._known.terms(self._feed, symbol)
            mine = [fill for fill in fills if fill.symbol == symbol]
            lot = sum((fill.lot for fill in mine), ZERO)
            price = result = None
            if lot:
                price = stored(sum((fill.price * fill.lot for fill in mine), ZERO) / lot)
            if price is not None and terms is not None:
                fees = sum((fill.fee for fill in mine), ZERO)
                result = stored(position.side * (price - position.entry_price) * lot * terms.contract_size - fees)
            self.result.closed.append(
                Closed(
                    symbol=symbol,
                    side=position.side,
                    lot=lot or volume,
                    entry_price=position.entry_price,
                    exit_price=price,
                    result=result,
                    currency="" if terms is None else terms.settle_currency,
                )
            )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def unlatch_flat(halts: HaltFile, connection: ConnectionId) -> None:
    """The account was seen flat: FLATTENING becomes HALTED, which only an operator lifts. Raises OSError."""
    halts.update(lambda known: flat(known, (HaltScope.CONNECTION, connection)))


def resting(orders: Sequence[OrderReport], scope: EmergencyScope) -> list[OrderReport]:
    """Working orders that an emergency close would withdraw."""
    return [order for order in orders if scope is EmergencyScope.ACCOUNT or order.client_id.startswith(OURS)]

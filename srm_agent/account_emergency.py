"""The emergency of one account: latched first, then pursued, whatever fails beside it (INV-8, INV-9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState, EmergencyScope, Halt, HaltScope
from srm_agent.domain.ids import Symbol
from srm_agent.domain.orders import BrokerPosition, OrderIntent, OrderPurpose
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.execution.desk import Desk
from srm_agent.market_watch import MarketWatch
from srm_agent.ports import Notifier
from srm_agent.protection.close_values import notional, wide_limit
from srm_agent.protection.emergency_close import EmergencyClose, EmergencyParts
from srm_agent.protection.halts import HaltBoard

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionRules:
    """What protection needs to know beside the limits."""

    equity_max_age_s: float
    scope: EmergencyScope
    close_interval_s: float
    closes_per_s: float = 8.0
    """The share of the venue's request budget that an emergency close may use."""


class AccountEmergency:
    """Begins and pursues. `tell` hears of the beginning (None) and of flat (how many orders closed it)."""

    def __init__(
        self,
        desk: Desk,
        market: MarketWatch,
        halts: HaltBoard,
        notifier: Notifier,
        clock: Clock,
        *,
        rules: Callable[[], ProtectionRules],
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
        tell: Callable[[str, int | None], None],
    ) -> None:
        self._desk = desk
        self._market = market
        self._halts = halts
        self._notifier = notifier
        self._clock = clock
        self._rules = rules
        self._spawn = spawn
        self._tell = tell
        self._pursuit: asyncio.Task[None] | None = None

    def begin(self, reason: str, by: str) -> None:
        """Latch FLATTENING and close everything in scope, in a lane of its own. Nobody who is told can stop it."""
        halt = Halt(
            scope=HaltScope.CONNECTION,
            key=self._desk.connection_id,
            state=ConnectionState.FLATTENING,
            reason=reason,
            set_at=self._clock.wall(),
            set_by=by,
        )
        self._safely(lambda: self._halts.set(halt))
        self._pursue(halt)
        self._announce(reason)
        self._spawn(self._halts.save())

    def go_on(self, halt: Halt) -> None:
        """Pursue a latched FLATTENING: one that a crash interrupted, or that another process latched."""
        if self._pursue(halt):
            self._announce(halt.reason)

    def _pursue(self, halt: Halt) -> bool:
        if self._pursuit is not None and not self._pursuit.done():
            return False
        self._pursuit = self._spawn(self._until_flat(halt))
        return True

    def _announce(self, reason: str) -> None:
        connection = self._desk.connection_id
        self._safely(lambda: self._notifier.notify("page", "emergency close", reason, connection))
        self._safely(lambda: self._tell(reason, None))

    async def _until_flat(self, halt: Halt) -> None:
        rules, connection = self._rules(), self._desk.connection_id
        close = EmergencyClose(
            EmergencyParts(
                broker=self._desk.broker,
                clock=self._clock,
                scope=rules.scope,
                interval_s=rules.close_interval_s,
                closes_per_s=rules.closes_per_s,
                ours=self._our_volume,
                notional=self._notional,
                wide_limit=self._wide_limit,
                announce=self._note,
                heard=self._desk.take_report,
                unresolved=self._entries_in_doubt,
                held=self._legs_open,
                page=lambda text: self._notifier.notify("page", "emergency close is stuck", text, connection),
                seen=lambda positions: None,
            ),
            # With the time of this start: a restart in the middle must not meet its predecessor's client ids.
            epoch=f"{halt.set_at.isoformat()}/{self._clock.wall().isoformat()}",
        )
        passes = await close.until_flat()
        # The halt that stands may be another episode's than ours (its reason came first): that one has ended.
        standing = self._halts.find(HaltScope.CONNECTION, connection) or halt
        self._halts.set(replace(standing, state=ConnectionState.HALTED))
        self._spawn(self._halts.save())
        log.warning("flat", connection=connection, passes=passes, orders=close.sent)
        self._safely(lambda: self._tell(standing.reason, close.sent))

    def _safely(self, call: Callable[[], None]) -> None:
        """Closing goes on whatever a listener does (K6)."""
        try:
            call()
        except Exception:
            log.exception("a step beside the emergency close failed", connection=self._desk.connection_id)

    # ---- what the close asks

    def _our_volume(self, symbol: Symbol) -> Decimal:
        return sum(
            (
                int(leg.side) * leg.open_lot
                for leg in self._desk.ledger.legs.values()
                if leg.symbol == symbol and leg.state is LegState.OPEN
            ),
            ZERO,
        )

    def _legs_open(self) -> bool:
        return any(leg.state is LegState.OPEN for leg in self._desk.ledger.legs.values())

    def _entries_in_doubt(self) -> bool:
        return any(ticket.intent.purpose is OrderPurpose.ENTRY for ticket in self._desk.ledger.unsettled())

    def _notional(self, position: BrokerPosition) -> Decimal:
        touch = self._market.touch(position.symbol, position.side.opposite)
        return notional(position, self._market.instruments.get(position.symbol), touch)

    def _wide_limit(self, symbol: Symbol, side: Side) -> Decimal | None:
        return wide_limit(self._market.instruments.get(symbol), self._market.touch(symbol, side), side)

    def _note(self, intent: OrderIntent) -> None:
        leg = self._desk.ledger.open_leg(intent.symbol)
        if leg is not None:
            intent = replace(intent, leg_id=leg.leg_id, signal_id=leg.signal_id, decision_id=leg.decision_id)
        self._desk.note_emergency(intent, CloseReason.EMERGENCY)

"""Orders: what we mean to send, and the four things a broker can mean by its answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import ClientOrderId, ConnectionId, DecisionId, FillId, LegId, PositionRef, SignalId, Symbol
from srm_agent.domain.units import ZERO, Side


class OrderPurpose(StrEnum):
    """Why the order exists; exits are never blocked by what blocks entries (INV-10)."""

    ENTRY = "entry"
    EXIT = "exit"
    EMERGENCY = "emergency"


class Outcome(StrEnum):
    """What an answer proves.

    FILLED: terminal, something (maybe less than asked) was executed. WORKING: the broker has it, not terminal yet.
    REJECTED: terminal, definitely nothing was executed. UNKNOWN: the answer proves nothing. ABSENT: a successful
    look-up found no such order (only from `lookup`; proves nothing before the finality time, INV-5).
    """

    FILLED = "filled"
    WORKING = "working"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    ABSENT = "absent"


class OrderState(StrEnum):
    """States of a journal row (brokers.md C.3). INTENT may already have been sent."""

    INTENT = "INTENT"
    WORKING = "WORKING"
    UNKNOWN = "UNKNOWN"
    FILLED = "FILLED"
    REJECTED = "REJECTED"
    ABANDONED = "ABANDONED"

    @property
    def settled(self) -> bool:
        """No further report can be expected."""
        return self in (OrderState.FILLED, OrderState.REJECTED, OrderState.ABANDONED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderIntent:
    """An order as we mean it, committed before the wire (INV-2).

    `limit_price` set: immediate-or-cancel at that price or better; None: market (exits).
    `reduce` set: the order may only shrink that position.
    `deadline` is the last monotonic second at which it may be sent; `fence` guards the writer (INV-17).
    """

    client_id: ClientOrderId
    connection_id: ConnectionId
    leg_id: LegId | None
    """None for an emergency close of a foreign position."""
    signal_id: SignalId | None
    decision_id: DecisionId | None
    purpose: OrderPurpose
    symbol: Symbol
    side: Side
    lot: Decimal
    limit_price: Decimal | None
    stop_loss: Decimal | None
    take_profit: Decimal | None
    reduce: PositionRef | None
    reason: str
    created_at: datetime
    deadline: float
    fence: int = 0
    target: Decimal | None = None
    """What an exit wants to leave of its leg, in lots; None for entries and for closes outside a leg's plan."""
    requests: tuple[str, ...] = ()
    """Labels of the requests that an exit fulfils: a request repeated after a crash finds its target here."""


class FillKind(StrEnum):
    """What executed."""

    ORDER = "order"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    LIQUIDATION = "liquidation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One execution. `at` is the venue's (market) time, `received` our monotonic second; fee positive = cost."""

    fill_id: FillId
    client_id: ClientOrderId | None
    broker_order_id: str
    symbol: Symbol
    side: Side
    lot: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    kind: FillKind
    at: datetime
    received: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What the broker says about one of our orders."""

    client_id: ClientOrderId
    outcome: Outcome
    symbol: Symbol | None = None
    """Set by `open_orders`."""
    broker_order_id: str | None = None
    filled_lot: Decimal = ZERO
    average_price: Decimal | None = None
    code: str = ""
    """Stable reason code when REJECTED or UNKNOWN (`INSUFFICIENT_MARGIN`, `TIMEOUT`, ...)."""
    detail: str = ""
    fills: tuple[Fill, ...] = ()
    received: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """An open position as the broker reports it. On netting venues it is the sum of our leg and anybody else's."""

    ref: PositionRef
    symbol: Symbol
    side: Side
    lot: Decimal
    entry_price: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    opened_at: datetime | None
    stop_lot: Decimal | None = None
    """Volume that the stop covers; None: the stop is the position's own and follows its volume."""

"""What the venue records and announces: orders, executions, positions, wallets, ledger rows, and the events of each.

All are frozen: a listener may keep them. Times are market milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.units import ZERO, Side


class OrderType(StrEnum):
    """Bybit's words."""

    MARKET = "Market"
    LIMIT = "Limit"


class TimeInForce(StrEnum):
    """How long an order may wait."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    POST_ONLY = "PostOnly"


class OrderStatus(StrEnum):
    """Bybit's words for linear contracts. CANCELLED may carry executed lots (an IOC's remainder was withdrawn)."""

    NEW = "New"
    PARTIALLY_FILLED = "PartiallyFilled"
    UNTRIGGERED = "Untriggered"
    FILLED = "Filled"
    CANCELLED = "Cancelled"

    @property
    def working(self) -> bool:
        """More can happen."""
        return self in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.UNTRIGGERED)


class StopKind(StrEnum):
    """Why an order exists that nobody sent."""

    NONE = ""
    STOP_LOSS = "StopLoss"
    TAKE_PROFIT = "TakeProfit"
    STOP = "Stop"
    """A conditional order sent by the account itself."""


class ExecType(StrEnum):
    """Who forced the execution."""

    TRADE = "Trade"
    BUST = "BustTrade"


class Cause(StrEnum):
    """Why an order was cancelled, in Bybit's rejectReason words."""

    NONE = "EC_NoError"
    NO_LIQUIDITY = "EC_NoImmediateQtyToFill"
    REDUCE_ONLY = "EC_ReduceOnly"
    POST_ONLY = "EC_PostOnlyWillTakeLiquidity"
    BY_USER = "EC_PerCancelRequest"
    BUST = "EC_BustCancelRequest"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTicket:
    """An order as the account asks for it. `price` None: market. Stops belong to the position that it opens.

    `trigger_direction` 1: waits until the market rises to `trigger_price`; 2: until it falls to it.
    """

    symbol_id: str
    side: Side
    lots: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.IOC
    link_id: str = ""
    reduce_only: bool = False
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    trigger_price: Decimal | None = None
    trigger_direction: int = 0

    @property
    def immediate(self) -> bool:
        """Never rests: market orders whatever they say, IOC, FOK."""
        return self.price is None or self.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOrder:
    """An order as the venue knows it at one moment."""

    order_id: str
    account_id: str
    ticket: OrderTicket
    lots: Decimal
    """What may be executed: the ticket's lots, or the position's where reduce-only trimmed them."""
    price: Decimal | None
    status: OrderStatus
    created_ms: int
    updated_ms: int
    filled: Decimal = ZERO
    value: Decimal = ZERO
    """Sum of price * lots over its executions."""
    fee: Decimal = ZERO
    cause: Cause = Cause.NONE
    stop_kind: StopKind = StopKind.NONE
    trigger_price: Decimal | None = None

    @property
    def leaves(self) -> Decimal:
        """Lots not executed yet."""
        return self.lots - self.filled

    @property
    def average_price(self) -> Decimal | None:
        """Mean price of what was executed, None before anything was."""
        return self.value / self.filled if self.filled else None

    @property
    def order_type(self) -> OrderType:
        """Market or Limit."""
        return OrderType.MARKET if self.ticket.price is None else OrderType.LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One fill at one price. `fee` positive = cost; `closed` = lots that shrank a position; `realised` before fees."""

    exec_id: str
    account_id: str
    order: SimOrder
    """As it was just after this fill."""
    side: Side
    lots: Decimal
    price: Decimal
    fee: Decimal
    fee_rate: Decimal
    maker: bool
    closed: Decimal
    realised: Decimal
    mark: Decimal
    exec_type: ExecType
    at_ms: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionView:
    """A net position; `side` None and `lots` 0 when flat."""

    account_id: str
    symbol_id: str
    side: Side | None
    lots: Decimal
    entry_price: Decimal
    mark: Decimal
    unrealised: Decimal
    realised: Decimal
    leverage: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    opened_ms: int
    updated_ms: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """An account's money at mark prices. `available` = equity - initial margins, never below 0."""

    account_id: str
    currency: str
    balance: Decimal
    equity: Decimal
    unrealised: Decimal
    realised: Decimal
    position_margin: Decimal
    order_margin: Decimal
    maintenance_margin: Decimal

    @property
    def initial_margin(self) -> Decimal:
        """Of positions and working orders."""
        return self.position_margin + self.order_margin

    @property
    def available(self) -> Decimal:
        """What new orders may use."""
        return max(self.equity - self.initial_margin, ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One change of an account's balance: `kind` TRADE, TRANSFER_IN or TRANSFER_OUT."""

    row_id: str
    account_id: str
    kind: str
    change: Decimal
    balance: Decimal
    at_ms: int
    execution: Execution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookMoved:
    """The market moved: best bid and ask with their sizes."""

    symbol_id: str
    bid: Decimal
    ask: Decimal
    bid_lots: Decimal
    ask_lots: Decimal
    at_ms: int
    sequence: int


@dataclass(frozen=True, slots=True)
class OrderChanged:
    """An order was accepted, amended, filled or cancelled."""

    order: SimOrder


@dataclass(frozen=True, slots=True)
class Executed:
    """A fill."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class PositionChanged:
    """Size, stop or target of a position changed."""

    position: PositionView


@dataclass(frozen=True, slots=True)
class WalletChanged:
    """Money moved."""

    wallet: Wallet
    at_ms: int


VenueEvent = BookMoved | OrderChanged | Executed | PositionChanged | WalletChanged

"""The venue's records as the agent's values: what an adapter would parse, without the wire. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from simulator.records import (
    BookMoved,
    Cause,
    ExecType,
    Execution,
    LedgerRow,
    OrderStatus,
    PositionView,
    SimOrder,
    StopKind,
    Wallet,
)
from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.ids import ClientOrderId, FillId, PositionRef, Symbol
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill, FillKind, OrderReport, Outcome
from srm_agent.domain.units import Side

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SymbolOf = Callable[[str], Symbol]
"""From the venue's own name to the agent's."""


def moment(at_ms: int) -> datetime:
    """Market milliseconds as aware UTC, exactly."""
    return EPOCH + timedelta(milliseconds=at_ms)


def milliseconds(at: datetime) -> int:
    """The other way, rounded down."""
    return (at - EPOCH) // timedelta(milliseconds=1)


def quote(event: BookMoved, symbol: Symbol, received: float) -> Quote:
    """The touch."""
    return Quote(
        symbol=symbol,
        bid=event.bid,
        ask=event.ask,
        at=moment(event.at_ms),
        received=received,
        bid_size=event.bid_lots,
        ask_size=event.ask_lots,
    )


def fill(execution: Execution, symbol: Symbol, received: float) -> Fill:
    """One execution; those that the account did not ask for have no client id."""
    order = execution.order
    kind = FillKind.ORDER
    if execution.exec_type is ExecType.BUST:
        kind = FillKind.LIQUIDATION
    elif order.stop_kind is StopKind.STOP_LOSS:
        kind = FillKind.STOP_LOSS
    elif order.stop_kind is StopKind.TAKE_PROFIT:
        kind = FillKind.TAKE_PROFIT
    return Fill(
        fill_id=FillId(execution.exec_id),
        client_id=ClientOrderId(order.ticket.link_id) if order.ticket.link_id else None,
        broker_order_id=order.order_id,
        symbol=symbol,
        side=execution.side,
        lot=execution.lots,
        price=execution.price,
        fee=execution.fee,
        fee_currency="USDT",
        kind=kind,
        at=moment(execution.at_ms),
        received=received,
    )


def outcome(order: SimOrder) -> tuple[Outcome, str]:
    """What the order's state proves, with the stable word when nothing was executed."""
    if order.status.working:
        return Outcome.WORKING, ""
    if order.filled:
        return Outcome.FILLED, ""
    match order.cause:
        case Cause.REDUCE_ONLY:
            return Outcome.REJECTED, "NO_POSITION"
        case Cause.NO_LIQUIDITY if order.ticket.price is not None:
            return Outcome.REJECTED, "MISSED_PRICE"
        case Cause.NO_LIQUIDITY:
            return Outcome.REJECTED, "NO_LIQUIDITY"
        case Cause.POST_ONLY:
            return Outcome.REJECTED, "INVALID_PRICE"
        case Cause.NONE | Cause.BY_USER | Cause.BUST:
            return Outcome.REJECTED, "CANCELLED"


def report(order: SimOrder, symbol: Symbol, fills: tuple[Fill, ...], received: float) -> OrderReport:
    """An order as the venue tells it now; orders of others carry the venue's id as client id."""
    result, code = outcome(order)
    return OrderReport(
        client_id=ClientOrderId(order.ticket.link_id or order.order_id),
        outcome=result,
        symbol=symbol,
        broker_order_id=order.order_id,
        filled_lot=order.filled,
        average_price=order.average_price,
        code=code,
        detail="" if order.status is OrderStatus.FILLED else order.cause.value if code else "",
        fills=fills,
        received=received,
    )


def position(view: PositionView, symbol: Symbol) -> BrokerPosition:
    """A position; lot 0 when it is gone (its side then says nothing)."""
    return BrokerPosition(
        ref=PositionRef(f"{symbol}|0"),
        symbol=symbol,
        side=view.side or Side.BUY,
        lot=view.lots,
        entry_price=view.entry_price,
        stop_loss=view.stop_loss,
        take_profit=view.take_profit,
        opened_at=moment(view.opened_ms) if view.lots else None,
    )


def snapshot(wallet: Wallet, at_ms: int, received: float) -> AccountSnapshot:
    """The account's money."""
    return AccountSnapshot(
        currency=wallet.currency,
        balance=wallet.balance,
        equity=wallet.equity,
        margin_used=wallet.initial_margin,
        margin_free=wallet.available,
        at=moment(at_ms),
        received=received,
    )


FLOW_KINDS = {"TRANSFER_IN": "deposit", "TRANSFER_OUT": "withdrawal", "SETTLEMENT": "funding"}
"""The transaction log's words as the ccxt adapter reads them; all others are `other`."""


def cash_flow(row: LedgerRow) -> CashFlow:
    """Money that moved without a trade: in +, out -."""
    return CashFlow(
        flow_id=row.row_id,
        kind=FLOW_KINDS.get(row.kind, "other"),
        amount=row.change,
        currency="USDT",
        at=moment(row.at_ms),
    )

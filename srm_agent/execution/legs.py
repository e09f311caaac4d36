"""What fills make of a leg: volume, average entry, result. Pure arithmetic, exact."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import leg_id
from srm_agent.domain.orders import Fill, FillKind
from srm_agent.domain.trades import ClosedTrade, CloseReason, Leg, LegState
from srm_agent.domain.units import ZERO, stored

REASON_OF_FILL = {
    FillKind.STOP_LOSS: CloseReason.STOP_LOSS,
    FillKind.TAKE_PROFIT: CloseReason.TAKE_PROFIT,
    FillKind.LIQUIDATION: CloseReason.LIQUIDATION,
}


def planned_leg(decision: Decision) -> Leg:
    """The leg of an accepted decision before anything is filled: it counts as filled for every limit.

    Raises ValueError for a refused decision.
    """
    if not decision.accepted or decision.lot is None or decision.planned_stop is None or decision.planned_risk is None:
        raise ValueError(f"decision {decision.decision_id} was not accepted")
    return Leg(
        leg_id=leg_id(decision.connection_id, decision.signal_id),
        connection_id=decision.connection_id,
        signal_id=decision.signal_id,
        decision_id=decision.decision_id,
        provider=decision.provider,
        symbol=decision.symbol,
        side=decision.side,
        state=LegState.OPENING,
        lot=decision.lot,
        closed_lot=ZERO,
        entry_price=None,
        exit_value=ZERO,
        fees=ZERO,
        realised_pnl=ZERO,
        planned_stop=decision.planned_stop,
        stop_loss=decision.stop_loss,
        take_profit=decision.take_profit,
        planned_risk=decision.planned_risk,
        opened_at=None,
        closed_at=None,
        close_reason=None,
    )


def opened(leg: Leg, fill: Fill, intended: Decimal) -> Leg:
    """A fill of the entry order, which asked for `intended` lots.

    The first one replaces the intended volume by the filled one; the planned risk follows the volume.
    """
    filled = ZERO if leg.entry_price is None else leg.lot
    price = leg.entry_price or ZERO
    lot = filled + fill.lot
    return replace(
        leg,
        state=LegState.OPEN,
        lot=lot,
        entry_price=stored((price * filled + fill.price * fill.lot) / lot),
        fees=leg.fees + stored(fill.fee),
        planned_risk=stored(leg.planned_risk * lot / (filled or intended)),
        opened_at=leg.opened_at or fill.at,
        closed_at=None,
        close_reason=None,
    )


def not_opened(leg: Leg) -> Leg:
    """The entry order ended without a fill."""
    return leg if leg.entry_price is not None else replace(leg, state=LegState.NEVER_OPENED, lot=ZERO)


def reduced(leg: Leg, fill: Fill, contract_size: Decimal) -> Leg:
    """A fill that closes some or all of the leg; closes never exceed our own volume (the rest is not ours)."""
    lot = min(fill.lot, leg.open_lot)
    entry = leg.entry_price
    if lot <= 0 or entry is None:
        return leg
    share = lot / fill.lot
    closed = replace(
        leg,
        closed_lot=leg.closed_lot + lot,
        exit_value=stored(leg.exit_value + fill.price * lot),
        fees=leg.fees + stored(fill.fee * share),
        realised_pnl=stored(leg.realised_pnl + int(leg.side) * (fill.price - entry) * lot * contract_size),
    )
    if closed.open_lot > 0:
        return closed
    reason = REASON_OF_FILL.get(fill.kind) or leg.closing_as or CloseReason.FOREIGN
    return replace(closed, state=LegState.CLOSED, closed_at=fill.at, close_reason=reason)


def closed_trade(leg: Leg, contract_size: Decimal) -> ClosedTrade | None:
    """What learning sees of a leg that has ended, None while it has not.

    R = (result - fees) / (|entry - the provider's STATED stop| x lot x contract size); learning.md 2.4.
    """
    if leg.state is not LegState.CLOSED or leg.entry_price is None or leg.opened_at is None or leg.closed_at is None:
        return None
    if leg.close_reason is None or not leg.closed_lot:
        return None
    distance = abs(leg.entry_price - leg.planned_stop)
    risk = stored(distance * leg.lot * contract_size)
    exit_price = stored(leg.exit_value / leg.closed_lot)
    net = leg.realised_pnl - leg.fees
    by_stop = leg.close_reason is CloseReason.STOP_LOSS and leg.stop_loss is not None
    target = (
        None if leg.take_profit is None or not distance else stored(abs(leg.take_profit - leg.entry_price) / distance)
    )
    return ClosedTrade(
        leg_id=leg.leg_id,
        connection_id=leg.connection_id,
        signal_id=leg.signal_id,
        provider=leg.provider,
        symbol=leg.symbol,
        side=leg.side,
        lot=leg.lot,
        entry_price=leg.entry_price,
        exit_price=exit_price,
        net_pnl=net,
        r_multiple=stored(net / risk) if risk else ZERO,
        planned_risk=leg.planned_risk,
        reward_to_risk=target,
        stop_kept=leg.stop_kept,
        stop_slippage=stored(int(leg.side) * (leg.stop_loss - exit_price)) if by_stop and leg.stop_loss else None,
        close_reason=leg.close_reason,
        opened_at=leg.opened_at,
        closed_at=leg.closed_at,
    )

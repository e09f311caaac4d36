"""Legs (our share of a broker's position) and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import ConnectionId, DecisionId, LegId, ProviderKey, SignalId, Symbol
from srm_agent.domain.units import Side


class LegState(StrEnum):
    """OPENING counts as filled for every limit until proved otherwise."""

    OPENING = "OPENING"
    OPEN = "OPEN"
    CLOSED = "CLOSED"
    NEVER_OPENED = "NEVER_OPENED"


class CloseReason(StrEnum):
    """Why a leg ended."""

    PROVIDER = "provider"
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    LIQUIDATION = "liquidation"
    EMERGENCY = "emergency"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Our share of a position: one signal on one connection.

    `lot` is the volume filled so far (intended volume while OPENING); `closed_lot` what has been closed of it.
    `planned_stop` is the provider's stated stop, `stop_loss` the buffered one in force at the broker.
    `fees` and `realised_pnl` in settle currency; `exit_value` = sum of price x lot over the closing fills.
    """

    leg_id: LegId
    connection_id: ConnectionId
    signal_id: SignalId
    decision_id: DecisionId
    provider: ProviderKey
    symbol: Symbol
    side: Side
    state: LegState
    lot: Decimal
    closed_lot: Decimal
    entry_price: Decimal | None
    exit_value: Decimal
    fees: Decimal
    realised_pnl: Decimal
    planned_stop: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    planned_risk: Decimal
    """Money at the buffered stop from the intended entry, settle currency."""
    opened_at: datetime | None
    """Market time of the first fill."""
    closed_at: datetime | None
    close_reason: CloseReason | None
    closing_as: CloseReason | None = None
    """Why the exit order under way was sent."""
    stop_kept: bool = True
    """The provider never asked for a wider stop after entry (we would not have granted it)."""

    @property
    def open_lot(self) -> Decimal:
        """Volume still at risk."""
        return self.lot - self.closed_lot


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTrade:
    """A leg that ended, as learning sees it.

    `r_multiple` = net result in money / money at the provider's STATED stop from the actual entry, not winsorised.
    `stop_slippage` = position side x (stop - fill), price units, for stop exits only, positive worse.
    """

    leg_id: LegId
    connection_id: ConnectionId
    signal_id: SignalId
    """Followers' copies of one signal are one trade of the provider, not many."""
    provider: ProviderKey
    symbol: Symbol
    side: Side
    lot: Decimal
    entry_price: Decimal
    exit_price: Decimal
    net_pnl: Decimal
    r_multiple: Decimal
    planned_risk: Decimal
    reward_to_risk: Decimal | None
    stop_kept: bool
    """The provider never asked for a wider stop after entry."""
    stop_slippage: Decimal | None
    close_reason: CloseReason
    opened_at: datetime
    closed_at: datetime
    """Market time."""

"""What providers ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from srm_agent.domain.ids import ProviderKey, SignalId, Symbol
from srm_agent.domain.units import Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """When and how a message reached us. `message_id` is the provider's delivery id (stable over retries)."""

    message_id: str
    received_at: datetime
    received: float
    """Our monotonic second, for latencies."""
    issued_at: datetime
    """When the provider says it issued the message (wall clock)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSignal:
    """Open a position. `signal_price` is the provider's own entry; `provider_lot` is informational."""

    signal_id: SignalId
    provider: ProviderKey
    symbol: Symbol
    side: Side
    signal_price: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    provider_lot: Decimal | None
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifySignal:
    """Change stop or target of an earlier signal; None keeps."""

    signal_id: SignalId
    provider: ProviderKey
    stop_loss: Decimal | None
    take_profit: Decimal | None
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSignal:
    """Close an earlier signal. `fraction` in (0, 1] of what is still open. Closes never expire."""

    signal_id: SignalId
    provider: ProviderKey
    fraction: Decimal
    receipt: Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSignal:
    """Withdraw an earlier signal that has not been filled; filled legs stay open until closed."""

    signal_id: SignalId
    provider: ProviderKey
    receipt: Receipt


Signal = OpenSignal | ModifySignal | CloseSignal | CancelSignal

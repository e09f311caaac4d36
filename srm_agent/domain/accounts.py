"""Accounts: what a follower's money is worth, and whether new risk may be taken with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import ConnectionId


class ConnectionState(StrEnum):
    """ACTIVE -> REDUCING (no entries) -> FLATTENING (until a successful read shows flat) -> HALTED (latched)."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    FLATTENING = "FLATTENING"
    HALTED = "HALTED"


class HaltScope(StrEnum):
    """What a halt stops."""

    ALL = "all"
    CONNECTION = "connection"
    PROVIDER = "provider"
    SYMBOL = "symbol"


class EmergencyScope(StrEnum):
    """What an emergency close may touch: everything in the account, or only what we opened."""

    ACCOUNT = "account"
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSnapshot:
    """The broker's own words about an account. `received` is our monotonic second.

    `equity` is None where the broker does not say: never computed from a guess.
    """

    currency: str
    balance: Decimal
    equity: Decimal | None
    margin_used: Decimal
    margin_free: Decimal
    at: datetime
    received: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Equity:
    """Equity as it is known now (INV-13): incomplete or older than 5 s blocks entries."""

    value: Decimal
    complete: bool
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CashFlow:
    """Money that moved without a trade: deposit +, withdrawal -, funding, bonus."""

    flow_id: str
    kind: str
    """`deposit`, `withdrawal`, `funding`, `other`; only the first two move the high-water mark."""
    amount: Decimal
    currency: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionMark:
    """The persisted memory of protection for one connection."""

    connection_id: ConnectionId
    high_water_mark: Decimal
    start_equity: Decimal
    day: str
    """Trading day in the configured zone, ISO date."""
    day_base: Decimal
    last_flow_at: datetime | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A latched stop of new risk; only a named operator clears it (INV-8)."""

    scope: HaltScope
    key: str
    """Connection id, provider key or symbol; empty for ALL."""
    state: ConnectionState
    """FLATTENING while positions are being closed, then HALTED."""
    reason: str
    set_at: datetime
    set_by: str

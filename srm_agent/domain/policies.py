"""Policies: every number that steers a decision, frozen, with a version derived from its content."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum, StrEnum
from functools import cached_property
from hashlib import sha256

from srm_agent.domain.units import Distance, plain


class Evidence(StrEnum):
    """Whether differences between providers are proved on the operator's own data (learning.md 2.3).

    MEASURED: not until K1-K3 pass; scores then steer within 0.9-1.1 around the platform's mean and refuse nobody.
    ASSUMED: the operator orders scores to act from the first trade.
    """

    MEASURED = "measured"
    ASSUMED = "assumed"


class SizeMode(StrEnum):
    """How the base lot is found."""

    RISK_PERCENT = "RISK_PERCENT"
    FIXED = "FIXED"


class MissingStop(StrEnum):
    """What to do with a signal without a stop."""

    REFUSE = "refuse"
    PRESET = "preset"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterPolicy:
    """Gates of the signal filter. `None` switches a gate off.

    Unknown volatility or news never blocks; unknown quote, instrument, equity or conversion does (INV-14).
    """

    signal_ttl_s: Decimal
    quote_max_age_s: Decimal
    max_entry_drift: Distance
    """Expired entry: touch beyond the signal price by more than this, in the adverse direction."""
    max_expected_slippage: Distance | None
    max_spread: Distance | None
    missing_stop: MissingStop
    preset_stop: Distance | None
    min_stop: Distance | None
    max_stop: Distance | None
    max_positions: int
    duplicate_window_s: Decimal
    """Same provider, symbol, side and prices under a new id within this window: refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferPolicy:
    """Stop buffer bounds; `max_share` limits it to a share of the stop distance (0.15)."""

    minimum: Distance
    maximum: Distance
    max_share: Decimal
    calm_is_zero: bool
    spread_share: Decimal
    """0.8 x median spread (learning.md 4.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePolicy:
    """How the provider score acts on the lot."""

    evidence: Evidence
    reject_below: Decimal
    readmit_above: Decimal
    slope: Decimal
    caution: Decimal
    """Standard deviations subtracted from the mean: linear in a pessimistic mean."""
    floor: Decimal
    max_up: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderPolicy:
    """Lot factor by drawdown: 1 until `start`, linear to `floor` at `stop`."""

    start: Decimal
    stop: Decimal
    floor: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakePolicy:
    """Lot factor by losses in a row: max(floor, 1 - step x (losses - free_losses)), for `days` (learning.md 2.4)."""

    free_losses: int
    step: Decimal
    floor: Decimal
    days: int
    """Of market time since the last loss, after which the streak is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitPolicy:
    """Hard ceilings, fractions of equity unless said otherwise."""

    max_risk: Decimal
    """INV-11: money at the buffered stop from the order's worst price, a ceiling of its own."""
    max_open_risk: Decimal
    max_symbol_notional: Decimal | None
    """Of equity x 1: sum of notional per symbol."""
    max_total_notional: Decimal | None
    max_margin_use: Decimal
    max_slippage: Distance
    """Entries are immediate-or-cancel limits at touch +- this."""


class ForeignStopChange(StrEnum):
    """What to do when somebody else has loosened a stop of ours (B11); one that was removed is always set again."""

    RESTORE = "restore"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPolicy:
    """How stops in force may change."""

    foreign_change: ForeignStopChange = ForeignStopChange.RESTORE
    allow_widening: bool = False
    """Whether a provider may move its stop away from entry, up to the risk cap (INV-11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All blocks together: what one arm of an experiment decides by."""

    name: str
    filter: FilterPolicy
    buffer: BufferPolicy
    score: ScorePolicy
    ladder: LadderPolicy
    brake: BrakePolicy
    limits: LimitPolicy
    stops: StopPolicy = StopPolicy()

    @property
    def version(self) -> str:
        """`name@` and 12 hex digits of the content's hash."""
        return f"{self.name}@{sha256(json.dumps(content(self), sort_keys=True).encode()).hexdigest()[:12]}"


class PolicyInForce:
    """A policy with its version computed once."""

    def __init__(self, policy: Policy, arm: str = "control") -> None:
        self.policy = policy
        self.arm = arm

    @cached_property
    def version(self) -> str:
        """See `Policy.version`."""
        return self.policy.version


def content(value: object) -> object:
    """Plain JSON content of nested frozen values: Decimals as text, enums by value, classes by name."""
    if is_dataclass(value) and not isinstance(value, type):
        body = {field.name: content(getattr(value, field.name)) for field in fields(value)}
        return {type(value).__name__: body}
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, Enum):
        return value.value
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySettings:
    """What a follower chose: SRM may go below it, never above."""

    size_mode: SizeMode
    risk_per_trade: Decimal
    """Fraction of equity, RISK_PERCENT mode."""
    fixed_lot: Decimal | None
    risk_multiplier: Decimal
    max_lot: Decimal | None
    max_positions: int | None

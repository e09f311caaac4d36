"""The decision record: verdict, reason with numbers, and the steps that lead to exactly the lot sent.

Everything in it is text or exact, so the record is canonical JSON and each step can be recomputed alone from its
stored inputs (INV-18).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.ids import ConnectionId, DecisionId, ProviderKey, SignalId, Symbol
from srm_agent.domain.units import Side


class ReasonCode(StrEnum):
    """Stable codes of a refusal, in the order in which the pipeline asks. Texts live in risk/texts."""

    ACCEPTED = "ACCEPTED"
    AGENT_HALTED = "AGENT_HALTED"
    CONNECTION_REDUCING = "CONNECTION_REDUCING"
    CONNECTION_HALTED = "CONNECTION_HALTED"
    PROVIDER_HALTED = "PROVIDER_HALTED"
    SYMBOL_HALTED = "SYMBOL_HALTED"
    SYMBOL_BUSY = "SYMBOL_BUSY"
    INSTRUMENT_UNKNOWN = "INSTRUMENT_UNKNOWN"
    INSTRUMENT_NOT_TRADABLE = "INSTRUMENT_NOT_TRADABLE"
    DUPLICATE_SIGNAL = "DUPLICATE_SIGNAL"
    CLOSED_BEFORE_OPEN = "CLOSED_BEFORE_OPEN"
    SIGNAL_STALE = "SIGNAL_STALE"
    QUOTE_MISSING = "QUOTE_MISSING"
    QUOTE_STALE = "QUOTE_STALE"
    EQUITY_UNKNOWN = "EQUITY_UNKNOWN"
    CONVERSION_UNKNOWN = "CONVERSION_UNKNOWN"
    STOP_MISSING = "STOP_MISSING"
    STOP_WRONG_SIDE = "STOP_WRONG_SIDE"
    TARGET_WRONG_SIDE = "TARGET_WRONG_SIDE"
    STOP_TOO_CLOSE = "STOP_TOO_CLOSE"
    STOP_TOO_FAR = "STOP_TOO_FAR"
    SCORE_TOO_LOW = "SCORE_TOO_LOW"
    SLIPPAGE_TOO_HIGH = "SLIPPAGE_TOO_HIGH"
    ENTRY_EXPIRED = "ENTRY_EXPIRED"
    SPREAD_TOO_WIDE = "SPREAD_TOO_WIDE"
    TOO_MANY_POSITIONS = "TOO_MANY_POSITIONS"
    DAILY_LOSS_REACHED = "DAILY_LOSS_REACHED"
    THRESHOLD_UNKNOWN = "THRESHOLD_UNKNOWN"
    RISK_BUDGET_EXHAUSTED = "RISK_BUDGET_EXHAUSTED"
    MARGIN_EXHAUSTED = "MARGIN_EXHAUSTED"
    EXPOSURE_EXHAUSTED = "EXPOSURE_EXHAUSTED"
    BELOW_MIN_NOTIONAL = "BELOW_MIN_NOTIONAL"
    BELOW_MIN_LOT = "BELOW_MIN_LOT"
    # What the order itself met; recorded on the execution, not on the decision.
    MISSED_PRICE = "MISSED_PRICE"
    NOT_SENT_IN_TIME = "NOT_SENT_IN_TIME"
    HALTED_BEFORE_SEND = "HALTED_BEFORE_SEND"


@dataclass(frozen=True, slots=True)
class Step:
    """One adjustment: what rule, from which inputs (exact text), what it made of the lot."""

    rule: str
    inputs: Mapping[str, str]
    lot_in: Decimal
    lot_out: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict on one signal for one connection.

    `numbers` are those of the reason (what was asked, what was allowed), exact text.
    `lot`, `limit_price`, `stop_loss` are None when refused before they were known.
    """

    decision_id: DecisionId
    signal_id: SignalId
    connection_id: ConnectionId
    provider: ProviderKey
    symbol: Symbol
    side: Side
    accepted: bool
    reason: ReasonCode
    numbers: Mapping[str, str]
    steps: tuple[Step, ...]
    lot: Decimal | None
    limit_price: Decimal | None
    stop_loss: Decimal | None
    planned_stop: Decimal | None
    stop_buffer: Decimal | None
    """Price units, >= 0."""
    take_profit: Decimal | None
    planned_risk: Decimal | None
    inputs: Mapping[str, str]
    """What was known: context, forecast, score, account (exact text; absent key = unknown)."""
    policy_version: str
    arm: str
    model_versions: Mapping[str, str]
    decided_at: datetime


def canonical_json(value: object) -> str:
    """Sorted keys, no spaces, ASCII: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

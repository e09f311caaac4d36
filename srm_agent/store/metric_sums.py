"""Sums from which a provider's metrics of a period follow: one trade added is O(1) and exact. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from srm_agent.domain.decisions import canonical_json
from srm_agent.domain.units import ZERO
from srm_agent.store.codec import number, text

COMPLIANT_LOSS = Decimal("1.1")
"""A trade keeps to its stop if it lost no more than this times the planned risk (design.md section 4)."""
START = Decimal(100)
"""The R curve starts here: each trade risks one percent of the start, so one R is one point."""
UNSCORED = Decimal(50)
"""The platform's word for a score without evidence; it takes part in no decision."""
_STEADY = Decimal("0.5")
"""Points within which a score counts as stable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFacts:
    """What the metrics look at in a closed trade; the score is the one it led to."""

    r_multiple: Decimal
    compliant: bool
    reward_to_risk: Decimal | None
    slippage: Decimal | None
    """Of the entry, pips, or basis points where the instrument has no pip."""
    latency_ms: Decimal | None
    score: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A provider's period so far. Trades count once per follower: SRM measures copying, not calling."""

    total: int = 0
    winning: int = 0
    losing: int = 0
    compliant: int = 0
    slippage_count: int = 0
    slippage_sum: Decimal = ZERO
    slippage_worst: Decimal | None = None
    latency_count: int = 0
    latency_sum: Decimal = ZERO
    ratio_count: int = 0
    ratio_sum: Decimal = ZERO
    curve: Decimal = START
    peak: Decimal = START
    drawdown: Decimal = ZERO
    """Deepest fall of the curve below its peak, percent of the peak, 0-100."""
    score: Decimal = UNSCORED
    score_before: Decimal = UNSCORED

    def add(self, trade: TradeFacts) -> Sums:
        """The sums with one more trade, in the order in which trades were recorded."""
        curve = self.curve + trade.r_multiple
        peak = max(self.peak, curve)
        fall = min((peak - curve) / peak * 100, Decimal(100))
        sums = replace(
            self,
            total=self.total + 1,
            winning=self.winning + (trade.r_multiple > 0),
            losing=self.losing + (trade.r_multiple < 0),
            compliant=self.compliant + trade.compliant,
            curve=curve,
            peak=peak,
            drawdown=max(self.drawdown, fall),
            score=trade.score,
        )
        if trade.slippage is not None:
            worst = trade.slippage if self.slippage_worst is None else max(self.slippage_worst, trade.slippage)
            sums = replace(
                sums,
                slippage_count=self.slippage_count + 1,
                slippage_sum=self.slippage_sum + trade.slippage,
                slippage_worst=worst,
            )
        if trade.latency_ms is not None:
            sums = replace(sums, latency_count=self.latency_count + 1, latency_sum=self.latency_sum + trade.latency_ms)
        if trade.reward_to_risk is not None:
            sums = replace(sums, ratio_count=self.ratio_count + 1, ratio_sum=self.ratio_sum + trade.reward_to_risk)
        return sums

    @property
    def trend(self) -> str:
        """`up`, `down` or `stable` against the score before the period."""
        change = self.score - self.score_before
        if abs(change) <= _STEADY:
            return "stable"
        return "up" if change > 0 else "down"

    def share(self, count: int) -> Decimal:
        """A count as percent of all trades."""
        return Decimal(count) / self.total * 100 if self.total else ZERO

    def to_text(self) -> str:
        """Canonical JSON, exact."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return canonical_json(
            {name: value if isinstance(value, int) else text(value) for name, value in values.items()}
        )

    @classmethod
    def parse(cls, state: str) -> Sums:
        """The inverse of `to_text`."""
        body: dict[str, object] = json.loads(state)
        return cls(**{name: value if isinstance(value, int) else number(value) for name, value in body.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Period:
    """A day, an ISO week (Monday to Sunday) or a month, UTC, both ends included."""

    kind: str
    start: date
    end: date


def periods_of(instant: datetime) -> tuple[Period, Period, Period]:
    """The day, week and month of a market close."""
    day = instant.astimezone(UTC).date()
    monday = day - timedelta(days=day.isoweekday() - 1)
    first = day.replace(day=1)
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return (
        Period("daily", day, day),
        Period("weekly", monday, monday + timedelta(days=6)),
        Period("monthly", first, last),
    )

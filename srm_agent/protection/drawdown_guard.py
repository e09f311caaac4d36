"""When an account must be closed: drawdown on the deposit-adjusted high-water mark, and the day's loss. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from srm_agent.domain.accounts import CashFlow, ProtectionMark
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.units import ZERO, stored


class DailyBase(StrEnum):
    """From what the day's loss is measured."""

    BALANCE = "balance"
    EQUITY = "equity"
    LARGER = "larger"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Fractions; `daily_loss` None: not limited."""

    max_drawdown: Decimal
    daily_loss: Decimal | None
    daily_base: DailyBase
    zone: ZoneInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What equity means now. `breached` asks for an emergency close, `day_over` for no entries until the next day."""

    drawdown: Decimal
    daily_loss: Decimal
    breached: bool
    day_over: bool


class DrawdownGuard:
    """One account. The mark never falls except by recorded withdrawals (INV-13)."""

    def __init__(self, connection: ConnectionId, limits: GuardLimits, mark: ProtectionMark | None) -> None:
        self._connection = connection
        self.limits = limits
        """In force; replaced when the configuration is reloaded."""
        self._flows: set[str] = set()
        self._included = None if mark is None else mark.last_flow_at
        """Flows up to this market time are in the mark already."""
        self._spent_day = ""
        """The day whose loss limit was reached: it stays so however equity recovers."""
        self.mark = mark

    def restore(self, mark: ProtectionMark | None) -> None:
        """Take over the persisted mark, at start."""
        self.mark = mark
        self._included = None if mark is None else mark.last_flow_at

    def observe(
        self,
        equity: Decimal,
        balance: Decimal,
        market_now: datetime,
        wall_now: datetime,
        *,
        flows_in: datetime | None = None,
    ) -> Verdict:
        """A complete, fresh equity. Raises the mark, starts a new day where one has begun, and judges.

        `flows_in`: market time up to which deposits and withdrawals are surely in this equity (that of the broker's
        last figure: prices alone carry none), by default now. They must not move a raised mark a second time.
        """
        included = flows_in or market_now
        mark = self._mark_at(equity, balance, market_now, wall_now, included)
        if equity > mark.high_water_mark:
            seen = included if mark.last_flow_at is None else max(included, mark.last_flow_at)
            mark = replace(mark, high_water_mark=stored(equity), last_flow_at=seen, updated_at=wall_now)
            self._included = included if self._included is None else max(included, self._included)
        self.mark = mark
        drawdown = self.drawdown(equity)
        assert drawdown is not None
        loss = stored((mark.day_base - equity) / mark.day_base) if mark.day_base > 0 else ZERO
        limit = self.limits.daily_loss
        if limit is not None and loss >= limit:
            self._spent_day = mark.day
        return Verdict(
            drawdown=drawdown,
            daily_loss=loss,
            breached=drawdown >= self.limits.max_drawdown,
            day_over=limit is not None and self._spent_day == mark.day,
        )

    def breaches(self, equity: Decimal) -> bool:
        """Whether this equity would close everything."""
        drawdown = self.drawdown(equity)
        return drawdown is not None and drawdown >= self.limits.max_drawdown

    def restart(self, equity: Decimal, wall_now: datetime, *, flows_in: datetime | None = None) -> None:
        """A named operator takes trading up again after an emergency close: the mark starts anew at `equity`."""
        if self.mark is not None:
            self._spent_day = ""
            self._included = flows_in or self._included
            self.mark = replace(
                self.mark,
                high_water_mark=stored(equity),
                day_base=stored(equity),
                last_flow_at=flows_in or self.mark.last_flow_at,
                updated_at=wall_now,
            )

    def drawdown(self, equity: Decimal) -> Decimal | None:
        """(mark - equity) / mark, at least 0; None before the first mark."""
        if self.mark is None:
            return None
        peak = self.mark.high_water_mark
        return stored(max(ZERO, (peak - equity) / peak)) if peak > 0 else ZERO

    def on_flow(self, flow: CashFlow, wall_now: datetime) -> bool:
        """A deposit or withdrawal moves the mark and the day's base by its amount; other kinds are results.

        A flow counts once, by id; flows from before the mark was taken are already in it. True when it counted.
        """
        if self.mark is None or flow.flow_id in self._flows or flow.kind not in ("deposit", "withdrawal"):
            return False
        if self._included is not None and flow.at <= self._included:
            return False
        self._flows.add(flow.flow_id)
        self.mark = replace(
            self.mark,
            high_water_mark=max(ZERO, self.mark.high_water_mark + flow.amount),
            start_equity=self.mark.start_equity + flow.amount,
            day_base=max(ZERO, self.mark.day_base + flow.amount),
            last_flow_at=flow.at if self.mark.last_flow_at is None else max(flow.at, self.mark.last_flow_at),
            updated_at=wall_now,
        )
        return True

    def _mark_at(
        self, equity: Decimal, balance: Decimal, market_now: datetime, wall_now: datetime, included: datetime
    ) -> ProtectionMark:
        day = market_now.astimezone(self.limits.zone).date().isoformat()
        base = stored(self._base(equity, balance))
        if self.mark is None:
            self._included = included
            return ProtectionMark(
                connection_id=self._connection,
                high_water_mark=stored(equity),
                start_equity=stored(equity),
                day=day,
                day_base=base,
                last_flow_at=included,
                updated_at=wall_now,
            )
        if day > self.mark.day:
            return replace(self.mark, day=day, day_base=base, updated_at=wall_now)
        return self.mark

    def _base(self, equity: Decimal, balance: Decimal) -> Decimal:
        match self.limits.daily_base:
            case DailyBase.BALANCE:
                return balance
            case DailyBase.EQUITY:
                return equity
            case DailyBase.LARGER:
                return max(balance, equity)

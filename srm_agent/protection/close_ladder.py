"""How one position is closed when it does not close at once (B28, F16): which order comes next, and when. Pure.

market, reduce-only -> the same after its resting orders are cancelled -> immediate-or-cancel limit, wide -> market ...
Every rung names the position, never a new opposite order, so that no attempt can open anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from srm_agent.domain.orders import OrderReport, Outcome

ALREADY_CLOSED = frozenset({"NO_POSITION", "POSITION_CLOSED", "POSITION_STATUS", "CLOSE_ORDER_EXISTS"})
"""The broker says that there is nothing to close, or that it is being closed (B20): the next read tells."""
NOT_NOW = frozenset({"MARKET_CLOSED", "TRADE_DISABLED", "SUSPENDED"})
"""Another order would be refused as well (B12): asked again until the market opens."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0
ACKNOWLEDGED_PAUSE_S = 0.5
"""An acknowledged order is given this long before it is repeated."""
TELL_AFTER = 3
"""Refusals in a row after which people are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pursuit:
    """Where one position stands on the ladder."""

    refusals: int = 0
    """In a row, of this position."""
    code: str = ""
    """Of the last refusal."""
    not_before: float = 0.0
    """Monotonic second of the next attempt."""

    @property
    def cancel_first(self) -> bool:
        """A refusal may be the fault of resting orders (Binance -4118): they go before the next attempt."""
        return self.refusals > 0 and self.code not in NOT_NOW and self.code not in ALREADY_CLOSED

    @property
    def wide_limit(self) -> bool:
        """Every other attempt after two refusals is an immediate-or-cancel limit far beyond the market."""
        return self.refusals >= 2 and self.refusals % 2 == 0 and self.code not in NOT_NOW

    @property
    def worth_telling(self) -> bool:
        """It does not close by itself: a person should know."""
        return self.refusals >= TELL_AFTER or (self.refusals > 0 and self.code in NOT_NOW)

    def after(self, report: OrderReport, now: float) -> Pursuit:
        """The next attempt, after what the broker said to this one."""
        match report.outcome:
            case Outcome.REJECTED:
                refusals = self.refusals + 1
                pause = min(FIRST_PAUSE_S * 2.0 ** min(refusals - 1, 10), LONGEST_PAUSE_S)
                return replace(self, refusals=refusals, code=report.code, not_before=now + pause)
            case Outcome.WORKING:
                return replace(self, not_before=now + ACKNOWLEDGED_PAUSE_S)
            case Outcome.FILLED:
                return Pursuit(not_before=now)
            case _:
                return replace(self, not_before=now)

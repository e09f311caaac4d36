"""Which quotes are believed. A dropped quote touches nothing but a counter (fault B24, B25)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from srm_agent.domain.market import Quote


class DropReason(StrEnum):
    """Why a quote was not believed."""

    NOT_FINITE = "not_finite"
    NOT_POSITIVE = "not_positive"
    CROSSED = "crossed"
    LOCKED = "locked"
    TOO_WIDE = "too_wide"
    DUPLICATE = "duplicate"
    FROZEN = "frozen"
    OUT_OF_ORDER = "out_of_order"
    TIME_JUMP = "time_jump"
    PRICE_JUMP = "price_jump"
    ABSURD = "absurd"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A quote that was not believed."""

    reason: DropReason


@dataclass(frozen=True, slots=True, kw_only=True)
class HygieneSettings:
    """Bounds of belief. Shares are fractions of the price, seconds as named.

    A move or a leap of time beyond `max_jump` / `max_time_jump_s` is believed when the next quote confirms it, so a
    true gap costs one quote. A move beyond `absurd_jump` is never believed: either decimals shifted or the contract
    changed, and both need a fresh `QuoteGate.anchor`.
    """

    max_jump: float = 0.03
    absurd_jump: float = 0.5
    max_spread: float = 0.1
    allow_locked: bool = False
    max_time_jump_s: float = 3600.0
    """Market seconds."""
    frozen_s: float = 5.0
    """Monotonic seconds for which the venue's stamp may stand still while quotes arrive."""
    silence_s: float = 5.0
    """Monotonic seconds without a believed quote: STALE; a slow symbol gets three times its usual gap instead."""
    silence_max_s: float = 30.0
    max_drops: int = 5
    """More consecutive drops than this: STALE."""
    reanchor_after: int = 100
    """So many consecutive out-of-order quotes, rising among themselves, are the venue's corrected clock."""


_NEVER = float("-inf")


class QuoteGate:
    """Believes or drops the quotes of one symbol. O(1); counts what it drops by reason."""

    def __init__(self, settings: HygieneSettings | None = None) -> None:
        self._settings = settings or HygieneSettings()
        self.dropped: dict[DropReason, int] = dict.fromkeys(DropReason, 0)
        self._at = _NEVER
        self._bid = 0.0
        self._ask = 0.0
        self._mid = 0.0
        self._received = _NEVER
        self._at_since = _NEVER
        self._usual_gap_s = 0.5
        self._drops = 0
        self._pending_at = _NEVER
        self._pending_mid = 0.0
        self._disorder_at = _NEVER
        self._disorder = 0

    def anchor(self, price: float) -> None:
        """Judge the next quotes against this price (a last close from broker history) and forget the old clock."""
        if isfinite(price) and price > 0.0:
            self._mid = price
            self._at = self._pending_at = self._disorder_at = _NEVER
            self._drops = self._disorder = 0

    def check(self, quote: Quote) -> Quote | Dropped:
        """The quote itself if believed, else why not."""
        reason = self.judge(quote)
        return quote if reason is None else Dropped(reason)

    def judge(self, quote: Quote) -> DropReason | None:
        """`check` for a caller that wants the prices it converted: see `bid`, `ask`, `at` after a None."""
        try:
            bid = float(quote.bid)
            ask = float(quote.ask)
        except ValueError:  # a signalling NaN
            return self._drop(DropReason.NOT_FINITE)
        at = quote.at.timestamp()
        reason = self._judge(bid, ask, at, quote.received)
        if reason is not None:
            return self._drop(reason) if reason is not DropReason.DUPLICATE else self._count(reason)
        received = quote.received
        if at > self._at:
            self._at_since = received
        gap = received - self._received
        if gap < self._settings.silence_max_s:
            # The median gap, tracked by small steps: robust against the very pauses it has to judge.
            self._usual_gap_s *= 1.05 if gap > self._usual_gap_s else 0.95
            if self._usual_gap_s < 0.001:
                self._usual_gap_s = 0.001
        self._bid = bid
        self._ask = ask
        self._mid = (bid + ask) * 0.5
        self._at = at
        self._received = received
        self._drops = 0
        self._disorder = 0
        self._pending_at = _NEVER
        return None

    @property
    def bid(self) -> float:
        """Bid of the last believed quote."""
        return self._bid

    @property
    def ask(self) -> float:
        """Ask of the last believed quote."""
        return self._ask

    @property
    def mid(self) -> float:
        """Middle of the last believed quote (or the anchor)."""
        return self._mid

    @property
    def at(self) -> float:
        """Market time of the last believed quote, POSIX seconds; -inf before the first."""
        return self._at

    def stale(self, now_monotonic: float) -> bool:
        """No believed quote for too long, never one at all, or too many drops in a row."""
        settings = self._settings
        if self._drops > settings.max_drops:
            return True
        patience = max(settings.silence_s, min(3.0 * self._usual_gap_s, settings.silence_max_s))
        return now_monotonic - self._received > patience

    def _judge(self, bid: float, ask: float, at: float, received: float) -> DropReason | None:
        settings = self._settings
        if not (isfinite(bid) and isfinite(ask)):
            return DropReason.NOT_FINITE
        if bid <= 0.0 or ask <= 0.0:
            return DropReason.NOT_POSITIVE
        if ask <= bid:
            if ask < bid:
                return DropReason.CROSSED
            if not settings.allow_locked:
                return DropReason.LOCKED
        mid = (bid + ask) * 0.5
        if ask - bid > settings.max_spread * mid:
            return DropReason.TOO_WIDE
        last_at = self._at
        if at <= last_at:
            if at < last_at:
                return self._out_of_order(at)
            if received - self._at_since > settings.frozen_s:
                return DropReason.FROZEN
            if bid == self._bid and ask == self._ask:
                return DropReason.DUPLICATE
        last = self._mid
        if last == 0.0:
            return None
        change = abs(mid - last)
        if change <= settings.max_jump * last and (at - last_at <= settings.max_time_jump_s or last_at == _NEVER):
            return None
        return self._suspect(mid, at, change)

    def _suspect(self, mid: float, at: float, change: float) -> DropReason | None:
        settings = self._settings
        if change > settings.absurd_jump * self._mid:
            return DropReason.ABSURD
        confirms = (
            self._pending_at < at <= self._pending_at + settings.max_time_jump_s
            and abs(mid - self._pending_mid) <= settings.max_jump * self._pending_mid
        )
        if confirms:
            return None
        self._pending_at = at
        self._pending_mid = mid
        return DropReason.PRICE_JUMP if change > settings.max_jump * self._mid else DropReason.TIME_JUMP

    def _out_of_order(self, at: float) -> DropReason:
        self._disorder = self._disorder + 1 if at > self._disorder_at else 1
        self._disorder_at = at
        if self._disorder > self._settings.reanchor_after:
            # The venue corrected its clock backwards: the next quote starts a new order of time.
            self._at = _NEVER
            self._disorder = 0
        return DropReason.OUT_OF_ORDER

    def _count(self, reason: DropReason) -> DropReason:
        self.dropped[reason] += 1
        return reason

    def _drop(self, reason: DropReason) -> DropReason:
        self._drops += 1
        return self._count(reason)

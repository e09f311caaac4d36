"""How much a symbol moves: now, per root second, and how unusual that is for the symbol itself.

*Realised volatility* = sqrt(sum of squared changes of the mid), sampled on a 5 s grid of market time. A change that
spans k grid steps (a quiet symbol, a fast simulated clock) is spread evenly over them, which keeps its variance; after
more than 300 s without a quote the window starts anew, because a gap is not a pace.

*Volatility index* = 100 x mid-rank of the last 60 s among the symbol's own last 7,200 traded minutes, which is five
trading days of 24 h; minutes without quotes do not count, so weekends need no calendar. 50 = usual.

*Seeding*: a one-minute broker bar stands for its minute with the estimate of Garman and Klass (Journal of Business
53, 1980), variance 0.5 (H - L)^2 - (2 ln 2 - 1) (C - O)^2, times `SEED_SCALE` for its square root: a bar misses the
extremes between its prices and its median lies lower than that of the twelve-sample live value. The factor makes the
medians of a Brownian path equal (computed: 1.19 at 60 prices a minute, 1.13 at 120, 1.10 at 240). Live minutes
replace the seeded ones.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import log, sqrt

from srm_agent.domain.market import Bar

STEP_S = 5.0
SHORT_STEPS = 12
LONG_STEPS = 60
MEMORY_MINUTES = 7200
SEED_SCALE = 1.12
_CLOSE_WEIGHT = 2.0 * log(2.0) - 1.0


def bar_variance(bar: Bar) -> float:
    """Garman-Klass variance of one bar, price units squared, >= 0 for any consistent bar."""
    span = bar.high - bar.low
    move = bar.close - bar.open
    return max(0.5 * span * span - _CLOSE_WEIGHT * move * move, 0.0)


class OwnHistory:
    """The last `capacity` values in order of arrival and sorted: rank in O(log n), insertion one memmove."""

    def __init__(self, capacity: int = MEMORY_MINUTES) -> None:
        self._capacity = capacity
        self._ring = array("d")
        self._next = 0
        self._sorted = array("d")

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        """Remember a value, forget the oldest beyond the capacity."""
        if len(self._ring) < self._capacity:
            self._ring.append(value)
        else:
            oldest = self._ring[self._next]
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._ring[self._next] = value
            self._next = (self._next + 1) % self._capacity
        insort(self._sorted, value)

    def rank(self, value: float) -> float:
        """Share of remembered values below `value`, equal ones by half, 0-1. Needs at least one value."""
        below = bisect_left(self._sorted, value)
        equal = bisect_right(self._sorted, value) - below
        return (below + 0.5 * equal) / len(self._sorted)


class Volatility:
    """Streaming volatility of one symbol. `add` is O(1) amortised; what is unknown is None."""

    def __init__(self, *, minimum_minutes: int = 500) -> None:
        self._minimum = minimum_minutes
        self._history = OwnHistory()
        self._squares = array("d", [0.0] * LONG_STEPS)
        """Squared changes of the last grid steps, a ring; `_slot` is the oldest."""
        self._slot = 0
        self._known = 0
        self._grid = 0.0
        """End of the running step, POSIX seconds of market time; 0 before the first quote."""
        self._anchor = 0.0
        self._last = 0.0
        self._at = 0.0
        self._minute = 0.0
        self._minute_quotes = 0

    def seed(self, bars: Sequence[Bar]) -> None:
        """One-minute broker bars, oldest first: the own history and the last five minutes' pace."""
        for bar in bars[-MEMORY_MINUTES:]:
            if bar.close > 0.0:
                self._history.add(SEED_SCALE * sqrt(bar_variance(bar)) / bar.close)
        recent = bars[-(LONG_STEPS // SHORT_STEPS) :]
        for bar in recent:
            share = SEED_SCALE * SEED_SCALE * bar_variance(bar) / SHORT_STEPS
            for _ in range(SHORT_STEPS):
                self._push(share)
        if recent:
            end = recent[-1].start.timestamp() + 60.0
            self._start(end, recent[-1].close)

    def add(self, at: float, mid: float) -> None:
        """One mid price at market time `at`, POSIX seconds."""
        if self._grid - LONG_STEPS * STEP_S <= at < self._grid:
            self._last = mid
            self._at = at
            self._minute_quotes += 1
            return
        self._step(at, mid)

    def index(self) -> float | None:
        """0-100, None until 60 s are covered and the own history has enough minutes."""
        if len(self._history) < self._minimum or self._known < SHORT_STEPS or self._last <= 0.0:
            return None
        return 100.0 * self._history.rank(sqrt(self._sum(SHORT_STEPS)) / self._last)

    def per_root_second(self) -> float | None:
        """Realised volatility of the last 300 s, price units per sqrt(second); None until 300 s are covered."""
        if self._known < LONG_STEPS:
            return None
        return sqrt(self._sum(LONG_STEPS) / (LONG_STEPS * STEP_S))

    def _start(self, at: float, mid: float) -> None:
        self._at = at
        self._grid = at - at % STEP_S + STEP_S
        self._anchor = self._last = mid
        self._minute = at - at % 60.0 + 60.0
        self._minute_quotes = 1

    def _step(self, at: float, mid: float) -> None:
        steps = int((at - self._grid) // STEP_S) + 1
        if not 1 <= steps <= LONG_STEPS:
            # The first price, a gap, or a clock that was corrected backwards.
            self._known = 0
            self._start(at, mid)
            return
        if steps == 1:
            # The running step ends with its last price; the new price belongs to the next one.
            change = self._last - self._anchor
            self._push(change * change)
            self._anchor = self._last
        else:
            change = mid - self._anchor
            share = change * change / steps
            for _ in range(steps):
                self._push(share)
            self._anchor = mid
        self._grid += steps * STEP_S
        self._last = mid
        self._at = at
        if at >= self._minute:
            self._close_minute(at)
        self._minute_quotes += 1

    def _close_minute(self, at: float) -> None:
        if self._minute_quotes and self._known >= SHORT_STEPS and self._last > 0.0:
            self._history.add(sqrt(self._sum(SHORT_STEPS)) / self._last)
        self._minute = at - at % 60.0 + 60.0
        self._minute_quotes = 0

    def _push(self, square: float) -> None:
        self._squares[self._slot] = square
        self._slot = (self._slot + 1) % LONG_STEPS
        if self._known < LONG_STEPS:
            self._known += 1

    def _sum(self, steps: int) -> float:
        """Squares of the last `steps` x 5 s up to the last price; summed anew each time, so nothing drifts.

        The running step enters with its change so far, and the oldest step with the share that is still inside.
        """
        running = self._last - self._anchor
        slot = self._slot
        squares = self._squares
        elapsed = min(max(self._at - (self._grid - STEP_S), 0.0), STEP_S)
        total = running * running + squares[slot - steps] * (1.0 - elapsed / STEP_S)
        for back in range(1, steps):
            total += squares[slot - back]
        return total

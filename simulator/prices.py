"""Seeded price paths: what the market does, in market time.

One process for history and for the live run. Log price with two-factor stochastic volatility, an hourly session
profile, news, unscheduled jumps, weekend gaps and one declared gap; a hidden mean-reverting drift that nobody sees in
the quotes and that providers perceive each with their own accuracy. Spread widens with volatility, news and rollover;
depth shrinks when the spread widens. Mechanisms follow learning.md section 0.2.

The live path lives on a fixed grid of market time, so its numbers depend on the seed alone and never on how often or
how irregularly somebody asks; between two grid points the quote is interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from math import exp, log, sqrt
from random import Random

from simulator.calendar import DAY_MS, MINUTE_MS, MarketKind, NewsCalendar, Release, activity, is_open, spread_of_hour
from simulator.seeds import stream

# Half-lives in market seconds, deviations of log volatility, and strengths.
_SLOW_HALF_LIFE, _SLOW_DEVIATION = 5 * 86_400.0, 0.32
_FAST_HALF_LIFE, _FAST_DEVIATION = 3_600.0, 0.35
HIDDEN_HALF_LIFE_S = 1_800.0
_SPREAD_HALF_LIFE, _SPREAD_DEVIATION = 65.0, 0.18
_BURST_HALF_LIFE, _SPREAD_BURST_HALF_LIFE = 600.0, 120.0
DRIFT_STRENGTH = 0.012
"""Hidden drift per second = strength x volatility per root second x hidden state (unit variance)."""
_WITHDRAWAL_MS = 3 * MINUTE_MS
"""Liquidity leaves this long before a release that the calendar lists."""
_JUMPS_A_SECOND = 1 / (12 * 3600)
_SLOW_EVERY_MS = 10_000

# The drift's own long-run variance is taken out of the noise, so that a day moves as much as declared.
_NOISE_SHARE = 1 / sqrt(1 + 2 * DRIFT_STRENGTH**2 * HIDDEN_HALF_LIFE_S / log(2))

BarRow = tuple[int, Decimal, Decimal, Decimal, Decimal]
"""start (market ms), open, high, low, close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolSpec:
    """What kind of path a symbol has. `daily_volatility` is a fraction a day, `spread_bps` the usual spread."""

    symbol_id: str
    kind: MarketKind
    currencies: tuple[str, ...]
    start_price: float
    daily_volatility: float
    spread_bps: float
    tick_size: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """What the venue's book is told. `depth` 1 is the usual depth, less when liquidity has left."""

    bid: Decimal
    ask: Decimal
    depth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GapPlan:
    """A violent gap. `size` is the signed relative move; pressure builds from `from_ms`.

    From `creep_ms` the market goes quiet and creeps towards the break, from `pinned_ms` it hardly moves.
    """

    symbol_id: str
    at_ms: int
    size: float
    from_ms: int
    creep_ms: int
    pinned_ms: int

    @property
    def direction(self) -> int:
        """+1 upwards, -1 downwards."""
        return 1 if self.size > 0 else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shock:
    """What moved one symbol's price at once: `kind` is `news`, `jump` or `gap`; `size` is the move of the log price."""

    at_ms: int
    kind: str
    symbol_id: str
    name: str
    size: float


GAP_PRESSURE = 5.0
"""How loudly the coming gap speaks in the hidden state, in its standard deviations."""
_CREEP = 0.8
"""Total creep before the break, in usual deviations of a window as long as the creep."""
_RELIEF = 0.08
"""Total way back while pinned, same unit: those who stand wrong breathe once more."""
_CREEP_CALM, _PINNED_CALM = 0.3, 0.08


@dataclass(frozen=True, slots=True)
class _Decay:
    """Exact one-step coefficients of the mean-reverting parts for a step of some seconds."""

    slow: tuple[float, float]
    fast: tuple[float, float]
    hidden: tuple[float, float]
    spread: tuple[float, float]
    burst: float
    spread_burst: float
    jump: float


@lru_cache(maxsize=32)
def _decay(seconds: float) -> _Decay:
    def pair(half_life: float, deviation: float) -> tuple[float, float]:
        keep = 0.5 ** (seconds / half_life)
        return keep, deviation * sqrt(1 - keep * keep)

    return _Decay(
        slow=pair(_SLOW_HALF_LIFE, _SLOW_DEVIATION),
        fast=pair(_FAST_HALF_LIFE, _FAST_DEVIATION),
        hidden=pair(HIDDEN_HALF_LIFE_S, 1.0),
        spread=pair(_SPREAD_HALF_LIFE, _SPREAD_DEVIATION),
        burst=0.5 ** (seconds / _BURST_HALF_LIFE),
        spread_burst=0.5 ** (seconds / _SPREAD_BURST_HALF_LIFE),
        jump=1 - exp(-seconds * _JUMPS_A_SECOND),
    )


class SymbolPath:
    """One symbol's path. Use through Market; the public attributes are what providers may look at."""

    def __init__(self, spec: SymbolSpec, rng: Random, calendar: NewsCalendar) -> None:
        self.spec = spec
        self.hidden = rng.gauss(0, 1)
        """Hidden drift state, unit variance, mean 0."""
        self.sigma = 0.0
        """Relative volatility per root second, bursts included."""
        self.usual_sigma = 0.0
        """The same without bursts: what a provider takes for the volatility of the hour."""
        self.spread = spec.spread_bps / 1e4
        """Relative spread."""
        self._rng, self._calendar = rng, calendar
        self._level = self._next = log(spec.start_price)
        self._slow, self._fast = rng.gauss(0, _SLOW_DEVIATION), rng.gauss(0, _FAST_DEVIATION)
        self._spread_noise = self._burst = self._spread_burst = self._drift = 0.0
        self._gap: GapPlan | None = None
        self._was_open = True
        self._day = -1
        self._pending: list[tuple[int, float, Release]] = []

    @property
    def mid(self) -> float:
        """Middle price at the grid point reached."""
        return exp(self._level)

    def perceived(self, at_ms: int) -> float:
        """What there is to perceive: hidden drift, and the pressure of a coming gap which price has not paid yet."""
        gap = self._gap
        return self.hidden + (GAP_PRESSURE * gap.direction if gap and gap.from_ms <= at_ms < gap.at_ms else 0.0)

    def declare_gap(self, plan: GapPlan) -> None:
        """Announce the symbol's gap; it happens when the path reaches it."""
        self._gap = plan

    def touch(self, fraction: float) -> Touch:
        """Best bid and ask on the tick grid, `fraction` of the way to the next grid point; bid down, ask up."""
        mid = exp(self._level + (self._next - self._level) * fraction)
        half = mid * self.spread / 2
        tick = self.spec.tick_size
        bid = (Decimal(mid - half) / tick).to_integral_value(ROUND_FLOOR) * tick
        ask = max((Decimal(mid + half) / tick).to_integral_value(ROUND_CEILING) * tick, bid + tick)
        ratio = self.spread * 1e4 / self.spec.spread_bps
        return Touch(bid=bid, ask=ask, depth=min(2.0, 1 / max(ratio, 0.5)))

    def advance(self, at_ms: int, step_ms: int) -> list[Shock]:
        """Move the grid point to `at_ms` and draw the next one, `step_ms` later. Returns what shook the price."""
        self._level = self._next
        if not is_open(self.spec.kind, at_ms):
            self._was_open = False
            return []
        shocks: list[Shock] = []
        if at_ms % _SLOW_EVERY_MS < step_ms or self.sigma == 0:
            shocks = self._slow_state(at_ms, max(_SLOW_EVERY_MS, step_ms))
        gap = self._gap
        if gap and gap.at_ms <= at_ms:
            shocks.append(self._break(gap))
        self._level += sum(shock.size for shock in shocks)
        seconds = step_ms / 1000
        drift, sigma = self._motion(at_ms)
        self._next = self._level + drift * seconds + sigma * sqrt(seconds) * self._rng.gauss(0, 1)
        return shocks

    def bar(self, at_ms: int) -> tuple[float, float, float, float] | None:
        """One minute of history from `at_ms`: log open, high, low, close; None while shut."""
        if not is_open(self.spec.kind, at_ms):
            self._was_open = False
            return None
        self._level += sum(shock.size for shock in self._slow_state(at_ms, MINUTE_MS))
        drift, sigma = self._motion(at_ms)
        opened = self._level
        closed = opened + drift * 60 + sigma * sqrt(60) * self._rng.gauss(0, 1)
        # Extremes of a Brownian bridge, by inversion of their distribution.
        variance = 2 * sigma * sigma * 60
        apart, middle = (closed - opened) ** 2, (opened + closed) / 2
        high = middle + sqrt(apart - variance * log(1 - self._rng.random())) / 2
        low = middle - sqrt(apart - variance * log(1 - self._rng.random())) / 2
        self._level = self._next = closed
        return opened, high, low, closed

    def settle(self) -> float:
        """Shift the path so that it stands at the declared start price; returns the log shift."""
        shift = log(self.spec.start_price) - self._next
        self._level += shift
        self._next += shift
        return shift

    def _motion(self, at_ms: int) -> tuple[float, float]:
        """Drift per second and volatility per root second at a moment, calm before the gap included."""
        calm, gap = self._calm(at_ms), self._gap
        if gap is None or calm == 1:
            return self._drift, self.sigma
        start, end, way = (
            (gap.creep_ms, gap.pinned_ms, _CREEP) if at_ms < gap.pinned_ms else (gap.pinned_ms, gap.at_ms, -_RELIEF)
        )
        return way * gap.direction * self.usual_sigma / sqrt((end - start) / 1000), self.sigma * calm

    def _calm(self, at_ms: int) -> float:
        """Share of the usual movement that is left, 1 outside the quiet before the gap."""
        gap = self._gap
        if gap is None or not gap.creep_ms <= at_ms < gap.at_ms:
            return 1.0
        return _CREEP_CALM if at_ms < gap.pinned_ms else _PINNED_CALM

    def _slow_state(self, at_ms: int, step_ms: int) -> list[Shock]:
        decay, gauss, spec = _decay(step_ms / 1000), self._rng.gauss, self.spec
        self._slow = decay.slow[0] * self._slow + decay.slow[1] * gauss(0, 1)
        self._fast = decay.fast[0] * self._fast + decay.fast[1] * gauss(0, 1)
        self.hidden = decay.hidden[0] * self.hidden + decay.hidden[1] * gauss(0, 1)
        self._spread_noise = decay.spread[0] * self._spread_noise + decay.spread[1] * gauss(0, 1)
        self._burst *= decay.burst
        self._spread_burst *= decay.spread_burst
        shocks = self._news(at_ms, step_ms)
        if self._rng.random() < decay.jump:
            size = spec.daily_volatility * 0.06 * gauss(0, 1) * (1 + abs(gauss(0, 1))) * self._calm(at_ms)
            self._burst, self._spread_burst = self._burst + 0.5, max(self._spread_burst, 1.0)
            shocks.append(Shock(at_ms=at_ms, kind="jump", symbol_id=spec.symbol_id, name="unscheduled", size=size))
        if not self._was_open:
            self._was_open = True
            size = 0.25 * spec.daily_volatility * gauss(0, 1)
            shocks.append(Shock(at_ms=at_ms, kind="jump", symbol_id=spec.symbol_id, name="weekend gap", size=size))
        lively = exp(self._slow + self._fast - _SLOW_DEVIATION**2 - _FAST_DEVIATION**2)
        hour = spec.daily_volatility / sqrt(86_400) * activity(spec.kind, at_ms)
        self.usual_sigma = hour * lively * _NOISE_SHARE
        self.sigma = self.usual_sigma * (1 + self._burst)
        self._drift = DRIFT_STRENGTH * self.usual_sigma * self.hidden
        tension = 0.75 + 0.25 * lively * (1 + self._burst) + self._spread_burst
        self.spread = spec.spread_bps / 1e4 * spread_of_hour(spec.kind, at_ms) * tension * exp(self._spread_noise)
        return shocks

    def _news(self, at_ms: int, step_ms: int) -> list[Shock]:
        day = at_ms // DAY_MS
        if day != self._day:
            self._day = day
            self._pending = [
                (release.at_ms, impact, release)
                for release in self._calendar.between(at_ms, (day + 1) * DAY_MS + _WITHDRAWAL_MS)
                if (impact := release.impact(self.spec.currencies)) > 0
            ]
        shocks: list[Shock] = []
        while self._pending and self._pending[0][0] < at_ms + step_ms:
            _, impact, release = self._pending.pop(0)
            size = impact * 0.16 * self.spec.daily_volatility * self._rng.gauss(0, 1) * self._calm(at_ms)
            self._burst += 2.2 * impact
            self._spread_burst = max(self._spread_burst, 2 + 4.5 * impact * self._rng.random())
            shocks.append(Shock(at_ms=at_ms, kind="news", symbol_id=self.spec.symbol_id, name=release.name, size=size))
        if self._pending and self._pending[0][2].known and self._pending[0][0] < at_ms + _WITHDRAWAL_MS:
            self._spread_burst = max(self._spread_burst, 2.0)
        return shocks

    def _break(self, gap: GapPlan) -> Shock:
        self._gap = None
        self._burst += 2.0
        self._spread_burst = max(self._spread_burst, 4.0)
        size = log(1 + gap.size)
        return Shock(at_ms=gap.at_ms, kind="gap", symbol_id=gap.symbol_id, name="declared gap", size=size)


class Market:
    """All symbols on one grid of market time.

    `history_days` trading days of one-minute bars are made before `start_ms`; prices stand at their declared start
    price there. `step_ms` is the grid of the live path.
    """

    def __init__(
        self, specs: Sequence[SymbolSpec], seed: int, start_ms: int, *, history_days: int = 5, step_ms: int = 1_000
    ) -> None:
        self.calendar = NewsCalendar(seed)
        self.step_ms = step_ms
        self.paths: Mapping[str, SymbolPath] = {
            spec.symbol_id: SymbolPath(spec, stream(seed, "prices", spec.symbol_id), self.calendar) for spec in specs
        }
        self._at_ms = start_ms - start_ms % step_ms
        self._history = {symbol_id: _history(path, self._at_ms, history_days) for symbol_id, path in self.paths.items()}
        self.first_shocks = self._draw()

    @property
    def at_ms(self) -> int:
        """The grid point reached."""
        return self._at_ms

    def history(self, symbol_id: str) -> Sequence[BarRow]:
        """Closed one-minute bars before the start, oldest first, prices on the tick grid."""
        return self._history[symbol_id]

    def advance(self) -> list[Shock]:
        """Go on by one grid step; what shook the prices at the new grid point."""
        self._at_ms += self.step_ms
        return self._draw()

    def touch(self, symbol_id: str, at_ms: int) -> Touch:
        """Best bid and ask at a market time within the current grid step."""
        fraction = (at_ms - self._at_ms) / self.step_ms
        return self.paths[symbol_id].touch(min(1.0, max(0.0, fraction)))

    def is_open(self, symbol_id: str) -> bool:
        """False on the weekend of FX and metals."""
        return is_open(self.paths[symbol_id].spec.kind, self._at_ms)

    def _draw(self) -> list[Shock]:
        at_ms, step_ms = self._at_ms, self.step_ms
        return [shock for path in self.paths.values() for shock in path.advance(at_ms, step_ms)]


def _history(path: SymbolPath, end_ms: int, days: int) -> Sequence[BarRow]:
    start = _trading_days_before(path.spec.kind, end_ms - end_ms % MINUTE_MS, days)
    rows = [(at_ms, bar) for at_ms in range(start, end_ms - MINUTE_MS + 1, MINUTE_MS) if (bar := path.bar(at_ms))]
    shift, tick = path.settle(), path.spec.tick_size
    size = float(tick)

    def price(level: float) -> Decimal:
        return round(exp(level + shift) / size) * tick

    return [
        (at_ms, price(opened), price(high), price(low), price(closed)) for at_ms, (opened, high, low, closed) in rows
    ]


def _trading_days_before(kind: MarketKind, end_ms: int, days: int) -> int:
    left, at_ms = days * DAY_MS // MINUTE_MS, end_ms
    while left > 0:
        at_ms -= 10 * MINUTE_MS
        left -= 10 * is_open(kind, at_ms)
    return at_ms

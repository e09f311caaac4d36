"""When markets are busy, when they are shut, and when news comes: real zones, one seed.

All times are market time in milliseconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from math import sqrt
from random import Random
from zoneinfo import ZoneInfo

from simulator.seeds import stream

LONDON = ZoneInfo("Europe/London")
NEW_YORK = ZoneInfo("America/New_York")
TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")

MINUTE_MS = 60_000
SLOT_MS = 10 * MINUTE_MS
"""Session profiles are constant within a slot."""
DAY_MS = 86_400_000


class MarketKind(StrEnum):
    """Whose hours a symbol keeps."""

    CRYPTO = "crypto"
    FX = "fx"
    METAL = "metal"


# Share of activity: always, while Tokyo, London and New York are at their desks.
_DESKS = {
    MarketKind.CRYPTO: (0.75, 0.15, 0.25, 0.45),
    MarketKind.FX: (0.45, 0.15, 0.60, 0.55),
    MarketKind.METAL: (0.45, 0.10, 0.50, 0.85),
}


def at_zone(at_ms: int, zone: ZoneInfo) -> datetime:
    """Market milliseconds as local time of `zone`."""
    return datetime.fromtimestamp(at_ms / 1000, tz=zone)


def to_ms(moment: datetime) -> int:
    """An aware moment as milliseconds since the epoch."""
    return round(moment.timestamp() * 1000)


def is_open(kind: MarketKind, at_ms: int) -> bool:
    """Crypto never shuts; FX and metals rest from Friday 17:00 to Sunday 17:00, New York."""
    return kind is MarketKind.CRYPTO or _desk_is_open(at_ms // SLOT_MS)


@lru_cache(maxsize=4096)
def _desk_is_open(slot: int) -> bool:
    local = at_zone(slot * SLOT_MS, NEW_YORK)
    weekday = local.isoweekday()
    if weekday == 5:
        return local.hour < 17
    return weekday < 5 or (weekday == 7 and local.hour >= 17)


def activity(kind: MarketKind, at_ms: int) -> float:
    """Volatility of the hour relative to the day's own root mean square (1 = an average moment)."""
    return _raw_activity(kind, at_ms // SLOT_MS) / _mean_activity(kind)


@lru_cache(maxsize=4096)
def _raw_activity(kind: MarketKind, slot: int) -> float:
    at_ms = slot * SLOT_MS
    always, tokyo, london, new_york = _DESKS[kind]
    level = always
    level += tokyo * (9 <= at_zone(at_ms, TOKYO).hour < 18)
    level += london * (8 <= at_zone(at_ms, LONDON).hour < 17)
    level += new_york * (8 <= at_zone(at_ms, NEW_YORK).hour < 17)
    return level


@lru_cache(maxsize=8)
def _mean_activity(kind: MarketKind) -> float:
    first = to_ms(datetime(2026, 1, 7, tzinfo=UTC)) // SLOT_MS
    slots = DAY_MS // SLOT_MS
    return sqrt(sum(_raw_activity(kind, first + slot) ** 2 for slot in range(slots)) / slots)


def spread_of_hour(kind: MarketKind, at_ms: int) -> float:
    """Factor on the usual spread: x4 around the rollover at 17:00 New York (not for crypto), wide after it."""
    if kind is MarketKind.CRYPTO:
        return 1.0
    return _rollover_factor(at_ms // SLOT_MS)


@lru_cache(maxsize=4096)
def _rollover_factor(slot: int) -> float:
    local = at_zone(slot * SLOT_MS, NEW_YORK)
    minute = local.hour * 60 + local.minute
    if 16 * 60 + 50 <= minute < 17 * 60 + 20:
        return 4.0
    if 17 * 60 + 20 <= minute < 18 * 60 + 20:
        return 1.8
    return 1.2 if minute >= 18 * 60 + 20 or minute < 2 * 60 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One piece of news. `magnitude` 1 is an ordinary strong one; `known` says that the public calendar lists it."""

    at_ms: int
    name: str
    currency: str
    magnitude: float
    known: bool

    def impact(self, currencies: Sequence[str]) -> float:
        """Magnitude for an instrument of these currencies, 0 when it does not care; crypto half-listens to USD."""
        if self.currency in currencies:
            return self.magnitude
        return 0.4 * self.magnitude if self.currency == "USD" and "CRYPTO" in currencies else 0.0


# zone, hour, minute, name, currency, chance a weekday, strength
_SLOTS = (
    (LONDON, 7, 0, "UK activity data", "GBP", 0.5, 1.0),
    (LONDON, 9, 30, "UK survey", "GBP", 0.4, 0.7),
    (BERLIN, 10, 0, "euro area survey", "EUR", 0.5, 0.8),
    (BERLIN, 14, 15, "ECB decision", "EUR", 0.1, 1.8),
    (NEW_YORK, 8, 30, "US data", "USD", 0.8, 1.2),
    (NEW_YORK, 10, 0, "US survey", "USD", 0.5, 0.8),
    (NEW_YORK, 14, 0, "Fed decision", "USD", 0.1, 1.8),
)
_SPEECHES = (("ECB speech", "EUR"), ("BoE speech", "GBP"), ("Fed speech", "USD"))
_CRYPTO_HEADLINES_A_DAY = 2


class NewsCalendar:
    """Releases by UTC day, each day drawn from its own stream: asking for one day never moves another."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._days: dict[date, tuple[Release, ...]] = {}

    def day(self, day: date) -> tuple[Release, ...]:
        """The releases of a UTC day, in the order of time."""
        if day not in self._days:
            rng = stream(self._seed, "news", day.isoformat())
            releases = [*_scheduled(day, rng), *_headlines(day, rng)]
            self._days[day] = tuple(sorted(releases, key=lambda release: (release.at_ms, release.name)))
        return self._days[day]

    def between(self, from_ms: int, to_ms_: int) -> Iterator[Release]:
        """Releases in `[from_ms, to_ms_)`, in the order of time."""
        day = datetime.fromtimestamp(from_ms / 1000, tz=UTC).date()
        last = datetime.fromtimestamp(to_ms_ / 1000, tz=UTC).date()
        while day <= last:
            for release in self.day(day):
                if from_ms <= release.at_ms < to_ms_:
                    yield release
            day += timedelta(days=1)


def _magnitude(rng: Random, strength: float) -> float:
    return strength * rng.lognormvariate(-0.5, 0.6)


def _scheduled(day: date, rng: Random) -> Iterator[Release]:
    if day.isoweekday() > 5:
        return
    for zone, hour, minute, name, currency, chance, strength in _SLOTS:
        drawn, magnitude = rng.random(), _magnitude(rng, strength)
        if drawn < chance:
            at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            yield Release(at_ms=to_ms(at), name=name, currency=currency, magnitude=magnitude, known=True)
    for name, currency in _SPEECHES:
        drawn, minute, magnitude = rng.random(), rng.randrange(8 * 60, 18 * 60, 5), _magnitude(rng, 0.5)
        if drawn < 0.6:
            at = datetime(day.year, day.month, day.day, tzinfo=LONDON) + timedelta(minutes=minute)
            yield Release(at_ms=to_ms(at), name=name, currency=currency, magnitude=magnitude, known=drawn < 0.4)


def _headlines(day: date, rng: Random) -> Iterator[Release]:
    midnight = to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))
    for _ in range(_CRYPTO_HEADLINES_A_DAY):
        at_ms, magnitude = midnight + rng.randrange(0, DAY_MS, 1000), _magnitude(rng, 0.6)
        yield Release(at_ms=at_ms, name="crypto headline", currency="CRYPTO", magnitude=magnitude, known=False)

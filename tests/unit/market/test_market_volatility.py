"""Realised volatility, its rank, and the pace per root second."""

import math
import random
from datetime import UTC, datetime, timedelta

import pytest

from srm_agent.domain.market import Bar
from srm_agent.market.volatility import OwnHistory, Volatility, bar_variance

START = datetime(2026, 3, 2, tzinfo=UTC)
BASE = START.timestamp()


def walk(
    volatility: Volatility,
    rng: random.Random,
    *,
    start: float,
    seconds: float,
    step: float,
    sigma: float,
    price: float = 100.0,
) -> float:
    """Drive with a Brownian path of `sigma` per root second, a quote each `step` seconds; the last price."""
    at = start
    while at < start + seconds:
        volatility.add(at, price)
        at += step
        price += rng.gauss(0.0, sigma * math.sqrt(step))
    return price


def minute_bars(rng: random.Random, count: int, sigma: float) -> list[Bar]:
    """One-minute bars of a Brownian path of `sigma` per root second."""
    bars = []
    for i in range(count):
        path = [100.0]
        for _ in range(240):
            path.append(path[-1] + rng.gauss(0.0, sigma * 0.5))
        bars.append(Bar(START + timedelta(minutes=i), path[0], max(path), min(path), path[-1]))
    return bars


@pytest.mark.parametrize("step", [0.25, 1.0, 6.0, 12.0])
def test_pace_recovers_the_paths_own_sigma(step: float) -> None:
    """A Brownian path of 0.01 per root second is measured as such, whatever the rate of quotes."""
    rng = random.Random(5)
    squares = []
    volatility, price = Volatility(), 100.0
    for number in range(60):
        price = walk(volatility, rng, start=BASE + 300.0 * number, seconds=300.0, step=step, sigma=0.01, price=price)
        pace = volatility.per_root_second()
        if pace is not None:
            squares.append(pace * pace)
    assert math.sqrt(sum(squares) / len(squares)) == pytest.approx(0.01, rel=0.1)


def test_unknown_until_the_window_is_covered() -> None:
    """The pace is unknown for the first 300 s, and the index until 500 minutes are remembered."""
    volatility = Volatility()
    rng = random.Random(1)
    walk(volatility, rng, start=BASE, seconds=299.0, step=1.0, sigma=0.01)
    assert volatility.per_root_second() is None
    walk(volatility, rng, start=BASE + 299.0, seconds=10.0, step=1.0, sigma=0.01)
    assert volatility.per_root_second() is not None
    assert volatility.index() is None


def test_seeded_minutes_and_live_minutes_share_a_scale() -> None:
    """Over a path that moves as the seeded bars did, the index averages about 50: the seed has the right scale."""
    rng = random.Random(11)
    volatility = Volatility()
    volatility.seed(minute_bars(rng, 1000, 0.01))
    indices, price = [], 100.0
    for number in range(200):
        start = BASE + 60_000.0 + 60.0 * number
        price = walk(volatility, rng, start=start, seconds=60.0, step=1.0, sigma=0.01, price=price)
        index = volatility.index()
        assert index is not None
        indices.append(index)
    assert 42.0 < sum(indices) / len(indices) < 60.0


@pytest.mark.parametrize(("factor", "low", "high"), [(4.0, 99.0, 100.0), (0.1, 0.0, 1.0)])
def test_unusual_pace_ranks_at_the_ends(factor: float, low: float, high: float) -> None:
    """Four times the usual pace ranks at the top, a tenth of it at the bottom."""
    rng = random.Random(2)
    volatility = Volatility()
    volatility.seed(minute_bars(rng, 800, 0.01))
    walk(volatility, rng, start=BASE + 48_000.0, seconds=120.0, step=1.0, sigma=0.01 * factor)
    index = volatility.index()
    assert index is not None
    assert low <= index <= high


def test_a_gap_starts_the_window_anew_but_keeps_the_history() -> None:
    """After a weekend nothing is known of the pace until it has been seen, but the own history still ranks it."""
    rng = random.Random(4)
    volatility = Volatility()
    volatility.seed(minute_bars(rng, 600, 0.01))
    walk(volatility, rng, start=BASE + 36_000.0, seconds=400.0, step=1.0, sigma=0.01)
    monday = BASE + 36_000.0 + 180_000.0
    volatility.add(monday, 105.0)
    assert (volatility.index(), volatility.per_root_second()) == (None, None)
    walk(volatility, rng, start=monday, seconds=70.0, step=1.0, sigma=0.01)
    assert volatility.index() is not None
    assert volatility.per_root_second() is None


def test_history_forgets_the_oldest_value() -> None:
    """The rank is that among the last `capacity` values, equal ones counted by half."""
    history = OwnHistory(4)
    for value in (9.0, 9.0, 1.0, 2.0, 3.0, 3.0):
        history.add(value)
    assert len(history) == 4
    assert history.rank(3.0) == 0.75
    assert history.rank(0.5) == 0.0
    assert history.rank(9.0) == 1.0


def test_variance_of_a_bar_is_never_negative() -> None:
    """A bar that runs straight from low to high, and one that does not move, both have a variance >= 0."""
    straight = Bar(START, 1.0, 2.0, 1.0, 2.0)
    assert bar_variance(straight) == pytest.approx(0.5 - (2 * math.log(2) - 1))
    assert bar_variance(Bar(START, 1.0, 1.0, 1.0, 1.0)) == 0.0

"""The paths: repeatable, and shaped like markets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from math import log, sqrt
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.calendar import DAY_MS, MINUTE_MS, MarketKind, NewsCalendar, activity, is_open, spread_of_hour, to_ms
from simulator.prices import BarRow, GapPlan, Market, SymbolPath, SymbolSpec, Touch
from simulator.scenario import Scenario
from simulator.seeds import stream

MONDAY = to_ms(datetime(2026, 1, 5, 11, tzinfo=UTC))


def a_spec(symbol_id: str = "EURUSDT", kind: MarketKind = MarketKind.FX) -> SymbolSpec:
    """An instrument to make a path of."""
    currencies = ("EUR", "USD") if kind is MarketKind.FX else ("CRYPTO",)
    return SymbolSpec(
        symbol_id=symbol_id,
        kind=kind,
        currencies=currencies,
        start_price=1.08,
        daily_volatility=0.006,
        spread_bps=0.6,
        tick_size=Decimal("0.00001"),
    )


def touches(market: Market, steps: int) -> list[Touch]:
    """Every symbol's quote at each of the next grid points."""
    symbols = list(market.paths)
    seen = []
    for _ in range(steps):
        market.advance()
        seen += [market.touch(symbol, market.at_ms) for symbol in symbols]
    return seen


def test_the_same_seed_gives_the_same_path_and_history() -> None:
    """Two markets of one seed agree in every bar and quote."""
    one, two = (Market([a_spec()], 7, MONDAY, history_days=1) for _ in range(2))
    assert one.history("EURUSDT") == two.history("EURUSDT")
    assert touches(one, 600) == touches(two, 600)


def test_another_seed_gives_another_path() -> None:
    """Seeds differ from the first minutes on."""
    one, two = (Market([a_spec()], seed, MONDAY, history_days=0) for seed in (7, 8))
    assert touches(one, 300) != touches(two, 300)


def test_a_symbol_more_does_not_change_the_others() -> None:
    """Each symbol draws from its own stream."""
    alone = Market([a_spec()], 7, MONDAY, history_days=0)
    together = Market([a_spec("GBPUSDT"), a_spec()], 7, MONDAY, history_days=0)
    touches(alone, 300)
    touches(together, 300)
    assert alone.touch("EURUSDT", alone.at_ms) == together.touch("EURUSDT", together.at_ms)


@given(fraction=st.floats(0, 1), seed=st.integers(0, 50), steps=st.integers(1, 30))
def test_every_quote_is_on_the_grid_and_never_crossed(fraction: float, seed: int, steps: int) -> None:
    """Bid and ask are positive multiples of the tick, ask above bid, depth within (0, 2]."""
    spec = a_spec()
    path = SymbolPath(spec, Random(seed), NewsCalendar(seed))
    for step in range(steps):
        path.advance(MONDAY + step * 1_000, 1_000)
    touch = path.touch(fraction)
    assert 0 < touch.bid < touch.ask
    assert touch.bid % spec.tick_size == touch.ask % spec.tick_size == 0
    assert 0 < touch.depth <= 2


def test_history_ends_at_the_start_and_at_the_declared_price(demo: Scenario) -> None:
    """Five trading days of minutes, in order, on the grid, whose last close is the live path's beginning."""
    market = Market(demo.specs(), 3, MONDAY)
    for spec in demo.specs():
        bars = market.history(spec.symbol_id)
        assert len(bars) == 5 * 1440
        assert bars[-1][0] == MONDAY - MINUTE_MS
        assert float(bars[-1][4]) == pytest.approx(spec.start_price, rel=1e-4)
        for at_ms, opened, high, low, closed in bars:
            assert low <= min(opened, closed) <= max(opened, closed) <= high
            assert is_open(spec.kind, at_ms)
            assert closed % spec.tick_size == 0


def daily_volatility(bars: Sequence[BarRow]) -> float:
    """Realised volatility a day, from four-hour moves."""
    closes = [float(bar[4]) for bar in bars][::240]
    moves = [log(after / before) for before, after in pairwise(closes)]
    return sqrt(fmean(move * move for move in moves) * 6)


def test_days_move_as_much_as_declared(demo: Scenario) -> None:
    """Over all symbols and 25 days realised volatility is near its target (news and jumps add a little)."""
    market = Market(demo.specs(), 11, MONDAY, history_days=25)
    ratios = [daily_volatility(market.history(spec.symbol_id)) / spec.daily_volatility for spec in demo.specs()]
    assert 0.8 < fmean(ratios) < 1.35, ratios


def test_the_hours_of_the_sessions_are_visible() -> None:
    """An FX-like symbol moves much more while London and New York overlap than in the Pacific night."""
    bars = Market([a_spec()], 5, MONDAY, history_days=20).history("EURUSDT")

    def mean_range(first: int, last: int) -> float:
        return fmean(float(bar[2] - bar[3]) for bar in bars if first <= bar[0] % DAY_MS // 3_600_000 < last)

    assert mean_range(13, 17) > 1.6 * mean_range(22, 24)


def test_spreads_are_wider_ahead_of_listed_news_and_depth_is_gone() -> None:
    """In the minutes before a release of the calendar the spread is a multiple of what it was, and depth shrinks."""
    wide: list[float] = []
    calendar = NewsCalendar(2)
    releases = [
        release
        for release in calendar.between(MONDAY, MONDAY + 12 * DAY_MS)
        if release.known and release.currency == "USD" and release.name == "US data"
    ]
    assert len(releases) >= 5
    for release in releases:
        market = Market([a_spec()], 2, release.at_ms - 20 * MINUTE_MS, history_days=0)
        usual = [float(touch.ask - touch.bid) for touch in touches(market, 15 * 60)]
        before = touches(market, 4 * 60)
        wide.append(fmean(float(touch.ask - touch.bid) for touch in before[-120:]) / fmean(usual))
        assert before[-1].depth < 0.6
    assert fmean(wide) > 1.7


def test_the_declared_gap_is_one_jump_after_a_quiet_market() -> None:
    """The path is pinned before the gap, then moves by the declared size within one grid step."""
    market = Market([a_spec("SOLUSDT", MarketKind.CRYPTO)], 4, MONDAY, history_days=0)
    at_ms = MONDAY + 1_800_000
    path = market.paths["SOLUSDT"]
    path.declare_gap(
        GapPlan(
            symbol_id="SOLUSDT",
            at_ms=at_ms,
            size=-0.08,
            from_ms=MONDAY,
            creep_ms=at_ms - 600_000,
            pinned_ms=at_ms - 300_000,
        )
    )
    while market.at_ms < at_ms - 300_000:
        market.advance()
    pinned = path.mid
    while market.at_ms < at_ms - 1_000:
        market.advance()
    before = path.mid
    shocks = market.advance()
    assert before == pytest.approx(pinned, rel=0.002)
    assert path.mid / before - 1 == pytest.approx(-0.08, abs=0.003)
    assert [shock.kind for shock in shocks] == ["gap"]
    assert not any(shock.kind == "gap" for shock in market.advance())


def test_weekends_stand_still_for_fx_only() -> None:
    """FX rests from Friday 17:00 to Sunday 17:00 New York, in winter and in summer; crypto never."""
    friday_winter = to_ms(datetime(2026, 1, 9, 22, tzinfo=UTC))
    friday_summer = to_ms(datetime(2026, 7, 10, 21, tzinfo=UTC))
    for shut in (friday_winter, friday_summer):
        assert is_open(MarketKind.FX, shut - MINUTE_MS)
        assert not is_open(MarketKind.FX, shut)
        assert not is_open(MarketKind.FX, shut + 2 * DAY_MS - MINUTE_MS)
        assert is_open(MarketKind.FX, shut + 2 * DAY_MS)
        assert is_open(MarketKind.CRYPTO, shut)
    market = Market([a_spec()], 1, friday_winter, history_days=0)
    assert len(set(touches(market, 120))) == 1


def test_the_rollover_follows_new_york_through_daylight_saving() -> None:
    """Spreads are four times as wide at 22:05 UTC in winter and at 21:05 UTC in summer, never for crypto."""
    winter, summer = datetime(2026, 1, 7, 22, 5, tzinfo=UTC), datetime(2026, 7, 8, 21, 5, tzinfo=UTC)
    assert spread_of_hour(MarketKind.FX, to_ms(winter)) == 4.0
    assert spread_of_hour(MarketKind.FX, to_ms(summer)) == 4.0
    assert spread_of_hour(MarketKind.CRYPTO, to_ms(winter)) == 1.0


def test_activity_averages_to_one_over_a_day() -> None:
    """The session profile redistributes volatility within a day, it adds none."""
    for kind in MarketKind:
        levels = [activity(kind, to_ms(datetime(2026, 1, 7, tzinfo=UTC)) + 600_000 * slot) for slot in range(144)]
        assert sqrt(fmean(level * level for level in levels)) == pytest.approx(1.0)


def test_a_day_of_news_does_not_depend_on_what_was_asked_before() -> None:
    """Each day has its own stream; releases are in order and none is scheduled on a weekend."""
    day, other = NewsCalendar(9), NewsCalendar(9)
    list(other.between(MONDAY, MONDAY + 9 * DAY_MS))
    wanted = datetime(2026, 1, 12, tzinfo=UTC).date()
    assert day.day(wanted) == other.day(wanted)
    times = [release.at_ms for release in other.between(MONDAY, MONDAY + 9 * DAY_MS)]
    assert times == sorted(times)
    assert not [release for release in other.day(datetime(2026, 1, 10, tzinfo=UTC).date()) if release.known]


def test_streams_of_one_seed_are_independent() -> None:
    """Names make streams; the same name gives the same draws."""
    assert stream(1, "a").random() == stream(1, "a").random()
    assert len({stream(1, "a").random(), stream(1, "b").random(), stream(2, "a").random()}) == 3

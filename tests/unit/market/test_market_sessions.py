"""Trading sessions through the daylight saving changes of 2026."""

from datetime import UTC, datetime, timedelta
from time import perf_counter

import pytest

from srm_agent.domain.market import TradingSession
from srm_agent.market.sessions import SessionClock, trading_session

S = TradingSession


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        # Winter: London 08-17 UTC, New York 13-22 UTC, Tokyo 00-09 UTC.
        pytest.param("2026-01-14T07:59:59", S.TOKYO, id="winter, a second before London"),
        pytest.param("2026-01-14T08:00:00", S.LONDON, id="winter, London opens and goes before Tokyo"),
        pytest.param("2026-01-14T12:59:59", S.LONDON, id="winter, a second before New York"),
        pytest.param("2026-01-14T13:00:00", S.OVERLAP, id="winter, both open"),
        pytest.param("2026-01-14T17:00:00", S.NEW_YORK, id="winter, London closes"),
        pytest.param("2026-01-14T22:00:00", S.ASIAN, id="winter, New York closes, Tokyo sleeps"),
        pytest.param("2026-01-15T00:00:00", S.TOKYO, id="winter, Tokyo opens"),
        # New York changes on 8 March, London on 29 March: three weeks apart.
        pytest.param("2026-03-06T12:30:00", S.LONDON, id="before New York's change"),
        pytest.param("2026-03-09T12:30:00", S.OVERLAP, id="after New York's change, 08:30 there"),
        pytest.param("2026-03-09T21:30:00", S.ASIAN, id="after New York's change, closed at 21 UTC"),
        pytest.param("2026-03-27T07:30:00", S.TOKYO, id="before London's change"),
        pytest.param("2026-03-30T07:30:00", S.LONDON, id="after London's change, 08:30 there"),
        pytest.param("2026-03-30T16:30:00", S.NEW_YORK, id="after London's change, closed at 16 UTC"),
        # London changes back on 25 October, New York on 1 November.
        pytest.param("2026-10-23T07:30:00", S.LONDON, id="before London's change back"),
        pytest.param("2026-10-26T07:30:00", S.TOKYO, id="after London's change back"),
        pytest.param("2026-10-26T12:30:00", S.OVERLAP, id="between the changes back"),
        pytest.param("2026-11-02T12:30:00", S.LONDON, id="after New York's change back"),
        # Hours decide alone.
        pytest.param("2026-07-11T13:00:00", S.OVERLAP, id="a Saturday for crypto"),
        pytest.param("2026-07-12T22:00:00", S.ASIAN, id="a Sunday evening, Pacific hours"),
    ],
)
def test_session_at(moment: str, session: TradingSession) -> None:
    """Sessions follow the wall clocks of their cities, and the remembering clock agrees with the plain function."""
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    assert trading_session(at) is session
    assert SessionClock().at(at.timestamp()) == (session, at.isoweekday())


def test_the_remembering_clock_agrees_at_every_quarter_hour_of_the_year() -> None:
    """All of 2026, daylight saving changes included, in both directions of time."""
    clock = SessionClock()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(minutes=15 * i) for i in range(365 * 96)]
    for at in moments + moments[::-97]:
        assert clock.at(at.timestamp()) == (trading_session(at), at.isoweekday())


def test_another_zone_of_the_same_instant_gives_the_same_session() -> None:
    """The instant decides, not the zone in which it is written."""
    at = datetime(2026, 7, 6, 13, 30, tzinfo=UTC)
    assert trading_session(at.astimezone()) is trading_session(at) is S.OVERLAP


def test_a_session_costs_less_than_two_microseconds() -> None:
    """Remembered for the hour, it costs a comparison (best of five runs, so that a busy machine does not decide)."""
    clock = SessionClock()
    best = min(_timed(clock) for _ in range(5))
    assert best < 2e-6


def _timed(clock: SessionClock) -> float:
    started = perf_counter()
    for i in range(20_000):
        clock.at(1_780_000_000.0 + i)
    return (perf_counter() - started) / 20_000

"""Bars: seeded history, live minutes, aggregation."""

from __future__ import annotations

from decimal import Decimal

import pytest

from simulator.book import Book
from simulator.klines import KlineSeries
from simulator.venue import Venue

MINUTE = 60_000
HOUR_MS = 1_767_610_800_000


def series(minutes: int) -> KlineSeries:
    """That many seeded minutes before the hour, prices 100, 101, ..."""
    bars = KlineSeries(Decimal("0.1"))
    bars.seed((HOUR_MS - (minutes - n) * MINUTE, 100.0 + n, 100.5 + n, 99.5 + n, 100.2 + n) for n in range(minutes))
    return bars


def test_five_minutes_are_made_of_five() -> None:
    """Open of the first, close of the last, extremes of all."""
    bar = series(10).last(300, 1, closed_only=True)[0]
    assert (bar.start_ms, bar.open, bar.high, bar.low, bar.close) == (
        HOUR_MS - 5 * MINUTE, Decimal("105.0"), Decimal("109.5"), Decimal("104.5"), Decimal("109.2")
    )  # fmt: skip


def test_the_running_bar_is_open() -> None:
    """A live price starts a bar that is not closed until the next minute's first price."""
    bars = series(5)
    bars.update(Decimal("200.0"), HOUR_MS + 1)
    assert [bar.closed for bar in bars.last(60, 2, closed_only=False)] == [True, False]
    assert bars.last(60, 1, closed_only=True)[0].start_ms == HOUR_MS - MINUTE
    bars.update(Decimal("201.0"), HOUR_MS + MINUTE)
    assert bars.last(60, 1, closed_only=True)[0].close == Decimal("200.0")


def test_silent_minutes_are_flat() -> None:
    """Minutes without a price repeat the last close."""
    bars = series(1)
    bars.update(Decimal("150.0"), HOUR_MS + 3 * MINUTE)
    flat = bars.last(60, 4, closed_only=True)
    assert [bar.close for bar in flat] == [Decimal("100.2")] * 4


def test_history_after_prices_is_refused(venue: Venue) -> None:
    """Seeding comes first, in order."""
    with pytest.raises(ValueError, match="before the first price"):
        venue.seed_bars("BTCUSDT", [(HOUR_MS, 1.0, 1.0, 1.0, 1.0)])


@pytest.mark.parametrize(
    ("bid", "ask", "message"),
    [
        pytest.param("100.5", "100.0", "below ask", id="crossed"),
        pytest.param("100.05", "100.5", "multiples of 0.1", id="off the grid"),
    ],
)
def test_an_impossible_book_is_refused(venue: Venue, bid: str, ask: str, message: str) -> None:
    """The stage's errors are named, not traded on."""
    with pytest.raises(ValueError, match=message):
        venue.set_book("BTCUSDT", Decimal(bid), Decimal(ask), HOUR_MS + 1)


def test_the_book_scales_with_depth(venue: Venue) -> None:
    """Depth 0.5 halves the lots on a level, rounded down to the lot grid."""
    book = Book(venue.instruments["BTCUSDT"])
    book.move(Decimal("100.0"), Decimal("100.5"), HOUR_MS, 0.333)
    assert str(book.walk(1, Decimal(1), None)[0][1]) == "0.33"  # type: ignore[arg-type]

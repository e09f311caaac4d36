"""Streaming bars and ATR against two libraries."""

import math
import random
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import talib

from srm_agent.domain.market import Bar
from srm_agent.market.atr import WilderAtr
from srm_agent.market.bars import BarBuilder

START = datetime(2026, 3, 2, tzinfo=UTC)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pandas-ta-classic 0.8 calls a deprecated pandas property while it is imported
    import pandas_ta_classic


def some_bars(count: int, seed: int = 7) -> list[Bar]:
    """Bars of a random walk with gaps between them."""
    rng = random.Random(seed)
    price, bars = 1.1, []
    for i in range(count):
        first = price * (1 + rng.gauss(0, 0.0004))  # gaps between bars, so true range differs from high - low
        path = [first]
        for _ in range(20):
            path.append(path[-1] * (1 + rng.gauss(0, 0.0002)))
        price = path[-1]
        bars.append(Bar(START + timedelta(seconds=900 * i), first, max(path), min(path), price))
    return bars


def streamed(bars: list[Bar], period: int) -> list[float]:
    """Ours bar by bar, NaN while unknown."""
    atr = WilderAtr(period)
    values = [atr.update(bar.high, bar.low, bar.close) for bar in bars]
    return [math.nan if value is None else value for value in values]


@pytest.mark.parametrize("period", [2, 14, 50])
def test_atr_equals_ta_lib_from_its_first_value(period: int) -> None:
    """Ours follows TA-Lib's seeding (mean of true ranges 2..period+1), so both speak from bar period+1 on.

    The first value is the same float; later ones may differ in the last bit, where TA-Lib's compiler fused a
    multiplication with an addition (measured: 7e-16 over 500 bars).
    """
    bars = some_bars(500)
    high, low, close = (np.array([getattr(bar, name) for bar in bars]) for name in ("high", "low", "close"))
    expected = talib.ATR(high, low, close, period)
    ours = streamed(bars, period)
    assert np.isnan(expected[:period]).all()
    assert all(math.isnan(value) for value in ours[:period])
    assert ours[period] == expected[period]
    assert ours[period:] == pytest.approx(expected[period:].tolist(), rel=1e-14, abs=0.0)


def test_atr_equals_pandas_ta_classic_bar_by_bar() -> None:
    """pandas-ta-classic 0.8 seeds as TA-Lib does: equal from the same bar on, up to its pandas rounding."""
    bars = some_bars(500)
    columns = {name: pd.Series([getattr(bar, name) for bar in bars]) for name in ("high", "low", "close")}
    expected = pandas_ta_classic.atr(**columns, length=14, talib=False)
    ours = streamed(bars, 14)
    assert expected.first_valid_index() == 14
    assert ours[14:] == pytest.approx(expected[14:].tolist(), rel=1e-12)


def test_live_atr_is_the_value_if_the_bar_closed_now() -> None:
    """`live` foretells `update` at each bar and changes nothing."""
    atr = WilderAtr(5)
    for bar in some_bars(40):
        foretold = atr.live(bar.high, bar.low, bar.close)
        assert atr.live(bar.high, bar.low, bar.close) == foretold
        assert atr.update(bar.high, bar.low, bar.close) == foretold


def test_bars_from_prices_equal_bars_by_hand() -> None:
    """Open, high, low and close are the first, largest, smallest and last price of each interval."""
    rng = random.Random(3)
    builder = BarBuilder(60)
    base = START.timestamp()
    prices = [(base + second, 100 + rng.gauss(0, 1)) for second in range(0, 600, 7)]
    closed = [bar for at, mid in prices if (bar := builder.add(at, mid))]
    assert len(closed) == 9
    for number, bar in enumerate(closed):
        inside = [mid for at, mid in prices if base + 60 * number <= at < base + 60 * (number + 1)]
        assert bar == Bar(START + timedelta(seconds=60 * number), inside[0], max(inside), min(inside), inside[-1])


def test_a_gap_leaves_no_invented_bars() -> None:
    """After two empty days the next bar follows the last real one, and its true range holds the gap."""
    builder, atr = BarBuilder(60), WilderAtr(1)
    base = START.timestamp()
    assert builder.add(base, 100.0) is None
    bar = builder.add(base + 172800.0, 110.0)
    assert bar == Bar(START, 100.0, 100.0, 100.0, 100.0)
    atr.update(bar.high, bar.low, bar.close)
    assert builder.add(base + 172801.0, 111.0) is None
    assert atr.live(builder.high, builder.low, builder.close) == 11.0


def test_history_and_stream_join_without_a_seam() -> None:
    """Seeding with closed bars and going on live gives the ATR of the whole series, the running bar included."""
    bars = some_bars(60)
    whole = streamed(bars, 14)
    for split in (1, 20, 45):
        builder, atr = BarBuilder(900), WilderAtr(14)
        for bar in builder.seed(bars[:split]):
            atr.update(bar.high, bar.low, bar.close)
        for bar in bars[split:]:
            at = bar.start.timestamp()
            for offset, price in enumerate((bar.open, bar.high, bar.low, bar.close)):
                closed = builder.add(at + 200.0 * offset, price)
                if closed is not None:
                    atr.update(closed.high, closed.low, closed.close)
        assert atr.live(builder.high, builder.low, builder.close) == whole[-1]


def test_a_running_bar_in_the_history_is_continued() -> None:
    """When the broker's last bar is still running, live prices extend it instead of doubling it."""
    builder = BarBuilder(900)
    bar = some_bars(1)[0]
    assert list(builder.seed([bar])) == []
    assert builder.add(bar.start.timestamp() + 300.0, bar.high + 1.0) is None
    closed = builder.add(bar.start.timestamp() + 900.0, bar.close)
    assert closed == Bar(bar.start, bar.open, bar.high + 1.0, bar.low, bar.high + 1.0)


def test_an_old_price_counts_into_the_forming_bar() -> None:
    """A price older than the forming bar never reopens a closed one."""
    builder = BarBuilder(60)
    base = START.timestamp()
    builder.add(base, 100.0)
    assert builder.add(base + 60, 101.0) is not None
    assert builder.add(base + 59, 99.0) is None
    assert builder.low == 99.0


@pytest.mark.parametrize("make", [lambda: WilderAtr(0), lambda: BarBuilder(0)])
def test_nonsense_settings_are_refused(make: object) -> None:
    """A period or timeframe of zero is refused with its value."""
    assert callable(make)
    with pytest.raises(ValueError, match="was 0"):
        make()

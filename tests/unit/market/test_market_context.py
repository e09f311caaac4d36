"""A symbol's market as a whole."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import perf_counter

from srm_agent.domain.ids import Symbol
from srm_agent.domain.market import Bar, Quote, TradingSession
from srm_agent.market.atr import WilderAtr
from srm_agent.market.context import SymbolMarket
from srm_agent.market.hygiene import Dropped, DropReason

START = datetime(2026, 3, 4, 12, tzinfo=UTC)
EURUSD = Symbol("EURUSD")


def quotes(count: int, step_s: float = 1.0, seed: int = 1) -> list[Quote]:
    """A walk of a few points with a spread of about 8 points."""
    rng = random.Random(seed)
    points, result = 110_000, []
    for i in range(count):
        points += rng.choice((-2, -1, 0, 1, 2))
        result.append(
            Quote(
                symbol=EURUSD,
                bid=Decimal(points) / 100_000,
                ask=Decimal(points + rng.choice((6, 8, 10))) / 100_000,
                at=START + timedelta(seconds=step_s * i),
                received=float(i),
            )
        )
    return result


def history(count: int, timeframe_s: int) -> list[Bar]:
    """Closed bars that end at START."""
    rng = random.Random(9)
    return [
        Bar(
            START - timedelta(seconds=timeframe_s * (count - i)),
            1.1,
            1.1002 + rng.random() / 5000,
            1.0998 - rng.random() / 5000,
            1.1001,
        )
        for i in range(count)
    ]


def test_nothing_is_known_before_the_first_quote() -> None:
    """Without a quote there is no context, even after seeding, and the symbol is stale."""
    market = SymbolMarket(EURUSD)
    market.seed(history(50, 900), history(1000, 60))
    assert market.context() is None
    assert market.last_quote is None
    assert market.stale(0.0)


def test_a_seeded_market_knows_everything_with_its_first_quotes() -> None:
    """After history and a minute of quotes every field of the context is known."""
    market = SymbolMarket(EURUSD)
    market.seed(history(50, 900), history(1000, 60))
    for quote in quotes(90):
        assert market.on_quote(quote) is quote
    context = market.context()
    assert context is not None
    assert context.session is TradingSession.LONDON
    assert context.iso_weekday == 3
    assert context.spread_median in (Decimal("0.00006"), Decimal("0.00008"), Decimal("0.00010"))
    assert context.atr is not None
    assert Decimal("0.0004") < context.atr < Decimal("0.0008")
    assert context.volatility_index is not None
    assert Decimal(0) <= context.volatility_index <= Decimal(100)
    assert context.volatility_per_root_second is not None
    assert not market.stale(90.0)


def test_an_unseeded_market_says_unknown_instead_of_a_default() -> None:
    """Without history ATR, index, pace and median spread are unknown, not 0 or 50."""
    market = SymbolMarket(EURUSD)
    market.on_quote(quotes(1)[0])
    context = market.context()
    assert context is not None
    unknown = (context.atr, context.volatility_index, context.volatility_per_root_second, context.spread_median)
    assert unknown == (None, None, None, None)


def test_a_bad_quote_leaves_the_context_untouched() -> None:
    """A dropped quote moves neither ATR nor anything else (B24)."""
    market = SymbolMarket(EURUSD)
    market.seed(history(50, 900), history(1000, 60))
    stream = quotes(90)
    for quote in stream:
        market.on_quote(quote)
    before = market.context()
    absurd = Quote(
        symbol=EURUSD, bid=Decimal(110), ask=Decimal("110.01"), at=stream[-1].at + timedelta(seconds=1), received=91.0
    )
    assert market.on_quote(absurd) == Dropped(DropReason.ABSURD)
    assert market.context() == before
    assert market.dropped[DropReason.ABSURD] == 1
    assert market.last_quote is stream[-1]


def test_streamed_atr_equals_the_batch_over_the_same_quotes() -> None:
    """ATR of the market = Wilder's ATR over the bars a batch job would make of the same mids, the running bar live."""
    market = SymbolMarket(EURUSD, atr_period=5, atr_timeframe_s=60)
    stream = quotes(1500)
    for quote in stream:
        market.on_quote(quote)
    bars: dict[int, list[float]] = {}
    for quote in stream:
        bars.setdefault(int(quote.at.timestamp()) // 60, []).append((float(quote.bid) + float(quote.ask)) * 0.5)
    batch = WilderAtr(5)
    for prices in bars.values():
        batch.update(max(prices), min(prices), prices[-1])
    context = market.context()
    assert context is not None
    assert context.atr is not None
    assert batch.value is not None
    assert abs(float(context.atr) - batch.value) < 1e-10


def test_median_spread_is_of_the_last_twenty_minutes() -> None:
    """Spreads older than twenty minutes of market time no longer count."""
    market = SymbolMarket(EURUSD)
    for i in range(400):
        wide = i < 100
        market.on_quote(
            Quote(
                symbol=EURUSD,
                bid=Decimal("1.1"),
                ask=Decimal("1.1") + (Decimal("0.0009") if wide else Decimal("0.0001")) + Decimal(i) / 10**9,
                at=START + timedelta(seconds=5 * i),
                received=float(i),
            )
        )
    context = market.context()
    assert context is not None
    assert context.spread_median is not None
    assert Decimal("0.0001") < context.spread_median < Decimal("0.00011")


def test_seeding_again_recovers_a_symbol_whose_price_was_lost() -> None:
    """After a contract change all quotes are absurd until fresh history anchors them."""
    market = SymbolMarket(EURUSD)
    market.on_quote(quotes(1)[0])
    later = Quote(
        symbol=EURUSD, bid=Decimal(11), ask=Decimal("11.001"), at=START + timedelta(seconds=60), received=60.0
    )
    assert market.on_quote(later) == Dropped(DropReason.ABSURD)
    market.seed([], [Bar(START, 11.0, 11.1, 10.9, 11.0)])
    assert market.context() is None
    assert market.on_quote(later) is later


def test_a_quote_costs_a_few_microseconds() -> None:
    """The whole on_quote costs as much as some dozens of Decimal additions in the same run (goal 6)."""
    stream = quotes(6000, step_s=0.25)
    rounds = [(_timed(stream), _addition()) for _ in range(5)]
    ratio = min(quote for quote, _ in rounds) / min(addition for _, addition in rounds)
    assert ratio < 120, f"{ratio:.0f} additions"


def _addition() -> float:
    one, total = Decimal("1.10001"), Decimal(0)
    started = perf_counter()
    for _ in range(20_000):
        total += one
    return (perf_counter() - started) / 20_000


def _timed(stream: list[Quote]) -> float:
    market = SymbolMarket(EURUSD)
    started = perf_counter()
    for quote in stream:
        market.on_quote(quote)
    return (perf_counter() - started) / len(stream)

"""What a feed does wrong, as its reader meets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from simulator.feed_mischief import BadQuote
from simulator.inprocess import InProcessFeed
from simulator.venue import Venue
from srm_agent.domain.events import StreamDown
from srm_agent.domain.market import Quote
from srm_agent.errors import BrokerUnreachable
from srm_agent.market.hygiene import Dropped, DropReason, QuoteGate
from tests.unit.simulator.faults.conftest import BTC, D, Ear, listen, move, now


@pytest.fixture
async def reader(quotes: InProcessFeed, shop: Venue) -> AsyncIterator[Ear]:
    """Somebody who listens, and a market that moves every half second."""
    ear = Ear()

    async def market() -> None:
        while True:
            await asyncio.sleep(0.5)
            move(shop, f"100.{shop.market_ms // 500 % 5}", after_ms=500)

    tasks = [asyncio.create_task(listen(quotes.events([BTC]), ear)), asyncio.create_task(market())]
    await asyncio.sleep(0.01)
    yield ear
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


DROPS = {
    BadQuote.CROSSED: DropReason.CROSSED,
    BadQuote.LOCKED: DropReason.LOCKED,
    BadQuote.ZERO: DropReason.NOT_POSITIVE,
    BadQuote.NEGATIVE: DropReason.NOT_POSITIVE,
    BadQuote.NAN: DropReason.NOT_FINITE,
    BadQuote.INFINITE: DropReason.NOT_FINITE,
    BadQuote.HUGE: DropReason.ABSURD,
    BadQuote.SWAPPED: DropReason.CROSSED,
    BadQuote.SHIFTED: DropReason.ABSURD,
    BadQuote.DUPLICATE: DropReason.DUPLICATE,
    BadQuote.OUT_OF_ORDER: DropReason.OUT_OF_ORDER,
}


@pytest.mark.parametrize("how", BadQuote)
async def test_each_bad_quote_is_what_it_is_called(quotes: InProcessFeed, reader: Ear, how: BadQuote) -> None:
    """The agent's own gate drops it for the reason of its name, once; the quotes around it are good (B24, B25)."""
    await asyncio.sleep(2)
    quotes.mischief.spoil(how, BTC)
    honest = [quotes.mischief.honest]
    await asyncio.sleep(2)
    assert [*honest, quotes.mischief.honest] == [False, True]
    gate = QuoteGate()
    verdicts = [gate.check(quote) for quote in reader.of(Quote)]
    assert [verdict.reason for verdict in verdicts if isinstance(verdict, Dropped)] == [DROPS[how]]


async def test_a_read_quote_may_be_bad_too(quotes: InProcessFeed) -> None:
    """The stream is not the only way in."""
    quotes.mischief.spoil(BadQuote.SHIFTED)
    assert (await quotes.quote(BTC)).bid == 10_000
    assert (await quotes.quote(BTC)).bid == 100


async def test_a_silent_feed_says_nothing_at_all(quotes: InProcessFeed, reader: Ear) -> None:
    """No quote and no break for 20 s, then quotes as if nothing had been (B23, F20)."""
    await asyncio.sleep(1.2)
    quotes.mischief.mute(20)
    await asyncio.sleep(30)
    gaps = [later - earlier for earlier, later in zip(reader.at(Quote), reader.at(Quote)[1:], strict=False)]
    assert 20 <= max(gaps) <= 21
    assert reader.of(StreamDown) == []


async def test_a_long_silence_ends_the_subscription(quotes: InProcessFeed, reader: Ear) -> None:
    """After 30 s without a quote the client subscribes again; quotes come when there are any."""
    quotes.mischief.mute(50)
    await asyncio.sleep(60)
    (broken,) = reader.at(StreamDown)
    assert 30 <= broken <= 31
    assert 50 <= min(at for at in reader.at(Quote) if at > broken) <= 51


async def test_frozen_quotes_go_on_coming(quotes: InProcessFeed, reader: Ear) -> None:
    """Twenty quotes with one price and one stamp; then the market is where it is (B23, F18)."""
    await asyncio.sleep(0.7)
    quotes.mischief.freeze(BTC, 10)
    await asyncio.sleep(14.3)
    frozen = [quote for at, quote in reader.heard if 1.0 < at < 10.5]
    assert len(frozen) >= 18
    assert len({(quote.bid, quote.at) for quote in frozen if isinstance(quote, Quote)}) == 1
    assert len({quote.at for at, quote in reader.heard if at > 11 and isinstance(quote, Quote)}) > 5


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0])
async def test_server_time_may_jump(quotes: InProcessFeed, shop: Venue, offset_s: float) -> None:
    """Stamps are an hour off for a while, prices are right (B25)."""
    true = await quotes.quote(BTC)
    quotes.mischief.jump_time(offset_s, 5)
    wrong = await quotes.quote(BTC)
    assert (wrong.at - true.at, wrong.bid) == (timedelta(seconds=offset_s), true.bid)
    await asyncio.sleep(5)
    assert (await quotes.quote(BTC)).at == true.at


async def test_a_symbol_may_settle_in_money_that_nobody_converts(quotes: InProcessFeed) -> None:
    """The instrument tells another currency for a while (B30)."""
    quotes.mischief.hide_conversion(BTC, "XTS", 5)
    assert (await quotes.instrument(BTC)).settle_currency == "XTS"
    await asyncio.sleep(5)
    assert (await quotes.instrument(BTC)).settle_currency == "USDT"


async def test_a_partition_stops_reads_and_quotes(quotes: InProcessFeed, reader: Ear) -> None:
    """Reads fail after the time-out; the stream breaks after 5 s and comes back with the line (B22)."""
    await asyncio.sleep(1)
    quotes.network.cut(12)
    began = now()
    for read in (quotes.quote(BTC), quotes.bars(BTC, 60, 5)):
        with pytest.raises(BrokerUnreachable, match="no answer"):
            await read
    assert now() - began == 10
    await asyncio.sleep(5)
    assert [round(at) for at in reader.at(StreamDown)] == [6]
    back = [at for at in reader.at(Quote) if at > 2]
    assert 13 <= back[0] <= 13.5


async def test_a_short_partition_breaks_nothing(quotes: InProcessFeed, reader: Ear) -> None:
    """Three seconds without a frame are within the client's patience."""
    quotes.network.cut(3)
    await asyncio.sleep(6)
    assert reader.of(StreamDown) == []
    assert max(reader.at(Quote)) > 5


async def test_a_refused_connection_fails_at_once(quotes: InProcessFeed) -> None:
    """No DNS: nothing to wait for; open fails as well."""
    quotes.network.cut(3, refused=True)
    for read in (quotes.quote(BTC), quotes.open()):
        with pytest.raises(BrokerUnreachable, match="NO_CONNECTION"):
            await read
    assert now() == 0


async def test_calm_ends_all_trouble_of_a_feed(quotes: InProcessFeed) -> None:
    """After `calm` and `restore` the feed tells the truth."""
    quotes.mischief.spoil(BadQuote.NAN, count=9)
    quotes.mischief.mute(1e9)
    quotes.mischief.freeze(BTC, 1e9)
    quotes.mischief.jump_time(3600, 1e9)
    quotes.mischief.hide_conversion(BTC, "XTS", 1e9)
    quotes.network.cut()
    quotes.mischief.calm()
    quotes.network.restore()
    assert quotes.mischief.honest
    assert (await quotes.quote(BTC)).bid == D("100.0")
    assert (await quotes.instrument(BTC)).settle_currency == "USDT"


async def test_a_killed_reader_of_quotes_leaves_nothing_behind(quotes: InProcessFeed, shop: Venue) -> None:
    """A process that dies while it handles a quote is no listener any more."""
    stuck = asyncio.Event()

    async def read() -> None:
        async for _ in quotes.events([BTC]):
            stuck.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await stuck.wait()
    task.cancel()
    await asyncio.wait([task])
    move(shop, "101.0")
    assert not shop._listeners

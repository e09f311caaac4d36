"""The stream pitfalls of brokers.md A.3, each reproduced against the real wire server and survived by the adapter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from adapters.ccxt_venue.broker import CcxtBroker
from adapters.ccxt_venue.budget import RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.feed import CcxtFeed
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from adapters.ccxt_venue.streams import backoff
from adapters.ccxt_venue.unified import UnifiedReads
from simulator.bybit_server import BybitServer
from simulator.faults import Faults
from simulator.latency import LatencyModel
from simulator.records import OrderTicket, TimeInForce
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.clock import SystemClock
from srm_agent.domain.events import AccountEvent, FeedEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.ids import ClientOrderId, ConnectionId, Symbol
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill, OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, ConfigurationError, NotAuthorised

BTC, ETH = Symbol("BTC/USDT:USDT"), Symbol("ETH/USDT:USDT")
START_MS = 1_767_610_800_000


def an_instrument(base: str) -> SimInstrument:
    """A deep book, one lot grid."""
    return SimInstrument(
        symbol_id=f"{base}USDT", base=base, tick_size=Decimal("0.1"), lot_step=Decimal("0.001"),
        lot_min=Decimal("0.001"), lot_max=Decimal(100), max_market_lot=Decimal(50), level_lots=Decimal(2),
    )  # fmt: skip


@dataclass(slots=True)
class Ears:
    """Everything heard, and a way to wait for something new."""

    heard: list[AccountEvent | FeedEvent] = field(default_factory=list)
    position: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, event: AccountEvent | FeedEvent) -> None:
        """Keep an event."""
        self.heard.append(event)
        self.news.set()

    async def until(self, condition: Callable[[object], bool], within_s: float = 8.0) -> object:
        """The next event that fulfils the condition."""
        async with asyncio.timeout(within_s):
            while True:
                while self.position < len(self.heard):
                    self.position += 1
                    if condition(self.heard[self.position - 1]):
                        return self.heard[self.position - 1]
                self.news.clear()
                await self.news.wait()

    def fills(self) -> set[str]:
        """Ids of all fills heard, in Resyncs too."""
        ids: set[str] = set()
        for event in self.heard:
            match event:
                case Fill():
                    ids.add(event.fill_id)
                case Resync():
                    ids |= {fill.fill_id for fill in event.fills}
                case _:
                    pass
        return ids


@dataclass(slots=True)
class World:
    """A server, the adapter connected to it, and what both streams say."""

    venue: Venue
    server: BybitServer
    faults: Faults
    settings: CcxtVenueSettings
    feed: CcxtFeed
    broker: CcxtBroker
    clock: SystemClock
    account: Ears = field(default_factory=Ears)
    quotes: Ears = field(default_factory=Ears)

    def move(self, bid: str, symbol_id: str = "BTCUSDT") -> None:
        """The market moves a second later."""
        price = Decimal(bid)
        self.venue.set_book(symbol_id, price, price + Decimal("0.5"), self.venue.market_ms + 1000)

    async def buy(self, client_id: str, lot: str = "0.001") -> OrderReport:
        """A market entry without stop."""
        intent = OrderIntent(
            client_id=ClientOrderId(client_id),
            connection_id=ConnectionId("c01"),
            leg_id=None,
            signal_id=None,
            decision_id=None,
            purpose=OrderPurpose.ENTRY,
            symbol=BTC,
            side=Side.BUY,
            lot=Decimal(lot),
            limit_price=None,
            stop_loss=None,
            take_profit=None,
            reduce=None,
            reason="",
            created_at=datetime(2026, 1, 5, tzinfo=UTC),
            deadline=self.clock.monotonic() + 5.0,
        )
        return await self.broker.submit(intent)

    def direct(self) -> None:
        """Somebody else trades on the account."""
        ticket = OrderTicket(
            symbol_id="BTCUSDT",
            side=Side.BUY,
            lots=Decimal("0.001"),
            price=None,
            time_in_force=TimeInForce.IOC,
            link_id="",
            reduce_only=False,
            stop_loss=None,
            take_profit=None,
        )
        self.venue.place("c01", ticket)


def is_a(kind: type[object]) -> Callable[[object], bool]:
    """A condition for `until`."""
    return lambda event: isinstance(event, kind)


@asynccontextmanager
async def a_world(**changes: float) -> AsyncIterator[World]:
    """Server and adapter; nobody listens yet."""
    clock, faults = SystemClock(), Faults()
    accounts = [
        SimAccount(account_id="c01", api_key="key-1", secret="secret-1", balance=Decimal(100_000)),
        SimAccount(account_id="c02", api_key="key-2", secret="secret-2", balance=Decimal(1), read_only=True),
        SimAccount(account_id="c03", api_key="key-3", secret="secret-3", balance=Decimal(1), may_withdraw=True),
    ]
    venue = Venue([an_instrument("BTC"), an_instrument("ETH")], accounts, random.Random(1))
    venue.set_book("BTCUSDT", Decimal(60000), Decimal("60000.5"), START_MS)
    venue.set_book("ETHUSDT", Decimal(3000), Decimal("3000.5"), START_MS)
    server = BybitServer(
        venue, clock=clock, rng=random.Random(1), latency=LatencyModel.none(), faults=faults, rate_limit_per_s=10_000
    )
    await server.start()
    values: dict[str, float] = {
        "request_timeout_s": 0.5, "keep_alive_s": 0.3, "stale_s": 1.0, "backoff_first_s": 0.02,
        "requests_per_s": 5000.0, **changes,
    }  # fmt: skip
    settings = CcxtVenueSettings(
        environment="url", base_url=server.url, ws_url=server.ws_url, request_burst=1000, **values  # type: ignore[arg-type]
    )  # fmt: skip
    feed = CcxtFeed(settings, clock, random.Random(2))
    broker = an_account(settings, feed, clock, "1")
    await feed.open()
    await broker.open()
    try:
        yield World(venue, server, faults, settings, feed, broker, clock)
    finally:
        await broker.close()
        await feed.close()
        await server.stop()


def an_account(settings: CcxtVenueSettings, feed: CcxtFeed, clock: SystemClock, number: str) -> CcxtBroker:
    """The adapter on one of the venue's accounts."""
    credentials = CcxtCredentials(api_key=f"key-{number}", secret=f"secret-{number}")
    return CcxtBroker(settings, credentials, ConnectionId(f"c0{number}"), feed, clock, random.Random(3))


@asynccontextmanager
async def listening(world: World) -> AsyncIterator[World]:
    """Both streams are heard; the account is synchronised and every symbol has its quote."""

    async def account() -> None:
        async for event in world.broker.events():
            world.account.hear(event)

    async def quotes() -> None:
        async for event in world.feed.events([BTC, ETH]):
            world.quotes.hear(event)

    tasks = [asyncio.create_task(account()), asyncio.create_task(quotes())]
    try:
        await world.account.until(is_a(Resync))
        await world.quotes.until(lambda event: isinstance(event, Quote) and event.symbol == ETH)
        yield world
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            # None: the stream was closed and ended the loop.
            assert result is None or isinstance(result, asyncio.CancelledError)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A connected world."""
    async with a_world() as built, listening(built) as connected:
        yield connected


async def test_no_update_is_stranded(world: World) -> None:
    """A.3-1: of hundreds of fills in bursts and pauses, every one is heard without another message to push it."""
    for burst in range(20):
        for _ in range(15):
            world.direct()
        await asyncio.sleep(0.001 * (burst % 4))
    expected = {item.exec_id for item in world.venue.executions("c01")}
    assert len(expected) >= 300
    async with asyncio.timeout(5):
        while world.account.fills() != expected:
            await asyncio.sleep(0.01)
    assert not any(isinstance(event, StreamDown) for event in world.account.heard)


async def test_last_position_of_a_burst_is_told(world: World) -> None:
    """A.3-1, 8: the library gives the rows of one message only; the newest size arrives all the same."""
    for _ in range(40):
        world.direct()
    await world.account.until(lambda event: isinstance(event, BrokerPosition) and event.lot == Decimal("0.040"), 3)


async def test_latest_quote_of_every_symbol_is_told(world: World) -> None:
    """A.3-1: when two symbols move in one burst, neither waits for the other's next message."""
    for index in range(50):
        world.move(str(60000 + index))
        world.move(str(3000 + index), "ETHUSDT")
    async with asyncio.timeout(3):
        while not {60049, 3049} <= {event.bid for event in world.quotes.heard if isinstance(event, Quote)}:
            await asyncio.sleep(0.01)


async def test_slow_reader_gets_the_newest_quote_only() -> None:
    """The quote queue is bounded: a reader that slept sees the latest, not the backlog."""
    async with a_world() as world, aclosing(world.feed.events([BTC])) as events:
        assert isinstance(await anext(events), Quote)
        for index in range(200):
            world.move(str(60000 + index))
        await asyncio.sleep(0.3)
        newest = await anext(events)
        assert isinstance(newest, Quote)
        assert newest.bid == 60199


async def test_position_of_the_gap_is_in_the_resync(world: World) -> None:
    """A.3-2: a position opened while the socket was down is not lost with ccxt's stale cache."""
    world.server.drop_streams(private=True, public=False)
    world.direct()
    await world.account.until(is_a(StreamDown))
    picture = await world.account.until(is_a(Resync))
    assert isinstance(picture, Resync)
    assert [position.lot for position in picture.positions] == [Decimal("0.001")]
    assert len(picture.fills) == 1
    world.direct()
    await world.account.until(is_a(Fill), 2)


async def test_nothing_between_resync_and_stream_is_lost(world: World) -> None:
    """Trades during the reconnection itself are in the Resync or follow it, over several breaks."""
    for _ in range(5):
        world.server.drop_streams(private=True, public=False)
        for _ in range(8):
            world.direct()
            await asyncio.sleep(0.01)
        await world.account.until(is_a(Resync))
    expected = {item.exec_id for item in world.venue.executions("c01")}
    async with asyncio.timeout(5):
        while world.account.fills() != expected:
            await asyncio.sleep(0.01)


async def test_order_between_down_and_resync() -> None:
    """What is told between a StreamDown and its Resync is nothing but further StreamDowns."""
    async with a_world() as built, listening(built) as world:
        world.faults.add("v5/execution/list", "http502_before", times=2)
        world.server.drop_streams(private=True, public=False)
        for _ in range(10):
            world.direct()
            await asyncio.sleep(0.01)
        await world.account.until(is_a(Resync))
        heard = world.account.heard
        down = next(index for index, event in enumerate(heard) if isinstance(event, StreamDown))
        back = next(index for index, event in enumerate(heard) if index > down and isinstance(event, Resync))
        assert {type(event) for event in heard[down:back]} == {StreamDown}


async def test_reconnection_has_a_growing_pause() -> None:
    """A.3-3: against a closed port there are a handful of attempts a second, not a thousand."""
    async with a_world(backoff_first_s=0.1) as built, listening(built) as world:
        await world.server.stop()
        await asyncio.sleep(1.5)
        downs = [event for event in world.account.heard if isinstance(event, StreamDown)]
        assert 1 <= len(downs) <= 8
        await world.server.start(port=world.server.port)
        await world.account.until(is_a(Resync))
        await world.quotes.until(lambda event: isinstance(event, Quote), 6)


def test_pauses_double_up_to_the_cap_with_jitter() -> None:
    """The pause grows from the first to the cap; a random half of it spreads the crowd."""
    settings = CcxtVenueSettings(environment="live", backoff_first_s=0.2, backoff_cap_s=10.0)
    for attempt, longest in enumerate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]):
        pauses = {backoff(attempt, settings, random.Random(seed)) for seed in range(50)}
        assert longest / 2 <= min(pauses)
        assert max(pauses) <= longest
        assert len(pauses) > 40
    assert backoff(10**6, settings, random.Random(1)) <= 10.0


@pytest.mark.parametrize("stream", ["ws:private", "ws:public"])
async def test_refused_subscription_is_tried_again(stream: str) -> None:
    """A.3-4: a refusal ends the try at once instead of hanging for ever."""
    async with a_world() as world:
        world.faults.add(stream, "refuse_subscription")
        async with listening(world):
            ears = world.account if stream == "ws:private" else world.quotes
            assert any(isinstance(event, StreamDown) for event in ears.heard)
            world.direct()
            await world.account.until(is_a(Fill))


@pytest.mark.parametrize("stream", ["ws:private", "ws:public"])
async def test_refused_connection_is_tried_again(stream: str) -> None:
    """A venue in maintenance is asked again until it is back."""
    async with a_world() as world:
        world.faults.add(stream, "refuse_connection")
        world.faults.add(stream, "refuse_connection")
        async with listening(world):
            world.direct()
            await world.account.until(is_a(Fill))


async def test_malformed_private_frame_is_survived(world: World) -> None:
    """A.3-5: one bad frame kills ccxt's receive loop in silence; the watchdog starts anew and nothing is missing."""
    world.faults.add("ws:private", "bad_frame")
    world.direct()
    await world.account.until(is_a(StreamDown), 4)
    await world.account.until(is_a(Resync))
    world.direct()
    await world.account.until(is_a(Fill))
    assert world.account.fills() == {item.exec_id for item in world.venue.executions("c01")}


async def test_malformed_quote_frame_is_survived(world: World) -> None:
    """A.3-5 for quotes: after one bad frame the prices flow again."""
    world.faults.add("ws:public", "bad_frame")
    world.move("60001")
    await world.quotes.until(is_a(StreamDown), 4)
    world.move("60002")
    await world.quotes.until(lambda event: isinstance(event, Quote) and event.bid == 60002)


@pytest.mark.parametrize("stream", ["ws:private", "ws:public"])
async def test_mute_server_is_noticed(world: World, stream: str) -> None:
    """A half-dead peer (open socket, no frames, no pongs) is dropped after `stale_s`, not after minutes."""
    ears = world.account if stream == "ws:private" else world.quotes
    began = world.clock.monotonic()
    world.faults.add(stream, "mute")
    await ears.until(is_a(StreamDown), 4)
    assert world.clock.monotonic() - began < 2.5
    world.faults.clear()
    await ears.until(is_a(Resync if stream == "ws:private" else Quote))


async def test_silent_publisher_is_noticed() -> None:
    """Pongs without a single quote are not life: the feed subscribes again."""
    async with a_world(quote_silence_s=0.6) as built, listening(built) as world:
        down = await world.quotes.until(is_a(StreamDown), 3)
        assert isinstance(down, StreamDown)
        assert "no quote" in down.reason
        await world.quotes.until(is_a(Quote))


async def test_failed_snapshot_is_read_again(world: World) -> None:
    """A.3-6: the picture after a break is retried until it is whole; the watch loops never wait for it."""
    for path in ("v5/position/list", "v5/order/realtime", "v5/account/wallet-balance"):
        world.faults.add(path, "http502_before", times=2)
    world.server.drop_streams(private=True, public=False)
    await world.account.until(is_a(StreamDown))
    picture = await world.account.until(is_a(Resync))
    assert isinstance(picture, Resync)


async def test_orders_are_accounted_by_executions(world: World) -> None:
    """A.3-8: order states may be coalesced; every execution of an order that walks the book is kept."""
    await world.buy("srm1walk", "15")
    await world.account.until(lambda event: isinstance(event, OrderReport) and event.client_id == "srm1walk")
    async with asyncio.timeout(3):
        while world.account.fills() != {item.exec_id for item in world.venue.executions("c01")}:
            await asyncio.sleep(0.01)


async def test_one_reader_at_a_time(world: World) -> None:
    """A.3-7: a second reader would take the first one's messages, so it is refused."""
    with pytest.raises(RuntimeError, match="reader"):
        await anext(aiter(world.feed.events([BTC])))


async def test_best_bid_is_best_while_the_book_moves(world: World) -> None:
    """A.3-9: the bid that arrives is the highest, the ask the lowest, at every move."""
    for index in range(30):
        world.move(str(60000 + (index * 7) % 11))
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.1)
    quotes = [event for event in world.quotes.heard if isinstance(event, Quote) and event.symbol == BTC]
    assert len(quotes) > 5
    assert {quote.ask - quote.bid for quote in quotes} == {Decimal("0.5")}


async def test_heartbeats_of_an_idle_account_are_honest(world: World) -> None:
    """An idle account is as fresh as its last pong, never fresher than now."""
    for _ in range(3):
        beat = await world.account.until(is_a(Heartbeat), 2)
        assert isinstance(beat, Heartbeat)
        assert 0.0 <= world.clock.monotonic() - beat.received < 1.0


async def test_read_only_key_may_not_trade() -> None:
    """A key without trading right is recognised at start and never sends an order."""
    async with a_world() as world:
        reader = an_account(world.settings, world.feed, world.clock, "2")
        await reader.open()
        assert reader.capabilities.read_only
        assert (await reader.account()).balance == 1
        world.broker, keep = reader, world.broker
        with pytest.raises(NotAuthorised):
            await world.buy("srm1no")
        world.broker = keep
        await reader.close()


async def test_key_that_may_withdraw_is_refused() -> None:
    """A key that could take money away is a configuration error that names the remedy."""
    async with a_world() as world:
        with pytest.raises(ConfigurationError, match="without that permission"):
            await an_account(world.settings, world.feed, world.clock, "3").open()


async def test_wrong_secret_is_not_authorised() -> None:
    """A bad signature halts the connection instead of being retried."""
    async with a_world() as world:
        credentials = CcxtCredentials(api_key="key-1", secret="wrong")
        broker = CcxtBroker(world.settings, credentials, ConnectionId("c01"), world.feed, world.clock, random.Random(3))
        with pytest.raises(NotAuthorised):
            await broker.open()


async def test_order_of_somebody_else_can_be_found_and_cancelled() -> None:
    """A working order without our id is named by the venue's, and withdrawn by that name (a flat account has none)."""
    async with a_world() as world:
        ticket = OrderTicket(
            symbol_id="BTCUSDT",
            side=Side.BUY,
            lots=Decimal("0.001"),
            price=Decimal(50000),
            time_in_force=TimeInForce.GTC,
            link_id="",
            reduce_only=False,
            stop_loss=None,
            take_profit=None,
        )
        order = world.venue.place("c01", ticket)
        (working,) = await world.broker.open_orders()
        assert (working.client_id, working.symbol) == (order.order_id, BTC)
        gone = await world.broker.cancel(working.client_id, BTC)
        assert (gone.outcome, gone.code) == (Outcome.REJECTED, "CANCELLED")
        assert await world.broker.open_orders() == []


async def test_close_ends_the_readers(world: World) -> None:
    """Closing account and feed ends their event loops and opens no socket again."""
    await world.broker.close()
    await world.feed.close()
    with pytest.raises(BrokerUnreachable):
        await world.broker.positions()
    await asyncio.sleep(0.1)
    assert [task.get_name() for task in asyncio.all_tasks() if "bybit" in task.get_name()] == []


async def test_contract_terms_are_read_again() -> None:
    """A symbol that the venue suspends stops being tradable here, without a restart."""
    async with a_world(terms_refresh_s=0.05) as built, listening(built) as world:
        assert (await world.feed.instrument(BTC)).tradable
        world.venue.suspend("BTCUSDT", True)
        async with asyncio.timeout(3):
            while (await world.feed.instrument(BTC)).tradable:
                await asyncio.sleep(0.02)


async def test_any_other_class_may_only_be_read() -> None:
    """The unified reads give account, positions, orders and fills of a venue that may not be traded on."""
    async with a_world() as world:
        await world.buy("srm1a", "0.5")
        client = VenueClient(world.settings, CcxtCredentials(api_key="key-1", secret="secret-1"))
        client.share_markets(world.feed.client)
        budget = RequestBudget(rate=1000.0, burst=100, reserve=0, clock=world.clock)
        reads = UnifiedReads(client, budget, world.clock, "USDT")
        try:
            account = await reads.account()
            (position,) = await reads.positions()
            (fill,) = await reads.fills(datetime(2026, 1, 5, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
            assert await reads.open_orders() == []
            with pytest.raises(NotAuthorised):
                await reads.lookup(ClientOrderId("srm1a"), BTC, "BTCUSDT")
            world.faults.add("v5/position/list", "http502_before")
            with pytest.raises(BrokerUnreachable):
                await reads.positions()
        finally:
            await client.close()
        assert (account.currency, account.equity) == ("USDT", None)
        exact = (await world.broker.positions())[0]
        assert (position.side, position.lot, position.entry_price) == (Side.BUY, exact.lot, exact.entry_price)
        assert (fill.lot, fill.price) == (Decimal("0.5"), Decimal("60000.5"))

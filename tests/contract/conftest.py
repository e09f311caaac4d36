"""The rigs on which the contract suite of the broker port runs: the ccxt adapter over sockets, and in process.

A new venue joins by one more entry in `RIGS`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from adapters.ccxt_venue.broker import CcxtBroker
from adapters.ccxt_venue.feed import CcxtFeed
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from simulator.bybit_server import BybitServer
from simulator.faults import Faults
from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.latency import LatencyModel
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.clock import Clock, SystemClock
from srm_agent.domain.events import AccountEvent
from srm_agent.domain.ids import ClientOrderId, ConnectionId, PositionRef, Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.ports import Broker, MarketFeed

BTC, EUR = Symbol("BTC/USDT:USDT"), Symbol("EUR/USDT:USDT")
START_MS = 1_767_610_800_000
CLASSES = {BTC: AssetClass.CRYPTO, EUR: AssetClass.FX}


def build_venue() -> Venue:
    """BTC at 60000.0 / 60000.5 with 0.5 lots a level, levels 0.5 apart; EUR beside it; 10,000 USDT on `c01`."""
    btc = SimInstrument(
        symbol_id="BTCUSDT", base="BTC", tick_size=Decimal("0.1"), lot_step=Decimal("0.001"),
        lot_min=Decimal("0.001"), lot_max=Decimal(100), max_market_lot=Decimal(50), level_lots=Decimal("0.5"),
        level_ticks=5,
    )  # fmt: skip
    eur = SimInstrument(
        symbol_id="EURUSDT", base="EUR", tick_size=Decimal("0.00001"), lot_step=Decimal(10), lot_min=Decimal(10),
        lot_max=Decimal(1_000_000), max_market_lot=Decimal(500_000), level_lots=Decimal(50_000),
    )  # fmt: skip
    accounts = [
        SimAccount(account_id="c01", api_key="key-1", secret="secret-1", balance=Decimal(10_000)),
        SimAccount(account_id="c02", api_key="key-2", secret="secret-2", balance=Decimal(10_000)),
    ]
    venue = Venue([btc, eur], accounts, random.Random(1))
    first = START_MS - 2_500 * 60_000
    prices = [Decimal(60_000 + index % 7) for index in range(2_500)]
    venue.seed_bars("BTCUSDT", [(first + i * 60_000, p, p + 2, p - 2, p + 1) for i, p in enumerate(prices)])
    venue.set_book("BTCUSDT", Decimal("60000.0"), Decimal("60000.5"), START_MS)
    venue.set_book("EURUSDT", Decimal("1.10000"), Decimal("1.10002"), START_MS)
    return venue


Until = Callable[[Callable[[AccountEvent], bool]], Awaitable[AccountEvent]]


@dataclass(slots=True)
class Rig:
    """One implementation of the ports with the venue behind it in hand."""

    venue: Venue
    feed: MarketFeed
    broker: Broker
    faults: Faults
    clock: Clock
    drop: Callable[[], None]
    symbol: Symbol = BTC

    def now(self) -> datetime:
        """The venue's market time."""
        return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(milliseconds=self.venue.market_ms)

    def move(self, bid: str, ask: str, after_s: int = 1) -> None:
        """Let market time pass and move the market there."""
        self.venue.set_book("BTCUSDT", Decimal(bid), Decimal(ask), self.venue.market_ms + after_s * 1000)

    def intent(
        self,
        client_id: str,
        lot: str = "0.1",
        *,
        side: Side = Side.BUY,
        limit: str | None = "60002",
        stop: str | None = "59000",
        target: str | None = None,
        reduce: PositionRef | None = None,
        symbol: Symbol = BTC,
    ) -> OrderIntent:
        """An entry, or an exit where `reduce` is given."""
        return OrderIntent(
            client_id=ClientOrderId(client_id),
            connection_id=ConnectionId("c01"),
            leg_id=None,
            signal_id=None,
            decision_id=None,
            purpose=OrderPurpose.ENTRY if reduce is None else OrderPurpose.EXIT,
            symbol=symbol,
            side=side,
            lot=Decimal(lot),
            limit_price=None if limit is None or reduce is not None else Decimal(limit),
            stop_loss=None if stop is None or reduce is not None else Decimal(stop),
            take_profit=None if target is None else Decimal(target),
            reduce=reduce,
            reason="",
            created_at=self.clock.wall(),
            deadline=self.clock.monotonic() + 2.0,
        )

    async def settled(self, intent: OrderIntent) -> OrderReport:
        """Submit, and ask until the venue says something terminal."""
        report = await self.broker.submit(intent)
        return await self.resolved(report) if report.outcome is Outcome.WORKING else report

    async def resolved(self, report: OrderReport) -> OrderReport:
        """Ask until the order is neither unknown nor working."""
        async with asyncio.timeout(5):
            while report.outcome in (Outcome.WORKING, Outcome.UNKNOWN):
                report = await self.broker.lookup(report.client_id, self.symbol)
                await asyncio.sleep(0.01)
        return report

    def executed(self) -> Decimal:
        """Lots that the venue really executed for the account."""
        return sum((item.lots for item in self.venue.executions("c01")), Decimal(0))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Until]:
        """The account's events; yields `until(condition)`, which waits for an event and returns it."""
        heard: list[AccountEvent] = []
        news = asyncio.Event()

        async def listen() -> None:
            async for event in self.broker.events():
                heard.append(event)
                news.set()

        position = 0

        async def until(condition: Callable[[AccountEvent], bool]) -> AccountEvent:
            nonlocal position
            async with asyncio.timeout(8):
                while True:
                    while position < len(heard):
                        position += 1
                        if condition(heard[position - 1]):
                            return heard[position - 1]
                    news.clear()
                    await news.wait()

        task = asyncio.create_task(listen())
        try:
            yield until
        finally:
            # Again and again: in Python 3.11 a wait_for inside the reader may swallow a cancellation.
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.2)
            if not task.cancelled():
                task.result()


@asynccontextmanager
async def over_sockets() -> AsyncIterator[Rig]:
    """The unmodified ccxt.pro.bybit against the Bybit server on loopback."""
    clock, venue, faults = SystemClock(), build_venue(), Faults()
    server = BybitServer(venue, clock=clock, rng=random.Random(1), latency=LatencyModel.none(), faults=faults)
    await server.start()
    settings = CcxtVenueSettings(
        environment="url", base_url=server.url, ws_url=server.ws_url, asset_classes=CLASSES, request_timeout_s=0.5,
        keep_alive_s=0.3, stale_s=1.0, backoff_first_s=0.02, requests_per_s=500.0, request_burst=200,
    )  # fmt: skip
    feed = CcxtFeed(settings, clock, random.Random(2))
    credentials = CcxtCredentials(api_key="key-1", secret="secret-1")
    broker = CcxtBroker(settings, credentials, ConnectionId("c01"), feed, clock, random.Random(3))
    await feed.open()
    await broker.open()
    try:
        yield Rig(venue, feed, broker, faults, clock, lambda: server.drop_streams(private=True, public=True))
    finally:
        await broker.close()
        await feed.close()
        await server.stop()


@asynccontextmanager
async def in_process() -> AsyncIterator[Rig]:
    """The same venue without sockets."""
    clock, venue, faults = SystemClock(), build_venue(), Faults()
    feed = InProcessFeed(venue, clock, asset_classes=CLASSES, pip_sizes={})
    broker = InProcessBroker(
        venue, "c01", ConnectionId("c01"), clock, LatencyModel.none(), faults=faults, client_timeout_s=0.5
    )

    def drop() -> None:
        broker.drop_stream()
        feed.drop_stream()

    await feed.open()
    await broker.open()
    yield Rig(venue, feed, broker, faults, clock, drop)
    await broker.close()
    await feed.close()


RIGS: dict[str, Callable[[], AbstractAsyncContextManager[Rig]]] = {
    "ccxt over sockets": over_sockets,
    "in-process venue": in_process,
}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """Each implementation in turn."""
    async with RIGS[request.param]() as built:
        yield built

"""Everything that goes wrong, in virtual time: a small venue, one account, its feed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.latency import LatencyModel
from simulator.simulation.loop import VirtualLoop
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.domain.events import AccountEvent, FeedEvent
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, PositionRef, Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.units import Side

D = Decimal
BTC = Symbol("BTC/USDT:USDT")
POSITION = PositionRef(f"{BTC}|0")
START = datetime(2026, 1, 5, 11, tzinfo=UTC)
START_MS = 1_767_610_800_000


class StrictLoop(VirtualLoop):
    """Virtual time; what asyncio would only log fails the test."""

    def close(self) -> None:
        """Raises RuntimeError for lost exceptions."""
        super().close()
        if self.failures:
            raise RuntimeError(f"lost in the loop: {self.failures}")


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], StrictLoop]]:
    """Every asynchronous test below this folder runs in virtual time."""
    return {"virtual": StrictLoop}


class LoopClock:
    """The running loop's time as both clocks."""

    def wall(self) -> datetime:
        """START at loop time 0."""
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's seconds."""
        return asyncio.get_running_loop().time()


def a_venue() -> Venue:
    """BTCUSDT at 100.0 / 100.5, ten lots a level, accounts c01 and c02 with 10,000 USDT."""
    terms = SimInstrument(
        symbol_id="BTCUSDT", base="BTC", tick_size=D("0.1"), lot_step=D("0.01"), lot_min=D("0.01"), lot_max=D(1000),
        max_market_lot=D(500), level_lots=D(10), level_ticks=5,
    )  # fmt: skip
    accounts = [SimAccount(account_id=name, api_key=name, secret="s", balance=D(10_000)) for name in ("c01", "c02")]
    venue = Venue([terms], accounts, random.Random(1))
    venue.set_book("BTCUSDT", D("100.0"), D("100.5"), START_MS)
    return venue


def a_broker(venue: Venue, **options: Any) -> InProcessBroker:
    """Account c01 of a venue, without latency unless told."""
    latency = options.pop("latency", None) or LatencyModel.none()
    return InProcessBroker(venue, "c01", ConnectionId("c01"), LoopClock(), latency, **options)


def an_entry(client_id: str = "a", **changes: Any) -> OrderIntent:
    """Buy one lot at 101 or better, stop at 95."""
    values: dict[str, Any] = {
        "client_id": ClientOrderId(client_id),
        "connection_id": ConnectionId("c01"),
        "leg_id": LegId("leg"),
        "signal_id": None,
        "decision_id": None,
        "purpose": OrderPurpose.ENTRY,
        "symbol": BTC,
        "side": Side.BUY,
        "lot": D(1),
        "limit_price": D("101.0"),
        "stop_loss": D("95.0"),
        "take_profit": None,
        "reduce": None,
        "reason": "test",
        "created_at": START,
        "deadline": 1e9,
    }
    return OrderIntent(**(values | changes))


def an_exit(client_id: str = "x", lot: str = "1") -> OrderIntent:
    """Sell at the market, reduce-only."""
    return an_entry(
        client_id, side=Side.SELL, lot=D(lot), limit_price=None, stop_loss=None, reduce=POSITION,
        purpose=OrderPurpose.EXIT,
    )  # fmt: skip


def held(venue: Venue, account: str = "c01") -> Decimal:
    """Signed lots of BTC."""
    return sum((view.lots * (view.side or 0) for view in venue.positions(account)), D(0))


def move(venue: Venue, bid: str, after_ms: int = 1000) -> None:
    """Let the price be another one."""
    venue.set_book("BTCUSDT", D(bid), D(bid) + D("0.5"), venue.market_ms + after_ms)


def reachable(broker: InProcessBroker) -> bool:
    """As a question: mypy would remember the answer of the property."""
    return broker.reachable


def now() -> float:
    """Seconds of the loop."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Ear:
    """Collects the events of a stream with their times."""

    heard: list[tuple[float, AccountEvent | FeedEvent]] = field(default_factory=list)

    def of(self, kind: type[Any]) -> list[Any]:
        """Those of a kind, in their order."""
        return [event for _, event in self.heard if isinstance(event, kind)]

    def at(self, kind: type[Any]) -> list[float]:
        """When those of a kind came."""
        return [at for at, event in self.heard if isinstance(event, kind)]


async def listen(stream: AsyncIterator[Any], ear: Ear) -> None:
    """Listen for ever."""
    async for event in stream:
        ear.heard.append((now(), event))


@pytest.fixture
def shop() -> Venue:
    """The small venue."""
    return a_venue()


@pytest.fixture
def desk(shop: Venue) -> InProcessBroker:
    """Account c01 without latency; no receive window, so that what is late is executed late."""
    return a_broker(shop, receive_window_s=None, finality_s=120.0)


@pytest.fixture
def quotes(shop: Venue) -> InProcessFeed:
    """The feed."""
    return InProcessFeed(shop, LoopClock(), asset_classes={BTC: AssetClass.CRYPTO}, pip_sizes={})


@pytest.fixture
async def ear(desk: InProcessBroker) -> AsyncIterator[Ear]:
    """Somebody who listens to the account."""
    made = Ear()
    task = asyncio.create_task(listen(desk.events(), made))
    await asyncio.sleep(0.01)
    yield made
    task.cancel()
    await asyncio.wait([task])

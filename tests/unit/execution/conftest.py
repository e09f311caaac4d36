"""Virtual time, a small venue in hand, and a desk on it: hours of trading pass in no time."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from simulator.inprocess import InProcessBroker
from simulator.latency import LatencyModel
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.events import AccountEvent
from srm_agent.domain.ids import ConnectionId, DecisionId, FillId, ProviderKey, Symbol, client_order_id, leg_id
from srm_agent.domain.ids import signal_id as signal_of
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.domain.orders import Fill, FillKind, OrderIntent, OrderPurpose
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.errors import NotAuthorised
from srm_agent.execution.desk import Desk, DeskParts
from srm_agent.execution.ledger import Change
from srm_agent.execution.reconcile import Difference
from srm_agent.execution.spill import SpillFile
from srm_agent.files import DiskFiles
from srm_agent.ports import Broker, Journal
from srm_agent.store.store import Store

T = TypeVar("T")
START = datetime(2026, 1, 5, 11, tzinfo=UTC)
START_MS = 1_767_610_800_000
BTC = Symbol("BTC/USDT:USDT")
C01 = ConnectionId("c01")
ALPHA = ProviderKey.parse("alpha")


class Deadlock(RuntimeError):
    """Nothing is scheduled: every task waits for another."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time jumps to the next timer; no sockets, no threads. A test that would hang fails at once."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self._clock_resolution = 1e-9
        self._selector = self  # BaseEventLoop asks its selector to wait
        self.lost: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.lost.append(context))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Called when nothing is ready: the clock is set to the next timer exactly."""
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0].when())
        return []

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        """Threads would escape virtual time."""
        raise RuntimeError("a thread was asked for in virtual time")

    def close(self) -> None:
        """Errors that nobody collected fail the test."""
        super().close()
        if self.lost:
            raise RuntimeError(f"lost in the loop: {self.lost}")

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...


class LoopClock:
    """The running loop's time as both clocks."""

    def wall(self) -> datetime:
        """START at loop time 1000."""
        return START + timedelta(seconds=self.monotonic() - 1000)

    def monotonic(self) -> float:
        """The loop's seconds."""
        return asyncio.get_running_loop().time()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], VirtualLoop]]:
    """Every asynchronous test below this folder runs in virtual time."""
    return {"virtual": VirtualLoop}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Log lines are kept, not drawn: a traceback with colours takes seconds."""
    with capture_logs():
        yield


def simulate(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run one story in a loop of its own: for tests of many seeds and for hypothesis."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


async def until(condition: Callable[[], bool], seconds: float = 60) -> float:
    """Wait in steps of 10 ms for a state; the seconds it took. Fails after `seconds`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not condition():
        if loop.time() - began > seconds:
            pytest.fail(f"not reached within {seconds} s")
        await asyncio.sleep(0.01)
    return loop.time() - began


def build_venue(leverage: int = 50) -> Venue:
    """BTC at 60000.0 / 60000.5 and EUR at 1.10000 / 1.10002, deep books, accounts c01 and c02 with 10,000 USDT."""
    btc = SimInstrument(
        symbol_id="BTCUSDT", base="BTC", tick_size=Decimal("0.1"), lot_step=Decimal("0.001"),
        lot_min=Decimal("0.001"), lot_max=Decimal(100), max_market_lot=Decimal(50), level_lots=Decimal(50),
    )  # fmt: skip
    eur = SimInstrument(
        symbol_id="EURUSDT", base="EUR", tick_size=Decimal("0.00001"), lot_step=Decimal(10), lot_min=Decimal(10),
        lot_max=Decimal(1_000_000), max_market_lot=Decimal(500_000), level_lots=Decimal(500_000),
    )  # fmt: skip
    accounts = [
        SimAccount(
            account_id=name, api_key=f"key-{name}", secret=f"s-{name}", balance=Decimal(10_000),
            leverage=Decimal(leverage),
        )
        for name in ("c01", "c02")
    ]  # fmt: skip
    venue = Venue([btc, eur], accounts, random.Random(1))
    venue.set_book("BTCUSDT", Decimal("60000.0"), Decimal("60000.5"), START_MS)
    venue.set_book("EURUSDT", Decimal("1.10000"), Decimal("1.10002"), START_MS)
    return venue


def move(venue: Venue, mid: str, after_ms: int = 1000) -> None:
    """Let BTC stand at another price, `after_ms` of market time later."""
    venue.set_book("BTCUSDT", Decimal(mid), Decimal(mid) + Decimal("0.5"), venue.market_ms + after_ms)


def an_instrument(**changes: Any) -> Instrument:
    """BTC as the venue above has it."""
    value = Instrument(
        symbol=BTC,
        asset_class=AssetClass.CRYPTO,
        base_currency="BTC",
        quote_currency="USDT",
        settle_currency="USDT",
        tick_size=Decimal("0.1"),
        pip_size=Decimal(1),
        lot_min=Decimal("0.001"),
        lot_max=Decimal(50),
        lot_step=Decimal("0.001"),
        contract_size=Decimal(1),
        max_leverage=Decimal(100),
    )
    return replace(value, **changes)


def a_leg(signal: str = "s1", **changes: Any) -> Leg:
    """A leg about to be opened: buy 0.3 BTC with a stop 1000 below."""
    what = signal_of(ALPHA, signal)
    value = Leg(
        leg_id=leg_id(C01, what),
        connection_id=C01,
        signal_id=what,
        decision_id=DecisionId("d1"),
        provider=ALPHA,
        symbol=BTC,
        side=Side.BUY,
        state=LegState.OPENING,
        lot=Decimal("0.3"),
        closed_lot=ZERO,
        entry_price=None,
        exit_value=ZERO,
        fees=ZERO,
        realised_pnl=ZERO,
        planned_stop=Decimal(59_000),
        stop_loss=Decimal(58_990),
        take_profit=None,
        planned_risk=Decimal(303),
        opened_at=None,
        closed_at=None,
        close_reason=None,
    )
    return replace(value, **changes)


def an_entry(leg: Leg, deadline: float = 1e9, **changes: Any) -> OrderIntent:
    """The entry order of a leg, capped ten above the touch."""
    value = OrderIntent(
        client_id=client_order_id(leg.connection_id, leg.signal_id, "entry"),
        connection_id=leg.connection_id,
        leg_id=leg.leg_id,
        signal_id=leg.signal_id,
        decision_id=leg.decision_id,
        purpose=OrderPurpose.ENTRY,
        symbol=leg.symbol,
        side=leg.side,
        lot=leg.lot,
        limit_price=Decimal(60010),
        stop_loss=leg.stop_loss,
        take_profit=leg.take_profit,
        reduce=None,
        reason="signal",
        created_at=START,
        deadline=deadline,
    )
    return replace(value, **changes)


def a_fill(number: int | str, lot: str, price: str = "60000", **changes: Any) -> Fill:
    """An execution that bought, of no order of ours, one second of market time after the start."""
    value = Fill(
        fill_id=FillId(f"f{number}"),
        client_id=None,
        broker_order_id="b",
        symbol=BTC,
        side=Side.BUY,
        lot=Decimal(lot),
        price=Decimal(price),
        fee=Decimal(1),
        fee_currency="USDT",
        kind=FillKind.ORDER,
        at=START + timedelta(seconds=1),
        received=1001.0,
    )
    return replace(value, **changes)


@dataclass(slots=True)
class Ear:
    """Hears a desk and keeps what it heard."""

    changes: list[Change] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    troubles: list[tuple[str, str]] = field(default_factory=list)
    """Level and title."""
    events: list[AccountEvent] = field(default_factory=list)

    def on_change(self, desk: Desk, change: Change) -> None:
        """Keep it."""
        self.changes.append(change)

    def on_account_event(self, desk: Desk, event: AccountEvent) -> None:
        """Keep it."""
        self.events.append(event)

    def on_difference(self, desk: Desk, difference: Difference) -> None:
        """Keep it."""
        self.differences.append(difference)

    def on_not_authorised(self, desk: Desk, error: NotAuthorised) -> None:
        """Keep it."""
        self.refusals.append(str(error))

    def on_trouble(self, desk: Desk, level: str, title: str, text: str) -> None:
        """Keep it."""
        self.troubles.append((level, title))


class Twisted:
    """A broker or journal in front of the real one: named calls go to `twists` first, which may call the real one."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.twists: dict[str, Callable[..., Any]] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        twist = self.twists.get(name)
        found = getattr(self.real, name)
        if not callable(found):
            return found

        def call(*args: Any) -> Any:
            self.calls.append(name)
            return found(*args) if twist is None else twist(*args)

        return call


def failing(*errors: BaseException, then: Callable[..., Any]) -> Callable[..., Any]:
    """A call that raises these errors in turn and then works."""
    left = list(errors)

    async def call(*args: Any) -> Any:
        if left:
            raise left.pop(0)
        return await then(*args)

    return call


@dataclass(slots=True)
class Bench:
    """A desk at work on account c01 of a venue in hand."""

    venue: Venue
    broker: InProcessBroker
    store: Store
    desk: Desk
    ear: Ear
    closed: list[ReasonCode]
    """Non-empty: the gate refuses entries with its first."""

    @property
    def journal(self) -> Journal:
        """The store's journal."""
        return self.store.journal

    async def enter(self, signal: str = "s1", *, wait: bool = True, **changes: Any) -> Leg:
        """Plan, commit and send an entry; with `wait` the leg once it is open."""
        leg = a_leg(signal, **changes)
        intent = an_entry(leg, deadline=asyncio.get_running_loop().time() + 2)
        self.desk.plan_entry(leg, intent)
        await self.journal.record([], [intent], [leg])
        self.desk.send(intent)
        if wait:
            await until(lambda: self.leg(leg).state is LegState.OPEN)
        return self.leg(leg)

    def leg(self, leg: Leg) -> Leg:
        """The leg as the ledger has it, open or not."""
        ledger = self.desk.ledger
        return ledger.legs.get(leg.leg_id) or ledger.ended[leg.leg_id]

    def held(self) -> Decimal:
        """Signed lots of BTC at the venue."""
        return sum((p.lots * (p.side or 0) for p in self.venue.positions("c01", "BTCUSDT")), Decimal(0))

    def orders(self) -> list[str]:
        """Client ids that reached the venue, in order."""
        return [order.ticket.link_id for order in self.venue.orders("c01") if order.ticket.link_id]


@asynccontextmanager
async def desk_at_work(
    folder: Path,
    *,
    venue: Venue | None = None,
    store: Store | None = None,
    latency: LatencyModel | None = None,
    wrap: Callable[[InProcessBroker], Broker] | None = None,
    journal: Callable[[Store], Journal] | None = None,
    symbols: Mapping[Symbol, Instrument] | None = None,
) -> AsyncIterator[Bench]:
    """A desk that recovers, listens and works until the block ends; then it is cancelled like a killed process."""
    clock = LoopClock()
    venue = venue or build_venue()
    own_store = store is None
    store = store or await Store.memory(clock)
    broker = InProcessBroker(venue, "c01", C01, clock, latency or LatencyModel.none())
    ear, closed = Ear(), list[ReasonCode]()
    desk = Desk(
        DeskParts(
            broker=wrap(broker) if wrap else broker,
            journal=journal(store) if journal else store.journal,
            clock=clock,
            instruments={BTC: an_instrument()} if symbols is None else symbols,
            touch=lambda symbol, side: Decimal("60000.5") if side is Side.BUY else Decimal("60000.0"),
            gate=lambda intent: closed[0] if closed and intent.purpose is OrderPurpose.ENTRY else None,
            spill=SpillFile(DiskFiles(folder), C01),
            listener=ear,
        )
    )
    await desk.recover()
    task = asyncio.create_task(desk.run())
    await until(lambda: desk.synced or task.done())
    try:
        yield Bench(venue, broker, store, desk, ear, closed)
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if own_store:
            await store.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A desk at work, no latency, no faults."""
    async with desk_at_work(tmp_path) as made:
        yield made

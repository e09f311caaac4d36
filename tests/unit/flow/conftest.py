"""The agent without sockets: venue, feed, brokers, store and flow in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.latency import LatencyModel
from simulator.venue import Venue
from srm_agent.account import Account, AccountParts, ProtectionRules
from srm_agent.agent_control import AgentControl
from srm_agent.domain.accounts import ConnectionState, EmergencyScope
from srm_agent.domain.decisions import Decision
from srm_agent.domain.ids import ConnectionId, FollowerId, OwnerId, Symbol
from srm_agent.domain.ids import signal_id as signal_of
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.policies import CopySettings, PolicyInForce, SizeMode
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Receipt, Signal
from srm_agent.domain.trades import LegState
from srm_agent.domain.units import Side
from srm_agent.execution.desk import Desk, DeskParts
from srm_agent.execution.spill import SpillFile
from srm_agent.fan_out import FanOut
from srm_agent.files import DiskFiles
from srm_agent.flow import Flow, FlowParts
from srm_agent.learning.score import PosteriorScorer, ScoreSettings
from srm_agent.learning.slippage_prior import ScalePriorForecaster, ScalePriorSettings
from srm_agent.market_watch import MarketWatch
from srm_agent.notifier import LogNotifier
from srm_agent.protection.drawdown_guard import DailyBase, DrawdownGuard, GuardLimits
from srm_agent.protection.equity_watch import EquityWatch
from srm_agent.protection.halts import HaltBoard
from srm_agent.roster import Member, Roster
from srm_agent.settings.policy_models import PoliciesSettings
from srm_agent.store.store import Store
from tests.unit.execution.conftest import (
    ALPHA,
    BTC,
    LoopClock,
    Twisted,
    build_venue,
    pytest_asyncio_loop_factories,
    quiet,
    until,
)

__all__ = ["pytest_asyncio_loop_factories", "quiet"]

C01, C02 = ConnectionId("c01"), ConnectionId("c02")
EUR = Symbol("EUR/USDT:USDT")


@dataclass(slots=True)
class Witness:
    """An observer that keeps decisions and emergencies."""

    decisions: list[Decision] = field(default_factory=list)
    emergencies: list[tuple[str, bool]] = field(default_factory=list)

    def saw_decision(self, decision: Decision) -> None:
        """Keep it."""
        self.decisions.append(decision)

    def saw_emergency(self, connection: ConnectionId, reason: str, closing_orders: int | None) -> None:
        """Keep it."""
        self.emergencies.append((connection, closing_orders is not None))

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Everything else does not matter here."""
        return lambda *args, **options: None


@dataclass(slots=True)
class World:
    """The agent's parts, at work."""

    venue: Venue
    store: Store
    flow: Flow
    market: MarketWatch
    halts: HaltBoard
    control: AgentControl
    notifier: LogNotifier
    witness: Witness
    brokers: dict[ConnectionId, Any]
    """In-process brokers behind a `Twisted`."""
    journal: Any
    signals: Any
    """The store's ports behind a `Twisted`."""
    scorer: PosteriorScorer
    forecaster: ScalePriorForecaster
    mid: Decimal = Decimal(60_000)
    feeding: bool = True
    sent: int = 0

    @property
    def a(self) -> Account:
        """Account c01."""
        return self.flow.accounts[C01]

    def move(self, mid: str) -> None:
        """Let BTC stand at another price from now on."""
        self.mid = Decimal(mid)
        self.tick()

    def tick(self) -> None:
        """One second of market time."""
        at = self.venue.market_ms + 1000
        wobble = Decimal(at // 1000 % 3) / 10
        self.venue.set_book("BTCUSDT", self.mid + wobble, self.mid + wobble + Decimal("0.5"), at)
        self.venue.set_book("EURUSDT", Decimal("1.10000"), Decimal("1.10002"), at)

    async def feed(self) -> None:
        """A quote of each symbol every 200 ms."""
        while True:
            if self.feeding:
                self.tick()
            await asyncio.sleep(0.2)

    async def timer(self) -> None:
        """The daemon's once a second."""
        while True:
            await asyncio.sleep(1)
            await self.flow.on_timer()

    def receipt(self, message: str = "") -> Receipt:
        """A message received now."""
        clock = LoopClock()
        self.sent += 1
        return Receipt(
            message_id=message or f"m{self.sent}",
            received_at=clock.wall(),
            received=clock.monotonic(),
            issued_at=clock.wall(),
        )

    def open_signal(self, name: str = "s1", **changes: Any) -> OpenSignal:
        """Buy BTC at the price of now, stop 600 below."""
        values: dict[str, Any] = {
            "signal_id": signal_of(ALPHA, name),
            "provider": ALPHA,
            "symbol": BTC,
            "side": Side.BUY,
            "signal_price": self.mid,
            "stop_loss": self.mid - 600,
            "take_profit": None,
            "provider_lot": None,
            "receipt": self.receipt(),
        }
        return OpenSignal(**(values | changes))

    def close_signal(self, name: str = "s1", fraction: str = "1", message: str = "") -> CloseSignal:
        """Close some or all of it."""
        return CloseSignal(
            signal_id=signal_of(ALPHA, name),
            provider=ALPHA,
            fraction=Decimal(fraction),
            receipt=self.receipt(message),
        )

    def modify_signal(self, stop: str, name: str = "s1") -> ModifySignal:
        """Another stop."""
        return ModifySignal(
            signal_id=signal_of(ALPHA, name),
            provider=ALPHA,
            stop_loss=Decimal(stop),
            take_profit=None,
            receipt=self.receipt(),
        )

    def cancel_signal(self, name: str = "s1") -> CancelSignal:
        """Withdraw it."""
        return CancelSignal(signal_id=signal_of(ALPHA, name), provider=ALPHA, receipt=self.receipt())

    async def give(self, signal: Signal) -> None:
        """Accept a message as the intake does, and process it."""
        await self.store.signals.accept(signal, "0" * 64, "{}")
        await self.flow.on_signal(signal)

    async def opened(self, name: str = "s1", **changes: Any) -> None:
        """An open signal, filled on both accounts."""
        await self.give(self.open_signal(name, **changes))
        await until(lambda: all(self.lots(c) for c in (C01, C02)))

    def lots(self, connection: ConnectionId = C01) -> Decimal:
        """Open lots of ours, by the ledger."""
        legs = self.flow.accounts[connection].desk.ledger.legs.values()
        return sum((leg.open_lot for leg in legs if leg.state is LegState.OPEN), Decimal(0))

    def held(self, account: str = "c01") -> Decimal:
        """BTC held at the venue."""
        return sum((p.lots * (p.side or 0) for p in self.venue.positions(account, "BTCUSDT")), Decimal(0))

    def entries(self, account: str = "c01") -> list[str]:
        """Client ids of entries that executed at the venue."""
        orders = self.venue.orders(account)
        return [o.ticket.link_id for o in orders if o.filled and o.ticket.link_id and not o.ticket.reduce_only]

    async def unfinished(self) -> list[str]:
        """Message ids that a restart would take up again."""
        return [signal.receipt.message_id for signal in await self.store.signals.unfinished()]

    def state(self) -> ConnectionState:
        """Of account c01."""
        return self.a.state()

    def pages(self) -> list[str]:
        """Titles of pages so far."""
        return [alert.title for alert in self.notifier.recent if alert.level == "page"]


def _policies() -> dict[AssetClass, PolicyInForce]:
    blocks = PoliciesSettings.model_validate(
        {"crypto": {"filter": {"duplicate_window_s": "0"}, "limits": {"max_open_risk": "0.5"}}}
    )
    return {kind: PolicyInForce(blocks.of(kind).domain(kind.value)) for kind in AssetClass}


def _member(name: ConnectionId) -> Member:
    copy = CopySettings(
        size_mode=SizeMode.RISK_PERCENT,
        risk_per_trade=Decimal("0.01"),
        fixed_lot=None,
        risk_multiplier=Decimal(1),
        max_lot=None,
        max_positions=None,
    )
    return Member(
        connection_id=name,
        follower=FollowerId(f"f-{name}"),
        owner=OwnerId("o"),
        venue="simulator",
        providers=frozenset([ALPHA]),
        copy=copy,
        policies=_policies(),
        max_drawdown=Decimal("0.20"),
    )


async def assemble(
    folder: Path,
    *,
    venue: Venue | None = None,
    store: Store | None = None,
    scope: EmergencyScope = EmergencyScope.ACCOUNT,
    first_chunk: int = 8,
) -> World:
    """Everything wired, nothing at work yet."""
    clock = LoopClock()
    venue, store = venue or build_venue(), store or await Store.memory(clock)
    classes = {BTC: AssetClass.CRYPTO, EUR: AssetClass.CRYPTO}
    feed = InProcessFeed(venue, clock, asset_classes=classes, pip_sizes={BTC: Decimal(1)})
    market = MarketWatch("simulator", feed, clock, atr_period=14, atr_timeframe_s=900)
    notifier, halts = LogNotifier(clock), HaltBoard(DiskFiles(folder), store.protection)
    journal: Any = Twisted(store.journal)
    signals: Any = Twisted(store.signals)
    forecaster = ScalePriorForecaster(ScalePriorSettings(entry_mean_share=0.6, entry_upper_share=2.5))
    scorer = PosteriorScorer(ScoreSettings(half_life_weeks=26.0))
    roster = Roster([_member(C01), _member(C02)])
    fan_out = FanOut(
        clock=clock, roster=roster, markets={"simulator": market}, forecaster=forecaster, scorer=scorer,
        halts=halts, send_deadline_s=2.0,
    )  # fmt: skip
    flow = Flow(
        FlowParts(
            clock=clock, fan_out=fan_out, journal=journal, signals=signals, forecaster=forecaster, scorer=scorer,
            halts=halts, notifier=notifier, first_chunk=first_chunk, chunk=100,
        )
    )  # fmt: skip
    witness: Any = Witness()
    flow.observers.append(witness)
    brokers: dict[ConnectionId, Any] = {}
    for member in roster.members.values():
        name = member.connection_id
        brokers[name] = Twisted(InProcessBroker(venue, name, name, clock, LatencyModel.none()))
        flow.accounts[name] = await _account(
            folder, member, brokers[name], market, flow, store, journal, halts, notifier, scope
        )
    control = AgentControl(
        name="t", flow=flow, markets={"simulator": market}, halts=halts, notifier=notifier, clock=clock,
        ready=lambda: True, providers=["channel_source:alpha"], symbols=["BTC/USDT:USDT", "EUR/USDT:USDT"],
    )  # fmt: skip
    return World(
        venue, store, flow, market, halts, control, notifier, witness, brokers, journal, signals, scorer, forecaster
    )


@asynccontextmanager
async def agent(
    folder: Path,
    *,
    venue: Venue | None = None,
    store: Store | None = None,
    scope: EmergencyScope = EmergencyScope.ACCOUNT,
    first_chunk: int = 8,
) -> AsyncIterator[World]:
    """The flow with two accounts, in step; cancelled like a killed process when the block ends."""
    world = await assemble(folder, venue=venue, store=store, scope=scope, first_chunk=first_chunk)
    flow, market = world.flow, world.market
    for account in flow.accounts.values():
        await account.desk.recover()
        account.streak.restore(await world.store.history.closed_trades())
    await world.halts.load()
    await market.open([BTC])
    jobs = [market.run(flow.on_quote), world.feed(), world.timer(), flow.run_followers()]
    tasks = [asyncio.create_task(job) for job in [*jobs, *(a.desk.run() for a in flow.accounts.values())]]
    for account in flow.accounts.values():
        account.leased = True
    await until(lambda: all(a.desk.synced and a.equity() is not None for a in flow.accounts.values()))
    await asyncio.sleep(0.5)
    try:
        yield world
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        for account in flow.accounts.values():
            await account.stop()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        if store is None:
            await world.store.close()


async def _account(
    folder: Path,
    member: Member,
    broker: Any,
    market: MarketWatch,
    flow: Flow,
    store: Store,
    journal: Any,
    halts: HaltBoard,
    notifier: LogNotifier,
    scope: EmergencyScope,
) -> Account:
    clock = LoopClock()
    desk = Desk(
        DeskParts(
            broker=broker, journal=journal, clock=clock, instruments=market.instruments, touch=market.touch,
            gate=lambda intent: flow.gate(account, intent),
            spill=SpillFile(DiskFiles(folder), member.connection_id), listener=flow,
        )
    )  # fmt: skip
    limits = GuardLimits(
        max_drawdown=member.max_drawdown, daily_loss=None, daily_base=DailyBase.LARGER, zone=ZoneInfo("UTC")
    )
    account = Account(
        AccountParts(
            member=member, desk=desk, watch=EquityWatch(market.quote, market.instruments.get),
            guard=DrawdownGuard(member.connection_id, limits, await store.protection.mark(member.connection_id)),
            market=market, halts=halts, store=store.protection, notifier=notifier, clock=clock,
            rules=ProtectionRules(equity_max_age_s=5.0, scope=scope, close_interval_s=0.5, closes_per_s=8.0),
            on_emergency=flow.on_emergency,
        )
    )  # fmt: skip
    return account


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Both accounts with 10,000 USDT, in step, quotes coming."""
    async with agent(tmp_path) as made:
        yield made

"""Wires the agent from what lies outside it: feeds, brokers, database, files, server, clock and chance are given.

`bootstrap` gives the real ones; the simulation gives its own, so that what it tests is the daemon itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from srm_agent import __version__
from srm_agent.account import CLOSES_SHARE, Account, AccountParts, ProtectionRules
from srm_agent.agent_control import AgentControl
from srm_agent.alerts.configured import rules_of
from srm_agent.alerts.dispatcher import AlertDispatcher
from srm_agent.alerts.sink import Sink
from srm_agent.api.app import make_intake_app
from srm_agent.api.control import Operator
from srm_agent.api.front import WithFront
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.refusals import RefusalWatch
from srm_agent.api.signatures import WebhookKey
from srm_agent.clock import Clock
from srm_agent.daemon import Daemon, DaemonParts
from srm_agent.domain.accounts import EmergencyScope
from srm_agent.domain.ids import ConnectionId, ProviderKey, Symbol
from srm_agent.errors import ConfigurationError
from srm_agent.execution.desk import Desk, DeskParts
from srm_agent.execution.spill import SpillFile
from srm_agent.fan_out import FanOut
from srm_agent.files import Files
from srm_agent.flow import Flow, FlowParts
from srm_agent.inbox import Inbox
from srm_agent.learning.score import PosteriorScorer, ScoreSettings
from srm_agent.learning.slippage_prior import ScalePriorForecaster, ScalePriorSettings
from srm_agent.market_watch import MarketWatch
from srm_agent.ports import Broker, MarketFeed, Notifier, Server, Storage
from srm_agent.protection.drawdown_guard import DailyBase, DrawdownGuard, GuardLimits
from srm_agent.protection.equity_watch import EquityWatch
from srm_agent.protection.halts import HaltBoard
from srm_agent.roster import Member, Roster, roster_of
from srm_agent.settings import Settings
from srm_agent.stop_terms import risk_cap_of, stop_policy_of
from srm_agent.supervision.disk import DiskWatch
from srm_agent.supervision.learning_fuse import Fuse, FusedForecaster, FusedScorer
from srm_agent.supervision.notify import Manager, NoManager
from srm_agent.supervision.watchdog import NoDump, StallDump


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Everything the agent touches. `serve` makes the listening server of an application; `process` names us."""

    clock: Clock
    rng: random.Random
    feeds: Mapping[str, MarketFeed]
    """By the name of the venue in the settings."""
    brokers: Mapping[ConnectionId, Broker]
    storage: Storage
    files: Files
    serve: Callable[[ASGIApp], Server]
    keys: Mapping[ProviderKey, Sequence[WebhookKey]]
    operators: Sequence[Operator]
    process: str
    manager: Manager = field(default_factory=NoManager)
    dump: StallDump = field(default_factory=NoDump)
    exits_only: str = ""
    """Why this life takes exits only; empty for a whole one."""
    sinks: Sequence[Sink] = ()
    """Where alerts are posted, in this order; the file gets them all the same."""
    clean: Callable[[str], str] | None = None
    """Takes live secrets out of the text of an alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A wired daemon and what displays and commands look at."""

    daemon: Daemon
    flow: Flow
    storage: Storage
    control: AgentControl
    roster: Roster
    scorer: PosteriorScorer
    notifier: AlertDispatcher
    markets: Mapping[str, MarketWatch]


def assemble(settings: Settings, outside: Outside) -> Agent:
    """Wire everything; touches nothing yet. Raises ConfigurationError."""
    clock, store = outside.clock, outside.storage
    files = DiskWatch(outside.files, clock)
    registry = CollectorRegistry()
    notifier = AlertDispatcher(
        clock,
        files=files,
        sinks=outside.sinks,
        rng=outside.rng,
        rules=rules_of(settings),
        clean=outside.clean,
        registry=registry,
    )
    halts = HaltBoard(files, store.protection)
    roster = roster_of(settings)
    markets = {
        name: MarketWatch(
            name,
            feed,
            clock,
            atr_period=settings.market.atr_period,
            atr_timeframe_s=settings.market.atr_timeframe_s,
        )
        for name, feed in outside.feeds.items()
    }
    fuse = Fuse()
    scales = ScalePriorSettings(
        entry_mean_share=float(settings.learning.slippage_mean),
        entry_upper_share=float(settings.learning.slippage_upper),
    )
    scores = ScoreSettings(half_life_weeks=float(settings.learning.half_life_weeks))
    scorer = PosteriorScorer(scores)
    fused_scorer = FusedScorer(scorer, PosteriorScorer(scores), fuse)
    forecaster = FusedForecaster(ScalePriorForecaster(scales), ScalePriorForecaster(scales), fuse, clock, registry)
    fan_out = FanOut(
        clock=clock,
        roster=roster,
        markets=markets,
        forecaster=forecaster,
        scorer=fused_scorer,
        halts=halts,
        send_deadline_s=float(settings.agent.send_deadline_s),
    )
    flow = Flow(
        FlowParts(
            clock=clock,
            fan_out=fan_out,
            journal=store.journal,
            signals=store.signals,
            forecaster=forecaster,
            scorer=fused_scorer,
            halts=halts,
            notifier=notifier,
            first_chunk=settings.agent.first_chunk,
            chunk=settings.agent.chunk,
        )
    )
    accounts = [
        _account(
            settings,
            member,
            outside.brokers[member.connection_id],
            markets[member.venue],
            flow,
            store,
            halts,
            notifier,
            clock,
            files,
        )
        for member in roster.members.values()
    ]
    inbox = Inbox()
    refusals = RefusalWatch(clock, notifier)
    intake = Intake(
        clock=clock,
        keys={provider: list(keys) for provider, keys in outside.keys.items()},
        log=store.signals,
        deliver=lambda signal: daemon.deliver(signal),
        limits=_limits(settings),
        registry=registry,
        refusals=refusals,
        waiting=inbox.waiting,
        passive=lambda provider: daemon.is_passive(provider),
    )
    control = AgentControl(
        name=settings.agent.name,
        flow=flow,
        markets=markets,
        halts=halts,
        notifier=notifier,
        clock=clock,
        ready=lambda: daemon.ready.is_set(),
        providers=[str(settings.provider_key(provider)) for provider in settings.providers],
        symbols=symbols_of(settings),
    )
    app = make_intake_app(
        intake,
        control,
        registry=registry,
        operators=list(outside.operators),
        refusals=refusals,
        version=__version__,
    )

    async def close() -> None:
        await notifier.close()
        await store.close()

    daemon = Daemon(
        DaemonParts(
            clock=clock,
            flow=flow,
            intake=intake,
            server=outside.serve(WithFront(app, intake.let_in)),
            markets=markets,
            symbols={name: symbols_of(settings) for name in markets},
            accounts=accounts,
            halts=halts,
            signals=store.signals,
            history=store.history,
            scorer=fused_scorer,
            forecaster=forecaster,
            leases=store.leases,
            owner=f"{settings.agent.name}:{outside.process}:{outside.rng.getrandbits(32):08x}",
            notifier=notifier,
            close_store=close,
            files=files,
            disk=files,
            fuse=fuse,
            manager=outside.manager,
            dump=outside.dump,
            exits_only=outside.exits_only,
        ),
        inbox,
    )
    return Agent(
        daemon=daemon,
        flow=flow,
        storage=store,
        control=control,
        roster=roster,
        scorer=scorer,
        notifier=notifier,
        markets=markets,
    )


def _account(
    settings: Settings,
    member: Member,
    broker: Broker,
    market: MarketWatch,
    flow: Flow,
    store: Storage,
    halts: HaltBoard,
    notifier: Notifier,
    clock: Clock,
    files: Files,
) -> Account:
    protection = settings.protection
    desk = Desk(
        DeskParts(
            broker=broker,
            journal=store.journal,
            clock=clock,
            instruments=market.instruments,
            touch=market.touch,
            gate=lambda intent: flow.gate(account, intent),
            spill=SpillFile(files, member.connection_id),
            listener=flow,
            stop_policy=lambda leg: stop_policy_of(account, leg),
            risk_cap=lambda leg: risk_cap_of(account, leg),
        )
    )
    limits = GuardLimits(
        max_drawdown=member.max_drawdown,
        daily_loss=protection.daily_loss,
        daily_base=DailyBase(protection.daily_base),
        zone=ZoneInfo(protection.day_zone),
    )
    account = Account(
        AccountParts(
            member=member,
            desk=desk,
            watch=EquityWatch(market.quote, market.instruments.get),
            guard=DrawdownGuard(member.connection_id, limits, None),
            market=market,
            halts=halts,
            store=store.protection,
            notifier=notifier,
            clock=clock,
            rules=ProtectionRules(
                equity_max_age_s=float(protection.equity_max_age_s),
                scope=EmergencyScope(protection.emergency_scope),
                close_interval_s=float(protection.close_interval_s),
                closes_per_s=CLOSES_SHARE * float(settings.venues[member.venue].requests_per_s),
            ),
            on_emergency=flow.on_emergency,
        )
    )
    return account


def symbols_of(settings: Settings) -> tuple[Symbol, ...]:
    """The symbols that may be traded: those with an [instruments] table."""
    if not settings.instruments:
        raise ConfigurationError(
            'no [instruments."SYMBOL"] table: name each symbol that may be traded, e.g. [instruments."BTC/USDT:USDT"]'
        )
    return tuple(Symbol(symbol) for symbol in settings.instruments)


def _limits(settings: Settings) -> IntakeLimits:
    rate, burst = float(settings.intake.rate_per_s), settings.intake.burst
    return IntakeLimits(
        entries_per_s=rate,
        entries_burst=burst,
        exits_per_s=rate * 2,
        exits_burst=burst * 2,
        in_flight=settings.intake.max_waiting,
        in_flight_reserve=settings.intake.max_waiting,
        backlog=settings.intake.max_waiting,
        total_per_s=float(settings.intake.total_per_s),
        total_burst=max(4, round(4 * settings.intake.total_per_s)),
    )

"""The composition root: settings -> adapters, store, agent. The only module that imports adapters."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from prometheus_client import CollectorRegistry

from adapters.ccxt_venue.broker import CcxtBroker
from adapters.ccxt_venue.feed import CcxtFeed
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from srm_agent import __version__
from srm_agent.account import Account, AccountParts, ProtectionRules
from srm_agent.agent_control import AgentControl
from srm_agent.api.app import make_intake_app
from srm_agent.api.control import Operator
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.server import HttpServer
from srm_agent.api.signatures import WebhookKey
from srm_agent.clock import Clock
from srm_agent.daemon import Daemon, DaemonParts
from srm_agent.domain.accounts import EmergencyScope, ProtectionMark
from srm_agent.domain.ids import ConnectionId, ProviderKey, Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.errors import ConfigurationError
from srm_agent.execution.desk import Desk, DeskParts
from srm_agent.execution.spill import SpillFile
from srm_agent.fan_out import FanOut
from srm_agent.files import DiskFiles, Files
from srm_agent.flow import Flow, FlowParts
from srm_agent.inbox import Inbox
from srm_agent.learning.score import PosteriorScorer, ScoreSettings
from srm_agent.learning.slippage_prior import ScalePriorForecaster, ScalePriorSettings
from srm_agent.market_watch import MarketWatch
from srm_agent.notifier import LogNotifier
from srm_agent.ports import Broker, MarketFeed
from srm_agent.protection.drawdown_guard import DailyBase, DrawdownGuard, GuardLimits
from srm_agent.protection.equity_watch import EquityWatch
from srm_agent.protection.halts import HaltBoard
from srm_agent.roster import Member, Roster, roster_of
from srm_agent.settings import Credentials, Settings, VenueSettings
from srm_agent.store.names import Names
from srm_agent.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A wired daemon and what displays and commands look at."""

    daemon: Daemon
    flow: Flow
    store: Store
    control: AgentControl
    roster: Roster
    scorer: PosteriorScorer
    notifier: LogNotifier
    markets: Mapping[str, MarketWatch]


def secrets_of(settings: Settings, credentials: Credentials) -> list[str]:
    """Every live secret, for the log's redactor."""
    names = [f"connection.{c.id}.{part}" for c in settings.connections for part in ("api_key", "secret")]
    names += [f"provider.{provider}.key{suffix}" for provider in settings.providers for suffix in ("", ".next")]
    found = [secret.reveal() for name in names if (secret := credentials.find(name))]
    return found + [token.reveal() for token in credentials.operators().values()]


def operators_of(credentials: Credentials) -> list[Operator]:
    """Who may see, halt and resume. Raises ConfigurationError naming the file of a token that is too short."""
    try:
        return [Operator.of_token(name, token.reveal()) for name, token in credentials.operators().items()]
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def make_directory(path: Path, key: str) -> None:
    """Create a directory of the agent, for its user alone. Raises ConfigurationError naming the key."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(
            f"{key}: directory {str(path)!r} cannot be made ({error.strerror}): choose another"
        ) from None


async def open_store(settings: Settings, clock: Clock, *, read_only: bool = False) -> Store:
    """The configured database. Raises ConfigurationError, StoreUnavailable, StoreBroken."""
    path = Path(settings.store.url.removeprefix("sqlite:///"))
    if not read_only:
        make_directory(path.parent, "store.url")
    return await Store.open(
        settings.store.url, clock, names=Names(prefix=settings.store.table_prefix), read_only=read_only
    )


async def build(settings: Settings, credentials: Credentials, clock: Clock, rng: random.Random) -> Agent:
    """Wire everything; connects to nothing yet but the database. Raises ConfigurationError, StoreError."""
    data_dir = Path(settings.agent.data_dir)
    make_directory(data_dir, "agent.data_dir")
    keys = webhook_keys(settings, credentials)
    operators = operators_of(credentials)
    feeds, brokers = make_brokers(settings, credentials, clock, rng)
    files, store = DiskFiles(data_dir), await open_store(settings, clock)
    marks = {c.id: await store.protection.mark(ConnectionId(c.id)) for c in settings.connections}
    notifier = LogNotifier(clock)
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
        for name, feed in feeds.items()
    }
    forecaster = ScalePriorForecaster(
        ScalePriorSettings(
            entry_mean_share=float(settings.learning.slippage_mean),
            entry_upper_share=float(settings.learning.slippage_upper),
        )
    )
    scorer = PosteriorScorer(ScoreSettings(half_life_weeks=float(settings.learning.half_life_weeks)))
    fan_out = FanOut(
        clock=clock,
        roster=roster,
        markets=markets,
        forecaster=forecaster,
        scorer=scorer,
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
            scorer=scorer,
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
            brokers[member.connection_id],
            markets[member.venue],
            marks[member.connection_id],
            flow,
            store,
            halts,
            notifier,
            clock,
            files,
        )
        for member in roster.members.values()
    ]
    registry = CollectorRegistry()
    intake = Intake(
        clock=clock,
        keys=keys,
        log=store.signals,
        deliver=lambda signal: daemon.deliver(signal),
        limits=_limits(settings),
        registry=registry,
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
    app = make_intake_app(intake, control, registry=registry, operators=operators, version=__version__)
    server = HttpServer(app, settings.intake.host, settings.intake.port, allow_remote=settings.intake.allow_remote)
    daemon = Daemon(
        DaemonParts(
            clock=clock,
            flow=flow,
            intake=intake,
            server=server,
            markets=markets,
            symbols={name: symbols_of(settings) for name in markets},
            accounts=accounts,
            halts=halts,
            signals=store.signals,
            history=store.history,
            scorer=scorer,
            forecaster=forecaster,
            leases=store.leases,
            owner=f"{settings.agent.name}:{os.getpid()}:{rng.getrandbits(32):08x}",
            notifier=notifier,
            close_store=store.close,
        ),
        Inbox(),
    )
    return Agent(
        daemon=daemon,
        flow=flow,
        store=store,
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
    mark: ProtectionMark | None,
    flow: Flow,
    store: Store,
    halts: HaltBoard,
    notifier: LogNotifier,
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
            guard=DrawdownGuard(member.connection_id, limits, mark),
            market=market,
            halts=halts,
            store=store.protection,
            notifier=notifier,
            clock=clock,
            rules=ProtectionRules(
                equity_max_age_s=float(protection.equity_max_age_s),
                scope=EmergencyScope(protection.emergency_scope),
                close_interval_s=float(protection.close_interval_s),
            ),
            on_emergency=flow.on_emergency,
        )
    )
    return account


def make_brokers(
    settings: Settings, credentials: Credentials, clock: Clock, rng: random.Random
) -> tuple[dict[str, MarketFeed], dict[ConnectionId, Broker]]:
    """One feed per venue, one broker per connection; nothing is opened."""
    venues = {name: _ccxt_settings(settings, venue) for name, venue in settings.venues.items()}
    ccxt_feeds = {name: CcxtFeed(venue, clock, rng) for name, venue in venues.items()}
    brokers: dict[ConnectionId, Broker] = {}
    for connection in settings.connections:
        keys = CcxtCredentials(
            api_key=credentials.require(f"connection.{connection.id}.api_key").reveal(),
            secret=credentials.require(f"connection.{connection.id}.secret").reveal(),
        )
        connection_id = ConnectionId(connection.id)
        brokers[connection_id] = CcxtBroker(
            venues[connection.venue], keys, connection_id, ccxt_feeds[connection.venue], clock, rng
        )
    return dict(ccxt_feeds), brokers


def _ccxt_settings(settings: Settings, venue: VenueSettings) -> CcxtVenueSettings:
    classes = {
        Symbol(symbol): AssetClass(terms.asset_class)
        for symbol, terms in settings.instruments.items()
        if terms.asset_class is not None
    }
    pips = {
        Symbol(symbol): terms.pip_size for symbol, terms in settings.instruments.items() if terms.pip_size is not None
    }
    rate = float(venue.requests_per_s)
    return CcxtVenueSettings(
        environment=venue.environment,
        exchange=venue.exchange,
        base_url=venue.base_url,
        ws_url=None if venue.base_url is None else venue.base_url.replace("http", "ws", 1),
        symbols=symbols_of(settings),
        asset_classes=classes,
        pip_sizes=pips,
        request_timeout_s=float(venue.timeout_s),
        requests_per_s=rate,
        request_burst=max(int(rate * 2), venue.exit_reserve * 2),
        reserved_for_exits=venue.exit_reserve,
    )


def symbols_of(settings: Settings) -> tuple[Symbol, ...]:
    """The symbols that may be traded: those with an [instruments] table."""
    if not settings.instruments:
        raise ConfigurationError(
            'no [instruments."SYMBOL"] table: name each symbol that may be traded, e.g. [instruments."BTC/USDT:USDT"]'
        )
    return tuple(Symbol(symbol) for symbol in settings.instruments)


def webhook_keys(settings: Settings, credentials: Credentials) -> Mapping[ProviderKey, list[WebhookKey]]:
    """Each provider's key, and the next one while rotating. Raises ConfigurationError naming the file."""
    keys: dict[ProviderKey, list[WebhookKey]] = {}
    for provider in settings.providers:
        files = [f"provider.{provider}.key"]
        if credentials.find(f"provider.{provider}.key.next") is not None:
            files.append(f"provider.{provider}.key.next")
        keys[settings.provider_key(provider)] = [_webhook_key(credentials, file) for file in files]
    return keys


def _webhook_key(credentials: Credentials, file: str) -> WebhookKey:
    try:
        return WebhookKey.parse(credentials.require(file).reveal())
    except ValueError as error:
        raise ConfigurationError(f"credential file {file!r}: {error}") from None


def _limits(settings: Settings) -> IntakeLimits:
    rate, burst = float(settings.intake.rate_per_s), settings.intake.burst
    return IntakeLimits(
        entries_per_s=rate,
        entries_burst=burst,
        exits_per_s=rate * 2,
        exits_burst=burst * 2,
        in_flight=settings.intake.max_waiting,
        in_flight_reserve=settings.intake.max_waiting,
    )

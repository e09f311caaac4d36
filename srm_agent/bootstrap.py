"""The composition root: settings -> adapters, store, agent. The only module that imports adapters."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

from starlette.types import ASGIApp

from adapters.ccxt_venue.broker import CcxtBroker
from adapters.ccxt_venue.client import load_library
from adapters.ccxt_venue.feed import CcxtFeed
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings
from srm_agent.alerts.configured import alert_secrets, sinks_of
from srm_agent.api.control import Operator
from srm_agent.api.server import HttpServer
from srm_agent.api.signatures import WebhookKey
from srm_agent.assembly import Agent, Outside, assemble, symbols_of
from srm_agent.clock import Clock
from srm_agent.domain.ids import ConnectionId, ProviderKey, Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.errors import ConfigurationError, StoreError, StoreUnavailable
from srm_agent.files import DiskFiles
from srm_agent.logs import Redactor
from srm_agent.ports import Broker, MarketFeed
from srm_agent.settings import Credentials, Settings, VenueSettings
from srm_agent.store.names import Names
from srm_agent.store.store import Store
from srm_agent.supervision.notify import Manager, NoManager
from srm_agent.supervision.watchdog import NoDump, StallDump


def secrets_of(settings: Settings, credentials: Credentials) -> list[str]:
    """Every live secret, for the log's redactor."""
    names = [f"connection.{c.id}.{part}" for c in settings.connections for part in ("api_key", "secret")]
    names += [f"provider.{provider}.key{suffix}" for provider in settings.providers for suffix in ("", ".next")]
    found = [secret.reveal() for name in names if (secret := credentials.find(name))]
    found += alert_secrets(credentials)
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


async def open_store(
    settings: Settings, clock: Clock, *, read_only: bool = False, patient: type[StoreError] | None = None
) -> Store:
    """The configured database. `patient`: see Store.open. Raises ConfigurationError, StoreUnavailable, StoreBroken."""
    path = Path(settings.store.url.removeprefix("sqlite:///"))
    if not read_only:
        make_directory(path.parent, "store.url")
    return await Store.open(
        settings.store.url,
        clock,
        names=Names(prefix=settings.store.table_prefix),
        read_only=read_only,
        patient=patient,
    )


async def build(
    settings: Settings,
    credentials: Credentials,
    clock: Clock,
    rng: random.Random,
    *,
    manager: Manager | None = None,
    dump: StallDump | None = None,
    exits_only: str = "",
) -> Agent:
    """Wire everything; connects to nothing yet but the database. Raises ConfigurationError, StoreBroken.

    A database that is away is opened later (P9); a guard (`exits_only`: why) does without one that is broken, too.
    """
    data_dir = Path(settings.agent.data_dir)
    make_directory(data_dir, "agent.data_dir")
    keys, operators = webhook_keys(settings, credentials), operators_of(credentials)
    sinks = sinks_of(settings, credentials, clock)
    feeds, brokers = make_brokers(settings, credentials, clock, rng)

    def serve(app: ASGIApp) -> HttpServer:
        intake = settings.intake
        return HttpServer(app, intake.host, intake.port, allow_remote=intake.allow_remote)

    return assemble(
        settings,
        Outside(
            clock=clock,
            rng=rng,
            feeds=feeds,
            brokers=brokers,
            storage=await open_store(settings, clock, patient=StoreError if exits_only else StoreUnavailable),
            files=DiskFiles(data_dir),
            serve=serve,
            keys=keys,
            operators=operators,
            process=str(os.getpid()),
            manager=manager or NoManager(),
            dump=dump or NoDump(),
            exits_only=exits_only,
            sinks=sinks,
            clean=Redactor(secrets_of(settings, credentials)).clean,
        ),
    )


def make_brokers(
    settings: Settings, credentials: Credentials, clock: Clock, rng: random.Random
) -> tuple[dict[str, MarketFeed], dict[ConnectionId, Broker]]:
    """One feed per venue, one broker per connection; nothing is opened."""
    load_library()  # here, not at the first open: there it would stop a loop that already serves and is watched
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

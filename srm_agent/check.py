"""`srm-agent check`: each part is asked, and what is wrong is said with its remedy."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from rich.console import Console
from rich.markup import escape

from srm_agent.alerts.configured import sinks_of
from srm_agent.alerts.dispatcher import sample_alert
from srm_agent.alerts.sink import SinkFailed
from srm_agent.assembly import symbols_of
from srm_agent.bootstrap import make_brokers, open_store, operators_of, webhook_keys
from srm_agent.clock import Clock
from srm_agent.domain.accounts import EmergencyScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import BrokerUnreachable, SrmError, UnknownInstrument
from srm_agent.flatten_command import rehearse, rules_of, show_rehearsal
from srm_agent.ports import Broker, MarketFeed
from srm_agent.settings import Credentials, Settings, load
from srm_agent.settings.credentials import credentials_directory
from srm_agent.store.store import Store

CLOCK_TOLERANCE_S = 1.0
AT_ONCE = 8
"""Accounts asked at the same time."""


class Findings:
    """Prints as it goes; remembers whether anything was wrong."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.bad = 0

    def good(self, what: str) -> None:
        """A part that is well."""
        self._console.print(f"[green]ok[/]      {escape(what)}", highlight=False, emoji=False, soft_wrap=True)

    def note(self, what: str) -> None:
        """Worth knowing, not wrong."""
        self._console.print(f"[yellow]note[/]    {escape(what)}", highlight=False, emoji=False, soft_wrap=True)

    def wrong(self, what: str) -> None:
        """A part that must be mended."""
        self.bad += 1
        self._console.print(f"[red]wrong[/]   {escape(what)}", highlight=False, emoji=False, soft_wrap=True)


async def run_checks(
    config: Path,
    option: Path | None,
    clock: Clock,
    console: Console,
    *,
    alerts: bool = False,
    flatten: bool = False,
) -> bool:
    """True when everything is well. Raises ConfigurationError.

    `alerts` sends a test alert to each sink; `flatten` rehearses an emergency close and sends nothing.
    """
    findings = Findings(console)
    settings = load(config)
    findings.good(
        f"configuration {config}: {len(settings.connections)} connections, {len(settings.providers)} providers"
    )
    credentials = Credentials(credentials_directory(option, settings.agent.credentials_dir))
    _check_credentials(settings, credentials, findings)
    await _check_database(settings, clock, findings)
    _check_port(settings, findings)
    await _check_alerts(settings, credentials, clock, findings, send=alerts)
    try:
        feeds, brokers = make_brokers(settings, credentials, clock, random.Random())
    except SrmError as error:
        findings.wrong(str(error))
        return False
    try:
        reached = {name for name, feed in feeds.items() if await _check_venue(settings, name, feed, clock, findings)}
        askable = [ConnectionId(connection.id) for connection in settings.connections if connection.venue in reached]
        well = await _check_brokers({connection: brokers[connection] for connection in askable}, findings)
        if flatten:
            await _rehearse(settings, feeds, {name: brokers[name] for name in well}, clock, console, findings)
        if left := [str(connection) for connection in brokers if connection not in askable]:
            findings.note(f"not asked, because their venue was not reached: connections {', '.join(left)}")
    finally:
        for broker in brokers.values():
            await broker.close()
        for feed in feeds.values():
            await feed.close()
    return findings.bad == 0


def _check_credentials(settings: Settings, credentials: Credentials, findings: Findings) -> None:
    try:
        webhook_keys(settings, credentials)
        findings.good("webhook keys of all providers")
    except SrmError as error:
        findings.wrong(str(error))
    try:
        operators = [operator.name for operator in operators_of(credentials)]
    except SrmError as error:
        findings.wrong(str(error))
        return
    if operators:
        findings.good(f"operators: {', '.join(operators)}")
    else:
        findings.note("no operator token: status, halt and resume will not work; write one into operator.token")


async def _check_database(settings: Settings, clock: Clock, findings: Findings) -> None:
    try:
        store = await open_store(settings, clock)
    except SrmError as error:
        findings.wrong(f"database {settings.store.url}: {error}")
        return
    halts = await store.protection.halts()
    await store.close()
    findings.good(f"database {settings.store.url}")
    for halt in halts:
        findings.note(f"{halt.state.value} {halt.scope.value} {halt.key}: {halt.reason} (srm-agent resume clears it)")


async def _check_alerts(
    settings: Settings, credentials: Credentials, clock: Clock, findings: Findings, *, send: bool
) -> None:
    """The addresses as written; a test alert to each only where it was asked for."""
    try:
        sinks = sinks_of(settings, credentials, clock)
    except SrmError as error:
        findings.wrong(str(error))
        return
    if not sinks:
        findings.note("alerts go to the log and to alerts.jsonl only: set alerts.url to be told elsewhere")
    for sink in sinks:
        try:
            if send:
                await sink.post(sample_alert(settings.agent.name, clock))
            findings.good(f"{sink.name}: {'took a test alert' if send else 'not tried; --alerts sends a test alert'}")
        except SinkFailed as error:
            findings.wrong(f"{sink.name} did not take a test alert: {error}")
        finally:
            await sink.close()


def _check_port(settings: Settings, findings: Findings) -> None:
    address = (settings.intake.host, settings.intake.port)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            findings.note(
                f"intake {address[0]}:{address[1]} is taken ({error.strerror}): is the daemon running already?"
            )
        else:
            findings.good(f"intake {address[0]}:{address[1]} is free")


async def _check_venue(settings: Settings, name: str, feed: MarketFeed, clock: Clock, findings: Findings) -> bool:
    """False when the venue did not answer at all."""
    try:
        await feed.open()
    except BrokerUnreachable as error:
        findings.wrong(f"venue {name} is not reached: {error}; look at the network, the firewall and venues.{name}")
        return False
    except SrmError as error:
        findings.wrong(f"venue {name}: {error}")
        return False
    for symbol in symbols_of(settings):
        try:
            instrument = await feed.instrument(symbol)
            quote = await feed.quote(symbol)
        except UnknownInstrument:
            findings.wrong(f"venue {name}: does not know {symbol}; its signals would be refused: mend [instruments]")
        except SrmError as error:
            findings.wrong(f"venue {name} {symbol}: {error}")
        else:
            pip = "no pip" if instrument.pip_size is None else f"pip {instrument.pip_size}"
            findings.good(f"venue {name} {symbol}: {quote.bid} / {quote.ask}, {instrument.asset_class.value}, {pip}")
    _check_clock(settings, name, clock, findings)
    return True


def _check_clock(settings: Settings, name: str, clock: Clock, findings: Findings) -> None:
    """Signatures carry our time: the venue's Date header tells how far off this machine is (within a second)."""
    base = settings.venues[name].base_url
    if base is None:
        return  # the exchange itself refuses a bad clock with a clear code when the account is opened
    try:
        direct = build_opener(ProxyHandler({}))
        with direct.open(Request(f"{base}/v5/market/time"), timeout=5) as reply:  # noqa: S310 - the operator's own URL
            stated = _date_of(reply.headers)
    except (HTTPError, URLError, OSError) as error:
        findings.wrong(f"venue {name}: time could not be read: {error}")
        return
    if stated is not None:
        off = abs((clock.wall() - stated).total_seconds())
        if off <= CLOCK_TOLERANCE_S + 1:  # the header has whole seconds
            findings.good(f"clock within {off:.1f} s of venue {name}")
        else:
            findings.wrong(f"clock is {off:.1f} s off that of venue {name}: set it by NTP, or signatures are refused")


def _date_of(headers: Mapping[str, str]) -> datetime | None:
    text = headers.get("Date")
    return None if text is None else parsedate_to_datetime(text).astimezone(UTC)


async def _check_brokers(brokers: Mapping[ConnectionId, Broker], findings: Findings) -> list[ConnectionId]:
    """A few at a time, said in the order of the configuration as soon as each is known; who answered."""
    slots = asyncio.Semaphore(AT_ONCE)
    asked = {name: asyncio.create_task(_asked(name, broker, slots)) for name, broker in brokers.items()}
    well = []
    try:
        for name, answer in asked.items():
            if (await answer)(findings):
                well.append(name)
    finally:
        for answer in asked.values():
            answer.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)
    return well


async def _asked(connection: ConnectionId, broker: Broker, slots: asyncio.Semaphore) -> Callable[[Findings], bool]:
    """Ask one account; what to say about it, which tells whether it answered."""
    async with slots:
        try:
            await broker.open()
            account = await broker.account()
            positions = await broker.positions()
        except SrmError as error:
            reason = str(error)

            def complain(findings: Findings) -> bool:
                findings.wrong(f"connection {connection}: {reason}")
                return False

            return complain
    rights = "may only read: it will never trade" if broker.capabilities.read_only else "may trade"
    worth = f"equity {account.equity} {account.currency}"
    naked = [position.symbol for position in positions if position.stop_loss is None]

    def say(findings: Findings) -> bool:
        findings.good(f"connection {connection}: {worth}, {len(positions)} open positions, {rights}")
        if naked:
            findings.note(f"connection {connection}: positions without a stop at the broker: {', '.join(naked)}")
        return True

    return say


async def _rehearse(
    settings: Settings,
    feeds: Mapping[str, MarketFeed],
    brokers: Mapping[ConnectionId, Broker],
    clock: Clock,
    console: Console,
    findings: Findings,
) -> None:
    """What `srm-agent flatten` would do now, account by account, with the keys it would use."""
    scope = EmergencyScope(settings.protection.emergency_scope)
    store: Store | None = None
    try:
        store = await open_store(settings, clock, read_only=True)
    except SrmError as error:
        if scope is EmergencyScope.OWN:
            findings.wrong(f"flatten: scope own needs the database, which cannot be read: {error}")
            return
        findings.note(f"flatten: the database cannot be read, and is not needed for scope account: {error}")
    try:
        for account in settings.connections:
            broker = brokers.get(ConnectionId(account.id))
            if broker is None:
                continue
            if broker.capabilities.read_only:
                findings.wrong(f"flatten {account.id}: the key may only read, so nothing could be closed with it")
                continue
            try:
                plan = await rehearse(broker, feeds[account.venue], rules_of(settings, account, scope), store, clock)
            except SrmError as error:
                findings.wrong(f"flatten {account.id}: {error}")
                continue
            findings.good(f"flatten {account.id}: {len(plan.closes)} closes, {len(plan.withdrawals)} withdrawals")
            show_rehearsal(console, plan, scope)
    finally:
        if store is not None:
            await store.close()

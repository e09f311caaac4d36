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
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import BrokerUnreachable, SrmError, UnknownInstrument
from srm_agent.ports import Broker, MarketFeed
from srm_agent.settings import Credentials, Settings, load
from srm_agent.settings.credentials import credentials_directory

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
    config: Path, option: Path | None, clock: Clock, console: Console, *, alerts: bool = False
) -> bool:
    """True when everything is well; `alerts` sends a test alert to each sink. Raises ConfigurationError."""
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
        await _check_brokers({connection: brokers[connection] for connection in askable}, findings)
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


async def _check_brokers(brokers: Mapping[ConnectionId, Broker], findings: Findings) -> None:
    """A few at a time, said in the order of the configuration as soon as each is known."""
    slots = asyncio.Semaphore(AT_ONCE)
    asked = [asyncio.create_task(_asked(connection, broker, slots)) for connection, broker in brokers.items()]
    try:
        for answer in asked:
            (await answer)(findings)
    finally:
        for answer in asked:
            answer.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _asked(connection: ConnectionId, broker: Broker, slots: asyncio.Semaphore) -> Callable[[Findings], None]:
    """Ask one account; what to say about it."""
    async with slots:
        try:
            await broker.open()
            account = await broker.account()
            positions = await broker.positions()
        except SrmError as error:
            reason = str(error)
            return lambda findings: findings.wrong(f"connection {connection}: {reason}")
    rights = "may only read: it will never trade" if broker.capabilities.read_only else "may trade"
    worth = f"equity {account.equity} {account.currency}"
    naked = [position.symbol for position in positions if position.stop_loss is None]

    def say(findings: Findings) -> None:
        findings.good(f"connection {connection}: {worth}, {len(positions)} open positions, {rights}")
        if naked:
            findings.note(f"connection {connection}: positions without a stop at the broker: {', '.join(naked)}")

    return say

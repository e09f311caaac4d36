"""`srm-agent flatten` for people: which accounts, is it meant, what happens, what it cost. And its rehearsal."""

from __future__ import annotations

import asyncio
import getpass
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srm_agent.account import CLOSES_SHARE
from srm_agent.api.control_client import ControlClient, ControlRefused, DaemonUnreachable
from srm_agent.bootstrap import make_brokers, make_directory, open_store
from srm_agent.clock import Clock
from srm_agent.domain.accounts import EmergencyScope, HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.orders import BrokerPosition, OrderReport
from srm_agent.domain.units import plain
from srm_agent.errors import ConfigurationError, OutcomeUnknown, StoreError, UsageError
from srm_agent.files import DiskFiles
from srm_agent.flatten import AccountFlattener, Flattened, FlattenRules, latch, resting, unlatch_flat
from srm_agent.flatten_known import Known
from srm_agent.ports import Broker, MarketFeed
from srm_agent.protection.close_values import notional
from srm_agent.protection.emergency_close import AT_ONCE
from srm_agent.protection.halt_file import HaltFile
from srm_agent.settings import ConnectionSettings, Credentials, Settings
from srm_agent.store.store import Store

ANSWER_S = 1.0
"""A daemon that does not answer by then is not waited for; it reads the halts' file as well."""
STORE_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenOptions:
    """What the command line said."""

    connections: Sequence[str]
    everything: bool
    reason: str
    scope: str | None
    timeout_s: float


def chosen(settings: Settings, options: FlattenOptions) -> list[ConnectionSettings]:
    """The connections that are meant. Raises UsageError naming what there is."""
    known = {connection.id: connection for connection in settings.connections}
    if bool(options.connections) == options.everything:
        raise UsageError(f"name accounts with --connection, or --all; there are: {', '.join(known) or 'none'}")
    for name in options.connections:
        if name not in known:
            raise UsageError(f"there is no connection {name!r}; there are: {', '.join(known) or 'none'}")
    return list(known.values()) if options.everything else [known[name] for name in dict.fromkeys(options.connections)]


def scope_of(settings: Settings, options: FlattenOptions) -> EmergencyScope:
    """The option, else the configuration. Raises UsageError."""
    said = options.scope or settings.protection.emergency_scope
    if said not in list(EmergencyScope):
        raise UsageError(f"--scope must be account or own, was {said!r}")
    return EmergencyScope(said)


def who() -> str:
    """Who ran the command, for the audit."""
    try:
        return f"flatten by {getpass.getuser()}"
    except (KeyError, OSError):  # a dynamic user may have no entry in the list of users
        return f"flatten by uid {os.getuid()}"


async def run_flatten(
    settings: Settings, credentials: Credentials, options: FlattenOptions, clock: Clock, console: Console
) -> bool:
    """Latch, tell the daemon, close, report. True when every chosen account was read to be flat.

    Raises UsageError, ConfigurationError before anything has been done.
    """
    accounts, scope = chosen(settings, options), scope_of(settings, options)
    few = settings.model_copy(update={"connections": accounts})
    feeds, brokers = make_brokers(few, credentials, clock, random.Random())
    try:
        store = await _journal(settings, scope, clock, console)
        try:
            halts = _latched(settings, accounts, options, clock, console)
            _tell_daemon(settings, credentials, accounts, options, console)
            return await _close_all(settings, accounts, scope, feeds, brokers, store, halts, options, clock, console)
        finally:
            if store is not None:
                await store.close()
    finally:
        await _release(feeds, brokers)


async def _journal(settings: Settings, scope: EmergencyScope, clock: Clock, console: Console) -> Store | None:
    """Read only. Without it nothing is known to be ours: then scope OWN has nothing to go by."""
    try:
        async with asyncio.timeout(STORE_PATIENCE_S):
            return await open_store(settings, clock, read_only=True)
    except (StoreError, ConfigurationError, OutcomeUnknown, TimeoutError) as error:
        trouble = str(error) or "it does not answer"
    if scope is EmergencyScope.OWN:
        raise UsageError(
            f"the database cannot be read ({trouble}), so nobody can say which positions are ours: close the whole "
            "account with --scope account, or mend the database"
        )
    _say(console, "yellow", f"database not read ({trouble}): an entry sent just now may still fill; look again later")
    return None


def _latched(
    settings: Settings, accounts: Sequence[ConnectionSettings], options: FlattenOptions, clock: Clock, console: Console
) -> HaltFile | None:
    """The halts' file with FLATTENING in it, None where it cannot be written: closing matters more."""
    try:
        make_directory(Path(settings.agent.data_dir), "agent.data_dir")
    except ConfigurationError as error:
        _say(console, "red", f"halts are NOT latched: {error}")
        return None
    halts = HaltFile(DiskFiles(Path(settings.agent.data_dir)))
    names = [ConnectionId(account.id) for account in accounts]
    if trouble := latch(halts, names, options.reason, who(), clock.wall()):
        _say(console, "red", f"halts are NOT latched in {halts.path}: {trouble}; a daemon that starts may trade again")
        return None
    _say(console, "green", f"latched in {halts.path}: {', '.join(names)}")
    return halts


def _tell_daemon(
    settings: Settings,
    credentials: Credentials,
    accounts: Sequence[ConnectionSettings],
    options: FlattenOptions,
    console: Console,
) -> None:
    """A running daemon stops entries at once; it would find the halt in the file within a second anyway."""
    operators = credentials.operators()
    if not operators or not settings.intake.port:
        return
    token = operators.get("operator") or next(iter(operators.values()))
    client = ControlClient(f"http://{settings.intake.host}:{settings.intake.port}", token.reveal(), ANSWER_S)
    try:
        for account in accounts:
            client.halt(HaltScope.CONNECTION, account.id, options.reason)
    except DaemonUnreachable:
        _say(console, "dim", "no daemon answers: going on without it")
    except ControlRefused as error:
        _say(console, "yellow", f"the daemon was not told ({error}); it reads the halts' file")
    else:
        _say(console, "green", "the daemon was told: it takes no entries and closes as well")


async def _close_all(
    settings: Settings,
    accounts: Sequence[ConnectionSettings],
    scope: EmergencyScope,
    feeds: Mapping[str, MarketFeed],
    brokers: Mapping[ConnectionId, Broker],
    store: Store | None,
    halts: HaltFile | None,
    options: FlattenOptions,
    clock: Clock,
    console: Console,
) -> bool:
    locks = {venue: asyncio.Lock() for venue in feeds}
    progress = _progress(console)

    async def one(account: ConnectionSettings) -> Flattened:
        broker = brokers[ConnectionId(account.id)]
        known = Known(broker, clock)
        flattener = AccountFlattener(
            broker,
            feeds[account.venue],
            clock,
            known,
            rules_of(settings, account, scope),
            progress,
            opening=locks[account.venue],
        )
        if store is not None and not await _read_journal(known, store, flattener.result, scope):
            return flattener.result
        result = await flattener.run(options.timeout_s)
        if result.flat and halts is not None:
            try:
                unlatch_flat(halts, ConnectionId(account.id))
            except OSError as error:
                result.troubles.append(f"{halts.path} still says FLATTENING ({error}): the daemon looks once more")
        return result

    results = await asyncio.gather(*(one(account) for account in accounts))
    _report(console, results)
    return all(result.flat for result in results)


async def _read_journal(known: Known, store: Store, result: Flattened, scope: EmergencyScope) -> bool:
    """False when scope OWN is left without knowing what is ours."""
    try:
        async with asyncio.timeout(STORE_PATIENCE_S):
            await known.load(store.journal)
    except (StoreError, OutcomeUnknown, TimeoutError) as error:
        result.troubles.append(f"the journal could not be read ({str(error) or 'no answer'})")
        if scope is EmergencyScope.OWN:
            result.troubles.append("so nobody can say what is ours: use --scope account")
            return False
    return True


def rules_of(settings: Settings, account: ConnectionSettings, scope: EmergencyScope) -> FlattenRules:
    """As the daemon would close this account."""
    return FlattenRules(
        scope=scope,
        interval_s=float(settings.protection.close_interval_s),
        closes_per_s=CLOSES_SHARE * float(settings.venues[account.venue].requests_per_s),
    )


async def _release(feeds: Mapping[str, MarketFeed], brokers: Mapping[ConnectionId, Broker]) -> None:
    for broker in brokers.values():
        await broker.close()
    for feed in feeds.values():
        await feed.close()


# ---- what people see


def _say(console: Console, style: str, text: str) -> None:
    console.print(f"[{style}]{escape(text)}[/]", highlight=False, emoji=False, soft_wrap=True)


def _progress(console: Console) -> Callable[[ConnectionId, Sequence[BrokerPosition], int], None]:
    last: dict[ConnectionId, tuple[int, int]] = {}

    def show(connection: ConnectionId, positions: Sequence[BrokerPosition], sent: int) -> None:
        now = (len(positions), sent)
        if last.get(connection) != now:
            last[connection] = now
            _say(console, "dim", f"{connection}: {now[0]} positions open, {now[1]} closing orders sent")

    return show


def _report(console: Console, results: Sequence[Flattened]) -> None:
    table = Table(title="what was closed", title_justify="left")
    for column in ("connection", "symbol", "side", "lot", "entry", "closed at", "result"):
        table.add_column(column, justify="left" if column in ("connection", "symbol", "side") else "right")
    for result in results:
        for row in result.closed:
            table.add_row(
                result.connection,
                row.symbol,
                row.side.word,
                plain(row.lot),
                plain(row.entry_price),
                "unknown" if row.exit_price is None else plain(row.exit_price),
                "unknown" if row.result is None else f"{row.result:,.2f} {row.currency}",
            )
    if table.row_count:
        console.print(table)
    for result in results:
        for trouble in result.troubles:
            _say(console, "yellow", f"{result.connection}: {trouble}")
        if result.flat:
            _say(
                console,
                "green",
                f"{result.connection}: flat after {result.seconds:.1f} s, {result.orders} closing orders"
                f"{_equity(result)}; HALTED until srm-agent resume --connection {result.connection}",
            )
            continue
        left = ", ".join(f"{position.symbol} {position.side.word} {plain(position.lot)}" for position in result.left)
        _say(
            console, "red", f"{result.connection}: NOT FLAT, left: {left or 'unknown'}; look at the broker's own screen"
        )


def _equity(result: Flattened) -> str:
    before, after = result.before, result.after
    if before is None or after is None or before.equity is None or after.equity is None:
        return ", equity unknown"
    return f", equity {before.equity:,.2f} -> {after.equity:,.2f} {after.currency}"


# ---- the rehearsal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What an emergency close of one account would do now."""

    connection: ConnectionId
    closes: Sequence[tuple[BrokerPosition, Decimal, Decimal, str]]
    """In the order of closing: position, lots of it in scope, notional, settle currency."""
    withdrawals: Sequence[OrderReport]
    foreign: int
    """Positions that scope OWN leaves alone."""
    about_s: float
    """At the pace of the venue, when nothing goes wrong."""


async def rehearse(
    broker: Broker, feed: MarketFeed, rules: FlattenRules, store: Store | None, clock: Clock
) -> Rehearsed:
    """Read an open account as an emergency close would; nothing is sent. Raises BrokerError, StoreError."""
    known = Known(broker, clock)
    if store is not None:
        await known.load(store.journal)
    await known.learn(feed)
    positions, orders = await broker.positions(), await broker.open_orders()
    closes = []
    for position in positions:
        lot = position.lot
        if rules.scope is EmergencyScope.OWN:
            lot = max(Decimal(0), min(lot, known.ours(position.symbol) * int(position.side)))
        if lot > 0:
            terms = await known.terms(feed, position.symbol)
            worth = notional(position, terms, None) * lot / position.lot
            closes.append((position, lot, worth, "" if terms is None else terms.settle_currency))
    closes.sort(key=lambda row: row[2], reverse=True)
    withdrawals = resting(orders, rules.scope)
    return Rehearsed(
        connection=broker.connection_id,
        closes=closes,
        withdrawals=withdrawals,
        foreign=len(positions) - len(closes),
        about_s=max(0, len(closes) + len(withdrawals) - AT_ONCE) / rules.closes_per_s + 1.0,
    )


def show_rehearsal(console: Console, plan: Rehearsed, scope: EmergencyScope) -> None:
    """A table in the order of closing; nothing for an account that holds nothing."""
    if not plan.closes and not plan.withdrawals:
        return
    title = (
        f"{plan.connection}: an emergency close now (scope {scope.value}), about {plan.about_s:.0f} s; nothing is sent"
    )
    table = Table(title=title, title_justify="left")
    for column in ("no.", "symbol", "order", "lot", "notional"):
        table.add_column(column, justify="left" if column in ("symbol", "order") else "right")
    for number, (position, lot, worth, currency) in enumerate(plan.closes, 1):
        order = f"{position.side.opposite.word} market, reduce-only, of position {position.ref}"
        table.add_row(str(number), position.symbol, order, plain(lot), f"{worth:,.2f} {currency}".rstrip())
    for order_report in plan.withdrawals:
        table.add_row("", str(order_report.symbol), f"withdraw {order_report.client_id}", "", "")
    if plan.foreign:
        table.caption = f"{plan.foreign} positions that are not ours stay"
    console.print(table)

"""The process: start = recover, supervise, drain. A critical task that dies ends the process (P18)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from srm_agent.account import Account
from srm_agent.api.intake import Intake
from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.ids import ProviderKey, Symbol
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.errors import (
    BrokerUnreachable,
    ConfigurationError,
    NotAuthorised,
    OutcomeUnknown,
    StoreBroken,
    StoreError,
)
from srm_agent.files import Files
from srm_agent.flow import Flow
from srm_agent.inbox import Inbox
from srm_agent.market_watch import MarketWatch
from srm_agent.ports import Forecaster, History, Leases, Notifier, Scorer, Server, SignalLog
from srm_agent.protection.halts import HaltBoard
from srm_agent.supervision.disk import DiskWatch
from srm_agent.supervision.learning_fuse import Fuse
from srm_agent.supervision.lease_keeper import LeaseKeeper
from srm_agent.supervision.notify import Manager, NoManager
from srm_agent.supervision.recovery import Recovery, RecoveryParts
from srm_agent.supervision.spool import Spool
from srm_agent.supervision.supervisor import Supervisor
from srm_agent.supervision.watchdog import NoDump, StallDump, Watchdog

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
READY_PATIENCE_S = 10.0
"""Connections that are not in step by then are REDUCING; signals are taken up all the same."""
MANAGER_PATIENCE_S = 4.0
"""By then the service manager hears READY (10 s from the start of the process), whoever is still REDUCING."""
TIMER_S = 1.0
SAVE_EVERY_S = 5.0
DRAIN_S = 5.0
BROKEN_TRIES = 6
"""Tries of a signal that the store refuses (about six seconds: a lost lease shows in that time)."""


class Ending(StrEnum):
    """Why a life ended in order."""

    STOPPED = "stopped"
    """It was asked to."""
    DATABASE_BACK = "database back"
    """It began without the journal, which can be read now: a new life is to begin in this process (P9)."""
    GUARD_LIFTED = "guard lifted"
    """It took exits only, and an operator has resumed: a new life, whole, is to begin."""
    DISK_BACK = "disk back"
    """The disk failed, and is well again: a new life reads everything anew (P8)."""
    OVERTAKEN = "overtaken"
    """Another daemon has traded one of our accounts since the start: a new life reads what it did (P22, P23)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonParts:
    """What bootstrap has made. `owner` names this process in leases.

    `exits_only`: why this life is a guard (no entries, no learning); empty for a whole one. `files` keeps the spool;
    `disk` watches over them.
    """

    clock: Clock
    flow: Flow
    intake: Intake
    server: Server
    markets: Mapping[str, MarketWatch]
    symbols: Mapping[str, Sequence[Symbol]]
    accounts: Sequence[Account]
    halts: HaltBoard
    signals: SignalLog
    history: History
    scorer: Scorer
    forecaster: Forecaster
    leases: Leases
    owner: str
    notifier: Notifier
    close_store: Callable[[], Awaitable[None]]
    files: Files | None = None
    disk: DiskWatch | None = None
    fuse: Fuse = field(default_factory=Fuse)
    manager: Manager = field(default_factory=NoManager)
    dump: StallDump = field(default_factory=NoDump)
    exits_only: str = ""


class Daemon:
    """Runs until `stop` is set, or until a critical task fails (then `run` raises)."""

    def __init__(self, parts: DaemonParts, inbox: Inbox) -> None:
        self._parts = parts
        self._inbox = inbox
        self._markets_open = {name: asyncio.Event() for name in parts.markets}
        self._waiting_for = {account.member.connection_id for account in parts.accounts}
        spool = None if parts.files is None else Spool(parts.files)
        self.supervisor = Supervisor(
            parts.clock,
            parts.accounts,
            parts.markets,
            parts.notifier,
            Watchdog(parts.manager, parts.clock, parts.dump),
            parts.fuse,
            spool,
            parts.disk,
        )
        self._leases = LeaseKeeper(
            parts.leases,
            parts.accounts,
            parts.owner,
            parts.clock,
            hear=lambda answers: self.supervisor.hear_database(answers=answers),
            catch_up=parts.halts.catch_up,
        )
        self._recovery = Recovery(
            RecoveryParts(
                clock=parts.clock,
                accounts=parts.accounts,
                flow=parts.flow,
                halts=parts.halts,
                signals=parts.signals,
                history=parts.history,
                scorer=parts.scorer,
                forecaster=parts.forecaster,
                fuse=parts.fuse,
                notifier=parts.notifier,
                spool=spool,
                exits_only=parts.exits_only,
            ),
            inbox,
            self.supervisor,
        )
        self._stopping_server: asyncio.Task[None] | None = None
        self.port: int | None = None
        self.ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> Ending:
        """The whole life, and why it ended. Raises the defect that ended it."""
        parts = self._parts
        try:
            if not await self._recovered(stop):
                return Ending.STOPPED
            self.port = await parts.server.start()
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(job, name=name) for name, job in self._jobs()]
                self.supervisor.dead = lambda: [task.get_name() for task in work if task.done()]
                ending = await self._until(stop, work)
                self.supervisor.stopping()
                await self._drain()
                for task in work:
                    task.cancel()
        finally:
            await self._release()
        return ending

    async def _recovered(self, stop: asyncio.Event) -> bool:
        """False when the stop came before the recovery had ended."""
        recovery, stopping = asyncio.create_task(self._recovery.start()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({recovery, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not recovery.done():
                return False
            recovery.result()
            return True
        finally:
            stopping.cancel()
            recovery.cancel()
            await asyncio.wait({recovery, stopping})

    def _jobs(self) -> list[tuple[str, Coroutine[object, object, None]]]:
        parts = self._parts
        jobs: list[tuple[str, Coroutine[object, object, None]]] = [
            ("pulse", self.supervisor.run()),
            ("http", parts.server.wait()),
            ("timer", self._run_timer()),
            ("leases", self._leases.run()),
            ("ready", self._watch_readiness()),
            ("inbox", self._inbox.run(self._take_signal)),
            ("followers", parts.flow.run_followers()),
        ]
        jobs += [(f"market {name}", self._run_market(market)) for name, market in parts.markets.items()]
        jobs += [(f"terms {name}", self._run_terms(market)) for name, market in parts.markets.items()]
        jobs += [(f"account {account.member.connection_id}", self._run_account(account)) for account in parts.accounts]
        return jobs

    async def _until(self, stop: asyncio.Event, work: Sequence[asyncio.Task[None]]) -> Ending:
        """Wait for the stop, or for what calls for a new life; a task of `work` that ends before it is a defect."""
        endings: dict[asyncio.Task[object], Ending] = {
            asyncio.create_task(stop.wait()): Ending.STOPPED,
            asyncio.create_task(self._leases.outdated.wait()): Ending.OVERTAKEN,
        }
        if self.supervisor.unread:
            endings[asyncio.create_task(self._recovery.database_is_back())] = Ending.DATABASE_BACK
        if self.supervisor.guard:
            endings[asyncio.create_task(self._recovery.guard_is_lifted())] = Ending.GUARD_LIFTED
        if self._parts.disk is not None:
            endings[asyncio.create_task(self._parts.disk.is_well_again())] = Ending.DISK_BACK
        try:
            done, _ = await asyncio.wait({*endings, *work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in endings:
                task.cancel()
        for task in work:
            if task in done:
                if task.cancelled():
                    raise RuntimeError(f"critical task {task.get_name()!r} was cancelled")
                task.result()
                raise RuntimeError(f"critical task {task.get_name()!r} ended")
        return next(ending for task, ending in endings.items() if task in done)

    # ---- venues and accounts

    async def _run_market(self, market: MarketWatch) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                await market.open(self._parts.symbols[market.name], self._held(market))
                break
            except BrokerUnreachable as error:
                log.warning("venue not reachable, trying again", venue=market.name, error=str(error), in_s=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
        self._markets_open[market.name].set()
        await market.run(self._parts.flow.on_quote)

    async def _run_terms(self, market: MarketWatch) -> None:
        await self._markets_open[market.name].wait()
        await market.terms.run(self._parts.flow.on_terms)

    def _held(self, market: MarketWatch) -> list[Symbol]:
        mine = [account for account in self._parts.accounts if account.market is market]
        return [leg.symbol for account in mine for leg in account.desk.open_legs()]

    async def _run_account(self, account: Account) -> None:
        await self._markets_open[account.member.venue].wait()
        unknown = {leg.symbol for leg in account.desk.open_legs()} - set(account.market.instruments)
        if unknown:
            account.refused = f"holds legs of symbols that the venue does not know: {', '.join(sorted(unknown))}"
            log.error("connection refused", connection=account.member.connection_id, error=account.refused)
        if unknown or not await self._open_account(account):
            self._waiting_for.discard(account.member.connection_id)
            await asyncio.Event().wait()  # refused for good: the others run
        halt = self._parts.halts.find(HaltScope.CONNECTION, account.member.connection_id)
        if halt is not None and halt.state is ConnectionState.FLATTENING:
            account.resume_flattening(halt)
        await account.desk.run()

    async def _open_account(self, account: Account) -> bool:
        pause = FIRST_PAUSE_S
        while True:
            try:
                await account.desk.broker.open()
            except NotAuthorised as error:
                self._parts.flow.on_not_authorised(account.desk, error)
                return False
            except ConfigurationError as error:
                account.refused = str(error)
                log.error("connection refused", connection=account.member.connection_id, error=str(error))
                return False
            except BrokerUnreachable as error:
                log.warning("account not reachable", connection=account.member.connection_id, error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                return True

    async def _watch_readiness(self) -> None:
        """Ready when every connection was in step once, or after ten seconds with those that are not REDUCING."""
        began, told = self._parts.clock.monotonic(), False
        while self._waiting_for and (waited := self._parts.clock.monotonic() - began) < READY_PATIENCE_S:
            for account in self._parts.accounts:
                leased = account.leased or self.supervisor.unread
                if account.desk.synced and leased and account.equity() is not None:
                    self._waiting_for.discard(account.member.connection_id)
            if waited >= MANAGER_PATIENCE_S and not told:
                told = True
                self.supervisor.ready()
            await asyncio.sleep(0.05)
        self.ready.set()
        if not told:
            self.supervisor.ready()
        log.info("ready", connections=len(self._parts.accounts), not_in_step=sorted(self._waiting_for))
        await asyncio.Event().wait()

    # ---- signals

    def is_passive(self, provider: ProviderKey) -> bool:
        """Another daemon trades all accounts that copy this provider: its messages are for him, not for us (P22)."""
        followers = [account for account in self._parts.accounts if provider in account.member.providers]
        return bool(followers) and all(self._leases.is_passive(account) for account in followers)

    def deliver(self, signal: Signal) -> None:
        """A freshly committed message, from the intake: noted with its touch, then queued by provider."""
        self._parts.flow.note_arrival(signal)
        if not self._recovery.give(signal):
            log.warning("signal waits for the next life", signal_id=signal.signal_id)

    async def _take_signal(self, signal: Signal) -> None:
        if isinstance(signal, OpenSignal):
            await self.ready.wait()  # what reduces risk waits for no other connection (INV-10)
        pause, broken = 0.1, 0
        while True:
            try:
                return await self._parts.flow.on_signal(signal)
            except (StoreError, OutcomeUnknown) as error:
                # What was committed before stands; the rest is decided again when the database takes it.
                log.warning("signal waits for the database", signal_id=signal.signal_id, error=str(error))
                broken += isinstance(error, StoreBroken)
                reason = repr(error)
            except Exception as error:
                # A defect met by one signal must not take the protection of every account with it (P18 is for tasks).
                log.exception("signal could not be processed", signal_id=signal.signal_id)
                broken += 1
                reason = repr(error)
            if broken >= BROKEN_TRIES:
                log.error("signal put aside until the next start", signal_id=signal.signal_id, error=reason)
                self._parts.notifier.notify(
                    "page", "signal put aside until the next start", f"{signal.signal_id}: {reason}"
                )
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    # ---- time

    async def _run_timer(self) -> None:
        saved = self._parts.clock.monotonic()
        while True:
            await asyncio.sleep(TIMER_S)
            now = self._parts.clock.monotonic()
            self.supervisor.keep()
            try:
                await self._parts.flow.on_timer()
                await self._parts.intake.settle_doubts()
                if now - saved >= SAVE_EVERY_S:
                    saved = now
                    await self._save()
                    await self._recovery.take_left_behind()
            except (StoreError, OutcomeUnknown) as error:
                log.warning("timer could not write", error=str(error))

    async def _save(self) -> None:
        if self.supervisor.unread:
            return  # a mark that began in the dark must not replace the one in the database
        for account in self._parts.accounts:
            if account.leased:  # whoever else holds the lease keeps the mark (INV-13)
                await account.save(self._parts.clock.wall())

    # ---- stop

    async def _drain(self) -> None:
        """No entries from now on; what is under way may end; everything is written (P2). Positions keep their stops."""
        self._parts.flow.draining = True
        # Requests under way may take their time, but not ours.
        self._stopping_server = asyncio.create_task(self._parts.server.stop())
        self.supervisor.keep()
        # Each step has its own patience: an order in doubt must not cost the journal or the high-water marks.
        for what, step in (
            ("orders are still under way", self._settled),
            ("the journal is behind", self._written),
            ("marks are not saved", self._save),
        ):
            try:
                async with asyncio.timeout(DRAIN_S / 3):
                    await step()
            except (TimeoutError, StoreError, OutcomeUnknown) as error:
                log.warning("stopped early; the next start asks about it", what=what, error=repr(error))

    async def _settled(self) -> None:
        while any(account.desk.ledger.unsettled() for account in self._parts.accounts):
            await asyncio.sleep(0.05)

    async def _written(self) -> None:
        for account in self._parts.accounts:
            await account.desk.writer.drained()

    async def _release(self) -> None:
        parts = self._parts
        if self._stopping_server is not None:
            await asyncio.wait({self._stopping_server})
        await parts.server.stop()
        for account in parts.accounts:
            await account.stop()
            await account.desk.broker.close()
            await self._leases.release(account)
        for market in parts.markets.values():
            await market.feed.close()
        await parts.close_store()

"""How a life begins: from the journal; from the spool without a database; with exits only after too many crashes.

A start never fails because something is away while positions may be open (F25): what is not known holds entries back,
and stops, equity and exits are looked after with what is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from srm_agent.account import Account
from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.domain.ids import FillId, ProviderKey
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.errors import ConfigurationError, OutcomeUnknown, StoreUnavailable
from srm_agent.flow import Flow
from srm_agent.inbox import Inbox
from srm_agent.ports import Forecaster, History, Notifier, Scorer, SignalLog
from srm_agent.protection.halts import HaltBoard
from srm_agent.supervision.learning_fuse import Fuse
from srm_agent.supervision.spool import Spool
from srm_agent.supervision.supervisor import Supervisor

log = structlog.get_logger()

GUARD_MODE = "guard mode"
"""Who latched the halt of everything."""
REMEMBERED_MEASURES = 500
LEFT_BEHIND_S = 5.0
"""So old is what may have been left behind; what is younger is being acknowledged just now."""
ASK_EVERY_S = 2.0
"""How often a database that was away at the start is asked whether it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryParts:
    """What is recovered, and from where. `exits_only`: why this start is a guard; empty for a whole one."""

    clock: Clock
    accounts: Sequence[Account]
    flow: Flow
    halts: HaltBoard
    signals: SignalLog
    history: History
    scorer: Scorer
    forecaster: Forecaster
    fuse: Fuse
    notifier: Notifier
    spool: Spool | None
    exits_only: str


class Recovery:
    """One per daemon; `start` once."""

    def __init__(self, parts: RecoveryParts, inbox: Inbox, supervisor: Supervisor) -> None:
        self._parts = parts
        self._inbox = inbox
        self._supervisor = supervisor
        self._given: dict[tuple[ProviderKey, str], None] = {}
        """Messages of this life that may be unfinished."""

    async def start(self) -> None:
        """Recover. Raises ConfigurationError (halts cannot be read), StoreBroken (outside guard mode)."""
        parts = self._parts
        for account in parts.accounts:
            parts.flow.accounts[account.member.connection_id] = account
        try:
            if parts.exits_only:
                await self._as_guard()
            else:
                await self._from_journal()
        except (StoreUnavailable, OutcomeUnknown) as error:
            self._from_spool(str(error))

    def takes(self, signal: Signal) -> bool:
        """Whether a committed message is worked on in this life; else it waits, unfinished, for the next one (INV-3).

        Without the journal nobody knows which legs a close means; a guard takes nothing that opens.
        """
        return not (self._supervisor.unread or (self._supervisor.guard and isinstance(signal, OpenSignal)))

    # ---- whole

    async def _from_journal(self) -> None:
        """The journal first: what is open, what may be live, who is halted, what providers are worth."""
        await self._parts.halts.load()
        await self._learn()
        await self._accounts()
        for signal in await self._parts.signals.unfinished():
            self._put(self.received_here(signal))

    def give(self, signal: Signal) -> bool:
        """Queue a fresh message; False when it is to wait for the next life."""
        if not self.takes(signal):
            return False
        self._put(signal)
        return True

    def _put(self, signal: Signal) -> None:
        self._given[signal.provider, signal.receipt.message_id] = None
        self._inbox.put(signal)

    async def take_left_behind(self) -> int:
        """Messages that another daemon has acknowledged and left unfinished, when it gave way to us; how many.

        Only while every account is ours, so that nobody else is working on them. Raises StoreError.
        """
        if not all(account.leased for account in self._parts.accounts):
            return 0
        before, taken = list(self._given), 0
        unfinished = {
            (signal.provider, signal.receipt.message_id): signal for signal in await self._parts.signals.unfinished()
        }
        for key in before:
            if key not in unfinished:
                del self._given[key]
        for key, signal in unfinished.items():
            waited = (self._parts.clock.wall() - signal.receipt.received_at).total_seconds()
            if key not in self._given and waited >= LEFT_BEHIND_S and self.takes(signal):
                log.warning("message left behind by another daemon", signal_id=signal.signal_id)
                self._put(self.received_here(signal))
                taken += 1
        return taken

    async def _learn(self) -> None:
        trades = await self._parts.history.closed_trades()
        for trade in trades:
            self._parts.scorer.observe(trade)
        for account in self._parts.accounts:
            account.streak.restore(trades)
        for measure in await self._parts.history.recent_measures(REMEMBERED_MEASURES):
            self._parts.forecaster.observe(measure)

    async def _accounts(self) -> None:
        spooled = {} if self._parts.spool is None else self._parts.spool.read()
        for account in self._parts.accounts:
            await account.recover()
            row, mark = spooled.get(account.member.connection_id), account.guard.mark
            if row is not None and row.mark is not None and mark is not None and row.mark.updated_at > mark.updated_at:
                # The database was away when the mark last moved, and the process ended before it came back.
                account.guard.restore(row.mark)

    def received_here(self, signal: Signal) -> Signal:
        """With the receipt on this process's monotonic clock: that of another boot would make latencies of nonsense."""
        waited = (self._parts.clock.wall() - signal.receipt.received_at).total_seconds()
        received = self._parts.clock.monotonic() - max(0.0, waited)
        return replace(signal, receipt=replace(signal.receipt, received=received))

    # ---- without the database

    def _from_spool(self, why: str) -> None:
        """Legs, counted fills and marks as last seen; nothing of this is written back (P9)."""
        parts = self._parts
        self._supervisor.unread = why
        rows = {} if parts.spool is None else parts.spool.read()
        unknown = []
        for account in parts.accounts:
            row = rows.get(account.member.connection_id)
            if row is None:
                unknown.append(str(account.member.connection_id))
                continue
            account.guard.restore(row.mark)
            account.desk.ledger.restore(row.legs, (), [FillId(fill) for fill in row.fills])
        log.error("started without the database", error=why, legs=sum(len(row.legs) for row in rows.values()))
        text = f"{why}; no entries, stops and equity are watched from the spool"
        if unknown:
            text += f"; nothing is known of {', '.join(unknown)}: their positions are guarded by equity alone"
        parts.notifier.notify("page", "started without the database", text)

    async def database_is_back(self) -> None:
        """Return when the journal answers again: time for a new life that reads it."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            try:
                await self._parts.history.recent_measures(1)
                await self._parts.signals.unfinished()
            except Exception as error:  # whatever is wrong with it, the watch over the positions goes on
                log.info("the database is still away", error=str(error))
            else:
                log.info("the database is back: starting anew from the journal")
                return

    # ---- exits only

    async def _as_guard(self) -> None:
        """Leave out what may have crashed its predecessors: learning, opening signals, and a database that fails.

        Entries are halted like by an operator's hand, so that only an operator opens them again (INV-8).
        """
        parts = self._parts
        self._supervisor.guard = parts.exits_only
        parts.fuse.blow(GUARD_MODE)
        failure: Exception | None = None
        try:
            await parts.halts.load()
        except ConfigurationError:
            raise
        except Exception as error:
            failure = error
        parts.halts.set(self._halt(parts.exits_only))
        parts.notifier.notify("page", "guard mode: exits only", f"{parts.exits_only}; resume when the cause is mended")
        if failure is None:
            failure = await self._guarded_journal()
        if failure is not None:
            log.error("guard mode does without the journal", error=repr(failure))
            self._from_spool(str(failure) or repr(failure))

    async def _guarded_journal(self) -> Exception | None:
        parts = self._parts
        try:
            await self._accounts()
            waiting = await parts.signals.unfinished()
        except Exception as error:
            return error
        taken = [signal for signal in waiting if self.takes(signal)]
        for signal in taken:
            self._put(self.received_here(signal))
        if aside := len(waiting) - len(taken):
            log.warning("opening signals put aside until guard mode ends", count=aside)
        return None

    def _halt(self, reason: str) -> Halt:
        return Halt(
            scope=HaltScope.ALL,
            key="",
            state=ConnectionState.HALTED,
            reason=f"guard mode: {reason}",
            set_at=self._parts.clock.wall(),
            set_by=GUARD_MODE,
        )

    async def guard_is_lifted(self) -> None:
        """Return when an operator has resumed everything: time for a new, whole life."""
        while self._parts.halts.find(HaltScope.ALL) is not None:
            await asyncio.sleep(ASK_EVERY_S / 2)
        log.warning("guard mode is lifted by an operator: starting anew as a whole")

"""One follower's account, guarded: where the desk (execution) meets the watch and the guard (protection)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

import structlog

from srm_agent.account_emergency import AccountEmergency, ProtectionRules
from srm_agent.account_reader import AccountReader
from srm_agent.cash_doubt import CashDoubt
from srm_agent.clock import Clock
from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, EmergencyScope, Equity, Halt, HaltScope
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.orders import Fill
from srm_agent.domain.units import ZERO, plain
from srm_agent.execution.desk import Desk
from srm_agent.market_watch import MarketWatch
from srm_agent.ports import Notifier, ProtectionStore
from srm_agent.protection.drawdown_guard import DrawdownGuard, GuardLimits, Verdict
from srm_agent.protection.equity_watch import EquityWatch
from srm_agent.protection.halts import HaltBoard
from srm_agent.protection.streak import LossStreak
from srm_agent.roster import Member

log = structlog.get_logger()

__all__ = ["CLOSES_SHARE", "Account", "AccountParts", "ProtectionRules"]

UNEXPLAINED_SHARE = Decimal("0.01")
GUARD = "drawdown_guard"
CLOSES_SHARE = 0.8
"""Of the venue's request budget, for an emergency's closes; the rest is for the reads that tell when it is flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountParts:
    """What a guarded account is made of."""

    member: Member
    desk: Desk
    watch: EquityWatch
    guard: DrawdownGuard
    market: MarketWatch
    halts: HaltBoard
    store: ProtectionStore
    notifier: Notifier
    clock: Clock
    rules: ProtectionRules
    on_emergency: Callable[[Account, str, int | None], None]
    """Told when an emergency close begins (None) and when the account is flat (how many orders closed it)."""


class Account:
    """State, equity and emergency of one connection."""

    def __init__(self, parts: AccountParts) -> None:
        self._parts = parts
        self.member = parts.member
        self.desk = parts.desk
        self.watch = parts.watch
        self.guard = parts.guard
        self.market = parts.market
        self.streak = LossStreak(parts.member.connection_id)
        self.verdict: Verdict | None = None
        self.leased = False
        self.rivalled = False
        """Another daemon has traded this account: what we remember of it, the mark above all, is not to be kept."""
        self.refused = ""
        """Why this connection cannot be used at all (hedge mode, a key that may withdraw), for people."""
        self.held: Callable[[], str] = lambda: ""
        """Why the supervisor takes no entries now (the process stood still, the journal is not read); or empty."""
        self._doubt = CashDoubt(
            parts.desk.broker,
            parts.guard,
            parts.clock,
            spawn=self._spawn,
            on_end=lambda: self.check(),
            hear=self.hear,
            currency=lambda: None if self.watch.snapshot is None else self.watch.snapshot.currency,
            tell=lambda text: parts.notifier.notify(
                "page", "cash moved in another currency", text, parts.member.connection_id
            ),
        )
        self._judged: Decimal | None = None
        self._figure_at: datetime | None = None
        """Market time of the broker's last figure: deposits and withdrawals up to then are in it."""
        self._restart_wanted = False
        self._reader = AccountReader(
            parts.desk, parts.watch, parts.clock, parts.notifier, hear=self.hear, spawn=self._spawn
        )
        self._tasks: dict[asyncio.Task[None], None] = {}
        """In the order of their start."""
        self._emergency = AccountEmergency(
            parts.desk,
            parts.market,
            parts.halts,
            parts.notifier,
            parts.clock,
            rules=lambda: self._parts.rules,
            spawn=self._spawn,
            tell=lambda reason, orders: self._parts.on_emergency(self, reason, orders),
        )

    # ---- state

    def state(self) -> ConnectionState:
        """What may be done on this account now; anything not known to be well is REDUCING (INV-14)."""
        halt = self._parts.halts.find(HaltScope.CONNECTION, self.member.connection_id)
        if halt is not None:
            return halt.state
        return ConnectionState.REDUCING if self.why_reducing() else ConnectionState.ACTIVE

    def why_reducing(self) -> str:
        """Why no entries are taken although nobody halted the account; empty when they are."""
        if self.refused:
            return self.refused
        if held := self.held():
            return held
        if self.desk.read_only:
            return "the credentials may only read"
        if not self.leased:
            return "another daemon holds its lease" if self.rivalled else "its lease is not known to be ours"
        if any(leg.symbol not in self.market.instruments for leg in self.desk.open_legs()):
            return "the terms of a symbol that it holds are not known yet"
        if not self.desk.synced:
            return "the account stream is not in step with the broker"
        if self.desk.writer.behind:
            return "the database does not take our writes"
        if self._doubt.reading:
            return "equity moved without a trade that explains it"
        if not self._usable(self.equity()):
            return "equity is not known well enough"
        return ""

    def equity(self) -> Equity | None:
        """Equity as known now."""
        return self.watch.equity(self._parts.clock.monotonic())

    def drawdown(self) -> Decimal | None:
        """Drawdown of the equity as known now."""
        equity = self.equity()
        return None if equity is None else self.guard.drawdown(equity.value)

    def losses_in_a_row(self, days: int) -> int | None:
        """Trades lost since the last win, forgotten `days` after the last loss; None: the journal was not read."""
        return self.streak.losses(self.market.market_now or self._parts.clock.wall(), days)

    # ---- what is heard

    def hear(self, event: AccountEvent) -> None:
        """Account events, before the desk handles them."""
        match event:
            case Fill():
                self.watch.on_fill(event)
            case AccountSnapshot():
                self._anchor(event)
            case Heartbeat(received):
                self.watch.on_heartbeat(received)
            case Resync():
                self.watch.on_positions(event.positions, event.fills)
                self._doubt.take(event.cash_flows)
                self._anchor(event.account)
            case StreamDown():
                self._parts.notifier.notify("notice", "account stream broken", event.reason, self.member.connection_id)
            case _:
                return
        self.check()

    def _anchor(self, snapshot: AccountSnapshot) -> None:
        """The broker's figure against ours: what trades and prices do not explain may be money paid in or out."""
        followed = self._usable(self.equity())
        anchored = self.watch.on_account(snapshot)
        self._figure_at = self.market.market_now or snapshot.at
        mark = self.guard.mark
        if mark is None or snapshot.equity is None:
            return
        jump = anchored.jump
        if jump is None or not followed:
            # Nobody watched in between (start, break, dead feed): compare with what was last judged.
            jump = snapshot.equity - (mark.high_water_mark if self._judged is None else self._judged)
        if abs(jump) > UNEXPLAINED_SHARE * mark.high_water_mark:
            moved = f"{'rose' if jump > 0 else 'fell'} by {plain(abs(jump))} {snapshot.currency}"
            self._doubt.raise_(self.member.connection_id, f"equity {moved} without a trade that explains it", jump)

    def _usable(self, equity: Equity | None) -> bool:
        return equity is not None and equity.complete and equity.age_s <= self._parts.rules.equity_max_age_s

    # ---- protection

    def check(self) -> None:
        """Judge the equity as known now; breach latches and closes. Called on every account event and held quote."""
        equity, snapshot = self.equity(), self.watch.snapshot
        if equity is None or snapshot is None or not self._usable(equity) or self._doubt.waiting:
            return
        if self._restart_wanted:
            self._restart_wanted = False
            if self.guard.breaches(equity.value):
                self.guard.restart(equity.value, self._parts.clock.wall(), flows_in=self._figure_at)
        self._judged = equity.value
        self.verdict = self.guard.observe(
            equity.value,
            snapshot.balance,
            self.market.market_now or snapshot.at,
            self._parts.clock.wall(),
            flows_in=self._figure_at,
        )
        if self.verdict.breached and self._may_close():
            self._breach(self.verdict, equity.value, snapshot.currency)

    def _may_close(self) -> bool:
        """Once an episode; a halt that somebody else set stops entries, not this: it must not cost the account."""
        halt = self._parts.halts.find(HaltScope.CONNECTION, self.member.connection_id)
        if halt is None:
            return True
        held = self.watch.holdings if self._parts.rules.scope is EmergencyScope.ACCOUNT else self.desk.open_legs()
        return halt.state is ConnectionState.HALTED and halt.set_by != GUARD and any(True for _ in held)

    def tend(self) -> None:
        """Once a second: judge, and mend what keeps us from judging or from closing."""
        self.check()
        halt = self._parts.halts.find(HaltScope.CONNECTION, self.member.connection_id)
        if halt is not None and halt.state is ConnectionState.FLATTENING:
            self.resume_flattening(halt)
        if self._reader.tend(blind=not self._usable(self.equity())):
            self._judge_blind()

    def _judge_blind(self) -> None:
        """Equity has been unknown for too long: closed only if the account would breach even at its best (INV-13)."""
        held = {symbol: (position.stop_loss, position.take_profit) for symbol, position in self.desk.positions.items()}
        best = self.watch.at_best(self._parts.clock.monotonic(), self._parts.rules.equity_max_age_s, held)
        if best is not None and self.guard.breaches(best) and self._may_close() and not self._doubt.reading:
            self.flatten(f"equity is not known, and at its best ({best:.2f}) it would be beyond the limit", GUARD)

    def _breach(self, verdict: Verdict, equity: Decimal, currency: str) -> None:
        peak = self.guard.mark.high_water_mark if self.guard.mark else ZERO
        reason = (
            f"drawdown {verdict.drawdown * 100:.2f} % (equity {equity:.2f} {currency}, high-water mark {peak:.2f} "
            f"{currency}) reached the limit of {self.member.max_drawdown * 100:.2f} %"
        )
        self.flatten(reason, GUARD)

    def flatten(self, reason: str, by: str) -> None:
        """Latch FLATTENING and close everything in scope, in a lane of its own."""
        self._emergency.begin(reason, by)

    def restart_mark(self) -> None:
        """An operator resumed after an emergency: drawdown is measured from today's equity, or it would fire at once.

        Only where the old mark would: a halt for another reason keeps it (INV-13: the mark never falls by itself).
        """
        self._restart_wanted = True
        self.verdict = None
        self.check()

    def resume_flattening(self, halt: Halt) -> None:
        """Pursue a latched FLATTENING, also one that a crash interrupted."""
        self._emergency.go_on(halt)

    # ---- life

    @property
    def rules(self) -> ProtectionRules:
        """What is in force."""
        return self._parts.rules

    def adopt(self, member: Member, limits: GuardLimits, rules: ProtectionRules) -> None:
        """Settings reloaded while running; the next decision and the next judgement go by them."""
        self.member = member
        self.guard.limits = limits
        self._parts = replace(self._parts, member=member, rules=rules)

    async def recover(self) -> None:
        """What the database knows of this account, at start. Raises StoreError."""
        self.guard.restore(await self._parts.store.mark(self.member.connection_id))
        await self.desk.recover()

    async def save(self, at: datetime) -> None:
        """Persist the mark and one point of the equity curve. Raises StoreError."""
        if self.guard.mark is not None:
            await self._parts.store.save_mark(self.guard.mark)
        await self._doubt.save(self.member.connection_id, self._parts.store)
        equity, snapshot, drawdown = self.equity(), self.watch.snapshot, self.drawdown()
        if equity is not None and equity.complete and snapshot is not None and drawdown is not None:
            await self._parts.store.record_equity(
                self.member.connection_id, at, equity.value, snapshot.balance, drawdown
            )

    async def stop(self) -> None:
        """Cancel what runs beside; a latched FLATTENING goes on after the next start."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("protection task failed", connection=self.member.connection_id, error=repr(error))
            self._parts.notifier.notify("page", "protection task failed", repr(error), self.member.connection_id)

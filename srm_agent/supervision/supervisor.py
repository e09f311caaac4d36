"""Feels the pulse of the process, and holds entries back while something is not known as it should be (INV-14)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from srm_agent.account import Account
from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.trades import LegState
from srm_agent.errors import BrokerError
from srm_agent.market_watch import MarketWatch
from srm_agent.ports import Notifier
from srm_agent.supervision.disk import DiskWatch
from srm_agent.supervision.health import STANDSTILL_S, Vitals
from srm_agent.supervision.learning_fuse import Fuse
from srm_agent.supervision.pulse import BEAT_S, Pulse
from srm_agent.supervision.spool import Spool, Spooled
from srm_agent.supervision.watchdog import Watchdog

log = structlog.get_logger()

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
MARKS_EVERY_S = 5.0
"""A mark that rose is spooled this often; legs within a second."""
OUTAGE_TOLD_S = 5.0
"""A database that does not answer for so long is paged."""


class Supervisor:
    """One per daemon. `unread` and `guard` are set by the recovery; both hold every account back."""

    def __init__(
        self,
        clock: Clock,
        accounts: Sequence[Account],
        markets: Mapping[str, MarketWatch],
        notifier: Notifier,
        watchdog: Watchdog,
        fuse: Fuse,
        spool: Spool | None,
        disk: DiskWatch | None = None,
    ) -> None:
        self._clock = clock
        self._accounts = accounts
        self._markets = markets
        self._notifier = notifier
        self._watchdog = watchdog
        self._spool = spool
        self._spooled_at: float | None = None
        self._spooled_legs: tuple[object, ...] = ()
        self._stale: dict[ConnectionId, asyncio.Task[None] | None] = {}
        """Accounts that must be read anew, and who is doing it."""
        self._fuse = fuse
        self._fuse_told = False
        self._disk = disk
        self._disk_told = False
        self._silent_since: float | None = None
        """Since when the database has not answered."""
        self._silence_told = False
        self.pulse = Pulse(clock)
        self.unread = ""
        """Why the journal has not been read; empty when it has."""
        self.guard = ""
        """Why this process takes exits only; empty when it does not."""
        self.dead: Callable[[], Sequence[str]] = lambda: ()
        """Names of critical tasks that have ended."""
        for account in accounts:
            account.held = partial(self.why_held, account.member.connection_id)

    def why_held(self, connection: ConnectionId) -> str:
        """Why no entries are taken on an account, seen from the process; empty when they are."""
        if self.guard:
            return f"guard mode, exits only: {self.guard}"
        if self.unread:
            return f"the database has not been read since the start: {self.unread}"
        if self._fuse.reason:
            return f"learning is left out: {self._fuse.reason}"
        if connection in self._stale or self.pulse.stands_still():
            return "the process stood still: everything is read anew first"
        return "" if self._disk is None else self._disk.why_held()

    # ---- pulse

    async def run(self) -> None:
        """Beat for ever."""
        try:
            while True:
                self.beat()
                await asyncio.sleep(BEAT_S)
        finally:
            for task in self._stale.values():
                if task is not None:
                    task.cancel()

    def beat(self) -> None:
        """Once every BEAT_S: how late, what follows from it, and who is told."""
        late = self.pulse.beat()
        if late > STANDSTILL_S:
            self._stood_still(late)
        self._read_anew()
        if self._fuse.reason and not self._fuse_told:
            self._notifier.notify("page", "learning is left out", f"{self._fuse.reason}; no entries")
        self._fuse_told = bool(self._fuse.reason)
        self._tell_of_the_disk()
        now = self._clock.monotonic()
        ages = {
            str(account.member.connection_id): now - turned
            for account in self._accounts
            if (turned := account.desk.auditor.turned) is not None
        }
        self._watchdog.feel(
            Vitals(lag_s=late, reconcile_age_s=ages, dead=self.dead()),
            self.status(),
        )

    def _stood_still(self, late: float) -> None:
        """Whatever is remembered is old, whatever its age says: quotes, equity, positions, leases (P6, P17)."""
        self._notifier.notify(
            "page", "the process stood still", f"for {late:.1f} s; no entries until everything has been read anew"
        )
        for market in self._markets.values():
            market.distrust()
        for account in self._accounts:
            account.leased = False
            running = self._stale.get(account.member.connection_id)
            if running is not None:
                running.cancel()  # what it has read may be from before
            self._stale[account.member.connection_id] = None

    def _read_anew(self) -> None:
        for account in self._accounts:
            connection = account.member.connection_id
            if connection in self._stale and self._stale[connection] is None and account.desk.synced:
                task = asyncio.create_task(self._refresh(account), name=f"refresh {connection}")
                self._stale[connection] = task
                task.add_done_callback(partial(self._refreshed, connection))

    def _refreshed(self, connection: ConnectionId, task: asyncio.Task[None]) -> None:
        if self._stale.get(connection) is not task:
            return
        if task.cancelled():
            self._stale[connection] = None
        elif (error := task.exception()) is not None:
            log.error("could not read anew, trying again", connection=connection, error=repr(error))
            self._stale[connection] = None
        else:
            del self._stale[connection]

    async def _refresh(self, account: Account) -> None:
        """History first, positions second (F4), then the broker's own figure."""
        desk, pause = account.desk, FIRST_PAUSE_S
        while True:
            since = min((leg.opened_at for leg in desk.open_legs() if leg.opened_at is not None), default=None)
            try:
                fills = [] if since is None else await desk.broker.fills(since)
                positions = await desk.broker.positions()
                snapshot = await desk.broker.account()
            except BrokerError as error:
                log.info("account not read anew yet", connection=account.member.connection_id, error=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            for fill in fills:
                desk.count(fill)
            desk.see_positions(positions)
            account.watch.on_positions(positions, fills)
            account.hear(snapshot)
            desk.auditor.look_soon()
            log.info("account read anew", connection=account.member.connection_id)
            return

    # ---- what is told

    def _tell_of_the_disk(self) -> None:
        why = "" if self._disk is None else self._disk.why_held()
        if why and not self._disk_told:
            self._notifier.notify("page", "the disk does not take writes", f"{why}; no entries, exits go on")
        elif self._disk_told and not why:
            self._notifier.notify("notice", "the disk takes writes again", "entries are taken again")
        self._disk_told = bool(why)

    def hear_database(self, *, answers: bool) -> None:
        """Whether the database has answered just now. One page an outage: nothing is acknowledged meanwhile."""
        now = self._clock.monotonic()
        if answers:
            if self._silence_told:
                self._notifier.notify("notice", "the database answers again", "entries are taken again")
            self._silent_since, self._silence_told = None, False
            return
        if self._silent_since is None:
            self._silent_since = now
        if not (self._silence_told or self.unread) and now - self._silent_since >= OUTAGE_TOLD_S:
            self._silence_told = True
            text = f"for {now - self._silent_since:.0f} s; signals are not acknowledged, no entries; exits go on"
            self._notifier.notify("page", "the database does not answer", text)

    def ready(self) -> None:
        """Started: every connection was in step once, or is REDUCING."""
        self._watchdog.ready(self.status())

    def stopping(self) -> None:
        """The orderly end begins."""
        self._watchdog.stopping()

    def status(self) -> str:
        """The state in one line."""
        states = Counter(account.state() for account in self._accounts)
        counts = ", ".join(f"{state.value} {states[state]}" for state in ConnectionState if states[state])
        legs = sum(leg.state is LegState.OPEN for account in self._accounts for leg in account.desk.open_legs())
        doubts = sum(len(account.desk.ledger.unsettled()) for account in self._accounts)
        line = f"connections: {counts or 'none'}; open positions: {legs}; orders in doubt: {doubts}"
        if self.unread:
            line = f"DATABASE NOT READ ({self.unread}); {line}"
        return f"EXITS ONLY ({self.guard}); {line}" if self.guard else line

    # ---- what is kept

    def keep(self) -> None:
        """Once a second: try the disk, and spool what a start without the database would need."""
        if self._disk is not None:
            self._disk.look()
        if self._spool is None or self.unread:
            return
        rows = [self._row(account) for account in self._accounts if not account.rivalled]
        legs, now = tuple((row.legs, row.fills) for row in rows), self._clock.monotonic()
        if legs == self._spooled_legs and self._spooled_at is not None and now - self._spooled_at < MARKS_EVERY_S:
            return
        self._spooled_legs, self._spooled_at = legs, now
        self._spool.write(rows)

    def _row(self, account: Account) -> Spooled:
        legs = tuple(account.desk.open_legs())
        since = min((leg.opened_at for leg in legs if leg.opened_at is not None), default=None)
        fills = [] if since is None else account.desk.ledger.counted_since(since)
        return Spooled(
            connection_id=account.member.connection_id, mark=account.guard.mark, legs=legs, fills=tuple(fills)
        )

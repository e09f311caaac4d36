"""Reads an account's own figures where streams and quotes do not tell enough to guard it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.events import AccountEvent
from srm_agent.errors import BrokerError
from srm_agent.execution.desk import Desk
from srm_agent.ports import Notifier
from srm_agent.protection.equity_watch import EquityWatch

log = structlog.get_logger()

BLIND_PAGE_S = 30.0
"""Seconds without a usable equity, while something is held, after which people are told (INV-13)."""
DRIFT_PATIENCE_S = 2.0
"""Seconds for which fills and positions, told by different streams, may disagree."""


class AccountReader:
    """Asked once a second; one read at a time."""

    def __init__(
        self,
        desk: Desk,
        watch: EquityWatch,
        clock: Clock,
        notifier: Notifier,
        *,
        hear: Callable[[AccountEvent], None],
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
    ) -> None:
        self._desk = desk
        self._watch = watch
        self._clock = clock
        self._notifier = notifier
        self._hear = hear
        self._spawn = spawn
        self._blind_since: float | None = None
        self._told = False
        self._drift_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    def tend(self, *, blind: bool) -> bool:
        """`blind`: equity is not known well enough to judge. Reads the broker's figure, and positions that drifted.

        True when it has been so for `BLIND_PAGE_S` while something is held.
        """
        now = self._clock.monotonic()
        for_long = self._blind_for_long(now, blind)
        if self._desk.synced:
            self._read_what_is_missing(now, blind)
        elif self._idle:
            self._task = self._spawn(self._knock())
        return for_long

    def _read_what_is_missing(self, now: float, blind: bool) -> None:
        told = {symbol: int(held.side) * held.lot for symbol, held in self._desk.positions.items()}
        if told == self._watch.holdings:
            self._drift_since = None
        elif self._drift_since is None:
            self._drift_since = now
        drifted = self._drift_since is not None and now - self._drift_since >= DRIFT_PATIENCE_S
        if (blind or drifted) and self._idle:
            self._task = self._spawn(self._read(positions_too=drifted))

    def _blind_for_long(self, now: float, blind: bool) -> bool:
        """People are told once. What our legs hold counts as well: after a start nobody may have read anything yet."""
        held = bool(self._watch.holdings) or any(True for _ in self._desk.open_legs())
        if not blind or not held:
            self._blind_since, self._told = None, False
            return False
        self._blind_since = now if self._blind_since is None else self._blind_since
        if now - self._blind_since < BLIND_PAGE_S:
            return False
        if not self._told:
            self._told = True
            text = f"equity has not been known for {BLIND_PAGE_S:.0f} s while positions are open"
            self._notifier.notify("page", "account is not guarded", text, self._desk.connection_id)
        return True

    @property
    def _idle(self) -> bool:
        return self._task is None or self._task.done()

    async def _knock(self) -> None:
        """While the stream is out of step nobody else may be asking: is it still our account that answers? (B33)."""
        try:
            await self._desk.broker.account()
        except BrokerError as error:
            self._desk.failed(error)

    async def _read(self, *, positions_too: bool) -> None:
        broker = self._desk.broker
        try:
            positions = await broker.positions() if positions_too else None
            snapshot = await broker.account()
        except BrokerError as error:
            self._desk.failed(error)
            log.info("account could not be read", connection=self._desk.connection_id, error=str(error))
            return
        if positions is not None:
            log.warning("holdings had drifted from the broker's positions", connection=self._desk.connection_id)
            self._desk.see_positions(positions)
            self._watch.on_positions(positions)
            self._drift_since = None
        self._hear(snapshot)

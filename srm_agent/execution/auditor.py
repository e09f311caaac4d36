"""Reads the broker's truth from time to time and acts on what two readings agree is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from srm_agent import failpoints
from srm_agent.clock import Clock
from srm_agent.domain.ids import Symbol
from srm_agent.domain.trades import LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.errors import BrokerError
from srm_agent.execution.ledger import KEPT_SETTLED_S
from srm_agent.execution.reconcile import Difference, Finding, compare

if TYPE_CHECKING:
    from srm_agent.execution.desk import Desk

log = structlog.get_logger()

EVERY_S = 20.0
IDLE_EVERY_S = 6.0
"""While no leg is open: then nobody else reads positions, and what is there all the same is known in time (INV-7)."""
SECOND_LOOK_S = 2.0
LOST_AFTER_S = 6.0
"""A position that is not there may be listed late (B26); a leg is given up only after this."""
TELL_DENIED_S, DENIED_FOR_S = 20.0, 60.0
"""While the account's margin says that something is held: people are told, and a leg is given up only after this."""
SUSPECTS, ASK_FOR_S = 4, 30.0
"""Of so many ended entries it is asked, for so long, whether they explain volume that nobody owns."""


class Auditor:
    """Level-triggered: whatever was missed by events is found here."""

    def __init__(self, desk: Desk, clock: Clock, on_difference: Callable[[Difference], None]) -> None:
        self._desk = desk
        self._clock = clock
        self._on_difference = on_difference
        self._suspected: dict[tuple[Finding, Symbol], float] = {}
        self._told: dict[tuple[Finding, Symbol], Decimal] = {}
        self._hurry = False
        """Something is suspected, or being mended: look again soon."""
        self._wake = asyncio.Event()
        self.turned: float | None = None
        """Monotonic second of the loop's last turn, for the watchdog; None while it waits for the broker's answer (a
        broker out of reach is no illness of ours) and before it runs."""

    def look_soon(self) -> None:
        """Something does not add up: read the truth now."""
        self._wake.set()

    async def run(self) -> None:
        """Read and compare for ever."""
        while True:
            self.turned = self._clock.monotonic()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            asked = self._wake.is_set()
            self._wake.clear()
            if not self._desk.synced:
                continue
            self.turned = None
            try:
                await self._read()
            except BrokerError as error:
                self._desk.failed(error)
                log.info("could not read the broker's truth", connection=self._desk.connection_id, error=str(error))
                continue
            await self.compare_now()
            # An order in doubt hides its symbol: what was asked is looked at again when the doubt may be over.
            self._hurry = self._hurry or (asked and bool(self._desk.ledger.unsettled()))
            self._desk.ledger.forget_settled(self._clock.monotonic() - KEPT_SETTLED_S)

    def _pause(self) -> float:
        if self._hurry:
            return SECOND_LOOK_S
        watched = any(leg.state is LegState.OPEN for leg in self._desk.ledger.legs.values())
        return EVERY_S if watched else IDLE_EVERY_S

    def glance(self) -> None:
        """Positions were read by somebody else: a difference that nobody suspects yet is a reason to look."""
        found = self._differences()
        if any((difference.finding, difference.symbol) not in self._suspected for difference in found):
            self.look_soon()

    async def _read(self) -> None:
        """History first, positions second: a trade between the two reads then shows in both (F4)."""
        ledger, broker = self._desk.ledger, self._desk.broker
        since = min((leg.opened_at for leg in ledger.legs.values() if leg.opened_at), default=None)
        if since is not None:
            for fill in await broker.fills(since - timedelta(minutes=1)):
                if not ledger.knows(fill.fill_id):
                    failpoints.reached("CP12")
                self._desk.count(fill)
        self._desk.see_positions(await broker.positions())

    async def after_resync(self) -> None:
        """Compare a picture that came by the stream; a suspicion is looked at again soon, not in half a minute."""
        await self.compare_now()
        if self._hurry:
            self._wake.set()

    async def compare_now(self) -> None:
        """Compare what is known; a difference is acted on once a second look has confirmed it."""
        await self._ask_suspects(self._differences())
        doubtful, differences = self._doubtful(), self._differences()
        keys = {(difference.finding, difference.symbol) for difference in differences}
        # What an order in doubt hides is neither confirmed nor refuted.
        self._suspected = {key: at for key, at in self._suspected.items() if key in keys or key[1] in doubtful}
        self._told = {key: excess for key, excess in self._told.items() if key in keys or key[1] in doubtful}
        foreign = {difference.symbol for difference in differences if difference.finding is Finding.FOREIGN}
        halted = self._desk.halted_symbols
        for symbol in [symbol for symbol in halted if symbol not in foreign and symbol not in doubtful]:
            del halted[symbol]
        now = self._clock.monotonic()
        self._hurry = False
        for difference in differences:
            first_seen = self._suspected.setdefault((difference.finding, difference.symbol), now)
            if now - first_seen >= SECOND_LOOK_S / 2:
                self._hurry |= await self._act_on(difference, now - first_seen)
            else:
                self._hurry = True

    def _doubtful(self) -> frozenset[Symbol]:
        return frozenset(ticket.intent.symbol for ticket in self._desk.ledger.unsettled())

    def _differences(self) -> list[Difference]:
        return compare(self._desk.ledger.legs.values(), self._desk.positions.values(), self._doubtful())

    async def _ask_suspects(self, differences: list[Difference]) -> None:
        """Volume that nobody owns may be an entry of ours that was taken as ended (INV-6): ask before it is foreign."""
        now = self._clock.monotonic()
        for difference in differences:
            first_seen = self._suspected.get((difference.finding, difference.symbol), now)
            if difference.finding is not Finding.FOREIGN or now - first_seen > ASK_FOR_S:
                continue
            side = Side.BUY if difference.excess > 0 else Side.SELL
            for ticket in self._desk.ledger.ended_entries(difference.symbol, side)[:SUSPECTS]:
                try:
                    report = await self._desk.broker.lookup(ticket.intent.client_id, difference.symbol)
                except BrokerError as error:
                    log.info("look-up failed", client_id=ticket.intent.client_id, error=str(error))
                    return
                if any(not self._desk.ledger.knows(fill.fill_id) for fill in report.fills):
                    failpoints.reached("CP12")
                self._desk.take_report(report)

    async def _act_on(self, difference: Difference, age_s: float) -> bool:
        """Tell once, mend what is ours; whether to look again soon."""
        key = (difference.finding, difference.symbol)
        if self._told.get(key) != difference.excess:
            self._told[key] = difference.excess
            self._on_difference(difference)
        leg = difference.leg
        if difference.finding is Finding.FOREIGN:
            self._desk.halted_symbols[difference.symbol] = "the account holds volume that is not ours"
        elif leg is not None and difference.position is None:
            if age_s < LOST_AFTER_S or (age_s < DENIED_FOR_S and await self._margin_denies_it(age_s)):
                return True
            failpoints.reached("CP12")
            if self._desk.ledger.legs.get(leg.leg_id) == leg and leg.symbol not in self._desk.positions:
                self._desk.lose(leg)
        return False

    async def _margin_denies_it(self, age_s: float) -> bool:
        """No position is listed at all, history has no fill that closed one, and margin is in use: an empty list by
        error (B26). A list that shows others cannot be doubted so; a failed read proves nothing."""
        if self._desk.positions:
            return False
        try:
            denied = (await self._desk.broker.account()).margin_used > ZERO
        except BrokerError as error:
            log.info("margin could not be read", connection=self._desk.connection_id, error=str(error))
            return True
        if denied and age_s >= TELL_DENIED_S:
            self._desk.tell("page", "no position is listed, but margin is in use", "the broker's reads disagree")
        return denied

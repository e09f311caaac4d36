"""Reads the broker's truth from time to time and acts on what two readings agree is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import Symbol
from srm_agent.domain.trades import CloseReason, Leg
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised
from srm_agent.execution.reconcile import Difference, Finding, compare

if TYPE_CHECKING:
    from srm_agent.execution.desk import Desk

log = structlog.get_logger()

EVERY_S = 20.0
SECOND_LOOK_S = 2.0
LOST_AFTER_S = 6.0
"""A position that is not there may be listed late (B26); a leg is given up only after this."""
NAKED_CLOSE_S = 30.0
"""A position whose stop cannot be set for so long is closed (INV-4)."""


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
                async with asyncio.timeout(SECOND_LOOK_S if self._hurry else EVERY_S):
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
                log.info("could not read the broker's truth", connection=self._desk.connection_id, error=str(error))
                continue
            await self.compare_now()
            # An order in doubt hides its symbol: what was asked is looked at again when the doubt may be over.
            self._hurry = self._hurry or (asked and bool(self._desk.ledger.unsettled()))
            self._desk.ledger.forget_settled(self._clock.monotonic() - 600)

    async def _read(self) -> None:
        """History first, positions second: a trade between the two reads then shows in both (F4)."""
        ledger, broker = self._desk.ledger, self._desk.broker
        since = min((leg.opened_at for leg in ledger.legs.values() if leg.opened_at), default=None)
        if since is not None:
            for fill in await broker.fills(since - timedelta(minutes=1)):
                self._desk.count(fill)
        self._desk.see_positions(await broker.positions())

    async def after_resync(self) -> None:
        """Compare a picture that came by the stream; a suspicion is looked at again soon, not in half a minute."""
        await self.compare_now()
        if self._hurry:
            self._wake.set()

    async def compare_now(self) -> None:
        """Compare what is known; a difference is acted on once a second look has confirmed it."""
        ledger = self._desk.ledger
        doubtful = frozenset(ticket.intent.symbol for ticket in ledger.unsettled())
        differences = compare(ledger.legs.values(), self._desk.positions.values(), doubtful)
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

    async def _act_on(self, difference: Difference, age_s: float) -> bool:
        """Tell once, mend what is ours; whether to look again soon."""
        key = (difference.finding, difference.symbol)
        if self._told.get(key) != difference.excess:
            self._told[key] = difference.excess
            self._on_difference(difference)
        leg = difference.leg
        if difference.finding is Finding.FOREIGN:
            self._desk.halted_symbols[difference.symbol] = "the account holds volume that is not ours"
        elif leg is not None and difference.finding is Finding.NAKED:
            return await self._restore_stop(leg, age_s)
        elif leg is not None and difference.position is None:
            if age_s < LOST_AFTER_S:
                return True
            self._desk.lose(leg)
        return False

    async def _restore_stop(self, leg: Leg, age_s: float) -> bool:
        if leg.stop_loss is None:
            return False
        try:
            await self._desk.broker.protect(self._desk.reference(leg), leg.symbol, leg.stop_loss, leg.take_profit)
        except BrokerUnreachable as error:
            log.warning("stop not restored yet", leg=leg.leg_id, naked_s=round(age_s, 1), error=str(error))
            if age_s >= NAKED_CLOSE_S:
                self._close_naked(leg)
        except NotAuthorised as error:
            self._desk.not_authorised(str(error))
        except BrokerError as error:
            log.error("stop could not be restored, closing", leg=leg.leg_id, error=str(error))
            self._close_naked(leg)
        return True

    def _close_naked(self, leg: Leg) -> None:
        self._desk.close(leg, Decimal(1), CloseReason.EMERGENCY, "naked")

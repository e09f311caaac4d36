"""What is ours in an account, for a command that runs without the daemon: the journal brought up to date by the broker.

Read only: nothing is written. Without a journal nothing is known to be ours, and no order to be in doubt.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import structlog

from srm_agent.clock import Clock
from srm_agent.domain.ids import FillId, Symbol
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import ONE, ZERO
from srm_agent.errors import BrokerUnreachable, UnknownInstrument
from srm_agent.execution.chaser import Chaser
from srm_agent.execution.ledger import Ledger
from srm_agent.execution.tickets import Finality, restored
from srm_agent.ports import Broker, Journal, MarketFeed

log = structlog.get_logger()

REACH_BACK = timedelta(hours=1)
SURELY_FINAL_S = 120.0
"""Where the broker has not said how long its doubts last."""


class Known:
    """Legs and orders in doubt of one account, kept by the daemon's own ledger."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self.instruments: dict[Symbol, Instrument] = {}
        self.ledger = Ledger(self._finality, lambda symbol: self._contract_size(symbol))
        self.chaser = Chaser(broker, self.ledger, clock, self.heard)

    async def load(self, journal: Journal) -> None:
        """What the journal has of this account. Raises StoreError, OutcomeUnknown."""
        connection, now = self._broker.connection_id, self._clock.monotonic()
        legs = await journal.open_legs(connection)
        rows = await journal.unsettled(connection)
        opened = [leg.opened_at for leg in legs if leg.opened_at is not None]
        counted = {} if not opened else await journal.known_fills(connection, min(opened) - REACH_BACK)
        self.ledger.restore(legs, [restored(row, now) for row in rows], [FillId(fill) for fill in counted])

    async def learn(self, feed: MarketFeed) -> None:
        """Contract terms of what is held, and the fills that the journal has not seen. Raises BrokerError."""
        for leg in list(self.ledger.legs.values()):
            await self.terms(feed, leg.symbol)
        opened = [leg.opened_at for leg in self.ledger.legs.values() if leg.opened_at is not None]
        if opened:
            for fill in await self._broker.fills(min(opened) - timedelta(minutes=1)):
                self.ledger.take_fill(fill)

    async def terms(self, feed: MarketFeed, symbol: Symbol) -> Instrument | None:
        """The contract terms of a symbol, None where the venue does not tell them."""
        if symbol not in self.instruments:
            try:
                self.instruments[symbol] = await feed.instrument(symbol)
            except (UnknownInstrument, BrokerUnreachable) as error:
                log.info("no terms of this symbol", symbol=symbol, error=str(error))
        return self.instruments.get(symbol)

    def ours(self, symbol: Symbol) -> Decimal:
        """Volume of our open legs on a symbol, signed lots."""
        return sum(
            (
                int(leg.side) * leg.open_lot
                for leg in self.ledger.legs.values()
                if leg.symbol == symbol and leg.state is LegState.OPEN
            ),
            ZERO,
        )

    def entries_in_doubt(self) -> bool:
        """Whether an order of ours may still become a position (INV-7)."""
        return any(ticket.intent.purpose is OrderPurpose.ENTRY for ticket in self.ledger.unsettled())

    def announce(self, intent: OrderIntent) -> None:
        """A close that is about to leave: its fills shrink our leg."""
        leg = self.ledger.open_leg(intent.symbol)
        if leg is not None:
            intent = replace(intent, leg_id=leg.leg_id, signal_id=leg.signal_id, decision_id=leg.decision_id)
        self.ledger.plan_exit(intent, CloseReason.EMERGENCY)

    def heard(self, report: OrderReport) -> None:
        """What the broker says of an order."""
        self.ledger.take_report(report, self._clock.monotonic())

    def _finality(self) -> Finality:
        try:
            capabilities = self._broker.capabilities
        except BrokerUnreachable:
            return Finality(SURELY_FINAL_S, 5)
        return Finality(capabilities.finality_s, capabilities.absences)

    def _contract_size(self, symbol: Symbol) -> Decimal:
        terms = self.instruments.get(symbol)
        return ONE if terms is None else terms.contract_size  # only results depend on it, never a volume

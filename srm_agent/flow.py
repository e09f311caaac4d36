"""The map of the program: one short function per arrow of design.md section 3.

quote -> context and equity        on_quote
signal -> decision -> intent       on_signal
report, fill -> journal            on_change
closed trade -> score              on_trade_closed
account -> protection              on_account_event
time -> what is due                on_timer
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from srm_agent.account import Account
from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.events import AccountEvent
from srm_agent.domain.ids import ClientOrderId, ConnectionId
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Signal
from srm_agent.domain.trades import ClosedTrade, CloseReason, Leg
from srm_agent.errors import OutcomeUnknown, StoreError
from srm_agent.execution.desk import Desk
from srm_agent.execution.ledger import Change
from srm_agent.execution.legs import closed_trade
from srm_agent.execution.reconcile import Difference, Finding
from srm_agent.execution.slippage import Arrival, measured
from srm_agent.fan_out import FanOut, Planned
from srm_agent.market_watch import MarketWatch
from srm_agent.observers import Observer
from srm_agent.ports import Forecaster, Journal, Notifier, Scorer, SignalLog
from srm_agent.protection.halts import HaltBoard

log = structlog.get_logger()

LATE_FILL_ADOPTED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowParts:
    """What the flow joins."""

    clock: Clock
    fan_out: FanOut
    journal: Journal
    signals: SignalLog
    forecaster: Forecaster
    scorer: Scorer
    halts: HaltBoard
    notifier: Notifier
    first_chunk: int
    chunk: int


class Flow:
    """Joins the rooms. Everything here runs on one event loop; nothing here reads a clock or a socket by itself."""

    def __init__(self, parts: FlowParts) -> None:
        self._parts = parts
        self.accounts: dict[ConnectionId, Account] = {}
        self.observers: list[Observer] = []
        self.draining = False
        """The daemon is stopping: no entries after this (F14)."""
        self._closing: dict[str, tuple[CloseSignal, list[tuple[Account, Leg]]]] = {}
        self._arrivals: dict[ClientOrderId, Arrival] = {}
        self.counters: dict[str, int] = {
            "signals": 0,
            "accepted": 0,
            "refused": 0,
            "orders": 0,
            "fills": 0,
            "trades": 0,
        }

    # ---- quote -> context and equity

    def on_quote(self, market: MarketWatch, quote: Quote) -> None:
        """A believed quote: accounts that hold the symbol are marked to market and judged."""
        for account in self.accounts.values():
            if account.market is market and account.watch.holds(quote.symbol):
                account.check()

    # ---- signal -> decision -> intent

    def note_arrival(self, signal: Signal) -> None:
        """Right after the commit: the touch at receipt, before the signal waits for its turn."""
        if isinstance(signal, OpenSignal):
            self._parts.fan_out.note_arrival(signal)

    async def on_signal(self, signal: Signal) -> None:
        """A committed message: decided for every follower, or passed to the legs it concerns, then finished (INV-3).

        A close is finished when its exits have left, so that a crash in between repeats it. Raises StoreError.
        """
        match signal:
            case OpenSignal():
                self.counters["signals"] += 1
                await self._open(signal)
            case ModifySignal():
                self._modify(signal)
            case CloseSignal():
                legs = self._close(signal)
                if legs:
                    self._closing[signal.receipt.message_id] = (signal, legs)
                    return
            case CancelSignal():
                self._parts.fan_out.cancel(signal.signal_id)
        await self._finish(signal)

    async def _finish(self, signal: Signal) -> None:
        await self._parts.signals.finish(signal.provider, signal.receipt.message_id, self._parts.clock.wall())

    async def _open(self, signal: OpenSignal) -> None:
        market = self._parts.fan_out.market_of(signal)
        self._tell(lambda seen: seen.saw_signal(signal, None if market is None else market.context(signal.symbol)))
        tombstone = await self._parts.signals.closed_before_open(signal.signal_id)
        size, batch = self._parts.first_chunk, list[Planned]()
        for planned in self._parts.fan_out.decide(signal, self.accounts, tombstone=tombstone):
            batch.append(planned)
            if len(batch) >= size:
                await self._commit_and_send(batch)
                size, batch = self._parts.chunk, []
        if batch:
            await self._commit_and_send(batch)

    async def _commit_and_send(self, batch: Sequence[Planned]) -> None:
        """Decisions, intents and legs in one transaction; orders leave after it, or not at all (INV-2)."""
        orders = [(planned.account, planned.order) for planned in batch if planned.order is not None]
        try:
            await self._parts.journal.record(
                [planned.decision for planned in batch],
                [order.intent for _, order in orders],
                [order.leg for _, order in orders],
            )
        except (StoreError, OutcomeUnknown) as error:
            log.error("decisions could not be committed, nothing is sent", count=len(batch), error=str(error))
            for account, order in orders:
                account.desk.withdraw(order.intent, "STORE_UNAVAILABLE")
            raise
        for account, order in orders:
            self._arrivals[order.intent.client_id] = order.arrival
            account.desk.send(order.intent)
            self.counters["orders"] += 1
        for planned in batch:
            self._record_verdict(planned)

    def _record_verdict(self, planned: Planned) -> None:
        decision = planned.decision
        self.counters["accepted" if decision.accepted else "refused"] += 1
        log.info(
            "decision",
            decision_id=decision.decision_id,
            signal_id=decision.signal_id,
            connection_id=decision.connection_id,
            reason=decision.reason.value,
            lot=None if decision.lot is None else str(decision.lot),
        )
        self._tell(lambda seen: seen.saw_decision(decision))

    def _modify(self, signal: ModifySignal) -> None:
        for account, leg in self._legs_of(signal):
            account.desk.moves.want(leg, signal.stop_loss, signal.take_profit)

    def _close(self, signal: CloseSignal) -> list[tuple[Account, Leg]]:
        if signal.fraction >= 1:
            self._parts.fan_out.cancel(signal.signal_id)
        legs = self._legs_of(signal)
        for account, leg in legs:
            account.desk.close(leg, signal.fraction, CloseReason.PROVIDER, f"close:{signal.receipt.message_id}")
        return legs

    async def _finish_closes(self) -> None:
        """Full closes end with their legs, part closes when their order is in the journal."""
        for message_id, (signal, legs) in list(self._closing.items()):
            if not any(self._pending(account, leg, signal) for account, leg in legs):
                await self._finish(signal)
                del self._closing[message_id]

    @staticmethod
    def _pending(account: Account, leg: Leg, signal: CloseSignal) -> bool:
        return account.desk.exits.pending(leg.leg_id, f"close:{signal.receipt.message_id}")

    def _legs_of(self, signal: ModifySignal | CloseSignal) -> list[tuple[Account, Leg]]:
        found = []
        for account in self.accounts.values():
            leg = account.desk.ledger.leg_of_signal(signal.signal_id)
            if leg is not None:
                found.append((account, leg))
        return found

    # ---- the last word before the wire

    def gate(self, account: Account, intent: OrderIntent) -> ReasonCode | None:
        """Why an entry may no longer leave; exits always may (INV-10)."""
        if intent.purpose is not OrderPurpose.ENTRY:
            return None
        if (
            self.draining
            or account.state() is not ConnectionState.ACTIVE
            or self._parts.halts.find(HaltScope.ALL) is not None
        ):
            return ReasonCode.HALTED_BEFORE_SEND
        if intent.signal_id is not None and self._parts.fan_out.cancelled(intent.signal_id):
            return ReasonCode.CLOSED_BEFORE_OPEN
        return None

    # ---- report, fill -> journal, learning

    def on_change(self, desk: Desk, change: Change) -> None:
        """An order or leg changed: measure what ended, learn from what closed, flatten what came too late."""
        account = self.accounts[desk.connection_id]
        if change.fill is not None:
            self.counters["fills"] += 1
        if change.settled and change.ticket is not None and change.ticket.intent.purpose is OrderPurpose.ENTRY:
            self._measure(account, change)
        if change.ended and change.leg is not None:
            trade = closed_trade(change.leg, account.market.instruments[change.leg.symbol].contract_size)
            if trade is not None:
                self.on_trade_closed(account, trade)
        elif change.opened and change.leg is not None:
            self._opened(account, change, change.leg)

    def _measure(self, account: Account, change: Change) -> None:
        ticket = change.ticket
        assert ticket is not None
        arrival = self._arrivals.pop(ticket.intent.client_id, None)
        if arrival is None:
            return  # an order of a previous process: its touches are not known, so its cost is not invented
        measure = measured(ticket, arrival, account.market.instruments[ticket.intent.symbol])
        account.desk.writer.put(account.desk.update_of(Change(ticket=ticket), measure))
        self._parts.forecaster.observe(measure)
        self._tell(lambda seen: seen.saw_execution(measure))

    def _opened(self, account: Account, change: Change, leg: Leg) -> None:
        """A leg came to life: where none may live any more, or too late, it is closed again (INV-6, INV-7)."""
        state, ticket = account.state(), change.ticket
        now = self._parts.clock.monotonic()
        too_late = change.late and ticket is not None and now > ticket.intent.deadline + LATE_FILL_ADOPTED_S
        if state in (ConnectionState.FLATTENING, ConnectionState.HALTED) or too_late:
            self._parts.notifier.notify("page", "late fill closed", leg.symbol, account.member.connection_id)
            account.desk.close(leg, leg.lot / leg.lot, CloseReason.EMERGENCY, "late")

    # ---- closed trade -> score

    def on_trade_closed(self, account: Account, trade: ClosedTrade) -> None:
        """The provider's score and metrics change at once."""
        self.counters["trades"] += 1
        score = self._parts.scorer.observe(trade)
        account.desk.writer.put_job(lambda: self._parts.journal.close_trade(trade, score))
        self._tell(lambda seen: seen.saw_trade(trade, score))

    # ---- account -> protection

    def on_account_event(self, desk: Desk, event: AccountEvent) -> None:
        """Equity first: protection hears every event before the desk acts on it."""
        self.accounts[desk.connection_id].hear(event)

    def on_difference(self, desk: Desk, difference: Difference) -> None:
        """Journal and broker disagree in two readings."""
        level = "notice" if difference.finding is Finding.MISSING else "page"
        text = f"{difference.finding.value} on {difference.symbol}: broker minus ours {difference.excess}"
        self._parts.notifier.notify(level, "journal and broker differ", text, desk.connection_id)

    def on_not_authorised(self, desk: Desk, detail: str) -> None:
        """The broker refuses our credentials: halted until an operator has looked."""
        halt = Halt(
            scope=HaltScope.CONNECTION,
            key=desk.connection_id,
            state=ConnectionState.HALTED,
            reason=f"the broker refuses the credentials: {detail[:200]}",
            set_at=self._parts.clock.wall(),
            set_by="broker",
        )
        self._parts.halts.set(halt)
        self._parts.notifier.notify("page", "not authorised", detail[:200], desk.connection_id)

    def on_emergency(self, account: Account, reason: str, flat: bool) -> None:
        """An emergency close began, or is done."""
        self._tell(lambda seen: seen.saw_emergency(account.member.connection_id, reason, flat=flat))

    # ---- time -> what is due

    async def on_timer(self) -> None:
        """Once a second: judge every account, persist halts, show equity."""
        for account in self.accounts.values():
            account.tend()
            self._tell(lambda seen, a=account: seen.saw_equity(a.member.connection_id, a.equity()))  # type: ignore[misc]
        await self._parts.halts.save()
        await self._finish_closes()

    def status(self) -> Mapping[str, int]:
        """Counters since start."""
        return dict(self.counters)

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for observer in self.observers:
            try:
                what(observer)
            except Exception:  # a display must never harm the trade
                log.exception("observer failed")

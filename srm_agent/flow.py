"""The map of the program: one short function per arrow of design.md section 3.

quote -> context and equity        on_quote
signal -> decision -> intent       on_signal
report, fill -> journal            on_change
closed trade -> score              on_trade_closed
account -> protection              on_account_event
time -> what is due                on_timer
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from srm_agent.account import Account
from srm_agent.clock import Clock
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.domain.decisions import Decision, ReasonCode
from srm_agent.domain.events import AccountEvent
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, ProviderKey, SignalId
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Signal
from srm_agent.domain.trades import ClosedTrade, CloseReason, Leg
from srm_agent.domain.units import ONE, plain
from srm_agent.errors import NotAuthorised, OutcomeUnknown, StoreError, StoreUnavailable, WrongAccount
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
from srm_agent.terms_watch import TermsChange

log = structlog.get_logger()

LATE_FILL_ADOPTED_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Following:
    """A message about an earlier signal, and what tells whether it is still to be carried out."""

    signal: Signal
    pending: Sequence[Callable[[], bool]]


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
        self._following: dict[tuple[ProviderKey, str], Following] = {}
        self._followed = asyncio.Event()
        self._decided: dict[SignalId, set[ConnectionId]] = {}
        """Whose decision on a signal is committed, while that signal is not finished."""
        self._counted: dict[SignalId, None] = {}
        """Signals that are in the counter and not finished."""
        self._arrivals: dict[ClientOrderId, Arrival] = {}
        self.counters: dict[str, int] = {
            "signals": 0,
            "accepted": 0,
            "refused": 0,
            "orders": 0,
            "fills": 0,
            "trades": 0,
            "stop_outs": 0,
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

        What follows a signal acts at once and is finished when it is done, so that a crash in between repeats it; it
        never waits for the database (INV-10). An open raises StoreError, and may then be given again.
        """
        match signal:
            case OpenSignal():
                if await self._open(signal):
                    await self._finish(signal)
                    self._decided.pop(signal.signal_id, None)
                    self._counted.pop(signal.signal_id, None)
                return
            case ModifySignal():
                following = self._modify(signal)
            case CloseSignal():
                following = self._close(signal)
            case CancelSignal():
                self._parts.fan_out.cancel(signal.signal_id)
                following = Following(signal, [])
        self._following[signal.provider, signal.receipt.message_id] = following
        self._followed.set()

    async def _finish(self, signal: Signal) -> None:
        await self._parts.signals.finish(signal.provider, signal.receipt.message_id, self._parts.clock.wall())

    async def _open(self, signal: OpenSignal) -> bool:
        """True when every follower's decision is committed; False when the daemon stops (the next start goes on)."""
        if self.draining:
            return False
        decided = self._decided.get(signal.signal_id)
        if decided is None:
            # An earlier process, or a try whose commit nobody is sure of, may have decided for some already.
            found = set(await self._parts.journal.decided(signal.signal_id))
            decided = self._decided.setdefault(signal.signal_id, found)
        if signal.signal_id not in self._counted:
            self._counted[signal.signal_id] = None
            self.counters["signals"] += 1
        market = self._parts.fan_out.market_of(signal)
        self._tell(lambda seen: seen.saw_signal(signal, None if market is None else market.context(signal.symbol)))
        tombstone = await self._parts.signals.closed_before_open(signal.signal_id)
        size, batch = self._parts.first_chunk, list[Planned]()
        defects: list[Exception] = []
        try:
            for planned in self._parts.fan_out.decide(
                signal, self.accounts, tombstone=tombstone, decided=decided, defects=defects
            ):
                batch.append(planned)
                if len(batch) >= size:
                    size, full, batch = self._parts.chunk, batch, []
                    await self._commit_and_send(full, decided)
        except BaseException:
            self._withdraw(batch, "DEFECT")
            raise
        if batch:
            await self._commit_and_send(batch, decided)
        if defects:
            raise defects[0]  # the others have their orders; who is left is tried again
        return True

    def _withdraw(self, batch: Sequence[Planned], code: str) -> None:
        """Nothing of these is committed: their reservations end."""
        for planned in batch:
            if planned.order is not None:
                planned.account.desk.withdraw(planned.order.intent, code)

    async def _commit_and_send(self, batch: Sequence[Planned], decided: set[ConnectionId]) -> None:
        """Decisions, intents and legs in one transaction; orders leave after it, or not at all (INV-2)."""
        orders = [(planned.account, planned.order) for planned in batch if planned.order is not None]
        try:
            await self._record(
                [planned.decision for planned in batch],
                [order.intent for _, order in orders],
                [order.leg for _, order in orders],
            )
        except StoreError as error:
            log.error("decisions could not be committed, nothing is sent", count=len(batch), error=str(error))
            self._withdraw(batch, "STORE_UNAVAILABLE")
            raise
        except BaseException:
            # A defect, or the end of the process: whether it was committed, the journal says at the next try.
            self._withdraw(batch, "DEFECT")
            self._decided.pop(batch[0].decision.signal_id, None)
            raise
        decided.update(planned.decision.connection_id for planned in batch)
        for account, order in orders:
            self._arrivals[order.intent.client_id] = order.arrival
            account.desk.send(order.intent)
            self.counters["orders"] += 1
        for planned in batch:
            self._record_verdict(planned)

    async def _record(self, decisions: Sequence[Decision], intents: Sequence[OrderIntent], legs: Sequence[Leg]) -> None:
        """Raises StoreError when nothing was written.

        A commit in doubt is written again, the same rows, until it is sure: another decision on this signal would
        meet the rows of this one. Orders that wait too long for it end by their deadline.
        """
        doubt, pause = False, FIRST_PAUSE_S
        while True:
            try:
                return await self._parts.journal.record(decisions, intents, legs)
            except OutcomeUnknown as error:
                doubt = True
                log.warning("commit of decisions in doubt, written again", error=str(error))
            except StoreUnavailable:
                if not doubt:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

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

    def _modify(self, signal: ModifySignal) -> Following:
        legs = self._legs_of(signal)
        for account, leg in legs:
            account.desk.moves.want(leg, signal.stop_loss, signal.take_profit)
        return Following(signal, [partial(account.desk.moves.pending, leg.leg_id) for account, leg in legs])

    def _close(self, signal: CloseSignal) -> Following:
        if signal.fraction >= 1:
            self._parts.fan_out.cancel(signal.signal_id)
        legs, label = self._legs_of(signal), f"close:{signal.receipt.message_id}"
        for account, leg in legs:
            account.desk.close(leg, signal.fraction, CloseReason.PROVIDER, label)
        pending = [partial(account.desk.exits.pending, leg.leg_id, label) for account, leg in legs]
        if signal.fraction >= 1:
            # Where another daemon has traded, legs may be open that we do not know: who reads them will repeat this.
            copying = [one for one in self.accounts.values() if signal.provider in one.member.providers]
            pending += [partial(getattr, account, "rivalled") for account in copying]
        return Following(signal, pending)

    async def run_followers(self) -> None:
        """Finish closes and changes as soon as they are done, so that a crash repeats as little as possible."""
        while True:
            await self._followed.wait()
            self._followed.clear()
            try:
                await self._finish_followers()
            except (StoreError, OutcomeUnknown) as error:
                log.warning("signals wait for the database to be finished", error=str(error))
                await asyncio.sleep(LONGEST_PAUSE_S)
                self._followed.set()

    async def _finish_followers(self) -> None:
        for key, following in list(self._following.items()):
            if not any(pending() for pending in following.pending):
                await self._finish(following.signal)
                self._following.pop(key, None)

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
        if self.draining or account.state() is not ConnectionState.ACTIVE or self._halted(account, intent):
            return ReasonCode.HALTED_BEFORE_SEND
        if intent.signal_id is not None and self._parts.fan_out.cancelled(intent.signal_id):
            return ReasonCode.CLOSED_BEFORE_OPEN
        return None

    def _halted(self, account: Account, intent: OrderIntent) -> bool:
        halts, leg = self._parts.halts, account.desk.ledger.legs.get(intent.leg_id or LegId(""))
        return (
            halts.find(HaltScope.ALL) is not None
            or halts.find(HaltScope.SYMBOL, intent.symbol) is not None
            or (leg is not None and halts.find(HaltScope.PROVIDER, str(leg.provider)) is not None)
        )

    # ---- report, fill -> journal, learning

    def on_change(self, desk: Desk, change: Change) -> None:
        """An order or leg changed: measure what ended, learn from what closed, flatten what came too late."""
        account = self.accounts[desk.connection_id]
        if change.fill is not None:
            self.counters["fills"] += 1
        if change.settled or change.ended or change.fill is not None:
            self._followed.set()
        if change.settled and change.ticket is not None and desk.refusals.doubts_terms(change.ticket):
            account.market.terms.look_soon()
        if change.settled and change.ticket is not None and change.ticket.intent.purpose is OrderPurpose.ENTRY:
            self._measure(account, change)
        if change.ended and change.leg is not None:
            trade = closed_trade(change.leg, account.market.instruments[change.leg.symbol].contract_size)
            if trade is not None:
                self.on_trade_closed(account, trade)
        elif (change.opened or change.late) and change.leg is not None:
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
        """A leg came to life: where none may live any more, or too late, it is closed again (INV-6, INV-7).

        An order that was refused should never have executed; one that was given up (ABANDONED) and executes soon after
        is adopted, its stop read back like any other.
        """
        ticket, connection = change.ticket, account.member.connection_id
        if ticket is None or ticket.intent.purpose is not OrderPurpose.ENTRY:
            return
        if account.state() in (ConnectionState.FLATTENING, ConnectionState.HALTED) or (
            change.late and (change.refused or self._too_late(ticket.intent))
        ):
            self._parts.notifier.notify("page", "late fill closed", leg.symbol, connection)
            account.desk.close(leg, ONE, CloseReason.EMERGENCY, "late")
        elif (leg.closed_lot or change.late) and self._parts.fan_out.cancelled(leg.signal_id):
            # An entry, or the rest of one, executed after the provider's close was done with: nobody would close it.
            account.desk.close(leg, ONE, CloseReason.PROVIDER, "late")
        elif leg.closed_lot and change.late:
            # Its trade was over (F24): stopped out, or closed by hand.
            self._parts.notifier.notify("page", "late fill closed", leg.symbol, connection)
            account.desk.close(leg, ONE, CloseReason.EMERGENCY, "late")
        elif change.late:
            self._parts.notifier.notify("page", "late fill adopted", leg.symbol, connection)

    def _too_late(self, intent: OrderIntent) -> bool:
        """By the clock that shows more: after a restart the monotonic deadline of another process means nothing."""
        late = self._parts.clock.monotonic() - intent.deadline
        age = (self._parts.clock.wall() - intent.created_at).total_seconds()
        return late > LATE_FILL_ADOPTED_S or age > 2 * LATE_FILL_ADOPTED_S

    # ---- closed trade -> score

    def on_trade_closed(self, account: Account, trade: ClosedTrade) -> None:
        """The provider's score and metrics change at once."""
        self.counters["trades"] += 1
        if trade.close_reason is CloseReason.LIQUIDATION:
            self.counters["stop_outs"] += 1
            text = f"{trade.symbol}: {plain(trade.lot)} lots closed by the broker, result {plain(trade.net_pnl)}"
            self._parts.notifier.notify("page", "stopped out by the broker", text, trade.connection_id)
        account.streak.observe(trade)
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

    def on_trouble(self, desk: Desk, level: str, title: str, text: str) -> None:
        """Something on one account that people must hear of."""
        self._parts.notifier.notify(level, title, text, desk.connection_id)

    def on_not_authorised(self, desk: Desk, error: NotAuthorised) -> None:
        """The broker refuses our credentials: halted until an operator has looked (B18).

        Another account behind them (B33): nobody knows what else is wired wrongly, so no account takes entries.
        """
        connection, detail = desk.connection_id, str(error)[:200]
        self._halt(HaltScope.CONNECTION, connection, f"the broker refuses the credentials: {detail}", "broker")
        self._parts.notifier.notify("page", "not authorised", detail, connection)
        if isinstance(error, WrongAccount):
            self._halt(HaltScope.ALL, "", f"{connection}: {detail}", "broker")
            self._parts.notifier.notify("page", "wrong account, everything is halted", detail, connection)

    def on_terms(self, change: TermsChange) -> None:
        """Contract terms changed while they are traded: a large change halts the symbol until somebody looked (B29)."""
        log.warning("contract terms changed", symbol=change.symbol, change=change.text, large=change.large)
        if change.large:
            self._halt(HaltScope.SYMBOL, change.symbol, f"its contract changed: {change.text}", "terms")
            self._parts.notifier.notify(
                "page", "contract terms changed, symbol halted", f"{change.symbol}: {change.text}"
            )

    def _halt(self, scope: HaltScope, key: str, reason: str, by: str) -> None:
        self._parts.halts.set(
            Halt(
                scope=scope,
                key=key,
                state=ConnectionState.HALTED,
                reason=reason,
                set_at=self._parts.clock.wall(),
                set_by=by,
            )
        )

    def on_emergency(self, account: Account, reason: str, closing_orders: int | None) -> None:
        """An emergency close began (None), or the account is flat after that many closing orders."""
        self._tell(lambda seen: seen.saw_emergency(account.member.connection_id, reason, closing_orders))

    # ---- time -> what is due

    async def on_timer(self) -> None:
        """Once a second: judge every account, persist halts, show equity."""
        for account in self.accounts.values():
            account.tend()
            self._tell(lambda seen, a=account: seen.saw_equity(a.member.connection_id, a.equity()))  # type: ignore[misc]
        self._followed.set()
        await self._parts.halts.save()

    def status(self) -> Mapping[str, int]:
        """Counters since start."""
        return dict(self.counters)

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for observer in self.observers:
            try:
                what(observer)
            except Exception:  # a display must never harm the trade
                log.exception("observer failed")

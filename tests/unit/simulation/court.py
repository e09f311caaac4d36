"""A world made by hand for the judges: a real venue, a real store behind the doors, and everything else as told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from simulator.memory_store.book import StoreBook
from simulator.memory_store.store import MemoryStore
from simulator.records import OrderTicket, SimOrder, TimeInForce
from simulator.simulation.evidence import Acknowledged, Life, Operated, Told
from simulator.simulation.invariants.doors import Seen, Sent
from simulator.simulation.invariants.judge import Judge
from simulator.terms import SimAccount, SimInstrument
from simulator.venue import Venue
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.decisions import Decision, ReasonCode, Step
from srm_agent.domain.ids import (
    ConnectionId,
    PositionRef,
    ProviderKey,
    Symbol,
    client_order_id,
    decision_id,
    leg_id,
    signal_id,
)
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.signals import CloseSignal, OpenSignal, Receipt, Signal
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO, Side
from srm_agent.ports import OrderUpdate, Storage

START = datetime(2026, 3, 4, 13, 30, tzinfo=UTC)
C01 = ConnectionId("c01")
ALPHA = ProviderKey.parse("alpha")
BTC = Symbol("BTC/USDT:USDT")
BOUGHT = Decimal("0.3")
STOP = Decimal(58_990)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An accepted signal of one account: what would be committed and sent."""

    decision: Decision
    intent: OrderIntent
    leg: Leg


@dataclass
class Court:
    """The evidence, and the judge over it. Nothing happens by itself: tests do what the agent would have done."""

    venue: Venue
    store: MemoryStore
    seen: Seen
    connections: Sequence[ConnectionId] = (C01,)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    operated: list[Operated] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)
    secrets: Sequence[str] = ("canary-of-alpha",)
    scope_is_account: bool = False
    max_risk: Decimal = Decimal("0.05")
    max_open_risk: Decimal = Decimal("0.08")
    max_drawdown: Decimal = Decimal("0.2")
    time: float = 0.0
    reached: bool = True
    database: bool = True
    disk: bool = True
    state: ConnectionState | None = ConnectionState.ACTIVE
    spills: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen.now, self.seen.works = self.now, self.database_works
        self.book: StoreBook = self.store.book
        self.live(1)
        self.judge = Judge(self)

    # ---- evidence

    def now(self) -> float:
        """As told."""
        return self.time

    def reachable(self, connection: ConnectionId) -> bool:
        """As told."""
        return self.reached

    def feed_works(self) -> bool:
        """Always."""
        return True

    def database_works(self) -> bool:
        """As told."""
        return self.database

    def disk_works(self) -> bool:
        """As told."""
        return self.disk

    def state_of(self, connection: ConnectionId) -> ConnectionState | None:
        """As told."""
        return self.state

    def followers(self, provider: ProviderKey) -> Sequence[ConnectionId]:
        """Everybody."""
        return self.connections

    def spilt(self, client_id: str) -> bool:
        """As told."""
        return client_id in self.spills

    # ---- time and lives

    def live(self, number: int) -> None:
        """A process is born and ready."""
        self.lives.append(Life(number=number, born=self.time, ready=self.time, died=None, how=""))

    def die(self, number: int) -> None:
        """It is killed."""
        self.lives[number - 1] = replace(self.lives[number - 1], died=self.time, how="kill")

    def wait(self, seconds: float) -> None:
        """Time passes; the judge looks every quarter of a second."""
        for _ in range(round(seconds * 4)):
            self.time += 0.25
            self.judge.tick()

    def price(self, bid: str) -> None:
        """BTC stands there."""
        low = Decimal(bid)
        self.venue.set_book("BTCUSDT", low, low + Decimal("0.5"), self.venue.market_ms + 1000)

    # ---- what an agent does

    def door(self, life: int = 1) -> Storage:
        """The database as that process has it."""
        return self.seen.storage(life, self.store)

    async def lease(self, life: int = 1) -> int:
        """That process gets the lease."""
        fence = await self.door(life).leases.acquire(C01, f"process {life}", 600)
        assert fence is not None
        return fence

    async def commit(self, entry: Entry, life: int = 1, **changes: Any) -> OrderIntent:
        """Decision, intent and leg in one transaction, under the lease in force; the intent."""
        known = self.seen.leases.get(C01)
        fence = known.fence if known is not None else await self.lease(life)
        intent = replace(entry.intent, **({"fence": fence} | changes))
        await self.door(life).journal.record([entry.decision], [intent], [entry.leg])
        return intent

    def send(self, intent: OrderIntent, life: int = 1) -> Sent:
        """Hand it to the broker: noted at the door, nothing reaches the venue."""
        self.seen.heard[life, C01] = self.seen.figure[life, C01] = self.time
        return self.seen.handed(life, intent)

    def place(self, intent: OrderIntent, **changes: Any) -> SimOrder:
        """It reaches the venue."""
        ticket = OrderTicket(
            symbol_id="BTCUSDT",
            side=intent.side,
            lots=intent.lot,
            price=intent.limit_price,
            time_in_force=TimeInForce.IOC,
            link_id=intent.client_id,
            reduce_only=intent.reduce is not None,
            stop_loss=intent.stop_loss,
            take_profit=intent.take_profit,
        )
        return self.venue.place(intent.connection_id, replace(ticket, **changes))

    async def opened(self, entry: Entry, **changes: Any) -> Leg:
        """Committed, sent, filled, and told to the database: the whole lawful way."""
        intent = await self.commit(entry)
        sent = self.send(intent)
        order = self.place(intent, **changes)
        sent.answer = "filled"
        leg = replace(
            entry.leg, state=LegState.OPEN, lot=order.filled, entry_price=order.average_price, opened_at=START
        )
        await self.settle(intent, OrderState.FILLED, leg=leg, filled=order.filled, price=order.average_price)
        return leg

    async def settle(
        self,
        intent: OrderIntent,
        state: OrderState,
        *,
        code: str = "",
        leg: Leg | None = None,
        filled: Decimal = ZERO,
        price: Decimal | None = None,
    ) -> None:
        """The journal is told how an order ended."""
        await self.door().journal.update(
            [
                OrderUpdate(
                    client_id=intent.client_id, state=state, filled_lot=filled, average_price=price,
                    broker_order_id=None, code=code, detail="", absences=0, at=self.wall(), leg=leg,
                )
            ]
        )  # fmt: skip

    async def accept(self, signal: Signal) -> None:
        """The intake commits a message."""
        await self.door().signals.accept(signal, "0" * 64, "{}")

    def acknowledge(self, signal: Signal) -> None:
        """The provider is answered."""
        self.acknowledged.append(
            Acknowledged(
                at=self.time,
                provider="alpha",
                message_id=signal.receipt.message_id,
                action="open" if isinstance(signal, OpenSignal) else "close",
                signal_id=signal.signal_id,
                answer="{}",
            )
        )

    def page(self, title: str = "late fill adopted") -> None:
        """People are told."""
        self.told.append(Told(at=self.time, level="page", title=title, message="", connection=C01))

    def wall(self) -> datetime:
        """Of the clock on the wall."""
        return START + timedelta(seconds=self.time)

    # ---- what was found

    def found(self, name: str) -> list[str]:
        """Texts of the violations of one invariant so far."""
        return [one.text for one in self.judge.violations if one.invariant == name]

    @property
    def verdict(self) -> list[str]:
        """Which invariants were broken so far, in the order of breaking."""
        return [one.invariant for one in self.judge.violations]


class _Clock:
    def __init__(self) -> None:
        self.court: Court | None = None

    def wall(self) -> datetime:
        return START if self.court is None else self.court.wall()

    def monotonic(self) -> float:
        return 0.0 if self.court is None else self.court.time


def a_court(**changes: Any) -> Court:
    """One account with 10,000 USDT, BTC at 60000.0 / 60000.5, one process ready."""
    btc = SimInstrument(
        symbol_id="BTCUSDT", base="BTC", tick_size=Decimal("0.1"), lot_step=Decimal("0.001"),
        lot_min=Decimal("0.001"), lot_max=Decimal(100), max_market_lot=Decimal(50), level_lots=Decimal(50),
    )  # fmt: skip
    account = SimAccount(account_id="c01", api_key="k", secret="s", balance=Decimal(10_000), leverage=Decimal(50))
    venue = Venue([btc], [account], random.Random(1))
    venue.set_book("BTCUSDT", Decimal("60000.0"), Decimal("60000.5"), 1_772_631_000_000)
    clock = _Clock()
    clock.court = court = Court(venue, MemoryStore(clock), Seen(lambda: 0.0), **changes)
    return court


def an_entry(name: str = "s1", lot: Decimal = BOUGHT, **changes: Any) -> Entry:
    """Buy 0.3 BTC with a stop at 58990 and a limit at 60010; `changes` are the decision's."""
    what = signal_id(ALPHA, name)
    steps = (
        Step("base_fixed", {"fixed_lot": f"{lot:f}"}, ZERO, lot),
        Step("lot_step", {"lot_step": "0.001"}, lot, lot),
    )
    risk = lot * (Decimal("60000.5") - STOP)
    decision = Decision(
        decision_id=decision_id(C01, what),
        signal_id=what,
        connection_id=C01,
        provider=ALPHA,
        symbol=BTC,
        side=Side.BUY,
        accepted=True,
        reason=ReasonCode.ACCEPTED,
        numbers={},
        steps=steps,
        lot=lot,
        limit_price=Decimal(60_010),
        stop_loss=STOP,
        planned_stop=Decimal(59_000),
        stop_buffer=Decimal(10),
        take_profit=None,
        planned_risk=risk,
        inputs={"equity": "10000", "bid": "60000", "ask": "60000.5", "contract_size": "1", "conversion": "1"},
        policy_version="1",
        arm="",
        model_versions={},
        decided_at=START,
    )
    decision = replace(decision, **changes)
    leg = Leg(
        leg_id=leg_id(C01, what), connection_id=C01, signal_id=what, decision_id=decision.decision_id, provider=ALPHA,
        symbol=BTC, side=Side.BUY, state=LegState.OPENING, lot=lot, closed_lot=ZERO, entry_price=None,
        exit_value=ZERO, fees=ZERO, realised_pnl=ZERO, planned_stop=Decimal(59_000), stop_loss=STOP,
        take_profit=None, planned_risk=risk, opened_at=None, closed_at=None, close_reason=None,
    )  # fmt: skip
    intent = OrderIntent(
        client_id=client_order_id(C01, what, "entry"), connection_id=C01, leg_id=leg.leg_id, signal_id=what,
        decision_id=decision.decision_id, purpose=OrderPurpose.ENTRY, symbol=BTC, side=Side.BUY, lot=lot,
        limit_price=Decimal(60_010), stop_loss=STOP, take_profit=None, reduce=None, reason="signal",
        created_at=START, deadline=1e9,
    )  # fmt: skip
    return Entry(decision=decision, intent=intent, leg=leg)


def an_exit(leg: Leg, lot: Decimal | None = None, **changes: Any) -> OrderIntent:
    """Close a leg, or some of it."""
    value = OrderIntent(
        client_id=client_order_id(C01, leg.signal_id, "close:m"), connection_id=C01, leg_id=leg.leg_id,
        signal_id=leg.signal_id, decision_id=leg.decision_id, purpose=OrderPurpose.EXIT, symbol=BTC,
        side=leg.side.opposite, lot=leg.open_lot if lot is None else lot, limit_price=None, stop_loss=None,
        take_profit=None, reduce=PositionRef("p"), reason="provider", created_at=START, deadline=1e9,
    )  # fmt: skip
    return replace(value, **changes)


def a_receipt(message: str) -> Receipt:
    """Delivered at the start."""
    return Receipt(message_id=message, received_at=START, received=0.0, issued_at=START)


def an_open(name: str = "s1", message: str = "m-open") -> OpenSignal:
    """What `an_entry` follows."""
    return OpenSignal(
        signal_id=signal_id(ALPHA, name), provider=ALPHA, symbol=BTC, side=Side.BUY, signal_price=Decimal(60_000),
        stop_loss=Decimal(59_000), take_profit=None, provider_lot=None, receipt=a_receipt(message),
    )  # fmt: skip


def a_close(name: str = "s1", message: str = "m-close", fraction: str = "1") -> CloseSignal:
    """Close it."""
    return CloseSignal(
        signal_id=signal_id(ALPHA, name), provider=ALPHA, fraction=Decimal(fraction), receipt=a_receipt(message)
    )


def human(court: Court, side: Side, lots: str) -> None:
    """Somebody trades by hand."""
    court.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=side, lots=Decimal(lots)))

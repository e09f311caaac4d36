"""The dictionaries are the database's twin: any sequence of calls, and every read after every call, is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Concatenate, ParamSpec, TypeVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from structlog.testing import capture_logs

from simulator.memory_store.store import MemoryStore
from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.decisions import Step
from srm_agent.domain.ids import ClientOrderId, ProviderKey, ProviderKind, signal_id
from srm_agent.domain.orders import OrderPurpose, OrderState
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Receipt, Signal
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import Side
from srm_agent.store.errors_map import mapped
from srm_agent.store.names import STANDALONE
from srm_agent.store.schema import tables_of
from srm_agent.store.store import Store
from tests.contract.store.conftest import C1, C2, KeptStore, Values
from tests.unit.store.conftest import START

P = ParamSpec("P")
T = TypeVar("T")
A = Values()
EXAMPLES = settings().max_examples
STEPS = 25
SIGNALS = ("s0", "s1", "s2", "s3")
BETA = ProviderKey(ProviderKind.USER, "beta")
LEGS = [A.leg(name, of).leg_id for name in SIGNALS for of in (C1, C2)]


CALLS = {
    "orders": ["journal.record"] * 3 + ["journal.update"] * 5 + ["journal.record_fills", "leases.acquire"],
    "trades": ["journal.record", "journal.update", "journal.update", "journal.close_trade", "journal.close_trade",
               "journal.rebuild_metrics"],
    "signals": ["signals.accept"] * 4 + ["signals.finish", "restart"],
    "protection": ["protection.save_halt"] * 4 + ["protection.clear_halt", "protection.save_mark",
                   "protection.record_equity", "protection.record_equity", "protection.record_flows"],
    "leases": ["leases.acquire"] * 2 + ["leases.renew", "leases.release", "journal.record"],
}  # fmt: skip
"""Calls that meet each other's rows; a sequence keeps mostly to one of these themes."""


def done(call: Coroutine[Any, Any, T]) -> T:
    """The result of a call that never waits: neither store pauses, so a seed takes the same turns on both."""
    try:
        call.send(None)
    except StopIteration as stop:
        found: T = stop.value
        return found
    raise AssertionError("the call waited")


class Dice:
    """Plausible and implausible values from a small world, so that calls meet each other's rows."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pick = rng.choice
        self.theme = rng.choice(list(CALLS))
        self.sent: list[ClientOrderId] = []
        """Orders that were recorded, or tried."""

    def some(self, values: Any, most: int = 3) -> list[Any]:
        return [self.pick(values) for _ in range(self.rng.randint(0, most))]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def exact(self) -> Any:
        """A lot or price as it could be sent; once in a while one that no column takes."""
        if self.chance(0.003):
            return self.pick([Decimal("NaN"), Decimal("1E-11"), Decimal(10) ** 18, 0.5, Decimal("-Infinity")])
        return Decimal(self.pick(["0", "-0", "0.02", "0.0200", "0.05", "0.07", "1E+2", "1.08", "1.0801", "1.08005"]))

    def decimal(self) -> Decimal:
        """A Decimal, though maybe one that no column takes."""
        value = self.exact()
        return value if isinstance(value, Decimal) else Decimal("sNaN")

    def result(self) -> Any:
        """What a product or quotient gives."""
        if self.chance(0.003):
            return self.pick([Decimal("NaN"), Decimal(10) ** 18, 1])
        return self.pick([Decimal(1) / 3, Decimal(-2) / 3, Decimal("0.00000000005"), Decimal("-1E-12"), self.exact()])

    def maybe(self, value: T) -> T | None:
        return None if self.chance(0.3) else value

    def instant(self, bad: float = 0.003) -> datetime:
        at = START + timedelta(minutes=self.rng.randint(0, 3), days=self.pick([0, 0, 0, 0, 0, 1, 5, 27]))
        if self.chance(bad):
            return at.replace(tzinfo=None)
        return at.astimezone(timezone(timedelta(hours=self.pick([0, 0, 9, -11]))))

    def real(self) -> float:
        return self.pick([float("nan"), float("inf"), 7]) if self.chance(0.003) else self.rng.random()

    def decision(self) -> Any:
        steps = tuple(Step("r", {"b": "1", "a": "2"}, Decimal("0.0500"), self.pick([Decimal("1E-3"), Decimal("-0")]))
                      for _ in range(self.rng.randint(0, 2)))  # fmt: skip
        return A.decision(
            self.pick(SIGNALS), self.pick([C1, C2]), lot=self.maybe(self.decimal()), steps=steps,
            numbers=dict(self.some([("z", "1"), ("y", "2"), ("é", "3")])), decided_at=self.instant(),
            provider=self.pick([A.alpha, BETA]), planned_risk=self.maybe(Decimal("11.500")),
            inputs=self.pick([{}, {"session": "LONDON", "atr": "unknown"}, A.decision().inputs]),
        )  # fmt: skip

    def intent(self) -> Any:
        purpose = self.pick([OrderPurpose.ENTRY, OrderPurpose.ENTRY, OrderPurpose.EXIT, OrderPurpose.EMERGENCY])
        name, of = self.pick(SIGNALS), self.pick([C1, C2])
        leg = "entry" if purpose is OrderPurpose.ENTRY else self.pick(["close:1", "flatten:1"])
        base = A.intent(name, of, leg)
        self.sent.append(base.client_id)
        return replace(
            base, purpose=purpose, lot=self.exact(), limit_price=self.maybe(self.exact()),
            leg_id=None if self.chance(0.1) else base.leg_id, signal_id=None if self.chance(0.1) else base.signal_id,
            created_at=self.instant(), deadline=self.real(), fence=self.pick([0, 1, 1, 2]),
            target=self.maybe(self.exact()), requests=tuple(self.some(["m1", "m2"])),
        )  # fmt: skip

    def leg(self) -> Any:
        state = self.pick(list(LegState))
        return A.leg(
            self.pick(SIGNALS), self.pick([C1, C2]), state=state, side=self.pick(list(Side)), lot=self.exact(),
            closed_lot=self.pick([Decimal(0), self.exact()]), entry_price=self.maybe(self.result()),
            exit_value=self.result(), fees=self.result(), realised_pnl=self.result(),
            stop_loss=self.maybe(self.exact()),
            opened_at=self.maybe(self.instant()), closed_at=self.maybe(self.instant()), stop_kept=self.chance(0.5),
            close_reason=self.maybe(self.pick(list(CloseReason))), closing_as=self.maybe(self.pick(list(CloseReason))),
            provider=self.pick([A.alpha, BETA]),
        )  # fmt: skip

    def client_id(self) -> Any:
        if self.sent and self.chance(0.97):
            return self.pick(self.sent[-3:] if self.chance(0.7) else self.sent)
        leg = self.pick(["entry", "entry", "close:1", "flatten:1"])
        return A.intent(self.pick(SIGNALS), self.pick([C1, C2]), leg).client_id

    def fill(self) -> Any:
        return A.fill(
            self.pick(["f0", "f1", "f2", "f3", "f4"]), client_id=self.maybe(self.client_id()), lot=self.exact(),
            price=self.exact(), fee=self.result(), side=self.pick(list(Side)), at=self.instant(), received=self.real(),
        )  # fmt: skip

    def measure(self) -> Any:
        return A.measure(
            filled_lot=self.exact(), slippage_pips=self.maybe(self.result()), slippage_bps=self.maybe(self.result()),
            latency_ms=self.maybe(self.result()), fees=self.result(), fill_price=self.maybe(self.result()),
            provider=self.pick([A.alpha, BETA]), sent_ms=self.maybe(self.result()),
        )  # fmt: skip

    def update(self) -> Any:
        return A.update(
            self.pick(list(OrderState)), client_id=self.client_id(), filled_lot=self.exact(),
            average_price=self.maybe(self.result()), broker_order_id=self.maybe(self.pick(["b1", "b2"])),
            code=self.pick(["", "TIMEOUT"]), detail=self.pick(["", "told"]), absences=self.rng.randint(0, 3),
            at=self.instant(), fills=tuple(self.fill() for _ in range(self.pick([0, 0, 1, 2]))),
            leg=self.maybe(self.leg()), measure=self.maybe(self.measure()),
        )  # fmt: skip

    def trade(self) -> Any:
        return A.trade(
            self.pick(SIGNALS), self.pick([C1, C2]), provider=self.pick([A.alpha, BETA]), net_pnl=self.result(),
            r_multiple=self.result(), planned_risk=self.result(), reward_to_risk=self.maybe(self.result()),
            stop_kept=self.chance(0.5), stop_slippage=self.maybe(self.result()), closed_at=self.instant(),
        )  # fmt: skip

    def score(self) -> Any:
        shown = Decimal(self.rng.randint(0, 10_000)) / 100
        return A.score(str(shown), mean=self.real(), interval=(self.result(), self.result()))

    def signal(self) -> Signal:
        provider = self.pick([A.alpha, A.alpha, BETA])
        receipt = Receipt(message_id=self.pick(["m1", "m2", "m3", "m4", "m5"]), received_at=self.instant(),
                          received=self.real(), issued_at=self.instant())  # fmt: skip
        what = signal_id(provider, self.pick(SIGNALS))
        price = Decimal(self.pick(["1.0800", "1E+2", "0.5"]))
        match self.rng.randint(0, 4):
            case 0 | 1:
                return OpenSignal(
                    signal_id=what, provider=provider, symbol=A.open().symbol, side=self.pick(list(Side)),
                    signal_price=price, stop_loss=self.maybe(price), take_profit=self.maybe(price),
                    provider_lot=self.maybe(price), receipt=receipt,
                )  # fmt: skip
            case 2:
                return ModifySignal(signal_id=what, provider=provider, stop_loss=self.maybe(price),
                                    take_profit=self.maybe(price), receipt=receipt)  # fmt: skip
            case 3:
                fraction = Decimal(self.pick(["1", "1.0", "0.50"]))
                return CloseSignal(signal_id=what, provider=provider, fraction=fraction, receipt=receipt)
        return CancelSignal(signal_id=what, provider=provider, receipt=receipt)

    def scope(self) -> HaltScope:
        return self.pick([HaltScope.CONNECTION, HaltScope.CONNECTION, HaltScope.PROVIDER])

    def halt(self) -> Any:
        return A.halt(
            scope=self.scope(), key=self.pick(["c1", "Z"]), state=self.pick(list(ConnectionState)),
            reason=self.pick(["drawdown", "operator"]), set_at=self.instant(bad=0), set_by=self.pick(["ann", "guard"]),
        )  # fmt: skip

    def mark(self) -> Any:
        return A.mark(
            connection_id=self.pick([C1, C2]), high_water_mark=self.result(), day_base=self.result(),
            last_flow_at=self.maybe(self.instant()), updated_at=self.instant(),
        )  # fmt: skip

    def flow(self) -> Any:
        return A.flow(flow_id=self.pick(["d1", "d2", "d3"]), amount=self.result(), at=self.instant())


def calls(dice: Dice) -> tuple[str, tuple[Any, ...]]:
    """One call: which method of which port, with what."""
    of, pick = dice.pick([C1, C2]), dice.pick
    group = dice.theme if dice.chance(0.75) else pick(list(CALLS))
    name = pick(CALLS[group])

    def many(value: Any, most: int) -> list[Any]:
        return [value() for _ in range(dice.rng.randint(0, most))]

    provider, owner, fence = pick([A.alpha, BETA]), pick(["one", "two"]), pick([1, 1, 2, 3])
    arguments: dict[str, Callable[[], tuple[Any, ...]]] = {
        "journal.record": lambda: (many(dice.decision, 2), many(dice.intent, 3), many(dice.leg, 2)),
        "journal.update": lambda: (many(dice.update, 3),),
        "journal.record_fills": lambda: (of, many(dice.fill, 3), many(dice.leg, 2)),
        "journal.close_trade": lambda: (dice.trade(), dice.score()),
        "signals.accept": lambda: (dice.signal(), pick(["h1", "h2"]), pick(["first", "second"])),
        "signals.finish": lambda: (provider, pick(["m1", "m2", "m3", "m4"]), dice.instant()),
        "protection.save_halt": lambda: (dice.halt(),),
        "protection.clear_halt": lambda: (dice.scope(), pick(["c1", "Z"]), "ann", dice.instant()),
        "protection.save_mark": lambda: (dice.mark(),),
        "protection.record_equity": lambda: (of, dice.instant(), dice.result(), dice.result(), dice.result()),
        "protection.record_flows": lambda: (of, many(dice.flow, 3)),
        "leases.acquire": lambda: (of, owner, pick([0.0, 5.0, 60.0])),
        "leases.renew": lambda: (of, owner, fence, 5.0),
        "leases.release": lambda: (of, owner, fence),
    }
    return name, arguments[name]() if name in arguments else ()


def reads(dice: Dice) -> list[tuple[str, tuple[Any, ...]]]:
    """Every read of every port and of the book."""
    since, signal = dice.instant(), signal_id(dice.pick([A.alpha, BETA]), dice.pick(SIGNALS))
    found: list[tuple[str, tuple[Any, ...]]] = [
        ("journal.decided", (signal,)),
        ("journal.orders_of", (dice.some(LEGS, 5),)),
        ("journal.legs", (dice.some(LEGS, 5),)),
        ("signals.unfinished", ()),
        ("signals.opening", (signal,)),
        ("signals.closed_before_open", (signal,)),
        ("protection.halts", ()),
        ("history.closed_trades", ()),
        ("history.recent_measures", (dice.rng.randint(0, 4),)),
    ]
    for of in (C1, C2):
        found += [("journal.unsettled", (of,)), ("journal.open_legs", (of,)), ("journal.known_fills", (of, since)),
                  ("journal.settled_since", (of, since)), ("protection.mark", (of,))]  # fmt: skip
    tables = ("orders", "details", "decisions", "legs", "fills", "measures", "messages", "tombstones", "trades",
              "scores", "metrics", "marks", "halts", "audit", "equity", "flows", "leases")  # fmt: skip
    return found + [(f"book.{name}", ()) for name in tables]


def outcome(store: KeptStore, name: str, arguments: tuple[Any, ...]) -> str:
    """What a call gave, or what it raised: by class, and by message where it names an order or a lease."""
    port, method = name.split(".")
    try:
        return repr(done(getattr(getattr(store, port), method)(*arguments)))
    except (AssertionError, AttributeError):
        raise
    except Exception as error:
        telling = "the journal has no order", "the lease of"
        return f"{type(error).__name__} {error if str(error).startswith(telling) else ''}"


class Held:
    """A runner inside a transaction that is open already: many reads for the price of one BEGIN."""

    connection: Connection

    async def run(self, fn: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return fn(self.connection, *args, **kwargs)
        except Exception as error:
            raise mapped(error, committing=False) from error

    read = run

    async def close(self) -> None:
        """Nothing is its own."""


class Pair:
    """A database in memory, what reads it, and the clock of both twins."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.store = done(Store.memory(self.clock))
        self._held = Held()
        self._looking = Store(self._held, tables_of(STANDALONE), self.clock)

    def empty(self) -> None:
        """Take every row out."""
        done(self.store.runner.run(self._empty))

    def _empty(self, connection: Connection) -> None:
        for table in reversed(tables_of(STANDALONE).metadata.sorted_tables):
            connection.execute(table.delete())

    def look(self, asked: list[tuple[str, tuple[Any, ...]]]) -> list[str]:
        """What the database says to each read."""
        return done(self.store.runner.read(self._look, asked))

    def _look(self, connection: Connection, asked: list[tuple[str, tuple[Any, ...]]]) -> list[str]:
        self._held.connection = connection
        return [outcome(self._looking, name, arguments) for name, arguments in asked]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """One database in memory for all examples."""
    both = Pair()
    yield both
    done(both.store.close())


def run(pair: Pair, seed: int, steps: int) -> None:
    """Apply one sequence to both and compare every read after every step."""
    pair.empty()
    twin, dice = MemoryStore(pair.clock), Dice(random.Random(seed))
    for step in range(steps):
        pair.clock.advance(dice.pick([0.0, 0.0, 1.0, 10.0]))
        name, arguments = calls(dice)
        if name == "restart":
            twin = twin.reopen(pair.clock)
        else:
            told: list[str] = []
            logged: list[Any] = []
            for each in (pair.store, twin):
                with capture_logs() as lines:
                    told.append(outcome(each, name, arguments))
                logged.append([line for line in lines if line["event"] != "value_does_not_fit"])
            assert told[0] == told[1], f"step {step}: {name}{arguments}"
            assert logged[0] == logged[1], f"step {step}: {name}{arguments}"
        asked = reads(dice)
        for (read, of), expected in zip(asked, pair.look(asked), strict=True):
            assert outcome(twin, read, of) == expected, f"step {step}: {read}{of} after {name}{arguments}"


@settings(max_examples=EXAMPLES * 3 // 10, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32 - 1))
def test_any_sequence_reads_the_same(pair: Pair, seed: int) -> None:
    """Results, errors, log lines and all reads agree, to the last digit, after each of any sequence of calls.

    Nothing is to be shrunk: the first step that differs is told.
    """
    run(pair, seed, STEPS)


def test_sequences_reach_every_kind_of_row() -> None:
    """The comparison is about something: such sequences fill every table, and meet defects and lost leases."""
    clock = ManualClock(START)
    met: set[str] = set()
    filled: set[str] = set()
    tables = [name for name, _ in reads(Dice(random.Random(0))) if name.startswith("book.")]
    for seed in range(120):
        twin, dice = MemoryStore(clock), Dice(random.Random(seed))
        for _ in range(25):
            clock.advance(dice.pick([0.0, 1.0, 10.0]))
            name, arguments = calls(dice)
            if name != "restart":
                with capture_logs() as lines:
                    met.add(outcome(twin, name, arguments).split()[0])
                met |= {line["event"] for line in lines}
        filled |= {name for name in tables if len(done(getattr(twin.book, name.removeprefix("book."))()))}
    assert filled == set(tables)
    assert {"StoreBroken", "LeaseLost", "ValueError", "late_fill", "leg_without_entry_log"} <= met

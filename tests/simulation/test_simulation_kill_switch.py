"""The kill checks K1 to K6 (reliability.md 3.4): the emergency close does not depend on what failed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.latency import LatencyModel
from simulator.records import OrderTicket
from simulator.venue import Venue
from srm_agent import failpoints
from srm_agent.domain.accounts import ConnectionState, EmergencyScope, HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, StoreUnavailable
from srm_agent.files import DiskFiles
from srm_agent.flatten import AccountFlattener, FlattenRules, latch, unlatch_flat
from srm_agent.flatten_known import Known
from srm_agent.protection.halt_file import HaltFile
from srm_agent.store.store import Store
from srm_agent.supervision.learning_fuse import Fuse, FusedForecaster, FusedScorer
from tests.unit.execution.conftest import (
    BTC,
    START,
    LoopClock,
    Twisted,
    build_venue,
    until,
)
from tests.unit.flow.conftest import C01, C02, EUR, World, agent

D = Decimal


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    """Both accounts with 10,000 USDT, in step, quotes coming."""
    async with agent(tmp_path) as made:
        yield made


def on_disk(folder: Path) -> dict[str, str]:
    """State by key, as the file says it."""
    file = folder / "halts.json"
    return {row["key"]: row["state"] for row in json.loads(file.read_text())} if file.exists() else {}


async def kill(world: World) -> None:
    """An operator's hand: halt and close account c01."""
    await world.control.flatten(C01, "the operator has seen enough", "ann")


async def flat_within(world: World, seconds: float) -> None:
    """Flat and HALTED in that time, with nothing left at the venue."""
    await until(lambda: world.state() is ConnectionState.HALTED, seconds)
    assert not world.held()
    halt = world.halts.find(HaltScope.CONNECTION, C01)
    assert halt is not None
    assert halt.set_by == "ann"


async def test_k1_the_database_is_down(world: World, tmp_path: Path) -> None:
    """Every call of the store fails: latched in memory and file, closed within five seconds, exits spilt to disk."""
    await world.opened()
    await world.store.close()
    with pytest.raises(StoreUnavailable):
        await world.store.journal.unsettled(C01)
    await kill(world)
    assert on_disk(tmp_path) == {"c01": "FLATTENING"}
    await flat_within(world, 5)
    assert on_disk(tmp_path) == {"c01": "HALTED"}
    assert (tmp_path / "exits.c01.jsonl").exists()
    assert world.flow.accounts[C02].state() is not ConnectionState.HALTED


async def test_k1_the_database_hangs(world: World) -> None:
    """Calls that never come back delay neither latch nor close."""
    await world.opened()

    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    for name in ("record", "update", "record_fills", "close_trade"):
        world.journal.twists[name] = hang
    world.a._parts.halts._store = Twisted(world.store.protection)
    world.a._parts.halts._store.twists["save_halt"] = hang
    began = asyncio.get_running_loop().time()
    world.a.flatten("the operator has seen enough", "ann")
    await flat_within(world, 5)
    assert asyncio.get_running_loop().time() - began < 2


async def test_k2_the_feed_is_down(world: World) -> None:
    """No quote for ten minutes, and none is remembered: closed by position all the same."""
    await world.opened()
    world.feeding = False
    await asyncio.sleep(600)
    world.market._markets.clear()
    await kill(world)
    await flat_within(world, 5)


async def test_k3_the_model_is_broken(world: World) -> None:
    """Forecaster and scorer raise at every call, fallbacks included: the close goes out, and its trade is counted."""
    await world.opened()

    class Broken:
        """A model of which every method raises."""

        def __getattr__(self, name: str) -> Any:
            def call(*_: Any) -> Any:
                raise FloatingPointError("model")

            return call

    model: Any = Broken()
    fuse = Fuse()
    world.flow._parts = replace(
        world.flow._parts,
        scorer=FusedScorer(model, world.scorer, fuse),
        forecaster=FusedForecaster(model, world.forecaster, fuse, LoopClock()),
    )
    world.flow._parts.fan_out._forecaster = model
    with pytest.raises(FloatingPointError):
        await world.give(world.open_signal("s2"))
    await kill(world)
    await flat_within(world, 5)
    await until(lambda: world.flow.counters["trades"] == 1, 5)


async def test_k4_the_daemon_is_dead(tmp_path: Path) -> None:
    """`flatten` alone, with what the dead daemon left: latched first, flat, and the next daemon starts halted."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.opened()
    venue.place("c01", OrderTicket(symbol_id="EURUSDT", side=Side.SELL, lots=D(100)))
    lines: list[int] = []
    flattener, halts = a_flattener(venue, store, tmp_path, progress=lines)
    result = await flattener.run(60)
    assert result.flat
    assert not result.troubles
    assert lines[0] == 2
    assert lines[-1] == 0
    assert not venue.positions("c01")
    assert {row.symbol: row.exit_price is not None and row.result is not None for row in result.closed} == {
        "BTC/USDT:USDT": True,
        "EUR/USDT:USDT": True,
    }
    assert result.before is not None
    assert result.after is not None
    assert result.before.equity is not None
    assert result.after.equity is not None
    # The spread was in equity already (marked at the closing side): closing costs the fees and nothing else.
    fees = sum((item.fee for item in venue.executions("c01") if item.order.ticket.reduce_only), D(0))
    assert abs(result.after.equity - result.before.equity + fees) < D("0.1")
    unlatch_flat(halts, C01)
    async with agent(tmp_path, venue=venue, store=store) as world:
        assert world.state() is ConnectionState.HALTED
        await until(lambda: not world.lots(C01), 10)
        await world.give(world.open_signal("s9"))
        assert not world.held()
    await store.close()


async def test_k4_without_the_database_the_whole_account_is_closed(tmp_path: Path) -> None:
    """Nothing but a key: scope account needs no journal."""
    venue = build_venue()
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.1")))
    flattener, _ = a_flattener(venue, None, tmp_path)
    assert (await flattener.run(60)).flat
    assert not venue.positions("c01")


async def test_k4_own_scope_closes_what_the_journal_and_the_broker_say_is_ours(tmp_path: Path) -> None:
    """Ours was stopped in part while no daemon ran: only the rest of it goes, others' volume and symbols stay."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.opened()
        ours = world.held()
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.SELL, lots=D("0.05"), reduce_only=True))
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.2")))
    venue.place("c01", OrderTicket(symbol_id="EURUSDT", side=Side.SELL, lots=D(100)))
    flattener, _ = a_flattener(venue, store, tmp_path, scope=EmergencyScope.OWN)
    result = await flattener.run(60)
    assert result.flat
    assert result.closed[0].lot == ours - D("0.05")
    assert {p.symbol_id: p.lots for p in venue.positions("c01")} == {"BTCUSDT": D("0.2"), "EURUSDT": D(100)}
    await store.close()


async def test_k4_an_entry_in_doubt_is_waited_for_and_closed(tmp_path: Path) -> None:
    """The daemon died right after sending an entry that the venue has not seen yet: it fills late and is closed."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    late: list[Any] = []
    async with agent(tmp_path, venue=venue, store=store) as world:

        async def swallow(intent: Any) -> Any:
            late.append(intent)
            await asyncio.Event().wait()

        world.brokers[C01].twists["submit"] = swallow
        await world.give(world.open_signal())
        await until(lambda: bool(late), 5)
    assert not venue.positions("c01")
    flattener, _ = a_flattener(venue, store, tmp_path, scope=EmergencyScope.OWN)
    running = asyncio.create_task(flattener.run(300))
    await asyncio.sleep(3)
    assert not running.done()
    intent = late[0]
    venue.place(
        "c01",
        OrderTicket(symbol_id="BTCUSDT", side=intent.side, lots=intent.lot, price=None, link_id=intent.client_id),
    )
    assert (await running).flat
    assert not venue.positions("c01")
    await store.close()


async def test_k4_an_account_that_is_not_reached_ends_with_its_time(tmp_path: Path) -> None:
    """Not flat after the time-out: said so, with what is left; the latch stays FLATTENING for the next daemon."""
    venue = build_venue()
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.1")))
    broker = Twisted(InProcessBroker(venue, "c01", C01, LoopClock(), LatencyModel.none()))

    async def refuse(_: Any) -> Any:
        raise BrokerUnreachable("cut")

    broker.twists["submit"] = refuse
    flattener, _ = a_flattener(venue, None, tmp_path, broker=broker)
    result = await flattener.run(30)
    assert not result.flat
    assert [position.lot for position in result.left] == [D("0.1")]
    assert "not flat after 30 s" in result.troubles
    assert on_disk(tmp_path) == {"c01": "FLATTENING"}


async def test_k4_beside_a_running_daemon_nothing_is_reversed(tmp_path: Path) -> None:
    """Both close at once: flat, never an opposite position, and the daemon's memory holds what the command latched."""
    async with agent(tmp_path) as world:
        await world.opened()
        sides: list[int] = []
        world.venue.subscribe(lambda _: sides.append(int(world.held() < 0)))
        flattener, halts = a_flattener(world.venue, world.store, tmp_path)
        result = await flattener.run(60)
        assert result.flat
        unlatch_flat(halts, C01)
        await until(lambda: world.state() is ConnectionState.HALTED, 5)
        await asyncio.sleep(5)
        assert not any(sides)
        assert not world.held()
        assert not world.lots(C01)
        await world.give(world.open_signal("s2"))
        assert not world.held()


async def test_k5_a_restart_in_the_middle_goes_on(tmp_path: Path) -> None:
    """Killed after the first close of several (CP9): the next process is flat within five seconds of its start."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    died = asyncio.Event()
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.opened()
        venue.place("c01", OrderTicket(symbol_id="EURUSDT", side=Side.SELL, lots=D(100)))
        sent: list[str] = []

        async def once(intent: Any, real: Any = world.brokers[C01].real) -> Any:
            sent.append(intent.symbol)
            if len(sent) > 1:
                await asyncio.Event().wait()  # this process does not live to see it
            return await real.submit(intent)

        world.brokers[C01].twists["submit"] = once
        failpoints.arm(lambda point: died.set() if point == "CP9" else None)
        try:
            await kill(world)
            await asyncio.wait_for(died.wait(), 5)
        finally:
            failpoints.arm(None)
    assert on_disk(tmp_path) == {"c01": "FLATTENING"}
    assert venue.positions("c01")
    async with agent(tmp_path, venue=venue, store=store) as world:
        await until(lambda: world.state() is ConnectionState.HALTED, 5)
        assert not venue.positions("c01")
        assert len(await store.protection.halts()) == 1
    await store.close()


STEPS = (
    *(f"broker.{name}" for name in ("positions", "open_orders", "account", "submit", "cancel")),
    *(f"emergency.{name}" for name in ("_note", "_notional", "_wide_limit", "_entries_in_doubt", "_our_volume")),
    "desk.note_emergency", "desk.take_report", "journal.record", "store.save_halt", "files.replace", "notifier.notify",
    "flow.on_emergency",
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("error", "scope"),
    [
        pytest.param(AttributeError("kill switch"), EmergencyScope.ACCOUNT, id="defect (hummingbot#2534)"),
        pytest.param(BrokerUnreachable("cut"), EmergencyScope.OWN, id="unreachable"),
        pytest.param(OSError(28, "disk full"), EmergencyScope.ACCOUNT, id="disk"),
    ],
)
async def test_k6_an_exception_in_any_call_of_the_path(
    tmp_path: Path, step: str, error: Exception, scope: EmergencyScope
) -> None:
    """Five times in a row: HALT holds from the first moment, no entry leaves, and the account ends flat (F12).

    A defect that ends a critical task ends the process (P18): the next one goes on.
    """
    venue, store = build_venue(), await Store.memory(LoopClock())
    left = [5]

    def fail() -> None:
        if left[0]:
            left[0] -= 1
            raise error

    with suppress(ExceptionGroup):
        async with agent(tmp_path, venue=venue, store=store, scope=scope) as world:
            await world.opened()
            _break(world, step, fail)
            world.a.flatten("the operator has seen enough", "ann")
            assert world.state() is ConnectionState.FLATTENING
            before = len(world.entries())
            with suppress(type(error)):  # the journal is on the signal's way as well
                await world.give(world.open_signal("s2"))
            assert len(world.entries()) == before
            with suppress(pytest.fail.Exception):
                await flat_within(world, 10)
    assert left[0] < 5 or step in ("broker.cancel", "emergency._wide_limit", "emergency._our_volume", "broker.account")
    async with agent(tmp_path, venue=venue, store=store, scope=scope) as world:
        await flat_within(world, 10)
        await until(lambda: on_disk(tmp_path) == {"c01": "HALTED"}, 10)
        assert not world.entries()[before:]
    await store.close()


def _break(world: World, step: str, fail: Callable[[], None]) -> None:
    """Let the named call raise first. Those that are not on this story's path are named in the test."""
    place, _, name = step.partition(".")
    emergency: Any = world.a._emergency
    if place in ("emergency", "notifier"):
        _wrap(emergency if place == "emergency" else world.notifier, name, fail)
    elif place == "flow":
        emergency._tell = _first(fail, emergency._tell)
    elif place == "desk":
        emergency._desk = _twisted(emergency._desk, name, fail)
    elif place == "files":
        world.halts._file._files = _twisted(world.halts._file._files, name, fail)
    elif place == "store":
        world.halts._store = _twisted(world.halts._store, name, fail)
    else:
        owner: Any = world.brokers[C01] if place == "broker" else world.journal
        owner.twists[name] = _first(fail, getattr(owner.real, name))


def _twisted(real: Any, name: str, fail: Callable[[], None]) -> Any:
    twisted = Twisted(real)
    twisted.twists[name] = _first(fail, getattr(real, name))
    return twisted


def _wrap(owner: Any, name: str, fail: Callable[[], None]) -> None:
    setattr(owner, name, _first(fail, getattr(owner, name)))


def _first(fail: Callable[[], None], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        fail()
        return real(*args, **options)

    return call


def a_flattener(
    venue: Venue,
    store: Store | None,
    folder: Path,
    *,
    scope: EmergencyScope = EmergencyScope.ACCOUNT,
    broker: Any = None,
    progress: list[int] | None = None,
) -> tuple[Any, HaltFile]:
    """As the command makes it, latched; the journal is read when it runs."""
    clock = LoopClock()
    broker = broker or InProcessBroker(venue, "c01", C01, clock, LatencyModel.none())
    halts = HaltFile(DiskFiles(folder))
    assert latch(halts, [ConnectionId("c01")], "by hand", "flatten by ann", START) == ""
    known = Known(broker, clock)
    told = [] if progress is None else progress
    flattener = AccountFlattener(
        broker,
        InProcessFeed(venue, clock, asset_classes={BTC: AssetClass.CRYPTO, EUR: AssetClass.CRYPTO}, pip_sizes={}),
        clock,
        known,
        FlattenRules(scope=scope, interval_s=0.5, closes_per_s=8.0),
        lambda connection, positions, sent: told.append(len(positions)),
        opening=asyncio.Lock(),
    )

    class Loaded:
        """Reads the journal before it runs, as the command does."""

        async def run(self, timeout_s: float) -> Any:
            if store is not None:
                await known.load(store.journal)
            return await flattener.run(timeout_s)

    return Loaded(), halts

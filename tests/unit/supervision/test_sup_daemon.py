"""The supervisor in a whole daemon, in virtual time: stalls, suspends, lives without journal or with exits only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from srm_agent.daemon import Daemon, DaemonParts, Ending
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.errors import BrokerUnreachable, ConfigurationError, StoreBroken, StoreUnavailable
from srm_agent.files import DiskFiles
from srm_agent.inbox import Inbox
from srm_agent.store.store import Store
from srm_agent.supervision.learning_fuse import Fuse
from srm_agent.supervision.lease_keeper import LEASE_S
from srm_agent.supervision.life import Life
from srm_agent.supervision.recovery import GUARD_MODE
from srm_agent.supervision.spool import Spool
from srm_agent.supervision.starts import StartRecord
from tests.unit.execution.conftest import BTC, LoopClock, Twisted, build_venue, failing, until
from tests.unit.flow.conftest import C01, C02, World, assemble
from tests.unit.flow.test_flow_daemon import Door

if TYPE_CHECKING:
    from tests.unit.supervision.conftest import Told


class HostClock(LoopClock):
    """The loop's time, on a host whose wall clock may jump."""

    def __init__(self) -> None:
        self.jumped = timedelta()

    def wall(self) -> datetime:
        """The wall of this host."""
        return super().wall() + self.jumped


@dataclass(slots=True)
class Alive:
    """A daemon at work."""

    world: World
    daemon: Daemon
    clock: HostClock
    history: Any
    fuse: Fuse
    stop: asyncio.Event
    task: asyncio.Task[Ending]

    @property
    def why(self) -> str:
        """Why account c01 takes no entries."""
        return self.world.a.why_reducing()

    async def end(self) -> Ending:
        """Stop in order."""
        self.stop.set()
        return await self.task

    async def deliver(self, signal: Any) -> None:
        """As the intake does after its commit."""
        await self.world.store.signals.accept(signal, "0" * 64, "{}")
        self.daemon.deliver(signal)


@asynccontextmanager
async def alive(
    world: World, folder: Path, manager: Told | None = None, *, exits_only: str = "", history: Any = None
) -> AsyncIterator[Alive]:
    """Run a daemon with supervision; what still runs at the end of the block is cancelled."""
    door: Any = Door()
    clock, fuse, history = HostClock(), Fuse(), history or Twisted(world.store.history)

    async def close_store() -> None:
        return None

    more: dict[str, Any] = {} if manager is None else {"manager": manager}
    parts = DaemonParts(
        clock=clock, flow=world.flow, intake=door, server=door, markets={"simulator": world.market},
        symbols={"simulator": (BTC,)}, accounts=list(world.flow.accounts.values()), halts=world.halts,
        signals=world.signals, history=history, scorer=world.scorer, forecaster=world.forecaster,
        leases=world.store.leases, owner="me", notifier=world.notifier, close_store=close_store,
        files=DiskFiles(folder), fuse=fuse, exits_only=exits_only, **more,
    )  # fmt: skip
    stop, daemon = asyncio.Event(), Daemon(parts, Inbox())
    task, feeding = asyncio.create_task(daemon.run(stop)), asyncio.create_task(world.feed())
    try:
        yield Alive(world, daemon, clock, history, fuse, stop, task)
    finally:
        feeding.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup, StoreBroken):
            await task


def _stall(seconds: float) -> None:
    """The loop does nothing for so long: its clock has moved when the next callback runs."""
    loop: Any = asyncio.get_running_loop()
    loop._now += seconds


# ---- stalls and suspends


@pytest.mark.fault("P17")
async def test_a_stall_stops_entries_until_everything_is_read_anew(tmp_path: Path) -> None:
    """After 20 s of standstill: REDUCING at once, before the next heartbeat too; active when all was read anew."""
    world = await assemble(tmp_path)
    async with alive(world, tmp_path) as life:
        await until(life.daemon.ready.is_set)
        await world.opened()
        reads: list[str] = []
        for name in ("fills", "positions", "account"):
            world.brokers[C01].twists[name] = _noted(reads, name, getattr(world.brokers[C01].real, name))
        _stall(20)
        assert "stood still" in life.why
        await until(lambda: "the process stood still" in world.pages(), 1)
        assert world.market.quote(BTC) is None or world.market.quote(BTC).received > 1020  # type: ignore[union-attr]
        assert await until(lambda: world.state() is ConnectionState.ACTIVE, 10) < 5
        assert {"fills", "positions", "account"} == set(reads)
        assert reads.index("fills") < reads.index("positions")
        await life.end()
    await world.store.close()


def _noted(notes: list[str], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any) -> Any:
        notes.append(name)
        return await real(*args)

    return call


@pytest.mark.fault("P17")
async def test_a_short_hiccup_stops_nothing(tmp_path: Path) -> None:
    """Three seconds late: no page, no new reading, the account stays as it was."""
    world = await assemble(tmp_path)
    async with alive(world, tmp_path) as life:
        await until(lambda: world.state() is ConnectionState.ACTIVE)
        _stall(3)
        await asyncio.sleep(1)
        assert "stood still" not in life.why
        assert "the process stood still" not in world.pages()
        await life.end()
    await world.store.close()


async def test_while_the_broker_cannot_be_read_the_account_stays_reducing(tmp_path: Path) -> None:
    """A standstill with the broker away: REDUCING as long as it takes, then active by itself; the other is not held."""
    world = await assemble(tmp_path)
    async with alive(world, tmp_path) as life:
        await until(lambda: world.state() is ConnectionState.ACTIVE)
        real = world.brokers[C01].real.positions
        world.brokers[C01].twists["positions"] = failing(*[BrokerUnreachable("away")] * 5, then=real)
        _stall(30)
        await until(lambda: world.flow.accounts[C02].state() is ConnectionState.ACTIVE, 5)
        assert "stood still" in life.why
        await until(lambda: world.state() is ConnectionState.ACTIVE, 60)
        await life.end()
    await world.store.close()


@pytest.mark.fault("P6")
async def test_a_suspended_host_wakes_with_everything_stale(tmp_path: Path) -> None:
    """Ten minutes pass on the wall only: entries are refused, quotes and leases are old (P6)."""
    world = await assemble(tmp_path)
    async with alive(world, tmp_path) as life:
        await until(lambda: world.state() is ConnectionState.ACTIVE)
        world.feeding = False
        life.clock.jumped += timedelta(minutes=10)
        assert "stood still" in life.why
        await asyncio.sleep(0.6)
        assert world.market.fresh_quote(BTC) is None
        assert not any(account.leased for account in world.flow.accounts.values())
        await life.deliver(world.open_signal())
        await until(lambda: len(world.witness.decisions) == 2)
        assert not any(decision.accepted for decision in world.witness.decisions)
        assert world.entries() == []
        world.feeding = True
        await until(lambda: world.state() is ConnectionState.ACTIVE, 10)
        await life.end()
    await world.store.close()


async def test_the_manager_hears_a_whole_life(tmp_path: Path, manager: Told) -> None:
    """Status while starting, READY once, fed while well, STOPPING at the end."""
    world = await assemble(tmp_path)
    async with alive(world, tmp_path, manager) as life:
        await until(life.daemon.ready.is_set)
        await world.opened()
        await asyncio.sleep(10)
        assert await life.end() is Ending.STOPPED
    heads = [line.split(" ")[0] for line in manager.lines]
    assert heads.count("READY") == 1
    assert heads.count("ALIVE") >= 10
    assert heads[-1] == "STOPPING"
    assert "STATUS connections: ACTIVE 2; open positions: 2; orders in doubt: 0" in manager.lines
    await world.store.close()


async def test_a_defect_in_learning_stops_entries_only(tmp_path: Path) -> None:
    """The fuse is blown: both accounts REDUCING with the reason, one page, and the process lives."""
    world = await assemble(tmp_path)
    async with alive(world, tmp_path) as life:
        await until(lambda: world.state() is ConnectionState.ACTIVE)
        life.fuse.blow("the scorer failed: x")
        await asyncio.sleep(3)
        assert "the scorer failed" in life.why
        assert world.pages().count("learning is left out") == 1
        await life.end()
    await world.store.close()


@pytest.mark.fault("P23")
async def test_a_lease_that_hangs_is_not_believed(tmp_path: Path) -> None:
    """The database answers nothing: entries stop before the lease can have run out, and the end waits for nobody."""
    world = await assemble(tmp_path)
    leases: Any = Twisted(world.store.leases)

    async def hangs(*_: Any) -> Any:
        await asyncio.sleep(1e6)

    async with alive(world, tmp_path) as life:
        await until(lambda: world.state() is ConnectionState.ACTIVE)
        life.daemon._leases._leases = leases
        leases.twists |= {"renew": hangs, "acquire": hangs, "release": hangs}
        assert await until(lambda: world.state() is ConnectionState.REDUCING, 10) < LEASE_S
        began = asyncio.get_running_loop().time()
        await life.end()
        assert asyncio.get_running_loop().time() - began < 5
    await world.store.close()


# ---- lives without the journal


async def _crashed_with_positions(folder: Path) -> tuple[Any, Store]:
    """A venue with an open position on each account, and the store and spool of the process that opened them."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    world = await assemble(folder, venue=venue, store=store)
    async with alive(world, folder) as life:
        await until(life.daemon.ready.is_set)
        await world.opened()
        for account in world.flow.accounts.values():
            await account.desk.writer.drained()
        await asyncio.sleep(7)
    return venue, store


@pytest.mark.fault("P9")
async def test_a_start_without_the_database_knows_its_legs_and_marks(tmp_path: Path) -> None:
    """From the spool: legs watched, marks in force, entries held; when the database is back a new life is asked for."""
    venue, store = await _crashed_with_positions(tmp_path)
    marks = {name: await store.protection.mark(name) for name in (C01, C02)}
    world = await assemble(tmp_path, venue=venue, store=store)
    history: Any = Twisted(store.history)
    history.twists |= {
        name: failing(*[StoreUnavailable("away")] * 20, then=getattr(store.history, name))
        for name in ("closed_trades", "recent_measures")
    }
    async with alive(world, tmp_path, history=history) as life:
        await until(life.daemon.ready.is_set, 20)
        assert "database has not been read" in life.why
        assert "started without the database" in world.pages()
        assert [len(list(account.desk.open_legs())) for account in world.flow.accounts.values()] == [1, 1]
        assert {name: world.flow.accounts[name].guard.mark for name in (C01, C02)} == marks
        signal = world.open_signal("s2", receipt=world.receipt("m-s2"))
        await life.deliver(signal)
        await asyncio.sleep(10)
        assert world.witness.decisions == []
        assert await life.task is Ending.DATABASE_BACK
        assert await world.unfinished() == [signal.receipt.message_id]
    assert {name: await store.protection.mark(name) for name in (C01, C02)} == marks
    await store.close()


async def test_a_spooled_leg_gets_its_stop_back(tmp_path: Path) -> None:
    """A stop removed while nobody watched is restored without the database (INV-4, F25)."""
    venue, store = await _crashed_with_positions(tmp_path)
    planned = venue.positions("c01")[0].stop_loss
    assert planned
    venue.set_trading_stop("c01", "BTCUSDT", stop_loss=Decimal(0))
    world = await assemble(tmp_path, venue=venue, store=store)
    history: Any = Twisted(store.history)
    history.twists["closed_trades"] = failing(*[StoreUnavailable("away")] * 99, then=store.history.closed_trades)
    history.twists["recent_measures"] = failing(*[StoreUnavailable("away")] * 99, then=store.history.recent_measures)
    async with alive(world, tmp_path, history=history) as life:
        await until(lambda: venue.positions("c01")[0].stop_loss == planned, 30)
        await life.end()
    await store.close()


async def test_a_mark_of_the_dark_never_replaces_the_stored_one(tmp_path: Path) -> None:
    """No spool, no database: a provisional mark guards, and is forgotten when the journal can be read."""
    venue, store = await _crashed_with_positions(tmp_path)
    stored = await store.protection.mark(C01)
    (tmp_path / "spool.json").unlink()
    world = await assemble(tmp_path, venue=venue, store=store)
    history: Any = Twisted(store.history)
    for name in ("closed_trades", "recent_measures"):
        history.twists[name] = failing(*[StoreUnavailable("away")] * 4, then=getattr(store.history, name))
    async with alive(world, tmp_path, history=history) as life:
        world.move("59900")
        await until(lambda: world.a.guard.mark is not None, 20)
        assert await life.task is Ending.DATABASE_BACK
    assert await store.protection.mark(C01) == stored
    await store.close()


@pytest.mark.fault("P9")
async def test_a_mark_that_rose_in_an_outage_survives_a_crash(tmp_path: Path) -> None:
    """The database was away when equity peaked and the process died: the spool's later mark is the one in force."""
    venue, store = await _crashed_with_positions(tmp_path)
    spool = Spool(DiskFiles(tmp_path))
    rows = spool.read()
    mark = rows[C01].mark
    assert mark is not None
    higher = replace(mark, high_water_mark=Decimal(10_999), updated_at=mark.updated_at + timedelta(seconds=1))
    spool.write([replace(rows[C01], mark=higher), rows[C02]])
    world = await assemble(tmp_path, venue=venue, store=store)
    async with alive(world, tmp_path) as life:
        await until(life.daemon.ready.is_set)
        assert world.a.guard.mark is not None
        assert world.a.guard.mark.high_water_mark == 10_999
        await life.end()
    await store.close()


@pytest.mark.fault("P16")
async def test_a_broken_store_refuses_a_whole_start(tmp_path: Path) -> None:
    """A schema that does not fit is not served from the spool: the start fails with its reason (P16)."""
    world = await assemble(tmp_path)
    history: Any = Twisted(world.store.history)
    history.twists["closed_trades"] = failing(StoreBroken("schema"), then=world.store.history.closed_trades)
    async with alive(world, tmp_path, history=history) as life:
        with pytest.raises(StoreBroken):
            await life.task
    await world.store.close()


@pytest.mark.fault("P2")
async def test_a_stop_during_recovery_ends_it(tmp_path: Path) -> None:
    """SIGTERM while the journal is being read: an orderly end, nothing started (P2)."""
    world = await assemble(tmp_path)
    history: Any = Twisted(world.store.history)

    async def hangs(*_: Any) -> Any:
        await asyncio.sleep(1e6)

    history.twists["closed_trades"] = hangs
    async with alive(world, tmp_path, history=history) as life:
        await asyncio.sleep(1)
        assert await life.end() is Ending.STOPPED
        assert life.daemon.port is None
    await world.store.close()


# ---- exits only


@pytest.mark.parametrize("broken", [False, True], ids=["journal", "broken journal"])
async def test_a_guard_opens_nothing_and_closes(tmp_path: Path, broken: bool) -> None:
    """Opening signals are put aside unfinished, learning is not touched, legs are there, everything is halted."""
    venue, store = await _crashed_with_positions(tmp_path)
    world = await assemble(tmp_path, venue=venue, store=store)
    history: Any = Twisted(store.history)
    history.twists["closed_trades"] = failing(AssertionError("learning was rebuilt"), then=store.history.closed_trades)
    poison = world.open_signal("poison", receipt=world.receipt("poison"))
    await store.signals.accept(poison, "0" * 64, "{}")
    if broken:
        world.signals.twists["unfinished"] = failing(*[KeyError("a row")] * 99, then=store.signals.unfinished)
    async with alive(world, tmp_path, exits_only="4 starts", history=history) as life:
        await until(life.daemon.ready.is_set, 20)
        halt = world.halts.find(HaltScope.ALL)
        assert halt is not None
        assert halt.set_by == GUARD_MODE
        assert "guard mode, exits only: 4 starts" in life.why
        assert "guard mode: exits only" in world.pages()
        assert life.daemon.supervisor.status().startswith("EXITS ONLY (4 starts)")
        assert [len(list(account.desk.open_legs())) for account in world.flow.accounts.values()] == [1, 1]
        await life.deliver(world.open_signal("s2", receipt=world.receipt("m-s2")))
        if not broken:
            await life.deliver(world.close_signal(message="m-close"))
            await until(lambda: not world.held() and not world.held("c02"))
        await asyncio.sleep(2)
        assert len(world.entries()) == 1
        assert poison.receipt.message_id in [s.receipt.message_id for s in await store.signals.unfinished()]
        await life.end()
    await store.close()


async def test_only_an_operator_ends_the_guard(tmp_path: Path) -> None:
    """Nothing happens by itself; `resume` asks for a whole life, which takes up what was put aside."""
    venue, store = await _crashed_with_positions(tmp_path)
    world = await assemble(tmp_path, venue=venue, store=store)
    async with alive(world, tmp_path, exits_only="4 starts") as life:
        await asyncio.sleep(120)
        assert not life.task.done()
        assert await world.control.resume(HaltScope.ALL, "", "anna")
        assert await life.task is Ending.GUARD_LIFTED
    await store.close()


async def test_the_halt_of_a_guard_outlives_it(tmp_path: Path) -> None:
    """A whole start after a guard that nobody resumed is whole, and still halted (INV-8)."""
    venue, store = await _crashed_with_positions(tmp_path)
    world = await assemble(tmp_path, venue=venue, store=store)
    async with alive(world, tmp_path, exits_only="4 starts") as life:
        await until(life.daemon.ready.is_set, 20)
        await life.end()
    world = await assemble(tmp_path, venue=venue, store=store)
    async with alive(world, tmp_path) as life:
        await until(life.daemon.ready.is_set, 20)
        assert life.why == ""
        await life.deliver(world.open_signal("s2", receipt=world.receipt("m-s2")))
        await until(lambda: len(world.witness.decisions) == 2)
        assert {decision.reason.value for decision in world.witness.decisions} == {"AGENT_HALTED"}
        await life.end()
    await store.close()


# ---- several lives of one process


@dataclass(slots=True)
class Scripted:
    """A daemon whose life ends as told."""

    ending: Ending | Exception

    async def run(self, stop: asyncio.Event) -> Ending:
        """End."""
        if isinstance(self.ending, Exception):
            raise self.ending
        return self.ending


@pytest.mark.parametrize(
    ("endings", "guards", "recorded"),
    [
        ([Ending.STOPPED], ["boom"], 0),
        ([Ending.DATABASE_BACK, Ending.STOPPED], ["boom", "boom"], 0),
        ([Ending.GUARD_LIFTED, Ending.STOPPED], ["boom", ""], 0),
        ([KeyError("x")], ["boom"], 1),
        ([ConfigurationError("x")], ["boom"], 0),
    ],
    ids=["stopped", "database back", "guard lifted", "crash", "configuration refused"],
)
async def test_a_process_lives_until_it_is_stopped(
    tmp_path: Path, endings: list[Any], guards: list[str], recorded: int
) -> None:
    """A database that is back keeps the guard, a lifted guard begins whole; only a crash leaves a failed start."""
    made: list[str] = []

    async def make(guard: str) -> Any:
        made.append(guard)
        return type("A", (), {"daemon": Scripted(endings[len(made) - 1])})()

    record = StartRecord(DiskFiles(tmp_path), LoopClock(), 4)
    life = Life(make, record, exits_only="boom")
    if isinstance(endings[-1], Exception):
        with pytest.raises(type(endings[-1])):
            await life.run(asyncio.Event())
    else:
        await life.run(asyncio.Event())
    assert made == guards
    assert (tmp_path / "starts.json").read_text().count("T") == recorded

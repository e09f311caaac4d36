"""The inbox and the daemon: order, recovery, supervision, drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from srm_agent.daemon import Daemon, DaemonParts, Ending
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.signals import Signal
from srm_agent.errors import BrokerUnreachable, StoreBroken, StoreUnavailable
from srm_agent.inbox import Inbox
from srm_agent.store.store import Store
from tests.unit.execution.conftest import BTC, START, LoopClock, Twisted, build_venue, failing, until
from tests.unit.flow.conftest import C01, C02, World, agent, assemble

BETA = ProviderKey.parse("beta")


@dataclass(slots=True)
class Served:
    """What an inbox gave to its worker, which may be held up."""

    inbox: Inbox
    taken: list[str]
    done: list[str]
    held: dict[str, asyncio.Event]

    async def take(self, signal: Signal) -> None:
        """Note it, and wait as long as it is held."""
        name = signal.receipt.message_id
        self.taken.append(name)
        if name in self.held:
            await self.held[name].wait()
        self.done.append(name)


@asynccontextmanager
async def serving(*held: str) -> AsyncIterator[Served]:
    """An inbox at work; the named messages wait until they are let go."""
    served = Served(Inbox(), [], [], {name: asyncio.Event() for name in held})
    task = asyncio.create_task(served.inbox.run(served.take))
    yield served
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_opens_keep_their_order_per_provider(world: World) -> None:
    """While the first is under way the others of its provider wait, in order."""
    async with serving("m-1") as served:
        for number in range(1, 6):
            served.inbox.put(world.open_signal(f"s{number}", receipt=world.receipt(f"m-{number}")))
        await asyncio.sleep(1)
        assert served.taken == ["m-1"]
        assert served.inbox.waiting() == 5
        served.held["m-1"].set()
        await until(lambda: not served.inbox.waiting())
        assert served.done == [f"m-{number}" for number in range(1, 6)]


async def test_a_slow_provider_delays_nobody_else(world: World) -> None:
    """Another provider's signals pass."""
    async with serving("slow") as served:
        served.inbox.put(world.open_signal(receipt=world.receipt("slow")))
        served.inbox.put(world.open_signal(provider=BETA, receipt=world.receipt("quick")))
        await asyncio.sleep(0.1)
        assert served.done == ["quick"]


async def test_a_close_never_waits_behind_an_open(world: World) -> None:
    """An open that hangs on the database holds back neither closes of other signals nor its own full close (INV-10)."""
    async with serving("hangs") as served:
        served.inbox.put(world.open_signal("s1", receipt=world.receipt("hangs")))
        served.inbox.put(world.open_signal("s2", receipt=world.receipt("behind")))
        served.inbox.put(world.close_signal("s0", message="other"))
        served.inbox.put(world.close_signal("s1", message="own"))
        served.inbox.put(world.cancel_signal("s2"))
        served.inbox.put(world.close_signal("s1", "0.5", message="part"))
        served.inbox.put(world.close_signal("s0", "0.5", message="later"))
        await asyncio.sleep(1)
        assert {"other", "own", "later"} <= set(served.done)
        assert not {"part", "behind"} & set(served.taken)
        served.held["hangs"].set()
        await until(lambda: not served.inbox.waiting())
        assert served.done.index("part") > served.done.index("hangs")
        assert not served.inbox._lanes


@pytest.mark.fault("P18")
async def test_a_failing_worker_ends_the_inbox(world: World) -> None:
    """A defect is not swallowed (P18)."""
    inbox = Inbox()

    async def broken(signal: Signal) -> None:
        raise KeyError("defect")

    inbox.put(world.open_signal())
    with pytest.raises(ExceptionGroup):
        await inbox.run(broken)


class Door:
    """An HTTP server that serves nobody: it listens until it is stopped, or dies when told."""

    def __init__(self) -> None:
        self.dies = asyncio.Event()
        self.stopped = 0

    async def start(self) -> int:
        """A port."""
        return 1

    async def wait(self) -> None:
        """Until it dies."""
        await self.dies.wait()
        raise OSError("the socket is gone")

    async def stop(self) -> None:
        """Count it."""
        self.stopped += 1

    async def settle_doubts(self) -> int:
        """It is the intake, too."""
        return 0


@dataclass(slots=True)
class Life:
    """A daemon that runs."""

    world: World
    daemon: Daemon
    door: Door
    stop: asyncio.Event
    task: asyncio.Task[Ending]

    async def end(self) -> None:
        """Stop in order."""
        self.stop.set()
        await self.task


@asynccontextmanager
async def living(world: World, *, symbols: tuple[str, ...] = (BTC,), owner: str = "me") -> AsyncIterator[Life]:
    """Run the daemon of a world; cancelled at the end of the block unless it has ended."""
    door: Any = Door()
    closed: list[bool] = []

    async def close_store() -> None:
        closed.append(True)

    parts = DaemonParts(
        clock=LoopClock(),
        flow=world.flow,
        intake=door,
        server=door,
        markets={"simulator": world.market},
        symbols={"simulator": symbols},  # type: ignore[dict-item]
        accounts=list(world.flow.accounts.values()),
        halts=world.halts,
        signals=world.signals,
        history=world.store.history,
        scorer=world.scorer,
        forecaster=world.forecaster,
        leases=world.store.leases,
        owner=owner,
        notifier=world.notifier,
        close_store=close_store,
    )
    stop = asyncio.Event()
    daemon = Daemon(parts, Inbox())
    task = asyncio.create_task(daemon.run(stop))
    feeding = asyncio.create_task(world.feed())
    try:
        yield Life(world, daemon, door, stop, task)
    finally:
        feeding.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup):
            await task
        assert closed == [True]


async def test_a_life_from_start_to_drain(tmp_path: Path) -> None:
    """Ready, a delivered signal trades, a stop drains: marks saved, leases given back, nothing unsettled."""
    world = await assemble(tmp_path)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        signal = world.open_signal()
        await world.store.signals.accept(signal, "0" * 64, "{}")
        life.daemon.deliver(signal)
        await until(lambda: bool(world.lots() and world.lots(C02)))
        await life.end()
        assert await world.store.protection.mark(C01) == world.a.guard.mark
        assert await world.store.leases.acquire(C01, "somebody else", 5) is not None
        assert world.held()
        assert life.door.stopped >= 1
    await world.store.close()


@pytest.mark.parametrize("who", ["http", "desk", "market"])
@pytest.mark.fault("P18")
async def test_the_death_of_a_critical_task_ends_the_process(tmp_path: Path, who: str) -> None:
    """`run` raises with the defect; it does not go on without its ears (P18)."""
    world = await assemble(tmp_path)
    if who == "desk":

        async def ends() -> Any:
            async for event in world.brokers[C01].real.events():
                yield event
                raise KeyError("defect in the adapter")

        world.brokers[C01].twists["events"] = ends
    async with living(world) as life:
        if who == "http":
            await until(life.daemon.ready.is_set)
            life.door.dies.set()
        elif who == "market":
            await until(life.daemon.ready.is_set)
            world.market._markets[BTC].on_quote = None  # type: ignore[method-assign,assignment]
        with pytest.raises(ExceptionGroup) as caught:
            await life.task
        kind = {"http": OSError, "desk": KeyError, "market": TypeError}[who]
        assert caught.group_contains(kind, depth=None)
    await world.store.close()


@pytest.mark.fault("P2")
async def test_a_drain_with_an_order_in_doubt_keeps_marks_and_journal(tmp_path: Path) -> None:
    """An order that nobody answers about does not cost the mark, and the drain takes five seconds at most."""
    world = await assemble(tmp_path)
    world.brokers[C01].twists["submit"] = _hangs
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        signal = world.open_signal()
        await world.store.signals.accept(signal, "0" * 64, "{}")
        life.daemon.deliver(signal)
        await until(lambda: bool(world.lots(C02)))
        world.move("60500")
        await asyncio.sleep(1.5)
        began = asyncio.get_running_loop().time()
        await life.end()
        assert asyncio.get_running_loop().time() - began <= 5.5
        mark = await world.store.protection.mark(C02)
        assert mark is not None
        assert mark == world.flow.accounts[C02].guard.mark
        assert mark.high_water_mark > 10_000
        assert len(await world.store.journal.unsettled(C01)) == 1
    await world.store.close()


async def _hangs(*_: Any) -> Any:
    await asyncio.sleep(1e6)


@pytest.mark.fault("P2")
async def test_no_entry_after_the_latch(tmp_path: Path) -> None:
    """Signals delivered while it stops are kept for the next start, which refuses or takes them with a reason (F14)."""
    world = await assemble(tmp_path)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        life.stop.set()
        await asyncio.sleep(0)
        signals = [world.open_signal(f"s{number}") for number in range(50)]
        for signal in signals:
            await world.store.signals.accept(signal, "0" * 64, "{}")
            life.daemon.deliver(signal)
        await life.task
        assert world.entries() == []
        assert len(await world.unfinished()) == 50
    await world.store.close()


async def test_unfinished_messages_are_taken_up_again_once(tmp_path: Path) -> None:
    """A close that was acknowledged before a crash is carried out by the next process (INV-3)."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.opened()
        for account in world.flow.accounts.values():
            await account.desk.writer.drained()
        close = world.close_signal()
        await store.signals.accept(close, "0" * 64, "{}")
    world = await assemble(tmp_path, venue=venue, store=store)
    async with living(world) as life:
        await until(lambda: not world.held() and not world.held("c02"))
        await asyncio.sleep(0.5)
        assert await world.unfinished() == []
        await life.end()
    await store.close()


async def test_a_recovered_receipt_is_on_this_clock(tmp_path: Path) -> None:
    """Monotonic seconds of another boot would make latencies of nonsense: they are derived from the wall."""
    world = await assemble(tmp_path)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        receipt = replace(world.receipt(), received=9e9, received_at=START - timedelta(seconds=7))
        found = life.daemon._recovery.received_here(world.open_signal(receipt=receipt))
        assert found.receipt.received == pytest.approx(1000 - 7)
    await world.store.close()


async def test_a_leg_of_a_symbol_that_was_dropped_is_still_managed(tmp_path: Path) -> None:
    """[instruments] no longer names BTC: the open leg is closed with its provider, and no entry is taken on it."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.opened()
        for account in world.flow.accounts.values():
            await account.desk.writer.drained()
    world = await assemble(tmp_path, venue=venue, store=store)
    async with living(world, symbols=("EUR/USDT:USDT",)) as life:
        await until(life.daemon.ready.is_set)
        for signal in (world.close_signal(), world.open_signal("s2")):
            await store.signals.accept(signal, "0" * 64, "{}")
            life.daemon.deliver(signal)
        await until(lambda: not world.held() and not world.held("c02"))
        await asyncio.sleep(1)
        assert {d.reason for d in world.witness.decisions} <= {
            ReasonCode.INSTRUMENT_NOT_TRADABLE,
            ReasonCode.SYMBOL_BUSY,
        }
        await life.end()
    await store.close()


async def test_a_signal_while_the_venue_is_away_kills_nobody(tmp_path: Path) -> None:
    """Legs are open, the venue cannot be reached at start: a signal is refused with its reason, the daemon lives."""
    venue, store = build_venue(), await Store.memory(LoopClock())
    async with agent(tmp_path, venue=venue, store=store) as world:
        await world.opened()
        for account in world.flow.accounts.values():
            await account.desk.writer.drained()
    world = await assemble(tmp_path, venue=venue, store=store)
    world.market.open = failing(*[BrokerUnreachable("away")] * 1000, then=world.market.open)  # type: ignore[method-assign]
    async with living(world) as life:
        await until(life.daemon.ready.is_set, 20)
        signal = world.open_signal("s2")
        await store.signals.accept(signal, "0" * 64, "{}")
        life.daemon.deliver(signal)
        await until(lambda: len(world.witness.decisions) == 2)
        assert {d.reason for d in world.witness.decisions} == {ReasonCode.CONNECTION_REDUCING}
        await life.end()
    await store.close()


async def test_a_defect_met_by_one_signal_is_put_aside(tmp_path: Path) -> None:
    """Whatever goes wrong in deciding one signal, the others and the protection of every account go on."""
    world = await assemble(tmp_path)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        real = world.flow.on_signal

        async def defective(signal: Signal) -> None:
            if signal.signal_id.endswith("s1"):
                raise KeyError("a defect")
            await real(signal)

        world.flow.on_signal = defective  # type: ignore[method-assign]
        for signal in (world.open_signal("s1"), world.open_signal("s2")):
            await world.store.signals.accept(signal, "0" * 64, "{}")
            life.daemon.deliver(signal)
        await until(lambda: len(world.witness.decisions) == 2)
        assert any("a defect" in alert.message for alert in world.notifier.recent)
        await life.end()


async def test_a_signal_waits_for_the_database_and_its_neighbours_exits_do_not(tmp_path: Path) -> None:
    """The store is away for five seconds: the open is decided after it, the close of another signal at once."""
    world = await assemble(tmp_path)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        await world.opened()
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def record(*args: Any) -> None:
            if loop.time() - began < 5:
                raise StoreUnavailable("away")
            await world.store.journal.record(*args)

        world.journal.twists["record"] = record
        late, close = world.open_signal("s2", stop_loss=world.mid - 700), world.close_signal()
        for signal in (late, close):
            await world.store.signals.accept(signal, "0" * 64, "{}")
            life.daemon.deliver(signal)
        assert await until(lambda: not world.held()) < 2
        mine = [late.receipt.message_id]
        assert await world.unfinished() == [*mine, close.receipt.message_id] or await world.unfinished() == mine
        await until(lambda: late.signal_id in {decision.signal_id for decision in world.witness.decisions})
        assert loop.time() - began >= 5
        await life.end()
        assert await world.unfinished() == []
    await world.store.close()


async def test_a_signal_the_store_refuses_for_good_blocks_nobody(tmp_path: Path) -> None:
    """A defect in one signal's rows: put aside after a few tries, the next one trades."""
    world = await assemble(tmp_path)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        poison, good = world.open_signal("poison"), world.open_signal("good", stop_loss=world.mid - 700)

        async def record(decisions: Any, *args: Any) -> None:
            if any(decision.signal_id == poison.signal_id for decision in decisions):
                raise StoreBroken("a value cannot be stored")
            await world.store.journal.record(decisions, *args)

        world.journal.twists["record"] = record
        for signal in (poison, good):
            await world.store.signals.accept(signal, "0" * 64, "{}")
            life.daemon.deliver(signal)
        await until(lambda: len(world.entries()) == 1)
        assert await world.unfinished() == [poison.receipt.message_id]
        await life.end()
    await world.store.close()


async def test_a_lost_lease_stops_entries_and_not_exits(tmp_path: Path) -> None:
    """Another daemon holds the account: REDUCING, while closes go on (P22, P23)."""
    world = await assemble(tmp_path)
    leases: Any = Twisted(world.store.leases)
    async with living(world) as life:
        await until(life.daemon.ready.is_set)
        await world.opened()
        life.daemon._leases._leases = leases

        async def lost(*_: Any) -> None:
            return None

        leases.twists |= {"renew": lost, "acquire": lost}
        await until(lambda: world.state() is ConnectionState.REDUCING)
        leases.twists["release"] = failing(then=world.store.leases.release)
        await world.give(world.close_signal())
        await until(lambda: not world.held())
        await life.end()
    await world.store.close()

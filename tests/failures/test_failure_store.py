"""Databases and starts of others that lost trades or did not begin at all: F5, F22, F25, F26."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import inspect, text

from simulator.sight import Blindness, Read
from simulator.simulation.invariants.doors import Sent
from simulator.simulation.scene import C01, C02, Scene, act
from srm_agent import failpoints
from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.orders import OrderState
from srm_agent.domain.trades import LegState
from srm_agent.errors import StoreBroken
from srm_agent.store.engine import open_engine
from srm_agent.store.migrate import migrate
from srm_agent.store.names import STANDALONE
from srm_agent.store.schema import tables_of
from srm_agent.store.store import Store
from tests.faults.helpers import ETH, entry_calls, entry_ticket, leg, state, stop
from tests.mutation import Mutant
from tests.unit.store.conftest import START, Builders

T = TypeVar("T")

# ---- F5


@pytest.mark.failure(
    "F5",
    mutant=Mutant(
        name="a locked database has refused the row",
        path="execution/writer.py",
        old="            except (StoreUnavailable, OutcomeUnknown) as error:\n",
        new="            except OutcomeUnknown as error:\n",
    ),
)
def test_a_database_that_is_locked_or_away_loses_nothing() -> None:
    """Locked before the message, before the decision, while the fills come, away while the close goes out: no message
    leaves without its row, nothing acknowledged is lost, every fill is in the journal in the end, exits do not wait,
    and no restart is needed. (On MariaDB: issue C.)"""

    async def play(scene: Scene) -> None:
        database, seen = scene.world.database, scene.world.seen
        database.lock(3)
        assert (await scene.open("s1", message_id="m-1"))[0] == 503
        await asyncio.sleep(4)
        judges = list(seen.on_taken)
        seen.on_taken.append(lambda taken: database.lock(3))
        assert (await scene.open("s1", message_id="m-1"))[0] == 202
        seen.on_taken[:] = judges
        await asyncio.sleep(2.5)
        assert entry_calls(scene) == [], "nothing leaves while its decision cannot be committed"
        await scene.until(lambda: len(scene.reasons()) == len(scene.reasons(C02)) == 1, 5)
        await scene.until(lambda: state(scene) is state(scene, C02) is ConnectionState.ACTIVE, 5)

        def lock(sent: Sent) -> None:
            seen.on_sent.remove(lock)
            database.lock(8)

        seen.on_sent.append(lock)
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") > 0, 5)
        await asyncio.sleep(2)
        client_id = entry_ticket(scene).intent.client_id
        assert seen.states[client_id] is OrderState.INTENT
        await scene.until(database.takes_writes, 10)
        await scene.until(lambda: seen.states[client_id] is OrderState.FILLED, 5)
        await asyncio.sleep(2)
        legs = [one for one in await scene.world.book.legs() if (one.connection_id, one.symbol) == (C01, ETH)]
        assert [(one.state, one.open_lot) for one in legs] == [(LegState.OPEN, scene.lots(C01, "ETHUSDT"))]
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 10)

        await scene.send("close", "s2")
        database.take_down(20)
        await scene.until(lambda: not scene.venue.positions(C01) and not scene.venue.positions(C02), 5)
        await scene.until(lambda: database.works, 25)
        await asyncio.sleep(5)
        assert all(row.state.settled for row in await scene.world.book.orders())
        assert not [one for one in await scene.world.book.legs() if one.state in (LegState.OPEN, LegState.OPENING)]

    act(play, peace_s=10)


# ---- F22


def killed_at(path: str, arrival: int) -> bool:
    """A child migrates and is killed -9 at its n-th arrival between two statements; whether it was."""
    child = os.fork()
    if child == 0:
        left = [arrival]

        def die(point: str) -> None:
            left[0] -= point == "CP11"
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.arm(die)
        with suppress(BaseException):
            migrate(open_engine(path), STANDALONE)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def version_of(path: Path) -> str:
    """The schema's version in that file; empty before the first migration."""
    engine = open_engine(str(path))
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("srm_schema_version"):
                return ""
            return str(connection.execute(text("SELECT version_num FROM srm_schema_version")).scalar())
    finally:
        engine.dispose()


def change(path: Path, *statements: str) -> None:
    """By hand."""
    engine = open_engine(str(path))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


async def answer_of(path: Path) -> str:
    """What a start says to that file: empty when it opens it."""
    try:
        store = await Store.open(str(path), ManualClock(START))
    except StoreBroken as refusal:
        return str(refusal)
    except Exception as accident:
        return f"an accident: {accident!r}"
    await store.close()
    return ""


@pytest.mark.failure(
    "F22",
    mutant=Mutant(
        name="only a schema older than all we know is refused",
        path="store/migrate.py",
        old="    if version is not None and version not in known:\n",
        new="    if version is not None and version < min(known):\n",
    ),
)
async def test_a_database_of_another_version(tmp_path: Path) -> None:
    """A real file whose schema is newer than the program: refused in words that name the remedy, and left as it is. An
    older one is brought up and keeps its rows; killed -9 between any two statements of either migration, the next
    start finishes. (On MariaDB, whose statements commit one by one: issue C.)"""
    path = tmp_path / "srm.db"
    engine = open_engine(str(path))
    migrate(engine, STANDALONE)
    engine.dispose()
    head = version_of(path)
    change(path, "UPDATE srm_schema_version SET version_num = '9999'")
    before = path.read_bytes()
    said = await answer_of(path)
    assert said.startswith("the database has schema 9999")
    assert "install the newer srm-agent" in said
    assert path.read_bytes() == before

    change(
        path,
        "INSERT INTO srm_tombstones VALUES ('t', 'p', 'm', '2026-01-05 00:00:00.000000')",
        "ALTER TABLE srm_orders DROP COLUMN target",
        "ALTER TABLE srm_orders DROP COLUMN requests",
        "UPDATE srm_schema_version SET version_num = '0001'",
    )
    for arrival in (1, 2):
        assert killed_at(str(path), arrival)
        assert version_of(path) == "0001"
    assert await answer_of(path) == ""
    assert version_of(path) == head
    engine = open_engine(str(path))
    with engine.connect() as connection:
        assert {"target", "requests"} <= {column["name"] for column in inspect(connection).get_columns("srm_orders")}
        assert connection.execute(text("SELECT count(*) FROM srm_tombstones")).scalar() == 1
    engine.dispose()

    fresh = tmp_path / "fresh.db"
    for arrival in (1, 7, len(tables_of(STANDALONE).metadata.tables)):
        assert killed_at(str(fresh), arrival)
        assert version_of(fresh) == ""
    assert await answer_of(fresh) == ""
    assert version_of(fresh) == head


# ---- F25


@pytest.mark.failure(
    "F25",
    mutant=Mutant(
        name="nothing begins before every account is in step",
        path="daemon.py",
        old="(waited := self._parts.clock.monotonic() - began) < READY_PATIENCE_S:\n",
        new="(waited := self._parts.clock.monotonic() - began) >= 0:\n",
    ),
)
def test_a_start_never_waits_for_a_picture_that_does_not_come() -> None:
    """The broker of one account cannot tell its history while a position is open and has lost its stop: the start is
    ready within 10 s, that account REDUCING with its stop set again, the others trade; in step when it can be read."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        own = stop(scene)
        assert own is not None
        scene.kill()
        scene.venue.mischief.tamper(C01, "BTCUSDT", stop_loss=None, take_profit=None)
        scene.world.brokers[C01].sight.blind(Read.FILLS, Blindness.ERROR, 40)
        await scene.start(11)
        assert state(scene) is ConnectionState.REDUCING
        await scene.until(lambda: stop(scene) == own, 5)
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.lots(C02, "ETHUSDT") > 0, 5)
        assert scene.lots(C01, "ETHUSDT") == 0
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots(C02) == 0 and scene.lots(C01) == 0, 5)
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 45)
        assert leg(scene) is None

    act(play, peace_s=5)


# ---- F26


class _Caller:
    """Asks a store one question after another about a connection of its own; impatient, so that some are cancelled."""

    def __init__(self, store: Store, name: str, rng: random.Random) -> None:
        self._store, self._rng = store, rng
        self.name = ConnectionId(name)
        self.cancelled = 0
        self.wrong: list[str] = []

    async def run(self, rounds: int) -> None:
        """Write and read; each answer must be to its own question."""
        for number in range(rounds):
            await self._round(number)

    async def _round(self, number: int) -> None:
        a, signal_name = Builders(), f"s{number}"
        decision = a.decision(signal=signal_name, connection=self.name)
        intent, planned = a.intent(signal=signal_name, connection=self.name), a.leg(signal_name, self.name)
        halt = Halt(
            scope=HaltScope.CONNECTION, key=self.name, state=ConnectionState.HALTED, reason=signal_name, set_at=START,
            set_by=self.name,
        )  # fmt: skip
        journal, protection = self._store.journal, self._store.protection
        # A commit whose caller has left is in doubt: the same rows again, until it is sure.
        await self._twice(lambda: journal.record([decision], [intent], [planned]))
        await self._twice(lambda: protection.save_halt(halt))
        await self._hurried(lambda: protection.halts())
        halts = {one.key: one.reason for one in await self._patient(protection.halts)}
        if halts.get(self.name) != signal_name:
            self.wrong.append(f"{self.name} has saved {signal_name} and reads {halts}")
        await self._hurried(lambda: journal.unsettled(self.name))
        rows = await self._patient(lambda: journal.unsettled(self.name))
        if len(rows) != number + 1 or any(row.intent.connection_id != self.name for row in rows):
            self.wrong.append(f"{self.name} asked for {number + 1} orders of its own and got {rows}")

    async def _twice(self, call: Callable[[], Awaitable[object]]) -> None:
        await self._hurried(call)
        await self._patient(call)

    async def _hurried(self, call: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.ensure_future(call())
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)
        await asyncio.sleep(self._rng.choice((0, 0, 0.001, 0.004)))
        self.cancelled += task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _patient(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(10):
                return await call()
        except Exception as error:
            self.wrong.append(f"{self.name}: {error!r}")
            raise


@pytest.mark.failure(
    "F26",
    mutant=Mutant(
        name="whoever asked the database is still there when it answers",
        path="store/group_commit.py",
        old="        if not self.done.done():\n            self.done.set_result(self.value)",
        new="        if True:\n            self.done.set_result(self.value)",
    ),
)
async def test_a_cancelled_call_harms_no_other(tmp_path: Path) -> None:
    """Six callers whose calls are cancelled at random moments, on a real file behind the writer's thread: each answer
    is to its own question, everything is written once, and nobody waits for ever. (asyncmy and aiomysql: issue C.)"""
    store = await Store.open(str(tmp_path / "srm.db"), ManualClock(START))
    callers = [_Caller(store, f"c{number}", random.Random(number)) for number in range(6)]
    results = await asyncio.gather(*(caller.run(12) for caller in callers), return_exceptions=True)
    assert [wrong for caller in callers for wrong in caller.wrong] == []
    assert [error for error in results if error is not None] == []
    assert sum(caller.cancelled for caller in callers) > 50
    orders = await store.book.orders()
    assert len(orders) == len({row.intent.client_id for row in orders}) == 6 * 12
    assert len(await store.book.legs()) == 6 * 12
    await store.close()

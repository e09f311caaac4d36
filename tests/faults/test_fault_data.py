"""P9-P16: the database, at the level of the store port: what the whole agent does when it is slow, locked or away.

Scenes in virtual time. The wire of MariaDB (its time-outs, deadlocks, kills and settings) is completed by issue C;
SQLite's own locks, schemas and migrations are in tests/unit/store.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from simulator.simulation.scene import C01, C02, C03, Scene, act
from srm_agent.clock import SystemClock
from srm_agent.domain.accounts import ConnectionState
from srm_agent.errors import ConfigurationError, StoreUnavailable
from srm_agent.store.engine import require_flushed_commits
from srm_agent.store.store import Store
from tests.faults.conftest import Measured
from tests.faults.helpers import entry_calls, state, stop, told, trades
from tests.faults.letters import ask, body

TRADES = (
    ("BTC/USDT:USDT", "60000", "59400"),
    ("ETH/USDT:USDT", "3000", "2970"),
    ("EUR/USDT:USDT", "1.1", "1.098"),
)
"""Symbol, entry and stop of a buy where the scene's market stands."""


async def settled(scene: Scene) -> None:
    """Every account takes entries again."""
    await scene.until(lambda: all(state(scene, one) is ConnectionState.ACTIVE for one in (C01, C02, C03)), 20)


async def sent_again(scene: Scene, data: bytes, message_id: str, within_s: float = 10.0) -> int:
    """As a provider does: repeat what is not answered with 2xx, once in half a second; how many tries it took."""
    for tries in range(1, round(within_s * 2) + 1):
        status, _ = await ask(scene.process, scene, data, message_id)
        if status == 202:
            return tries
        assert status == 503
        await asyncio.sleep(0.5)
    raise AssertionError(f"not accepted within {within_s:g} s")


# ---- P9


@pytest.mark.fault("P9")
def test_the_database_is_down_while_it_runs() -> None:
    """REDUCING and paged; signals are not acknowledged; a lost stop and an emergency are looked after, its closes
    stand in the local file; when it is back all is written, entries go, nothing was lost."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        scene.world.database.take_down(20)
        await scene.until(lambda: state(scene, C02) is ConnectionState.REDUCING, 6)
        assert (await scene.open("s3", symbol_id="EURUSDT"))[0] == 503
        scene.venue.mischief.tamper(C02, "BTCUSDT", stop_loss=None, take_profit=None)
        await scene.until(lambda: stop(scene, C02) is not None, 10)
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.venue.positions(C01), 5)
        assert "emergency" in scene.world.files.texts["exits.c01.jsonl"]
        await scene.until(lambda: told(scene, "the database does not answer", None) == ["page"], 10)
        assert not entry_calls(scene)[2:]
        await scene.until(lambda: state(scene, C02) is ConnectionState.ACTIVE, 20)
        assert told(scene, "the database answers again", None) == ["notice"]
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 5)
        assert (await scene.send("close", "s1"))[0] == 202
        await scene.until(lambda: not scene.lots(C02), 5)
        await asyncio.sleep(5)
        assert {trade.signal_id.rpartition("/")[2] for trade in await trades(scene)} == {"s1", "s2"}

    act(play, peace_s=10)


@pytest.mark.fault("P9")
def test_the_database_is_down_at_the_start() -> None:
    """Started from the local spool: ready, paged, REDUCING, a stop that was lost meanwhile is set again; when the
    database is back the journal is read, and the provider's close closes."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await asyncio.sleep(2)
        scene.kill()
        scene.venue.mischief.tamper(C01, "BTCUSDT", stop_loss=None, take_profit=None)
        scene.world.database.take_down(30)
        await asyncio.sleep(2)
        await scene.start()
        assert told(scene, "started without the database", None) == ["page"]
        assert state(scene) is ConnectionState.REDUCING
        await scene.until(lambda: stop(scene) is not None, 10)
        await asyncio.sleep(25)
        await scene.until(lambda: scene.process.ready and state(scene) is ConnectionState.ACTIVE, 20)
        assert (await scene.send("close", "s1"))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=5)


# ---- P10


@pytest.mark.fault("P10", bound_s=2)
def test_a_slow_database_holds_no_exit_up(measured: Measured) -> None:
    """Every call takes 5 s: an emergency is flat within 2 s, no entry leaves after its deadline, entries are held
    before the lease can have run out, and all is well afterwards."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        scene.world.database.slow_down(5.0, 30)
        waiting = asyncio.create_task(scene.open("s3", symbol_id="EURUSDT"))
        assert await scene.until(lambda: state(scene, C02) is ConnectionState.REDUCING, 6) < 6
        scene.world.flatten(C01)
        took = await scene.until(lambda: not scene.venue.positions(C01), 5)
        assert (await waiting)[0] == 202
        await asyncio.sleep(25)
        assert not scene.lots(C02, "EURUSDT")
        await scene.until(lambda: state(scene, C02) is ConnectionState.ACTIVE, 15)
        return took

    measured(act(play, peace_s=10))


@pytest.mark.fault("P10", bound_s=2)
def test_a_lock_that_somebody_holds(measured: Measured) -> None:
    """Writes are refused for ten seconds: the provider hears 503 at once, the open's exit is not delayed, and the
    same message is accepted once when the lock is gone."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        scene.world.database.lock(10)
        began = scene.now
        data = body(scene, "s2", symbol="ETH/USDT:USDT", entry="3000", stop_loss="2970")
        assert (await ask(scene.process, scene, data, "msg"))[0] == 503
        refused = scene.now - began
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.lots(C01), 2)
        assert await sent_again(scene, data, "msg", 15) > 10
        await settled_but(scene, C01)
        await scene.until(lambda: len(scene.reasons(C02)) == 2, 10)
        assert len(scene.entries(C02)) <= 2
        return refused

    async def settled_but(scene: Scene, halted: str) -> None:
        others = [one for one in (C01, C02, C03) if one != halted]
        await scene.until(lambda: all(state(scene, one) is ConnectionState.ACTIVE for one in others), 20)

    measured(act(play, peace_s=10))


# ---- P11


@pytest.mark.fault("P11")
def test_a_transaction_that_is_rolled_back_is_done_again_whole() -> None:
    """The decision's transaction is refused a few times, as a deadlock's victim: then it is written
    once, sent once, for every follower."""

    async def play(scene: Scene) -> None:
        status, _ = await scene.open("s1")
        assert status == 202
        refused = scene.world.database.refused
        scene.world.database.lock(0.08)
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 5)
        assert scene.world.database.refused > refused
        await settled(scene)
        assert [len(scene.entries(one)) for one in (C01, C02)] == [1, 1]
        assert [scene.reasons(one) for one in (C01, C02)] == [["ACCEPTED"], ["ACCEPTED"]]
        assert [len(entry_calls(scene, one)) for one in (C01, C02)] == [1, 1]

    act(play, peace_s=5)


# ---- P12


@pytest.mark.fault("P12")
@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("which", ["message", "decision", "what the broker said"])
def test_a_commit_whose_answer_is_lost(which: str, *, committed: bool) -> None:
    """Done or not, nobody knows: the message is answered 503 and accepted once; the decision is made sure with the
    same rows and sent once; fills and legs are written until it is sure."""

    async def play(scene: Scene) -> None:
        data = body(scene)
        if which == "message":
            scene.world.database.make_ambiguous(committed=committed)
            assert (await ask(scene.process, scene, data, "msg"))[0] == 503
        assert await sent_again(scene, data, "msg") == 1
        if which == "decision":
            scene.world.database.make_ambiguous(3, committed=committed)
        elif which == "what the broker said":
            await scene.until(lambda: bool(entry_calls(scene)), 2)
            scene.world.database.make_ambiguous(6, committed=committed)
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 5)
        await settled(scene)
        assert [len(scene.entries(one)) for one in (C01, C02)] == [1, 1]
        assert [scene.reasons(one) for one in (C01, C02)] == [["ACCEPTED"], ["ACCEPTED"]]
        closing = json.dumps({"action": "close", "signal_id": "s1", "issued_at": scene.stamp()}).encode()
        await sent_again(scene, closing, "closing")
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        await asyncio.sleep(5)
        assert len(await trades(scene)) == 1

    act(play, peace_s=5)


# ---- P13


@pytest.mark.fault("P13")
def test_a_connection_that_is_killed_again_and_again() -> None:
    """Ten outages of half a second in the middle of calls: what was under way loses its answer, what follows works;
    every message is decided once for each follower, and what was opened is closed."""

    async def play(scene: Scene) -> None:
        for outage in range(10):
            name = f"s{outage}"
            symbol, entry, away = TRADES[outage % 3]
            data = body(scene, name, symbol=symbol, entry=entry, stop_loss=away)
            asked = asyncio.create_task(ask(scene.process, scene, data, name))
            await asyncio.sleep(0.001 + 0.0004 * outage)
            scene.world.database.take_down(0.5)
            await asked
            await sent_again(scene, data, name)
            decided = outage + 1
            await scene.until(lambda n=decided: len(scene.reasons(C01)) == len(scene.reasons(C02)) == n, 10)  # type: ignore[misc]
            await settled(scene)
            assert (await scene.send("close", name))[0] == 202
            await scene.until(lambda: not scene.venue.positions(C01) and not scene.venue.positions(C02), 10)
            await asyncio.sleep(3)
        accepted = scene.reasons(C01).count("ACCEPTED")
        assert accepted >= 5
        assert set(scene.reasons(C01)) <= {"ACCEPTED", "CONNECTION_REDUCING"}
        assert len(entry_calls(scene)) <= len(scene.entries(C01)) + 10 - accepted
        assert len(scene.entries(C01)) == len(await trades(scene))

    act(play, peace_s=5)


# ---- P14


@pytest.mark.fault("P14")
@pytest.mark.parametrize(
    "pragma", ["journal_mode=DELETE", "journal_mode=MEMORY", "synchronous=NORMAL", "synchronous=OFF"]
)
def test_commits_that_are_not_flushed_are_no_start(tmp_path: Path, pragma: str) -> None:
    """What a power cut would take back is refused with the key and the remedy (SQLite's part; MariaDB's is issue C)."""
    connection = sqlite3.connect(tmp_path / "srm.db", isolation_level=None)
    cursor = connection.cursor()
    for good in ("journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {good}")
    require_flushed_commits(cursor)
    cursor.execute(f"PRAGMA {pragma}")
    with pytest.raises(ConfigurationError, match=r"\[store\] url: SQLite would not flush"):
        require_flushed_commits(cursor)
    connection.close()


@pytest.mark.fault("P14")
async def test_a_database_that_cannot_keep_a_log_is_refused(tmp_path: Path) -> None:
    """Left in another mode by somebody: put right where it can be, at the moment of opening."""
    path = tmp_path / "srm.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("CREATE TABLE other (a INTEGER)")
    connection.commit()
    connection.close()
    store = await Store.open(str(path), SystemClock())
    found = await store.runner.read(lambda raw: raw.exec_driver_sql("PRAGMA journal_mode").scalar())
    assert found == "wal"
    await store.close()


# ---- P15


@pytest.mark.fault("P15")
async def test_a_lock_of_another_process_never_stops_the_loop(tmp_path: Path) -> None:
    """Somebody holds SQLite's write lock: each write is refused within the busy time-out, in a thread of its own,
    while the event loop turns."""
    store = await Store.open(str(tmp_path / "srm.db"), SystemClock())
    other = sqlite3.connect(tmp_path / "srm.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    with pytest.raises(StoreUnavailable, match="write lock"):
        await store.leases.acquire(C01, "me", 5)
    turning.cancel()
    other.execute("ROLLBACK")
    other.close()
    assert turns > 100
    assert await store.leases.acquire(C01, "me", 5)
    await store.close()

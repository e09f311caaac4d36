"""P5-P8: what the machine under the process does: its clocks, its sleep, its disk. Scenes in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from simulator.broken_disk import FilesFaults, MemoryFiles
from simulator.simulation.scene import C01, C02, Scene, act
from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import ConnectionState
from srm_agent.supervision.disk import PROBE_S, WELL_S, DiskWatch
from tests.faults.helpers import broker, entry_calls, state, stop, told

NO_DISK = "the disk does not take writes"

# ---- P5


@pytest.mark.fault("P5")
@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 61.0, -61.0], ids=lambda step: f"{step:+g} s")
def test_the_wall_clock_steps(step_s: float) -> None:
    """Timers, ages, stops and an emergency go by the monotonic clock; what is signed by the right clock is refused
    while ours is wrong; when it is right again the next signal trades."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        scene.world.clock_skew(step_s)
        await asyncio.sleep(3)
        assert (await scene.open("s0", symbol_id="EURUSDT"))[0] == 401
        scene.venue.mischief.tamper(C02, "BTCUSDT", stop_loss=None, take_profit=None)
        await scene.until(lambda: stop(scene, C02) is not None, 10)
        began = scene.now
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.lots(C01), 5)
        assert scene.now - began < 5
        scene.world.clock_skew(0.0)
        await scene.until(lambda: state(scene, C02) is ConnectionState.ACTIVE, 20)
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: bool(scene.lots(C02, "ETHUSDT")), 5)

    act(play, peace_s=10)


@pytest.mark.fault("P5")
def test_an_old_signal_is_not_made_young() -> None:
    """Received, then the wall is set back an hour while it waits for the database: by the monotonic clock it is too
    old, and nothing is sent (S5)."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        assert (await scene.open("s2", symbol_id="ETHUSDT", issued_at=scene.stamp(20.0)))[0] == 202
        scene.world.database.lock(25)
        scene.world.clock_skew(-3600)
        await asyncio.sleep(26)
        scene.world.clock_skew(0.0)
        await scene.until(lambda: len(scene.reasons(C01)) == 2, 20)
        assert "ACCEPTED" not in scene.reasons(C01)[1:]
        assert not scene.lots(C01, "ETHUSDT")

    act(play, peace_s=10)


# ---- P6


@pytest.mark.fault("P6")
def test_the_host_sleeps_for_ten_minutes() -> None:
    """Its lines are dead when it wakes: everything is STALE from the first moment, read anew, and only then are
    entries taken; what happened meanwhile (a stop was hit, a stop was lost) is known."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1", stop="59400")
        await scene.opened("s2", symbol_id="ETHUSDT")
        for connection in (C01, C02):
            broker(scene, connection).mute_stream()
        scene.world.feed.drop_stream()
        scene.price("BTCUSDT", "59000")
        scene.venue.mischief.tamper(C02, "ETHUSDT", stop_loss=None, take_profit=None)
        scene.world.loop.stall(600)
        assert state(scene) is ConnectionState.REDUCING
        before = len(entry_calls(scene))
        assert (await scene.open("s3", symbol_id="EURUSDT"))[0] == 202
        await scene.until(lambda: len(scene.reasons(C01)) == 3, 10)
        assert scene.reasons(C01)[-1] == "CONNECTION_REDUCING"
        assert len(entry_calls(scene)) == before
        await scene.until(lambda: bool(told(scene, "the process stood still", None)), 2)
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 30)
        await scene.until(lambda: stop(scene, C02, symbol_id="ETHUSDT") is not None, 15)
        assert not scene.lots(C01)

    act(play, peace_s=10)


# ---- P7, P8


def _full(scene: Scene) -> None:
    scene.world.disk.fill()
    scene.world.database.lock()


def _files_full(scene: Scene) -> None:
    scene.world.disk.fill()


@pytest.mark.fault("P7")
@pytest.mark.parametrize("fill", [_full, _files_full], ids=["files and database", "files alone"])
def test_the_disk_is_full(fill: Callable[[Scene], None]) -> None:
    """Entries stop, people are paged, stops are watched and an emergency closes from memory; with room again it goes
    on by itself, and halt and closes are where they belong."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        fill(scene)
        await scene.until(lambda: state(scene) is ConnectionState.REDUCING, 5)
        await scene.until(lambda: told(scene, NO_DISK, None) == ["page"], 3)
        before = len(entry_calls(scene, C02))
        status, _ = await scene.open("s2", symbol_id="ETHUSDT")
        assert status in (202, 503)
        scene.venue.mischief.tamper(C02, "BTCUSDT", stop_loss=None, take_profit=None)
        await scene.until(lambda: stop(scene, C02) is not None, 10)
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.lots(C01), 5)
        assert state(scene) in (ConnectionState.FLATTENING, ConnectionState.HALTED)
        assert len(entry_calls(scene, C02)) == before
        scene.world.disk.mend()
        scene.world.database.mend()
        await scene.until(lambda: state(scene, C02) is ConnectionState.ACTIVE, 15)
        await scene.until(lambda: "c01" in scene.world.files.texts.get("halts.json", ""), 5)
        assert len(scene.world.lives) == 1
        await scene.open("s3", symbol_id="EURUSDT")
        await scene.until(lambda: bool(scene.lots(C02, "EURUSDT")), 5)

    act(play, peace_s=10)


def _read_only(scene: Scene) -> None:
    scene.world.disk.write_protect()


def _failing(scene: Scene) -> None:
    scene.world.disk.fail()


@pytest.mark.fault("P8")
@pytest.mark.parametrize("harm", [_read_only, _failing], ids=["read-only", "EIO"])
def test_the_disk_fails(harm: Callable[[Scene], None]) -> None:
    """Fatal for entries, also when it works again, until a new life has read everything anew; exits go on; the
    process lives and is whole by itself."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        first = scene.agent
        harm(scene)
        await scene.until(lambda: state(scene) is ConnectionState.REDUCING, 5)
        await scene.until(lambda: told(scene, NO_DISK, None) == ["page"], 3)
        assert (await scene.send("close", "s2"))[0] == 202
        await scene.until(lambda: not scene.lots(C01, "ETHUSDT"), 5)
        scene.world.disk.mend()
        await asyncio.sleep(WELL_S / 2)
        assert state(scene) is ConnectionState.REDUCING
        before = len(entry_calls(scene))
        await scene.open("s3", symbol_id="EURUSDT")
        assert len(entry_calls(scene)) == before
        await scene.until(lambda: scene.agent is not first and scene.process.ready, WELL_S + 10)
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 10)
        assert len(scene.world.lives) == 1
        assert stop(scene) is not None
        assert (await scene.send("close", "s1"))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=10)


@pytest.mark.fault("P8")
def test_one_flush_that_failed_is_not_forgotten() -> None:
    """A single line torn in its middle: from then on this life takes no entries, although every later write works."""
    clock, faults = ManualClock(datetime(2026, 3, 4, 13, 30, tzinfo=UTC)), FilesFaults()
    disk = DiskWatch(MemoryFiles(faults), clock)
    disk.append("exits.c01.jsonl", "{}")
    assert disk.why_held() == ""
    faults.tear()
    with pytest.raises(OSError, match="Input/output error"):
        disk.append("exits.c01.jsonl", "{}")
    for _ in range(10):
        clock.advance(PROBE_S)
        disk.look()
    assert disk.failing == ""
    assert "everything is read anew" in disk.why_held()


@pytest.mark.fault("P7")
def test_room_is_noticed_within_the_probes_pause() -> None:
    """Nobody writes, the disk fills up and empties again: both are known within two seconds."""
    clock, faults = ManualClock(datetime(2026, 3, 4, 13, 30, tzinfo=UTC)), FilesFaults()
    disk = DiskWatch(MemoryFiles(faults), clock)
    faults.fill()
    disk.look()
    assert disk.why_held() == ""
    clock.advance(PROBE_S)
    disk.look()
    assert "No space left" in disk.why_held()
    faults.mend()
    disk.look()
    assert disk.why_held() == ""

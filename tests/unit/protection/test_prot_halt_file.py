"""The file of halts is shared with `srm-agent flatten`: merged under a lock, never overwritten (INV-8)."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from srm_agent import failpoints
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.files import DiskFiles
from srm_agent.protection.halt_file import BROKEN, FILE, HaltFile, flat, latched, united
from srm_agent.protection.halts import HaltBoard
from srm_agent.store.store import Store
from tests.unit.execution.conftest import START, LoopClock, Twisted

CONNECTION = HaltScope.CONNECTION
FLATTENING, HALTED = ConnectionState.FLATTENING, ConnectionState.HALTED


class Killed(BaseException):
    """The process died here."""


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A database in memory."""
    opened = await Store.memory(LoopClock())
    yield opened
    await opened.close()


@pytest.fixture
def dies_at_cp8() -> Iterator[None]:
    """A process that is killed between memory and file."""

    def die(point: str) -> None:
        if point == "CP8":
            raise Killed

    failpoints.arm(die)
    yield
    failpoints.arm(None)


def a_halt(key: str = "c01", state: ConnectionState = FLATTENING, after: int = 0, by: str = "flatten") -> Halt:
    """A halt of a connection, set `after` seconds from the start."""
    return Halt(
        scope=CONNECTION, key=key, state=state, reason=f"by {by}", set_at=START + timedelta(seconds=after), set_by=by
    )


def latch(folder: Path, halt: Halt) -> None:
    """As `srm-agent flatten` does."""
    HaltFile(DiskFiles(folder)).update(lambda known: latched(known, halt))


async def test_a_running_daemon_takes_over_what_flatten_latched(tmp_path: Path, store: Store) -> None:
    """Within one second's work: memory and database have it, and nothing of the daemon's is lost from the file."""
    board = HaltBoard(DiskFiles(tmp_path), store.protection)
    board.set(a_halt("c02", HALTED, by="ann"))
    latch(tmp_path, a_halt("c01"))
    assert board.find(CONNECTION, "c01") is None
    await board.save()
    assert board.find(CONNECTION, "c01") == a_halt("c01")
    assert {halt.key for halt in await store.protection.halts()} == {"c01", "c02"}
    assert set(HaltFile(DiskFiles(tmp_path)).read()) == {(CONNECTION, "c01"), (CONNECTION, "c02")}


async def test_a_halt_of_the_daemon_does_not_overwrite_the_file(tmp_path: Path, store: Store) -> None:
    """Flatten latched a moment ago and the daemon has not looked yet: its own halt joins the other's."""
    board = HaltBoard(DiskFiles(tmp_path), store.protection)
    await board.load()
    latch(tmp_path, a_halt("c01"))
    board.set(a_halt("c02", HALTED, by="ann"))
    assert board.find(CONNECTION, "c01") == a_halt("c01")
    assert len(HaltFile(DiskFiles(tmp_path)).read()) == 2


async def test_an_operators_halt_does_not_end_what_flatten_began(tmp_path: Path, store: Store) -> None:
    """FLATTENING in the file, a halt by the control API right after it: the daemon closes as well."""
    board = HaltBoard(DiskFiles(tmp_path), store.protection)
    await board.load()
    latch(tmp_path, a_halt())
    board.set(a_halt(state=HALTED, after=1, by="ann"))
    found = board.find(CONNECTION, "c01")
    assert found is not None
    assert found.state is FLATTENING
    assert HaltFile(DiskFiles(tmp_path)).read()[CONNECTION, "c01"].state is FLATTENING


async def test_flat_is_told_to_the_daemon_and_survives(tmp_path: Path, store: Store) -> None:
    """Flatten ends the episode in the file: the daemon's memory follows, and so does the next start."""
    board = HaltBoard(DiskFiles(tmp_path), store.protection)
    latch(tmp_path, a_halt())
    await board.save()
    HaltFile(DiskFiles(tmp_path)).update(lambda known: flat(known, (CONNECTION, "c01")))
    await board.save()
    for seen in (board, HaltBoard(DiskFiles(tmp_path), store.protection)):
        await seen.load()
        assert seen.find(CONNECTION, "c01") == a_halt(state=HALTED)


async def test_a_lifted_halt_stays_lifted_and_a_new_one_stands(tmp_path: Path, store: Store) -> None:
    """After `resume` the file does not bring it back; a flatten that latched during the resume is in force."""
    board = HaltBoard(DiskFiles(tmp_path), store.protection)
    board.set(a_halt(state=HALTED))
    assert await board.clear(CONNECTION, "c01", "bob", START)
    await board.save()
    assert not list(board.all())
    board.set(a_halt(state=HALTED, after=10))
    latch(tmp_path, a_halt(after=20))
    assert not await board.clear(CONNECTION, "c01", "bob", START)
    found = board.find(CONNECTION, "c01")
    assert found is not None
    assert found.state is FLATTENING


async def test_a_crash_between_memory_and_file_is_seen_by_nobody_and_set_again(
    tmp_path: Path, store: Store, dies_at_cp8: None
) -> None:
    """At CP8 nothing is promised yet: the next process has no halt, and latching again leaves exactly one."""
    with pytest.raises(Killed):
        HaltBoard(DiskFiles(tmp_path), store.protection).set(a_halt())
    failpoints.arm(None)
    after = HaltBoard(DiskFiles(tmp_path), store.protection)
    await after.load()
    assert not list(after.all())
    after.set(a_halt(after=1))
    await after.save()
    again = HaltBoard(DiskFiles(tmp_path), store.protection)
    await again.load()
    assert list(again.all()) == [a_halt(after=1)]
    assert len(await store.protection.halts()) == 1


async def test_ten_restarts_add_no_halt(tmp_path: Path, store: Store) -> None:
    """Loading writes what is missing and nothing else (INV-8)."""
    first = HaltBoard(DiskFiles(tmp_path), store.protection)
    first.set(a_halt())
    text = (tmp_path / FILE).read_text()
    for _ in range(10):
        await HaltBoard(DiskFiles(tmp_path), store.protection).load()
    assert (tmp_path / FILE).read_text() == text
    assert list(await store.protection.halts()) == [a_halt()]


async def test_a_file_broken_while_we_run_is_kept_and_halts_go_on(tmp_path: Path, store: Store) -> None:
    """Somebody's editor left half a file: memory stands, the next halt is written, the half file is kept."""
    board = HaltBoard(DiskFiles(tmp_path), store.protection)
    board.set(a_halt("c01"))
    (tmp_path / FILE).write_text('[{"scope": "conn')
    await board.save()
    assert board.find(CONNECTION, "c01") is not None
    board.set(a_halt("c02"))
    assert len(HaltFile(DiskFiles(tmp_path)).read()) == 2
    assert (tmp_path / BROKEN).read_text() == '[{"scope": "conn'
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    board.set(a_halt("c03"))
    assert len(HaltFile(DiskFiles(tmp_path)).read()) == 3


async def test_a_database_that_hangs_holds_nothing_up(tmp_path: Path, store: Store) -> None:
    """`save` comes back within its patience, and writes the halt when the database answers again (P10)."""
    twisted: Any = Twisted(store.protection)

    async def hang(halt: Halt) -> None:
        await asyncio.Event().wait()

    twisted.twists["save_halt"] = hang
    board = HaltBoard(DiskFiles(tmp_path), twisted)
    board.set(a_halt())
    loop = asyncio.get_running_loop()
    began = loop.time()
    await board.save()
    assert loop.time() - began <= 2.0
    twisted.twists.clear()
    await board.save()
    assert list(await store.protection.halts()) == [a_halt()]


def test_what_two_memories_mean_together() -> None:
    """An ended episode has ended, FLATTENING goes before another's HALTED, otherwise ours stands."""
    key = (CONNECTION, "c01")
    old, new = a_halt(by="ours"), a_halt(after=9, by="theirs")
    cases = [
        (old, replace(old, state=HALTED), replace(old, state=HALTED)),
        (replace(old, state=HALTED), old, replace(old, state=HALTED)),
        (replace(old, state=HALTED), new, new),
        (old, new, old),
        (old, replace(new, state=HALTED), old),
        (replace(old, state=HALTED), replace(new, state=HALTED), replace(old, state=HALTED)),
    ]
    for ours, theirs, expected in cases:
        assert united({key: ours}, {key: theirs}) == {key: expected}
    assert united({}, {key: new}) == united({key: new}, {}) == {key: new}


def _latch_many(folder: str, name: str) -> None:
    for number in range(25):
        for _ in range(100):
            try:
                latch(Path(folder), a_halt(f"{name}-{number}"))
                break
            except TimeoutError:
                continue  # the others held it all the time: nothing was written, and it is tried again


def test_processes_that_latch_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four processes, 25 halts each, the same file: all hundred stand."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_latch_many, args=(str(tmp_path), f"p{number}")) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len(HaltFile(DiskFiles(tmp_path)).read()) == 100


def test_a_lock_that_is_never_let_go_is_an_error_not_a_wait_for_ever(tmp_path: Path) -> None:
    """The holder is stuck: OSError within a second, and the halt is latched in memory all the same."""
    files = DiskFiles(tmp_path)
    with files.exclusive(FILE), pytest.raises(OSError, match="held by another process"):
        latch(tmp_path, a_halt())
    latch(tmp_path, a_halt())

"""The latch: memory, then file, then database; only an operator clears it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope
from srm_agent.errors import ConfigurationError, OutcomeUnknown, StoreUnavailable
from srm_agent.files import DiskFiles
from srm_agent.protection.halts import HaltBoard
from srm_agent.store.store import Store
from tests.unit.execution.conftest import START, LoopClock, Twisted, failing

CONNECTION = HaltScope.CONNECTION
AWAY = StoreUnavailable("away")


def a_halt(key: str = "c01", state: ConnectionState = ConnectionState.HALTED, after: int = 0, by: str = "ann") -> Halt:
    """A halt of a connection, set `after` seconds from the start."""
    return Halt(
        scope=CONNECTION, key=key, state=state, reason=f"by {by}", set_at=START + timedelta(seconds=after), set_by=by
    )


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A database in memory."""
    opened = await Store.memory(LoopClock())
    yield opened
    await opened.close()


def a_board(folder: Path, store: Any) -> HaltBoard:
    """A board over file and database (or a twisted one)."""
    return HaltBoard(DiskFiles(folder), store.protection if isinstance(store, Store) else store)


async def test_a_halt_is_in_the_file_before_anything_is_awaited(tmp_path: Path, store: Store) -> None:
    """A process that dies right after `set` finds the halt again (CP8)."""
    a_board(tmp_path, store).set(a_halt())
    after = a_board(tmp_path, store)
    await after.load()
    assert after.find(CONNECTION, "c01") == a_halt()
    assert list(await store.protection.halts()) == [a_halt()]


async def test_file_and_database_are_united(tmp_path: Path, store: Store) -> None:
    """What either remembers is in force; another FLATTENING goes on, one that the file saw end does not."""
    await store.protection.save_halt(a_halt("db"))
    await store.protection.save_halt(a_halt("both", ConnectionState.FLATTENING, after=5))
    await store.protection.save_halt(a_halt("ended", ConnectionState.FLATTENING))
    board = a_board(tmp_path, store)
    board.set(a_halt("file"))
    board.set(a_halt("both"))
    board.set(a_halt("ended"))
    after = a_board(tmp_path, store)
    await after.load()
    assert {halt.key: halt.state for halt in after.all()} == {
        "db": ConnectionState.HALTED,
        "file": ConnectionState.HALTED,
        "both": ConnectionState.FLATTENING,
        "ended": ConnectionState.HALTED,
    }
    assert len(await store.protection.halts()) == 4
    again = a_board(tmp_path, store)
    await again.load()
    assert list(again.all()) == list(after.all())


async def test_the_first_reason_stands_and_flattening_is_not_overwritten(tmp_path: Path, store: Store) -> None:
    """A second halt changes nothing; an operator's halt in the middle of an episode does not end it."""
    board = a_board(tmp_path, store)
    board.set(a_halt())
    board.set(a_halt(after=5, by="bob"))
    episode = a_halt("c02", ConnectionState.FLATTENING, by="drawdown_guard")
    board.set(episode)
    board.set(a_halt("c02", after=5, by="bob"))
    assert [halt.reason for halt in board.all()] == ["by ann", "by drawdown_guard"]
    board.set(replace(episode, state=ConnectionState.HALTED))
    found = board.find(CONNECTION, "c02")
    assert found is not None
    assert found.state is ConnectionState.HALTED


async def test_the_database_gets_later_what_it_did_not_take(tmp_path: Path, store: Store) -> None:
    """Outages of the database change nothing in force; the next save writes what is missing."""
    twisted: Any = Twisted(store.protection)
    twisted.twists["save_halt"] = failing(AWAY, OutcomeUnknown("commit"), then=store.protection.save_halt)
    board = a_board(tmp_path, twisted)
    board.set(a_halt())
    for _ in range(3):
        await board.save()
        assert board.find(CONNECTION, "c01") is not None
    assert list(await store.protection.halts()) == [a_halt()]


async def test_the_file_gets_later_what_the_disk_did_not_take(tmp_path: Path, store: Store) -> None:
    """A full disk latches in memory; the file follows when there is room."""
    folder = tmp_path / "later"
    board = a_board(folder, store)
    board.set(a_halt())
    assert board.find(CONNECTION, "c01") is not None
    folder.mkdir()
    await board.save()
    assert "by ann" in (folder / "halts.json").read_text()


async def test_an_operator_clears_everywhere_with_his_name(tmp_path: Path, store: Store) -> None:
    """Memory, file, database; the second time there is nothing to clear; without the database nothing is cleared."""
    twisted: Any = Twisted(store.protection)
    twisted.twists["clear_halt"] = failing(AWAY, then=store.protection.clear_halt)
    board = a_board(tmp_path, twisted)
    board.set(a_halt())
    with pytest.raises(StoreUnavailable):
        await board.clear(CONNECTION, "c01", "bob", START)
    assert board.find(CONNECTION, "c01") is not None
    assert await board.clear(CONNECTION, "c01", "bob", START)
    assert not await board.clear(CONNECTION, "c01", "bob", START)
    after = a_board(tmp_path, store)
    await after.load()
    assert not list(after.all())


async def test_a_crash_between_database_and_file_leaves_the_halt(tmp_path: Path, store: Store) -> None:
    """The database forgot, the file did not: halted."""
    board = a_board(tmp_path, store)
    board.set(a_halt())
    await board.save()
    await store.protection.clear_halt(CONNECTION, "c01", "bob", START)
    after = a_board(tmp_path, store)
    await after.load()
    assert after.find(CONNECTION, "c01") is not None


@pytest.mark.parametrize("state", [ConnectionState.HALTED, ConnectionState.FLATTENING])
async def test_a_halt_set_while_another_is_being_cleared_stands(
    tmp_path: Path, store: Store, state: ConnectionState
) -> None:
    """The new halt is not thrown away with the old one (INV-8)."""
    twisted: Any = Twisted(store.protection)

    async def slow(*args: Any) -> bool:
        await asyncio.sleep(1)
        return await store.protection.clear_halt(*args)

    twisted.twists["clear_halt"] = slow
    board = a_board(tmp_path, twisted)
    board.set(a_halt())
    clearing = asyncio.create_task(board.clear(CONNECTION, "c01", "bob", START))
    await asyncio.sleep(0.5)
    newer = a_halt(state=state, after=60, by="guard")
    board.set(newer)
    assert not await clearing
    assert board.find(CONNECTION, "c01") == newer
    await board.save()
    after = a_board(tmp_path, store)
    await after.load()
    assert after.find(CONNECTION, "c01") == newer


async def test_a_slow_save_does_not_bring_a_cleared_halt_back(tmp_path: Path, store: Store) -> None:
    """The timer's save was waiting with an old list while the operator cleared: the database stays clear."""
    twisted: Any = Twisted(store.protection)

    async def slow(halt: Halt) -> None:
        await asyncio.sleep(1)
        await store.protection.save_halt(halt)

    twisted.twists["save_halt"] = slow
    board = a_board(tmp_path, twisted)
    board.set(a_halt("first"))
    board.set(a_halt("second"))
    saving = asyncio.create_task(board.save())
    await asyncio.sleep(0.5)
    twisted.twists.clear()
    await board.clear(CONNECTION, "second", "bob", START)
    await saving
    assert [halt.key for halt in await store.protection.halts()] == ["first"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"scope": "moon"}]', "5", '{"a": 1}'])
async def test_a_broken_file_is_not_an_empty_one(tmp_path: Path, store: Store, text: str) -> None:
    """The daemon refuses to start on a halt file that it cannot read."""
    (tmp_path / "halts.json").write_text(text)
    with pytest.raises(ConfigurationError, match="halt file"):
        await a_board(tmp_path, store).load()

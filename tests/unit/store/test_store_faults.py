"""What goes wrong with a database file: locks, a full disk, a crash, a failing job, a closed store."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, exc, text

from srm_agent.clock import ManualClock
from srm_agent.errors import ConfigurationError, Duplicate, OutcomeUnknown, StoreBroken, StoreUnavailable
from srm_agent.store.engine import open_engine
from srm_agent.store.errors_map import mapped
from srm_agent.store.group_commit import GroupCommit
from srm_agent.store.runner import ThreadRunner
from srm_agent.store.store import Store

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Another process in the middle of a write transaction."""
    holder = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.kill()


@pytest.fixture
async def file_store(path: Path, clock: ManualClock) -> Any:
    """A file through the writer thread."""
    store = await Store.open(str(path), clock)
    yield store
    await store.close()


@pytest.mark.fault("P14")
async def test_the_file_is_private_and_durable(file_store: Store, path: Path) -> None:
    """The database and its companions have mode 0600; WAL, FULL, foreign keys and the short busy timeout are set."""
    await file_store.runner.run(lambda connection: connection.execute(text("CREATE TABLE x (a INTEGER)")))
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        assert name.stat().st_mode & 0o777 == 0o600

    def pragma(connection: Connection, name: str) -> object:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    found = {name: await file_store.runner.read(pragma, name) for name in names}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 50}


async def test_a_wider_mode_is_narrowed(path: Path, clock: ManualClock) -> None:
    """A database file that others could read is made private when it is opened."""
    os.close(os.open(path, os.O_CREAT, 0o644))
    store = await Store.open(str(path), clock)
    await store.close()
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.fault("P15")
async def test_a_lock_elsewhere_is_unavailable_fast(file_store: Store, path: Path, a: Any) -> None:
    """While another process writes, a record is soon StoreUnavailable and reads go on; later it works."""
    with write_lock(path):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="write lock"):
            await file_store.journal.record([a.decision()], [a.intent()], [a.leg()])
        assert time.monotonic() - started < 1.0
        assert await file_store.journal.unsettled(a.connection) == []
    await file_store.journal.record([a.decision()], [a.intent()], [a.leg()])
    assert len(await file_store.journal.unsettled(a.connection)) == 1


@pytest.mark.fault("P7")
async def test_a_full_disk_writes_nothing_and_heals(file_store: Store, a: Any) -> None:
    """When the file cannot grow, a record is StoreUnavailable and leaves nothing; with room again it works."""

    def limit(connection: Connection, pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    used = await file_store.runner.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar())
    await file_store.runner.read(limit, int(used or 0) + 2)
    names = [f"s{i}" for i in range(200)]
    arguments = ([a.decision(s) for s in names], [a.intent(s) for s in names], [a.leg(s) for s in names])
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await file_store.journal.record(*arguments)
    assert await file_store.journal.unsettled(a.connection) == []
    await file_store.runner.read(limit, 1_000_000)
    await file_store.journal.record(*arguments)
    assert len(await file_store.journal.unsettled(a.connection)) == 200


async def test_what_was_recorded_survives_a_crash(
    file_store: Store, path: Path, tmp_path: Path, clock: ManualClock, a: Any
) -> None:
    """The files as they lie after `record` returned, without any close, hold the intents, decisions and messages."""
    await file_store.signals.accept(a.open(), "h", "first")
    await file_store.journal.record([a.decision()], [a.intent()], [a.leg()])
    after = tmp_path / "after"
    after.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", after / f"srm.db{suffix}")
    again = await Store.open(f"sqlite:///{after / 'srm.db'}", clock)
    assert [row.intent for row in await again.journal.unsettled(a.connection)] == [a.intent()]
    assert list(await again.journal.open_legs(a.connection)) == [a.leg()]
    assert (await again.signals.accept(a.open(), "h", "second")).answer == "first"
    await again.close()


async def test_a_failing_job_fails_alone(file_store: Store, a: Any) -> None:
    """Of many writes that share a transaction only the culprit gets an error; all others are committed."""

    def explode(connection: Connection) -> None:
        connection.execute(text("INSERT INTO srm_tombstones VALUES ('t', 'p', 'm', '2026-01-05')"))
        raise RuntimeError("culprit")

    def accept(i: int) -> Any:
        return file_store.signals.accept(a.open(f"s{i}", f"m{i}"), "h", "ok")

    results = await asyncio.gather(
        *(accept(i) for i in range(5)),
        file_store.runner.run(explode),
        *(accept(i) for i in range(5, 10)),
        return_exceptions=True,
    )
    assert [str(result) for result in results if isinstance(result, BaseException)] == ["culprit"]
    assert len(await file_store.signals.unfinished()) == 10
    assert (await file_store.reads.sizes()).rows["srm_tombstones"] == 0


async def test_waiting_writes_share_a_transaction(file_store: Store, a: Any) -> None:
    """One hundred writes at once take far fewer commits than one hundred."""
    runner = file_store.runner
    assert isinstance(runner, GroupCommit)
    await asyncio.gather(*(file_store.signals.accept(a.open(f"s{i}", f"m{i}"), "h", "ok") for i in range(100)))
    assert runner.jobs == 100
    assert runner.batches <= 5
    assert len(await file_store.signals.unfinished()) == 100


async def test_a_dead_database_fails_the_whole_batch(file_store: Store, path: Path, a: Any) -> None:
    """StoreUnavailable is nobody's fault: every write of the batch gets it, at once and not one by one."""
    with write_lock(path):
        results = await asyncio.gather(
            *(file_store.signals.accept(a.open(f"s{i}", f"m{i}"), "h", "ok") for i in range(40)),
            return_exceptions=True,
        )
    assert {type(result) for result in results} == {StoreUnavailable}
    assert await file_store.signals.unfinished() == []


async def test_a_cancelled_caller_disturbs_nobody(file_store: Store, a: Any) -> None:
    """Cancelling one waiting caller leaves the writes of the others committed."""
    tasks = [asyncio.create_task(file_store.signals.accept(a.open(f"s{i}", f"m{i}"), "h", "ok")) for i in range(20)]
    await asyncio.sleep(0)
    tasks[7].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 1
    assert len(await file_store.signals.unfinished()) >= 19


async def test_closing_commits_what_waits(path: Path, clock: ManualClock, a: Any) -> None:
    """Writes asked for before `close` are committed, later calls are StoreUnavailable, closing twice is fine."""
    store = await Store.open(str(path), clock)
    waiting = [asyncio.create_task(store.signals.accept(a.open(f"s{i}", f"m{i}"), "h", "ok")) for i in range(5)]
    await asyncio.sleep(0)
    await store.close()
    await store.close()
    results = await asyncio.gather(*waiting)
    assert all(result.fresh for result in results)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.signals.accept(a.open(), "h", "ok")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.signals.unfinished()
    again = await Store.open(str(path), clock, inline=True)
    assert len(await again.signals.unfinished()) == 5
    await again.close()


async def test_read_only_beside_a_running_agent(file_store: Store, path: Path, clock: ManualClock, a: Any) -> None:
    """A read-only store sees committed rows, takes no lock from the agent and cannot write."""
    await file_store.journal.record([a.decision()], [a.intent()], [a.leg()])
    looking = await Store.open(str(path), clock, inline=True, read_only=True)
    assert await looking.reads.decisions_by_reason() == {"ACCEPTED": 1}
    with pytest.raises(StoreUnavailable, match="read-only"):
        await looking.journal.record([a.decision("s2")], [], [])
    await file_store.journal.record([a.decision("s2")], [a.intent("s2")], [a.leg("s2")])
    assert await looking.reads.decisions_by_reason() == {"ACCEPTED": 2}
    sizes = await looking.reads.sizes()
    assert sizes.file_bytes > 0
    assert sizes.rows["srm_decisions"] == 2
    await looking.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        pytest.param("sqlite:////nowhere/at/all/srm.db", "does not exist", id="a missing directory is named"),
        pytest.param("postgresql://u:CANARY@h/d", "must be SQLite", id="another database is refused"),
        pytest.param("::://CANARY", "cannot be read", id="an unreadable url is refused"),
    ],
)
async def test_a_wrong_url_is_explained(clock: ManualClock, url: str, told: str) -> None:
    """A URL that cannot be used is a configuration error that names the key and prints no secret."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        await Store.open(url, clock)
    assert "[store] url" in str(caught.value)
    assert "CANARY" not in str(caught.value)


async def test_a_missing_file_is_not_created_by_reading(path: Path, clock: ManualClock) -> None:
    """A read-only open of a database that is not there says so and creates nothing."""
    with pytest.raises(ConfigurationError, match="no database"):
        await Store.open(str(path), clock, read_only=True)
    assert os.listdir(os.path.dirname(path)) == []


async def test_defects_are_told_from_outages(path: Path) -> None:
    """A missing table is a defect, a repeated key a Duplicate, and the runner works on after both."""
    runner = ThreadRunner(open_engine(str(path)))
    await runner.run(lambda connection: connection.exec_driver_sql("CREATE TABLE k (a TEXT PRIMARY KEY)"))
    for _ in range(2):
        with pytest.raises(StoreBroken, match="no such table"):
            await runner.run(lambda connection: connection.exec_driver_sql("SELECT * FROM missing"))
    await runner.run(lambda connection: connection.exec_driver_sql("INSERT INTO k VALUES ('x')"))
    with pytest.raises(Duplicate):
        await runner.run(lambda connection: connection.exec_driver_sql("INSERT INTO k VALUES ('x')"))
    await runner.close()


def _driver_error(code: int) -> exc.OperationalError:
    origin = sqlite3.OperationalError("told")
    origin.sqlite_errorcode = code
    return exc.OperationalError("COMMIT", None, origin)


@pytest.mark.parametrize(
    ("code", "committing", "expected"),
    [
        pytest.param(sqlite3.SQLITE_BUSY, True, StoreUnavailable, id="busy at commit: nothing was written"),
        pytest.param(sqlite3.SQLITE_FULL, True, StoreUnavailable, id="full at commit: nothing was written"),
        pytest.param(sqlite3.SQLITE_IOERR, True, OutcomeUnknown, id="a disk error at commit proves nothing"),
        pytest.param(sqlite3.SQLITE_IOERR_FSYNC, True, OutcomeUnknown, id="a failed fsync proves nothing"),
        pytest.param(sqlite3.SQLITE_IOERR, False, StoreUnavailable, id="a disk error before commit: rolled back"),
        pytest.param(sqlite3.SQLITE_BUSY_SNAPSHOT, False, StoreUnavailable, id="extended codes count by their family"),
        pytest.param(sqlite3.SQLITE_CORRUPT, False, StoreBroken, id="a damaged file is not retried"),
    ],
)
def test_driver_codes_decide(code: int, committing: bool, expected: type[Exception]) -> None:
    """What an error means follows from the driver's code and from whether COMMIT was under way."""
    assert type(mapped(_driver_error(code), committing=committing)) is expected


async def test_intents_of_one_signal_in_chunks(
    file_store: Store, a: Any, tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000 intents in chunks of 8 and then 100 are all there; the time beside raw SQL is told."""
    followers = [f"c{i}" for i in range(1000)]
    chunks = [followers[:8], *(followers[start : start + 100] for start in range(8, 1000, 100))]
    values = [
        (
            [a.decision(connection=c) for c in chunk],
            [a.intent(connection=c) for c in chunk],
            [a.leg(connection=c) for c in chunk],
        )
        for chunk in chunks
    ]
    started = time.perf_counter()
    for arguments in values:
        await file_store.journal.record(*arguments)
    ours = time.perf_counter() - started
    raw = sqlite3.connect(tmp_path / "raw.db", isolation_level=None)
    raw.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE o (a, b, c, d, e, f, g, h)")
    started = time.perf_counter()
    for _, intents, _ in values:
        raw.execute("BEGIN IMMEDIATE")
        raw.executemany(
            "INSERT INTO o VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(i.client_id, i.connection_id, i.leg_id, i.signal_id, i.symbol, i.side, str(i.lot), "") for i in intents],
        )
        raw.execute("COMMIT")
    alone = time.perf_counter() - started
    raw.close()
    record_property("record_1000_s", f"{ours:.3f}")
    with capsys.disabled():
        print(f"\n  1,000 intents with decision, leg, log, prediction: {ours:.2f} s; one raw table: {alone:.3f} s")
    assert sum((await file_store.reads.decisions_by_reason()).values()) == 1000
    assert (await file_store.reads.sizes()).rows["srm_orders"] == 1000
    assert (await file_store.journal.unsettled("c999"))[0].intent.lot == Decimal("0.05")  # type: ignore[arg-type]

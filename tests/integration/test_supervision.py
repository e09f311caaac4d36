"""The daemon as a process under a service manager: `srm-agent run`, a notify socket of the test's own, real signals.

The venue lives in the test's event loop and is reached over sockets, so that the test can look at it and break it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.supervision import starts
from tests.integration.conftest import ACCOUNTS, CONFIG, CONNECTION, KEY, TOKEN

if TYPE_CHECKING:
    from tests.integration.conftest import World

ROOT = Path(__file__).resolve().parents[2]
SLOW = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
"""A machine with more work than cores is as much slower: the bars below are for one that has a core for us."""
READY_S = 10.0 * SLOW
STOP_S = 5.0 * SLOW
WATCHDOG_S = 3.0


class NotifySocket:
    """A datagram socket such as systemd's, in the abstract namespace or in the file system; keeps what it hears."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[tuple[float, str]] = []
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        at = time.monotonic()
        self.heard += [(at, line) for line in self._socket.recv(65536).decode().split("\n")]

    def times(self, line: str, since: float = 0) -> list[float]:
        """When exactly this line was heard."""
        return [at for at, text in self.heard if text == line and at >= since]

    @property
    def status(self) -> str:
        """The last STATUS=."""
        return next((text[7:] for _, text in reversed(self.heard) if text.startswith("STATUS=")), "")

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()


@dataclass(slots=True)
class Unit:
    """One `srm-agent run` and what its manager hears."""

    process: asyncio.subprocess.Process
    notify: NotifySocket
    errors: Path
    port: int
    began: float
    session: aiohttp.ClientSession

    def said(self) -> str:
        """Its log."""
        return self.errors.read_text()

    async def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for a state; the seconds it took. Fails with the process's own words."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds * SLOW or self.process.returncode is not None:
                said = f"status {self.notify.status!r}; load {os.getloadavg()[0]}; said:\n{self.said()[-3000:]}"
                pytest.fail(f"not within {seconds * SLOW:.0f} s; {said}")
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def ready(self) -> float:
        """Seconds from the start of the process to READY=1."""
        await self.until(lambda: bool(self.notify.times("READY=1")), 20)
        return self.notify.times("READY=1")[0] - self.began

    async def signal(self, message_id: str, **body: str) -> int:
        """A signed message of provider alpha; the HTTP status."""
        body.setdefault("issued_at", datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        raw, stamp = json.dumps(body).encode(), int(datetime.now(UTC).timestamp())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(WebhookKey.parse(KEY), message_id, stamp, raw),
        }
        url = f"http://127.0.0.1:{self.port}/signals/channel_source/alpha"
        async with self.session.post(url, data=raw, headers=headers) as reply:
            return reply.status

    async def open(self, name: str) -> int:
        """An opening signal: buy BTC with a stop 600 below."""
        return await self.signal(
            f"m-{name}", action="open", signal_id=name, symbol="BTC/USDT:USDT", side="buy", entry="60000",
            stop_loss="59400",
        )  # fmt: skip

    async def control(self, action: str, **body: str) -> tuple[int, dict[str, object]]:
        """POST to the control API with the operator's token."""
        url, headers = f"http://127.0.0.1:{self.port}/control/{action}", {"authorization": f"Bearer {TOKEN}"}
        async with self.session.post(url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def stop(self, *numbers: int) -> float:
        """Send signals one after the other; the seconds until it has ended with exit code 0."""
        began = time.monotonic()
        for number in numbers or (signal.SIGTERM,):
            self.process.send_signal(number)
            await asyncio.sleep(0.05)
        code = await asyncio.wait_for(self.process.wait(), 20 * SLOW)
        assert code == 0, self.said()[-3000:]
        return time.monotonic() - began


@dataclass(slots=True)
class Host:
    """Starts units against a world's venue; what is left at the end is killed."""

    world: World
    session: aiohttp.ClientSession
    port: int
    units: list[Unit] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.world.home / "srm.toml"

    @property
    def data(self) -> Path:
        """The state directory."""
        return self.world.home / "data"

    def configure(self, more: str = "") -> None:
        """Write the file; `more` are keys of every connection."""
        connections = "".join(CONNECTION.format(name=name, more=more) for name in ACCOUNTS)
        text = CONFIG.format(home=self.data, url=self.world.server.url, connections=connections)
        self.config.write_text(text.replace("port = 0", f"port = {self.port}"))

    async def start(self, *, abstract: bool = True, code: str = "", **variables: str) -> Unit:
        """Start a process; `code` instead of `-m srm_agent` for one with a defect."""
        name = f"{os.getpid()}-{id(self)}-{len(self.units)}"
        notify = NotifySocket(f"@srm-{name}" if abstract else f"/tmp/srm-{name}")
        errors = self.world.home / f"run-{len(self.units)}.err"
        main = ["-c", code] if code else ["-m", "srm_agent"]
        with errors.open("w") as stream:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *main, "run", "--config", str(self.config),
                "--credentials", str(self.world.home / "secrets"),
                cwd=ROOT, stdout=stream, stderr=stream,
                env={
                    **os.environ, "NOTIFY_SOCKET": notify.address,
                    "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)), **variables,
                },
            )  # fmt: skip
        port = int(variables.get("SRM_INTAKE__PORT", self.port))
        unit = Unit(process, notify, errors, port, time.monotonic(), self.session)
        self.units.append(unit)
        return unit


@pytest.fixture
async def host(world: World) -> AsyncIterator[Host]:
    """A host with a venue in reach."""
    async with aiohttp.ClientSession() as session:
        made = Host(world, session, _free_port())
        made.configure()
        yield made
        for unit in made.units:
            if unit.process.returncode is None:
                await unit.kill()
            unit.notify.close()
            if not unit.notify.address.startswith("@"):
                Path(unit.notify.address).unlink()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _held(world: World, account: str = "c01") -> Decimal:
    return sum((position.lots for position in world.venue.positions(account)), Decimal(0))


def _stops(world: World) -> list[Decimal | None]:
    return [position.stop_loss for name in ACCOUNTS for position in world.venue.positions(name)]


# ---- a life under a manager


async def test_ready_watchdog_and_an_orderly_stop(host: Host) -> None:
    """READY within 10 s, WATCHDOG in time, STATUS in words; SIGTERM twice and SIGINT: one end in 5 s, stops stay."""
    unit = await host.start()
    assert await unit.ready() < READY_S
    await unit.until(lambda: "ACTIVE 2" in unit.notify.status, 10)
    assert await unit.open("s1") == 202
    await unit.until(lambda: "open positions: 2" in unit.notify.status, 10)
    await asyncio.sleep(WATCHDOG_S)
    fed = unit.notify.times("WATCHDOG=1")
    assert len(fed) >= 3
    assert max(later - earlier for earlier, later in itertools.pairwise(fed)) < WATCHDOG_S * SLOW
    began = time.monotonic()
    assert await unit.stop(signal.SIGTERM, signal.SIGTERM, signal.SIGINT) < STOP_S
    assert len(unit.notify.times("STOPPING=1", began)) == 1
    assert all(_held(host.world, name) for name in ACCOUNTS)
    assert None not in _stops(host.world)
    assert "Traceback" not in unit.said()
    assert json.loads((host.data / starts.FILE).read_text()) == []


async def test_a_broker_out_of_reach_is_no_illness(host: Host) -> None:
    """Nobody answers at the venue: READY within 10 s with both connections REDUCING, and the watchdog is fed."""
    await host.world.server.stop()
    unit = await host.start(abstract=False)
    assert await unit.ready() < READY_S
    await unit.until(lambda: "REDUCING 2" in unit.notify.status, 5)
    before = len(unit.notify.times("WATCHDOG=1"))
    await asyncio.sleep(WATCHDOG_S)
    assert len(unit.notify.times("WATCHDOG=1")) >= before + 2
    assert await unit.stop() < STOP_S


DEFECT = """
import sys
from srm_agent.execution.desk import Desk
from srm_agent.__main__ import main
async def deaf(self):
    raise KeyError("a defect in the desk")
Desk._listen = deaf
main()
"""


async def test_the_death_of_a_critical_task_ends_the_process(host: Host) -> None:
    """A desk that dies takes the process with it, not silently: exit code 1, and the start counts as failed (P18)."""
    unit = await host.start(code=DEFECT)
    assert await asyncio.wait_for(unit.process.wait(), 20 * SLOW) == 1
    assert "a defect in the desk" in unit.said()
    assert len(json.loads((host.data / starts.FILE).read_text())) == 1


# ---- SIGHUP


async def test_sighup_reloads_limits_and_refuses_a_bad_file(host: Host) -> None:
    """New limits are in force for the next signal; a file with a mistake changes nothing; both are told (P3)."""
    unit = await host.start()
    await unit.ready()
    await unit.until(lambda: "ACTIVE 2" in unit.notify.status, 10)
    host.configure("max_positions = 7\nfixed_lo = 1")
    unit.process.send_signal(signal.SIGHUP)
    await unit.until(lambda: "configuration refused" in unit.said(), 5)
    assert "connections[0].fixed_lo" in unit.said()
    assert len(unit.notify.times("RELOADING=1")) == 1
    assert len(unit.notify.times("READY=1")) == 2
    host.configure('size_mode = "FIXED"\nfixed_lot = 0.002')
    unit.process.send_signal(signal.SIGHUP)
    await unit.until(lambda: "configuration reloaded" in unit.said(), 5)
    assert "connections.c01.fixed_lot: unset -> 0.002" in unit.said()
    assert await unit.open("s1") == 202
    await unit.until(lambda: bool(_held(host.world)), 10)
    assert 0 < _held(host.world) <= Decimal("0.002"), "one per cent of equity would be 0.16"
    await unit.stop()


# ---- guard mode


async def test_after_crashes_it_takes_exits_only_until_an_operator_resumes(host: Host) -> None:
    """The start after the limit opens nothing and closes what the provider closes; `resume` makes it whole again."""
    unit = await host.start(SRM_AGENT__GUARD_AFTER="2")
    await unit.ready()
    assert await unit.open("s1") == 202
    await unit.until(lambda: all(_held(host.world, name) for name in ACCOUNTS), 10)
    await asyncio.sleep(1.5)
    await unit.kill()
    unit = await host.start(SRM_AGENT__GUARD_AFTER="2")
    await unit.until(lambda: len(json.loads((host.data / starts.FILE).read_text())) == 2, 10)
    await unit.kill()

    unit = await host.start(SRM_AGENT__GUARD_AFTER="2")
    assert await unit.ready() < READY_S
    assert "EXITS ONLY (2 starts within 10 minutes did not end in order)" in unit.notify.status
    assert await unit.open("s2") == 202
    assert await unit.signal("m-close", action="close", signal_id="s1") == 202
    await unit.until(lambda: not any(_held(host.world, name) for name in ACCOUNTS), 10)
    await asyncio.sleep(1)
    assert len(host.world.entries("c01")) == 1
    assert unit.notify.times("WATCHDOG=1")

    status, answer = await unit.control("resume", scope="all")
    assert (status, answer.get("status")) == (200, "resumed"), answer
    await unit.until(lambda: "ACTIVE 2" in unit.notify.status and "EXITS ONLY" not in unit.notify.status, 15)
    assert await unit.open("s3") == 202
    await unit.until(lambda: bool(_held(host.world)), 10)
    assert await unit.stop() < STOP_S


async def test_a_guard_does_without_a_broken_database(host: Host) -> None:
    """What crashes is the database itself: refused at first, then guarded from the spool, stops restored (F25)."""
    unit = await host.start()
    await unit.ready()
    await unit.until(lambda: "ACTIVE 2" in unit.notify.status, 10)
    assert await unit.open("s1") == 202
    await unit.until(lambda: "open positions: 2" in unit.notify.status, 10)
    await asyncio.sleep(1.5)
    await unit.stop()
    database = host.data / "srm.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    database.write_bytes(b"this is no database any more" * 1000)
    unit = await host.start()
    assert await asyncio.wait_for(unit.process.wait(), 20 * SLOW) == 1
    assert "Traceback" not in unit.said()
    recent = [datetime.now(UTC).isoformat()] * 4
    (host.data / starts.FILE).write_text(json.dumps(recent))
    unit = await host.start()
    assert await unit.ready() < READY_S
    assert "EXITS ONLY" in unit.notify.status
    assert "DATABASE NOT READ" in unit.notify.status
    assert "open positions: 2" in unit.notify.status
    host.world.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=Decimal(0))
    assert None in _stops(host.world)
    await unit.until(lambda: None not in _stops(host.world), 35)
    assert await unit.stop() < STOP_S


# ---- the database


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


async def test_a_start_without_the_database_watches_and_recovers(host: Host) -> None:
    """Another process holds the database: REDUCING, the naked position gets its stop, and later all is whole (P9)."""
    unit = await host.start()
    await unit.ready()
    await unit.until(lambda: "ACTIVE 2" in unit.notify.status, 10)
    assert await unit.open("s1") == 202
    await unit.until(lambda: "open positions: 2" in unit.notify.status, 10)
    await asyncio.sleep(1.5)
    await unit.kill()
    with _locked(host.data / "srm.db"):
        unit = await host.start()
        assert await unit.ready() < READY_S
        assert "DATABASE NOT READ" in unit.notify.status
        assert "REDUCING 2" in unit.notify.status
        assert "open positions: 2" in unit.notify.status
        host.world.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=Decimal(0))
        assert None in _stops(host.world)
        await unit.until(lambda: None not in _stops(host.world), 35)
        assert await unit.open("s2") == 503
    await unit.until(lambda: "ACTIVE 2" in unit.notify.status, 20)
    assert "open positions: 2" in unit.notify.status
    assert await unit.signal("m-close", action="close", signal_id="s1") == 202
    await unit.until(lambda: not _held(host.world), 10)
    assert await unit.stop() < STOP_S
    assert "Traceback" not in unit.said()


# ---- two daemons


async def test_the_second_daemon_is_passive_and_takes_over(host: Host, tmp_path: Path) -> None:
    """Two daemons on one database: one trades; killed, the other takes over within 10 s; never two orders (P22)."""
    first = await host.start()
    await first.ready()
    await first.until(lambda: "ACTIVE 2" in first.notify.status, 10)
    second = await host.start(SRM_INTAKE__PORT=str(_free_port()), SRM_AGENT__DATA_DIR=str(tmp_path / "second"))
    assert await second.ready() < READY_S
    assert "REDUCING 2" in second.notify.status
    assert await first.open("s1") == 202
    await first.until(lambda: all(_held(host.world, name) for name in ACCOUNTS), 10)
    await asyncio.sleep(1)
    await first.kill()
    took = await second.until(lambda: "ACTIVE 2" in second.notify.status, 12)
    assert took <= 10 * SLOW
    assert await second.open("s1") == 202
    await asyncio.sleep(1)
    assert [len(host.world.entries(name)) for name in ACCOUNTS] == [1, 1]
    await second.stop()

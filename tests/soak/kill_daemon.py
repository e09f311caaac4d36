"""The daemon of the kill -9 soak: `srm-agent run` as a process, started as often as it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.request import urlopen

import aiohttp

from srm_agent.api.control_client import ControlClient
from srm_agent.failpoints import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
KEY = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
TOKEN = "operator-token-operator-token-1234"
POLL_S = 0.05
HEAD = """
[agent]
name = "soak"
data_dir = "{home}/data"
guard_after = 0
[store]
url = "sqlite:///{home}/srm.db"
[intake]
port = {port}
rate_per_s = 500
burst = 500
[protection]
emergency_scope = "account"
[venues.bybit]
environment = "url"
base_url = "{venue}"
requests_per_s = 100
[policies.crypto.filter]
duplicate_window_s = 0
max_entry_drift = {{ bps = 100 }}
max_expected_slippage = "off"
max_positions = 50
[policies.crypto.score]
reject_below = 0
[policies.crypto.limits]
max_open_risk = 0.5
max_margin_use = 0.9
[policies.crypto.brake]
floor = 1
[providers.alpha]
[providers.bravo]
[providers.idle]
"""
INSTRUMENT = '[instruments."{symbol}"]\nasset_class = "crypto"\npip_size = 0.1\n'
CONNECTION = """
[[connections]]
id = "{name}"
follower = "f-{name}"
venue = "bybit"
providers = ["{provider}"]
risk_per_trade = {risk}
max_drawdown = {drawdown}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An account, whom it follows, and when it is closed."""

    name: str
    provider: str
    risk: str
    drawdown: str


@dataclass(frozen=True, slots=True)
class Restart:
    """From exec to READY, in seconds. `starved`: how much of it the process was runnable and got no processor."""

    seconds: float
    starved: float

    @property
    def own(self) -> float:
        """What it would have taken on a machine that is not busy with other things."""
        return self.seconds - self.starved


@dataclass(slots=True)
class Daemon:
    """One place on disk, one process at a time."""

    home: Path
    members: Sequence[Member]
    symbols: Sequence[str]
    venue_url: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ready_at: float | None = None
    """Monotonic second at which this process was ready, None before."""
    _began: float = 0.0
    restarts: list[Restart] = field(default_factory=list)
    """Of each start that came so far."""

    def prepare(self, venue_url: str) -> None:
        """Secrets, configuration, a port."""
        self.venue_url = venue_url
        secrets = self.home / "secrets"
        secrets.mkdir()
        (self.home / "data").mkdir()
        texts = {f"connection.{member.name}.api_key": f"key-{member.name}" for member in self.members}
        texts |= {f"connection.{member.name}.secret": f"secret-{member.name}-xyz" for member in self.members}
        texts |= {f"provider.{provider}.key": KEY for provider in ("alpha", "bravo", "idle")}
        for name, text in (texts | {"operator.token": TOKEN}).items():
            (secrets / name).write_text(text)
            (secrets / name).chmod(0o600)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.configure()

    def configure(self, factor: str = "1") -> None:
        """Write the configuration; `factor` is every follower's risk multiplier (what a reload changes)."""
        text = HEAD.format(home=self.home, port=self.port, venue=self.venue_url)
        text += "".join(INSTRUMENT.format(symbol=symbol) for symbol in self.symbols)
        for member in self.members:
            text += CONNECTION.format(
                name=member.name, provider=member.provider, risk=member.risk, drawdown=member.drawdown
            )
            text += f"risk_multiplier = {factor}\n"
        (self.home / "srm.toml").write_text(text)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """Its SQLite file."""
        return self.home / "srm.db"

    @property
    def log(self) -> Path:
        """What all its lives have said."""
        return self.home / "daemon.log"

    def start(self, failpoint: str = "") -> None:
        """Exec a new process; `failpoint` such as `CP4:2`."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SRM_")}
        if failpoint:
            environment[VARIABLE] = failpoint
        command = ["-m", "srm_agent", "run", "--config", str(self.home / "srm.toml")]
        self.starts += 1
        self.ready_at, self._began = None, time.monotonic()
        with self.log.open("ab") as log:
            log.write(f"==== start {self.starts} {failpoint}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                [sys.executable, *command, "--credentials", str(self.home / "secrets")],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        assert self.process is not None
        return self.process.poll()

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Until it is ready (noted in `restarts`) or dead."""
        while self.exit_code() is None and self.ready_at is None:
            try:
                async with session.get(f"{self.url}/health", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                    if answer.status == 200:
                        self.ready_at = time.monotonic()
                        self.restarts.append(self.so_far())
                        return
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            await asyncio.sleep(POLL_S)

    def so_far(self) -> Restart:
        """How long this start has taken until now."""
        return Restart(time.monotonic() - self._began, self._starved())

    def _starved(self) -> float:
        """Seconds that its main thread waited for a processor; 0 where the kernel does not count it."""
        assert self.process is not None
        try:
            return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has taken it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def reload(self) -> None:
        """SIGHUP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    async def stop(self) -> int:
        """SIGTERM; the exit code, -9 when it had to be killed after all."""
        assert self.process is not None
        self.process.terminate()
        for _ in range(150):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.1)
        else:
            self.kill()
        return self.process.returncode

    def control(self) -> ControlClient:
        """An operator's telephone."""
        return ControlClient(self.url, TOKEN, timeout_s=3)

    def make_schema_older(self) -> None:
        """Take from the idle database what the last revision added that holds no data: its index, and its number."""
        if not self.database.exists():
            return  # the first start of all migrates from nothing
        with sqlite3.connect(self.database) as connection:
            connection.execute("UPDATE srm_schema_version SET version_num = '0001'")
            connection.execute("DROP INDEX ix_srm_orders_updated_at")
        connection.close()


@dataclass(slots=True)
class VenueProcess:
    """The venue, which outlives every daemon."""

    home: Path
    accounts: Sequence[str]
    symbols: Sequence[str]
    quiet: Sequence[str]
    seed: int
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Exec it and wait until it listens."""
        options = {
            "--seed": str(self.seed),
            "--accounts": ",".join(self.accounts),
            "--symbols": ",".join(map(_venue_name, self.symbols)),
            "--quiet": ",".join(map(_venue_name, self.quiet)),
        }
        with (self.home / "venue.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.kill_venue", *(word for pair in options.items() for word in pair)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the venue did not start: {(self.home / 'venue.log').read_text()[-2000:]}")
        self.url = f"http://127.0.0.1:{json.loads(line)['port']}"

    def truth(self) -> Mapping[str, object]:
        """Everything it knows."""
        with urlopen(f"{self.url}/soak/truth", timeout=10) as answer:
            return cast("Mapping[str, object]", json.load(answer))

    async def act(self, session: aiohttp.ClientSession, **what: str) -> None:
        """One of the acts of `kill_venue`."""
        async with session.get(f"{self.url}/soak/act", params=what) as answer:
            answer.raise_for_status()

    async def shift(self, session: aiohttp.ClientSession, symbol: str, share: float, seconds: float) -> None:
        """Move one market, and back after so many seconds."""
        await self.act(session, what="shift", symbol=_venue_name(symbol), share=str(share), seconds=str(seconds))

    async def mids(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """Prices by the daemon's names of the symbols."""
        async with session.get(f"{self.url}/soak/market") as answer:
            prices = await answer.json()
        return {symbol: float(prices[_venue_name(symbol)]) for symbol in self.symbols}

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


def _venue_name(symbol: str) -> str:
    return symbol.split(":")[0].replace("/", "")

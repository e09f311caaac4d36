"""How much the intake takes, and what three times of it does to everybody else: the daemon as a process, real sockets,
an SQLite file, pre-signed messages from a client process.

`python -m tests.soak.flood [SECONDS]` measures the capacity, floods from one provider and from fifty, prints a table.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from simulator.bybit_server import BybitServer
from simulator.latency import LatencyModel
from simulator.records import OrderChanged, VenueEvent
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.api.signatures import WebhookKey
from srm_agent.clock import SystemClock
from srm_agent.domain.ids import ConnectionId, ProviderKey, client_order_id, signal_id
from tests.soak.flood_client import Plan, request_of

ROOT = Path(__file__).resolve().parents[2]
START_MS = 1_767_610_800_000
MANY = 50
CALM, FLOODERS = "calm", [f"flood-{number:02d}" for number in range(MANY)]
KEYS = {name: WebhookKey(random.Random(name).randbytes(32)) for name in [CALM, *FLOODERS]}
CONFIG = """
[agent]
data_dir = "{home}"
log_level = "warning"
[store]
url = "sqlite:///{home}/srm.db"
[intake]
port = {port}
{limits}
[protection]
emergency_scope = "account"
[venues.bybit]
environment = "url"
base_url = "{url}"
requests_per_s = 500
{instruments}
[policies.crypto.filter]
max_positions = 1000
duplicate_window_s = 0
[policies.crypto.limits]
max_open_risk = 0.9
{providers}
[[connections]]
id = "c-calm"
follower = "careful"
venue = "bybit"
providers = ["calm"]
size_mode = "FIXED"
fixed_lot = 2
[[connections]]
id = "c-flood"
follower = "bold"
venue = "bybit"
providers = {flooders}
size_mode = "FIXED"
fixed_lot = 0.01
"""
SYMBOLS = ("BTC", *(f"C{number}" for number in range(10)))
"""The flood trades the first; the calm provider goes round the others, because a symbol holds one leg at a time."""
WITHOUT_LIMITS = "rate_per_s = 1000000\nburst = 1000000\ntotal_per_s = 1000000\nmax_waiting = 1000000"


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies; infinity for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


@dataclass
class Calm:
    """What the other provider saw in one phase, in seconds."""

    posts: list[float] = field(default_factory=list)
    """Every message, POST to 2xx."""
    closes: list[float] = field(default_factory=list)
    """Full closes, POST to 2xx."""
    exits: list[float] = field(default_factory=list)
    """Full closes, POST to the exit order at the venue."""
    refused: int = 0


@dataclass(frozen=True)
class FloodReport:
    """One flood."""

    name: str
    capacity: float
    offered_per_s: float
    statuses: dict[int, int]
    unloaded: Calm
    loaded: Calm
    grown_mb: float
    acked: int
    lost: int
    unfinished: int
    missing_exits: int
    cpu_share: float
    """Of one core, taken by the daemon during the flood."""
    starved: tuple[float, float]
    """Share of the time that the daemon's loop wanted a processor and got none, unloaded and flooded."""

    def stretch(self) -> float:
        """How much longer things take because others have the processors: once for the work, once for the queue."""
        return 1 / (1 - self.starved[1]) ** 2

    def table(self) -> str:
        """For people."""
        quiet, busy = self.unloaded, self.loaded
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.name}: offered {self.offered_per_s:.0f}/s = {self.offered_per_s / self.capacity:.1f} x capacity "
            f"{self.capacity:.0f}/s; answers {answers}; acknowledged {self.acked}, lost {self.lost}, unfinished "
            f"{self.unfinished}\n  memory +{self.grown_mb:.1f} MB, {self.cpu_share:.0%} of a core, starved "
            f"{self.starved[0]:.0%} unloaded, {self.starved[1]:.0%} flooded\n  other provider: "
            f"p50 {_ms(busy.posts, 0.5)} p99 {_ms(busy.posts, 0.99)} ms (unloaded {_ms(quiet.posts, 0.5)} / "
            f"{_ms(quiet.posts, 0.99)}), refused {busy.refused} of {len(busy.posts) + busy.refused}\n  its closes: p99 "
            f"to 2xx {_ms(busy.closes, 0.99)} ms, to the exit order {_ms(busy.exits, 0.99)} ms (unloaded "
            f"{_ms(quiet.closes, 0.99)} / {_ms(quiet.exits, 0.99)}), {len(busy.exits)} exits, "
            f"{self.missing_exits} missing"
        )


def _starved(before: tuple[float, float], after: tuple[float, float]) -> float:
    ran, waited = after[0] - before[0], after[1] - before[1]
    return waited / (ran + waited) if ran + waited else 0.0


def _ms(values: list[float], share: float) -> str:
    return f"{percentile(values, share) * 1000:.1f}"


class Daemon:
    """`srm-agent run` as a process, over a venue that lives here."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.port = port
        self.process: asyncio.subprocess.Process | None = None

    @property
    def database(self) -> Path:
        """Its SQLite file."""
        return self.home / "srm.db"

    def resident_mb(self) -> float:
        """VmRSS."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        assert self.process is not None
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def scheduled(self) -> tuple[float, float]:
        """Seconds that the loop's thread has run, and that it was ready and waited for a processor."""
        assert self.process is not None
        ran, waited, _ = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/schedstat").read_text().split()
        return int(ran) / 1e9, int(waited) / 1e9

    async def ready(self) -> None:
        """Wait for /health. Fails with what the process said."""
        for _ in range(300):
            assert self.process is not None
            if self.process.returncode is not None:
                break
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                heard = await reader.read()
                writer.close()
                if heard.startswith(b"HTTP/1.1 200"):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the daemon is not ready: {(self.home / 'log').read_text()[-2000:]}")


@dataclass
class Scene:
    """Venue and secrets; daemons come and go."""

    home: Path
    venue: Venue
    url: str
    exits: dict[str, float] = field(default_factory=dict)
    """Client id of each exit order of the calm account, and the monotonic second at which it reached the venue."""

    def note(self, event: VenueEvent) -> None:
        """A listener of the venue."""
        if isinstance(event, OrderChanged):
            order, ticket = event.order, event.order.ticket
            if order.account_id == "c-calm" and ticket.reduce_only and ticket.link_id:
                self.exits.setdefault(ticket.link_id, time.monotonic())

    @asynccontextmanager
    async def daemon(self, name: str, limits: str = "") -> AsyncIterator[Daemon]:
        """A fresh one with a database of its own."""
        home = self.home / name
        home.mkdir()
        daemon = Daemon(home, _free_port())
        config = home / "srm.toml"
        providers = "\n".join(f"[providers.{provider}]" for provider in KEYS)
        config.write_text(
            CONFIG.format(
                home=home,
                port=daemon.port,
                limits=limits,
                url=self.url,
                providers=providers,
                flooders=FLOODERS,
                instruments="\n".join(f'[instruments."{name}/USDT:USDT"]\npip_size = 1' for name in SYMBOLS),
            )
        )
        with (home / "log").open("wb") as log:
            daemon.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "srm_agent", "run", "--config", str(config)),
                *("--credentials", str(self.home / "secrets")),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a share of the processors of its own, as a service has
            )
            try:
                await daemon.ready()
                yield daemon
            finally:
                if daemon.process.returncode is None:
                    daemon.process.terminate()
                    try:
                        await asyncio.wait_for(daemon.process.wait(), 15)
                    except TimeoutError:
                        daemon.process.kill()
                        await daemon.process.wait()


@asynccontextmanager
async def scene(home: Path) -> AsyncIterator[Scene]:
    """A venue with two accounts and a steady market."""
    secrets = home / "secrets"
    secrets.mkdir()
    accounts = []
    for name in ("c-calm", "c-flood"):
        accounts.append(
            SimAccount(account_id=name, api_key=f"key-{name}", secret=f"secret-{name}", balance=Decimal(1_000_000))
        )
        _secret(secrets / f"connection.{name}.api_key", f"key-{name}")
        _secret(secrets / f"connection.{name}.secret", f"secret-{name}")
    for name, key in KEYS.items():
        _secret(secrets / f"provider.{name}.key", "whsec_" + base64.b64encode(key.secret).decode())
    instruments = [
        SimInstrument(
            symbol_id=f"{base}USDT", base=base, tick_size=Decimal("0.1"), lot_step=Decimal("0.001"),
            lot_min=Decimal("0.001"), lot_max=Decimal(100), max_market_lot=Decimal(50), level_lots=Decimal(50),
            level_ticks=1,
        )
        for base in SYMBOLS
    ]  # fmt: skip
    venue = Venue(instruments, accounts, random.Random(1))
    first = START_MS - 1_000 * 60_000
    prices = [Decimal(60_000 + index % 7) for index in range(1_000)]
    for instrument in instruments:
        symbol = instrument.symbol_id
        venue.seed_bars(symbol, [(first + i * 60_000, p, p + 20, p - 20, p + 1) for i, p in enumerate(prices)])
        venue.set_book(symbol, Decimal("60000.0"), Decimal("60000.5"), START_MS)
        for account in accounts:
            venue.set_leverage(account.account_id, symbol, Decimal(50))
    server = BybitServer(
        venue, clock=SystemClock(), rng=random.Random(2), latency=LatencyModel.none(), rate_limit_per_s=10_000
    )
    await server.start()
    made = Scene(home=home, venue=venue, url=server.url)
    forget = venue.subscribe(made.note)
    feeding = asyncio.create_task(_feed(venue))
    try:
        yield made
    finally:
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding
        forget()
        await server.stop()


async def _feed(venue: Venue) -> None:
    while True:
        at = venue.market_ms + 1000
        wobble = Decimal(at // 1000 % 3) / 10
        for base in SYMBOLS:
            venue.set_book(f"{base}USDT", 60_000 + wobble, 60_000 + wobble + Decimal("0.5"), at)
            await asyncio.sleep(0.5 / len(SYMBOLS))


class CalmProvider:
    """One kept connection, sixteen messages a second: closes parts of its ten positions in turn, opens now and then."""

    def __init__(self, daemon: Daemon, scene: Scene, name: str, per_s: float = 16.0) -> None:
        self._daemon = daemon
        self._scene = scene
        self._name = name
        self._per_s = per_s
        self._number = 0
        self._positions = 0
        self._closed = 0

    async def during(self, seconds: float) -> Calm:
        """One phase."""
        calm, closing, until = Calm(), dict[str, float](), time.monotonic() + seconds
        streams = await asyncio.open_connection("127.0.0.1", self._daemon.port)
        turn = time.monotonic()
        while time.monotonic() < until:
            turn += 1 / self._per_s
            await asyncio.sleep(max(0.0, turn - time.monotonic()))
            self._number += 1
            close = self._positions == 10 and self._number % 60 != 0
            position = self._closed % 10 if close else min(self._positions, 9)
            signal = f"{self._name}-{position}" if close or self._positions < 10 else f"{self._name}-n{self._number}"
            began = time.monotonic()
            if not await self._post(streams, signal, position, close=close):
                calm.refused += 1
                continue
            calm.posts.append(time.monotonic() - began)
            if close:
                self._closed += 1
                calm.closes.append(time.monotonic() - began)
                whole = signal_id(ProviderKey.parse(CALM), signal)
                closing[client_order_id(ConnectionId("c-calm"), whole, f"close:m-{self._number}")] = began
            else:
                self._positions = min(self._positions + 1, 10)
        streams[1].close()
        await asyncio.sleep(1.0)
        exits = self._scene.exits
        calm.exits = [exits[order] - began for order, began in closing.items() if order in exits]
        return calm

    async def _post(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], signal: str, position: int, *, close: bool
    ) -> bool:
        issued = SystemClock().wall().isoformat().replace("+00:00", "Z")
        body: dict[str, str] = {"action": "close", "signal_id": signal, "issued_at": issued, "fraction": "0.01"}
        if not close:
            body = {"action": "open", "signal_id": signal, "issued_at": issued, "side": "buy", "entry": "60000"}
            body |= {"symbol": f"{SYMBOLS[1 + position]}/USDT:USDT", "stop_loss": "59400"}
        raw = json.dumps(body).encode()
        streams[1].write(request_of(self._daemon.port, CALM, KEYS[CALM], f"m-{self._number}", raw, time.time()))
        head = await streams[0].readuntil(b"\r\n\r\n")
        await streams[0].readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]))
        return head.startswith(b"HTTP/1.1 2")


async def _flood(plan: Plan, home: Path) -> asyncio.subprocess.Process:
    path = home / f"{plan.run}.plan.json"
    path.write_text(json.dumps(asdict(plan)))
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.flood_client", str(path)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert client.stdout is not None
    await client.stdout.readline()
    return client


async def _go(client: asyncio.subprocess.Process) -> None:
    assert client.stdin is not None
    client.stdin.write(b"go\n")
    await client.stdin.drain()


def _plan(daemon: Daemon, run: str, providers: list[str], seconds: float, rate: float, connections: int) -> Plan:
    keys = {name: base64.b64encode(KEYS[name].secret).decode() for name in providers}
    messages = int(seconds * (rate or 6_000))
    result = str(daemon.home / f"{run}.result.json")
    return Plan(
        port=daemon.port, providers=keys, seconds=seconds, rate=rate, connections=connections, messages=messages,
        run=run, result=result,
    )  # fmt: skip


async def measure_capacity(scene: Scene, seconds: float = 5.0) -> float:
    """Acknowledged messages a second without rate limits, from fifty providers over 32 connections."""
    async with scene.daemon("capacity", WITHOUT_LIMITS) as daemon:
        plan = _plan(daemon, "capacity", FLOODERS, seconds, 0.0, 32)
        client = await _flood(plan, daemon.home)
        await _go(client)
        await client.wait()
        result = json.loads(Path(plan.result).read_text())
    accepted = int(result["statuses"].get("202", 0))
    return accepted / float(result["seconds"])


async def flood(
    scene: Scene, capacity: float, seconds: float, *, quiet_s: float, waves: Mapping[str, list[str]]
) -> list[FloodReport]:
    """Unloaded first, then three times the capacity from each group of providers, then what became of it all."""
    reports, acked = [], list[tuple[str, str]]()
    async with scene.daemon("flooded") as daemon, watching(daemon) as seen:
        calm = CalmProvider(daemon, scene, "calm")
        await calm.during(3.0)
        scheduled = daemon.scheduled()
        unloaded = await calm.during(quiet_s)
        starved = _starved(scheduled, daemon.scheduled())
        before = daemon.resident_mb()
        for name, providers in waves.items():
            plan = _plan(daemon, name.replace(" ", "-"), providers, seconds, 3 * capacity, 128)
            client = await _flood(plan, daemon.home)
            cpu_s, began, scheduled = daemon.cpu_s(), time.monotonic(), daemon.scheduled()
            seen.clear()
            await _go(client)
            loaded = await calm.during(seconds)
            cpu_share = (daemon.cpu_s() - cpu_s) / (time.monotonic() - began)
            flooded = _starved(scheduled, daemon.scheduled())
            await client.wait()
            result = json.loads(Path(plan.result).read_text())
            acked += [(provider, message) for provider, message in result["acked"]]
            reports.append(
                FloodReport(
                    name=name,
                    capacity=capacity,
                    offered_per_s=result["offered"] / result["seconds"],
                    statuses={int(status): count for status, count in result["statuses"].items()},
                    unloaded=unloaded,
                    loaded=loaded,
                    grown_mb=max(seen) - before,
                    acked=len(result["acked"]),
                    lost=0,
                    unfinished=0,
                    missing_exits=len(loaded.closes) - len(loaded.exits),
                    cpu_share=cpu_share,
                    starved=(starved, flooded),
                )
            )
        unfinished, lost = await _settled(daemon.database, acked, 60.0)
    return [replace(report, unfinished=unfinished, lost=lost) for report in reports]


@asynccontextmanager
async def watching(daemon: Daemon) -> AsyncIterator[list[float]]:
    """Memory of the daemon in MB, ten times a second."""
    seen: list[float] = []

    async def watch() -> None:
        while True:
            seen.append(daemon.resident_mb())
            await asyncio.sleep(0.1)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()


def _rows(database: Path) -> Mapping[tuple[str, str], bool]:
    """(provider, message id) -> finished."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT provider, message_id, finished_at FROM srm_messages").fetchall()
    finally:
        connection.close()
    return {(provider.removeprefix("channel_source:"), message): at is not None for provider, message, at in rows}


async def _settled(database: Path, acked: list[tuple[str, str]], within_s: float) -> tuple[int, int]:
    """Wait until everything acknowledged is finished; how many are not, and how many are not even there."""
    until = time.monotonic() + within_s
    while True:
        rows = _rows(database)
        left = sum(not rows.get(one, False) for one in acked)
        if not left or time.monotonic() > until:
            return left, sum(one not in rows for one in acked)
        await asyncio.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _secret(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


WAVES: Mapping[str, list[str]] = {"one provider": FLOODERS[:1], "fifty providers": FLOODERS}


async def measure(home: Path, seconds: float, *, quiet_s: float, capacity_s: float = 4.0) -> list[FloodReport]:
    """Capacity, then the flood from one provider, then the same from fifty."""
    async with scene(home) as world:
        capacity = await measure_capacity(world, capacity_s)
        return await flood(world, capacity, seconds, quiet_s=quiet_s, waves=WAVES)


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 12.0
    print(f"load {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(prefix="srm-flood-") as home:
        for report in asyncio.run(measure(Path(home), seconds, quiet_s=max(8.0, seconds / 3))):
            print(report.table())


if __name__ == "__main__":
    main()

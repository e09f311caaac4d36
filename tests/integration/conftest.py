"""A venue in hand, the daemon as `run` wires it, and signed webhooks: everything over real sockets on loopback."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from simulator.bybit_server import BybitServer
from simulator.faults import Faults
from simulator.latency import LatencyModel
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.assembly import Agent
from srm_agent.bootstrap import build
from srm_agent.clock import SystemClock
from srm_agent.domain.trades import LegState
from srm_agent.settings import Credentials, load

START_MS = 1_767_610_800_000
KEY = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
TOKEN = "operator-token-operator-token-1234"
ACCOUNTS = ("c01", "c02")
CONFIG = """
[agent]
data_dir = "{home}"
[store]
url = "sqlite:///{home}/srm.db"
[intake]
port = 0
[protection]
emergency_scope = "account"
[venues.bybit]
environment = "url"
base_url = "{url}"
requests_per_s = 100
[instruments."BTC/USDT:USDT"]
pip_size = 1
[instruments."EUR/USDT:USDT"]
asset_class = "fx"
[policies.crypto.filter]
duplicate_window_s = 0
[policies.crypto.limits]
max_open_risk = 0.5
[providers.alpha]
{connections}
"""
CONNECTION = """
[[connections]]
id = "{name}"
follower = "f-{name}"
venue = "bybit"
providers = ["alpha"]
risk_per_trade = 0.01
{more}
"""


@dataclass(slots=True)
class World:
    """Venue, server, secrets and configuration; agents come and go."""

    home: Path
    venue: Venue
    server: BybitServer
    faults: Faults
    more: str = ""
    """Extra keys of every connection."""
    mid: Decimal = Decimal(60_000)
    _feeding: list[asyncio.Task[None]] = field(default_factory=list)

    def move(self, mid: str) -> None:
        """Let the market stand at another price from now on."""
        self.mid = Decimal(mid)
        self.tick()

    def tick(self) -> None:
        """One more second of market time at the present price."""
        at = self.venue.market_ms + 1000
        wobble = Decimal(at // 1000 % 3) / 10
        self.venue.set_book("BTCUSDT", self.mid + wobble, self.mid + wobble + Decimal("0.5"), at)
        self.venue.set_book("EURUSDT", Decimal("1.10000"), Decimal("1.10002"), at)

    async def feed(self) -> None:
        """Quotes for ever, twenty a second."""
        while True:
            self.tick()
            await asyncio.sleep(0.05)

    def entries(self, account: str) -> list[str]:
        """Link ids of executed entry orders of ours."""
        tickets = [order.ticket for order in self.venue.orders(account) if order.filled]
        return [ticket.link_id for ticket in tickets if ticket.link_id.startswith("srm1") and not ticket.reduce_only]

    @asynccontextmanager
    async def agent(self, *, abrupt: bool = False) -> AsyncIterator[Running]:
        """The daemon, ready; stopped in order, or `abrupt` like a crash (nothing drained, nothing released)."""
        config = self.home / "srm.toml"
        connections = "".join(CONNECTION.format(name=name, more=self.more) for name in ACCOUNTS)
        config.write_text(CONFIG.format(home=self.home / "data", url=self.server.url, connections=connections))
        agent = await build(load(config), Credentials(self.home / "secrets"), SystemClock(), random.Random(5))
        stop = asyncio.Event()
        task = asyncio.create_task(agent.daemon.run(stop))
        ready = asyncio.create_task(agent.daemon.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        ready.cancel()
        if task.done():
            task.result()
        try:
            async with aiohttp.ClientSession() as session:
                yield Running(agent, session, f"http://127.0.0.1:{agent.daemon.port}")
        finally:
            if abrupt:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            else:
                stop.set()
                await asyncio.wait_for(task, 20)


@dataclass(slots=True)
class Running:
    """A daemon that is ready."""

    agent: Agent
    session: aiohttp.ClientSession
    url: str

    async def send(self, message_id: str, **body: str) -> tuple[int, dict[str, object]]:
        """Sign and post one message of provider alpha."""
        body.setdefault("issued_at", datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        raw = json.dumps(body).encode()
        stamp = int(datetime.now(UTC).timestamp())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(WebhookKey.parse(KEY), message_id, stamp, raw),
        }
        async with self.session.post(f"{self.url}/signals/channel_source/alpha", data=raw, headers=headers) as reply:
            return reply.status, await reply.json()

    async def open(self, number: int = 1, message: str = "", **changes: str) -> tuple[int, dict[str, object]]:
        """An opening signal: buy BTC at market with a stop 600 below."""
        body = {
            "action": "open",
            "signal_id": f"s-{number}",
            "symbol": "BTC/USDT:USDT",
            "side": "buy",
            "entry": "60000",
            "stop_loss": "59400",
            "take_profit": "61500",
        }
        return await self.send(message or f"m-{number}", **{**body, **changes})

    def open_lots(self, account: str = "c01") -> Decimal:
        """Volume our ledger holds open."""
        legs = self.agent.flow.accounts[account].desk.ledger.legs.values()  # type: ignore[index]
        return sum((leg.open_lot for leg in legs if leg.state is LegState.OPEN), Decimal(0))

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        """Wait for a state; fails with what the daemon says of itself."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            status = json.dumps(self.agent.control.status(), indent=1, default=str)
            pytest.fail(f"not reached within {seconds} s; the daemon says: {status}")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A venue with two accounts of 10,000 USDT, BTC around 60,000, deep books, no latency."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    accounts = []
    for name in ACCOUNTS:
        accounts.append(
            SimAccount(account_id=name, api_key=f"key-{name}", secret=f"secret-{name}-xyz", balance=Decimal(10_000))
        )
        _write(secrets / f"connection.{name}.api_key", f"key-{name}")
        _write(secrets / f"connection.{name}.secret", f"secret-{name}-xyz")
    _write(secrets / "provider.alpha.key", KEY)
    _write(secrets / "operator.token", TOKEN)
    btc = SimInstrument(
        symbol_id="BTCUSDT", base="BTC", tick_size=Decimal("0.1"), lot_step=Decimal("0.001"),
        lot_min=Decimal("0.001"), lot_max=Decimal(100), max_market_lot=Decimal(50), level_lots=Decimal(5),
        level_ticks=1,
    )  # fmt: skip
    eur = SimInstrument(
        symbol_id="EURUSDT", base="EUR", tick_size=Decimal("0.00001"), lot_step=Decimal(10), lot_min=Decimal(10),
        lot_max=Decimal(1_000_000), max_market_lot=Decimal(500_000), level_lots=Decimal(500_000),
    )  # fmt: skip
    venue = Venue([btc, eur], accounts, random.Random(1))
    first = START_MS - 1_000 * 60_000
    prices = [Decimal(60_000 + index % 7) for index in range(1_000)]
    venue.seed_bars("BTCUSDT", [(first + i * 60_000, p, p + 20, p - 20, p + 1) for i, p in enumerate(prices)])
    venue.set_book("BTCUSDT", Decimal("60000.0"), Decimal("60000.5"), START_MS)
    venue.set_book("EURUSDT", Decimal("1.10000"), Decimal("1.10002"), START_MS)
    for name in ACCOUNTS:
        venue.set_leverage(name, "BTCUSDT", Decimal(50))
    faults = Faults()
    server = BybitServer(venue, clock=SystemClock(), rng=random.Random(2), latency=LatencyModel.none(), faults=faults)
    await server.start()
    made = World(home=tmp_path, venue=venue, server=server, faults=faults)
    (tmp_path / "data").mkdir()
    feeding = asyncio.create_task(made.feed())
    yield made
    feeding.cancel()
    with suppress(asyncio.CancelledError):
        await feeding
    await server.stop()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


Send = Callable[..., Awaitable[tuple[int, dict[str, object]]]]

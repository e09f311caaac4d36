"""A world that somebody directs by hand: a still market, an agent that is ready, and one thing that goes wrong.

Scripted tests of faults and failures play on it; the judges of the seeded simulation look on, so that a scene that
does what it should and breaks an invariant on the way fails as well.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar

from simulator.memory_store.store import MemoryStore
from simulator.records import PositionView, SimOrder
from simulator.simulation import cast
from simulator.simulation.clock import VirtualClock
from simulator.simulation.invariants.judge import Judge
from simulator.simulation.log_sink import configure
from simulator.simulation.loop import VirtualLoop, run_virtual
from simulator.simulation.market import STEP_S
from simulator.simulation.plan import Plan
from simulator.simulation.process import Process
from simulator.simulation.profiles import profile_of
from simulator.simulation.server import ConnectionRefused, Request
from simulator.simulation.trace import Trace
from simulator.simulation.world import START_MS, World
from simulator.webhook_client import signed_headers
from srm_agent.assembly import Agent
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.store.store import Store

Result = TypeVar("Result")

LOOK_S = 0.05
SPREAD_TICKS = 2
NAMES = {"BTCUSDT": "BTC/USDT:USDT", "ETHUSDT": "ETH/USDT:USDT", "EURUSDT": "EUR/USDT:USDT"}
C01, C02, C03 = cast.CONNECTIONS


class Scene:
    """The world at hand. Prices stand still unless told; the agent of the moment is `agent`."""

    def __init__(self, world: World, judge: Judge) -> None:
        self.world, self.judge = world, judge
        self.venue = world.venue
        self.feeding = True
        """Quotes come; False: the market is silent."""
        self._mids = {"BTCUSDT": Decimal(60_000), "ETHUSDT": Decimal(3_000), "EURUSDT": Decimal("1.10000")}
        self._messages = 0
        self._helpers: list[asyncio.Task[None]] = []

    # ---- the market

    def price(self, symbol_id: str, mid: str) -> None:
        """The symbol stands there from now on, at once."""
        self._mids[symbol_id] = Decimal(mid)
        self._quote(symbol_id)

    def mid(self, symbol_id: str = "BTCUSDT") -> Decimal:
        """Where it stands."""
        return self._mids[symbol_id]

    def _quote(self, symbol_id: str) -> None:
        tick = self.venue.instruments[symbol_id].tick_size
        bid = self._mids[symbol_id] // tick * tick
        self.venue.set_book(symbol_id, bid, bid + SPREAD_TICKS * tick, START_MS + round(self.now * 1000))

    async def _market(self) -> None:
        while True:
            if self.feeding:
                for symbol_id in self._mids:
                    self._quote(symbol_id)
            await asyncio.sleep(STEP_S)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self.world.look()
            self.judge.tick()

    # ---- the agent

    @property
    def now(self) -> float:
        """Seconds since the scene began."""
        return self.world.now()

    @property
    def process(self) -> Process:
        """The youngest process."""
        return self.world.processes[-1]

    @property
    def agent(self) -> Agent:
        """The youngest agent. Raises AssertionError before it was assembled."""
        agent = self.process.agent
        assert agent is not None
        return agent

    async def begin(self) -> None:
        """Prices, and an agent that is ready."""
        for symbol_id in self._mids:
            self._quote(symbol_id)
        for work in (self._market(), self._watch()):
            self._helpers.append(asyncio.create_task(work))
        await self.start()

    async def start(self, within_s: float = 20.0) -> None:
        """One more process, until it is ready and every account that can be is in step."""
        self.world.give_birth()
        await self.until(lambda: self.process.ready or not self.process.alive, within_s)
        await asyncio.sleep(1.0)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill("kill")

    async def stop(self, within_s: float = 15.0) -> float:
        """SIGTERM; how long it took."""
        self.process.stop()
        return await self.until(lambda: not self.process.alive, within_s)

    async def until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Wait for it; seconds it took. Raises AssertionError when it does not come in time."""
        began = self.now
        while not condition():
            assert self.now - began < within_s, f"not reached within {within_s:g} s (at {self.now:.2f} s)"
            await asyncio.sleep(LOOK_S)
        return self.now - began

    # ---- messages

    async def send(
        self, action: str, name: str, *, provider: ProviderKey = cast.ALPHA, message_id: str = "", **fields: str
    ) -> tuple[int, dict[str, object]]:
        """Sign and post one message; status and answer. Raises ConnectionRefused when nobody listens."""
        self._messages += 1
        stamp = fields.pop("issued_at", "") or self.stamp()
        body = json.dumps({"action": action, "signal_id": name, "issued_at": stamp, **fields}).encode()
        return await self.post(body, provider=provider, message_id=message_id or f"msg_{self._messages}")

    async def post(
        self, body: bytes, *, provider: ProviderKey = cast.ALPHA, message_id: str = "msg_raw", secret: bytes = b""
    ) -> tuple[int, dict[str, object]]:
        """Post any bytes, signed (with the provider's own key unless told)."""
        server = self.world.server()
        if server is None:
            raise ConnectionRefused
        at = int(self.world.clock.wall().timestamp() - self.world.clock.skew_s)
        headers = signed_headers(secret or cast.provider_secret(provider), message_id, at, body)
        path = f"/signals/{provider.kind.value}/{provider.id}"
        status, answer = await server.request(Request(method="POST", path=path, headers=headers, body=body))
        return status, json.loads(answer)

    def stamp(self, ago_s: float = 0.0) -> str:
        """`issued_at` so many seconds ago, by the right clock."""
        at = self.world.clock.wall() - timedelta(seconds=ago_s + self.world.clock.skew_s)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    async def open(
        self,
        name: str = "s1",
        *,
        symbol_id: str = "BTCUSDT",
        side: str = "buy",
        stop: str = "",
        provider: ProviderKey = cast.ALPHA,
        **fields: str,
    ) -> tuple[int, dict[str, object]]:
        """An opening signal at the price of now, with a stop 1 % away unless told."""
        mid, tick = self._mids[symbol_id], self.venue.instruments[symbol_id].tick_size
        sign = 1 if side == "buy" else -1
        stop = stop or f"{(mid * (100 - sign) / 100) // tick * tick:f}"
        return await self.send(
            "open", name, provider=provider, symbol=NAMES[symbol_id], side=side, entry=f"{mid:f}", stop_loss=stop,
            **fields,
        )  # fmt: skip

    async def opened(self, name: str = "s1", *, symbol_id: str = "BTCUSDT", **how: str) -> None:
        """An opening signal of alpha, filled on c01 and c02."""
        status, answer = await self.open(name, symbol_id=symbol_id, **how)  # type: ignore[arg-type]
        assert status == 202, answer
        await self.until(lambda: all(self.lots(one, symbol_id) for one in (C01, C02)), 10)

    # ---- what the venue knows

    def position(self, connection: ConnectionId = C01, symbol_id: str = "BTCUSDT") -> PositionView | None:
        """The open position, None when flat."""
        return next((view for view in self.venue.positions(connection) if view.symbol_id == symbol_id), None)

    def lots(self, connection: ConnectionId = C01, symbol_id: str = "BTCUSDT") -> Decimal:
        """Signed lots at the venue."""
        view = self.position(connection, symbol_id)
        return Decimal(0) if view is None or view.side is None else view.lots * int(view.side)

    def orders(self, connection: ConnectionId = C01) -> list[SimOrder]:
        """Our orders at the venue, oldest first."""
        return [order for order in self.venue.orders(connection) if order.ticket.link_id.startswith("srm1")]

    def entries(self, connection: ConnectionId = C01) -> list[SimOrder]:
        """Entries of ours that the venue took."""
        return [order for order in self.orders(connection) if not order.ticket.reduce_only]

    def pages(self, connection: ConnectionId | None = None) -> list[str]:
        """Titles of pages so far."""
        self.world.look()
        told = [one for one in self.world.told if one.level == "page"]
        return [one.title for one in told if connection is None or one.connection == connection]

    def reasons(self, connection: ConnectionId = C01) -> list[str]:
        """Reason codes of the decisions on that account so far, oldest first."""
        return [one.reason.value for one in self.world.seen.decisions.values() if one.connection_id == connection]


def act(
    play: Callable[[Scene], Awaitable[Result]],
    *,
    scope: str = "own",
    sql: bool = False,
    begun: bool = True,
    peace_s: float = 0.0,
    lawful: bool = True,
) -> Result:
    """Play a scene in virtual time. `begun`: the agent is ready when it starts. `lawful`: no invariant may break;
    `peace_s` seconds are waited for that after the play, and with them the final judgement is made."""
    plan = Plan(
        seed=1, profile=profile_of("calm"), speed=1.0, scope=scope, crashes=(), stops=(), opens=(), halts=(), humans=()
    )
    configure(cast.secrets())

    async def main(loop: VirtualLoop) -> Result:
        clock = VirtualClock(loop)
        store = await Store.memory(clock) if sql else MemoryStore(clock)
        world = World(plan, loop, store, store.book, Trace())
        scene = Scene(world, Judge(world))
        if begun:
            await scene.begin()
        result = await play(scene)
        if peace_s:
            await asyncio.sleep(peace_s)
            await scene.judge.end()
        for process in world.living():
            process.kill("kill")
        if lawful:
            assert not scene.judge.violations, "\n".join(str(one) for one in scene.judge.violations)
        return result

    return run_virtual(main)

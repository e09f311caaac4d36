"""Plays a plan on a world: who acts when, what breaks, who is killed; then peace, and the judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial

from simulator.chaos import IDS, Strike, calm, inject, schedule
from simulator.records import OrderTicket
from simulator.seeds import stream
from simulator.simulation.invariants.judge import Judge
from simulator.simulation.loop import LIFE
from simulator.simulation.market import STEP_S
from simulator.simulation.plan import QUIET_START_S, TWIN_S, Crash
from simulator.simulation.process import Process
from simulator.simulation.world import World
from srm_agent import failpoints
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.units import Side

JUDGE_S = 0.25
RESTART_S = 2.0
"""RestartSec of the unit."""
STOP_PATIENCE_S = 30.0
SECOND_LIVES_S = (10.0, 60.0)
LATE_STRIKES = 3
START_LIMIT = 5
"""After so many defects systemd would give up too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of a world. Counts are for the totals of a run."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    checks: Mapping[str, int]
    faults: Mapping[str, int]
    crashes: Mapping[str, int]
    """Kills by crash point ("" = at a time)."""
    counters: Mapping[str, int] = field(default_factory=dict)

    def with_replays(self, count: int, different: Sequence[str]) -> Ending:
        """The same after it was played `count` times more; `different` tells where a replay was another story."""
        checks = {**self.checks, "INV-15": self.checks.get("INV-15", 0) + count}
        return replace(self, violations=(*self.violations, *different), checks=checks)


class Director:
    """One world's play."""

    def __init__(self, world: World) -> None:
        self._world, self._plan = world, world.plan
        self._rng = stream(world.plan.seed, "director")
        self._judge = Judge(world)
        self._ids = self._plan.profile.fault_ids or IDS
        self._chance = stream(world.plan.seed, "faults")
        self._armed: Crash | None = None
        self._guest: Process | None = None
        """The second daemon while it lives."""
        self._helpers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._rest_s = RESTART_S
        self.faults: dict[str, int] = {}
        self.points: dict[str, int] = {}
        self.crashes: dict[str, int] = {}
        self.defects: list[str] = []

    async def whole(self) -> Ending:
        """Play, judge, close; what became of it."""
        await self.play()
        await self._judge.end()
        await self.close()
        judge, world = self._judge, self._world
        letters = {f"answer {status}": count for status, count in world.letters.answers.items()}
        return Ending(
            seed=self._plan.seed,
            violations=(*(f"{one.invariant} at {one.at:.2f} s: {one.text}" for one in judge.violations), *self.defects),
            digest=world.trace.digest(),
            checks=judge.counts(),
            faults=dict.fromkeys(self._ids, 0) | self.faults | world.letters.strange,
            crashes=self.crashes,
            counters={"lives": len(world.lives), "messages": world.letters.sent, "trace lines": world.trace.count}
            | letters
            | {"decisions": len(world.seen.decisions), "orders": len(world.seen.orders)},
        )

    async def play(self) -> None:
        """From the first birth to the end of the peace. `world` holds what is left."""
        world, plan = self._world, self._plan
        failpoints.arm(self._reached)
        world.on_life_ended.append(self._ended)
        try:
            world.prices.open()
            self._spawn(self._market())
            self._spawn(self._watch())
            world.give_birth()
            for at in plan.opens:
                self._at(at, self._open)
            for crash in plan.crashes:
                self._at(crash.at, lambda crash=crash: self._crash(crash))  # type: ignore[misc]
            for at in plan.stops:
                self._at(at, self._restart)
            for at in plan.humans:
                self._at(at, self._human)
            for strike in self._strikes():
                self._at(strike.at_s, lambda strike=strike: self._strike(strike.fault_id))  # type: ignore[misc]
            for begin, end, scope, key in plan.halts:
                self._spawn(self._halt(begin, end, scope, key))
            for begin, end, key in plan.flattens:
                self._spawn(self._flatten(begin, end, ConnectionId(key)))
            if plan.second_at is not None:
                self._at(plan.second_at, self._second)
            await asyncio.sleep(plan.profile.busy_s)
            await self._peace()
            await asyncio.sleep(max(0.0, plan.profile.length_s - world.now()))
        finally:
            failpoints.arm(None)

    async def close(self) -> None:
        """End the last process in order (SIGTERM), and everything that helps."""
        self._stopping = True
        for process in self._world.living():
            process.stop()
        waited = 0.0
        while self._world.living() and waited < STOP_PATIENCE_S:
            await asyncio.sleep(0.25)
            waited += 0.25
        for process in self._world.living():
            self.defects.append(f"life {process.number} did not end {STOP_PATIENCE_S:g} s after SIGTERM")
            process.kill("kill")
        for task in self._helpers:
            task.cancel()

    # ---- what goes on all the time

    async def _market(self) -> None:
        world = self._world
        while True:
            world.prices.step(world.now())
            await asyncio.sleep(STEP_S)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(JUDGE_S)
            self._world.look()
            self._judge.tick()

    # ---- appointments

    def _open(self) -> None:
        sender = self._rng.choice(self._world.senders)
        symbol = self._rng.choice(("BTCUSDT", "ETHUSDT", "EURUSDT"))
        if self._world.venue.priced(symbol):
            sender.begin(symbol)
            if self._plan.profile.twins_share and self._rng.random() < self._plan.profile.twins_share:
                for other in self._world.senders:
                    if other is not sender:
                        self._at(self._world.now() + self._rng.uniform(0.0, TWIN_S), partial(other.begin, symbol))

    def _human(self) -> None:
        world = self._world
        name = self._rng.choice(list(world.connections))
        symbol, lots = self._rng.choice((("BTCUSDT", "0.01"), ("ETHUSDT", "0.2")))
        side = self._rng.choice((Side.BUY, Side.SELL))
        held = next((view for view in world.venue.positions(name) if view.symbol_id == symbol), None)
        if held is not None and held.side is not side:
            side = Side(-side)  # a human who closes our position is another fault (B32's neighbour)
        world.human_trade(name, OrderTicket(symbol_id=symbol, side=side, lots=Decimal(lots)))

    async def _halt(self, begin: float, end: float, scope: str, key: str) -> None:
        await asyncio.sleep(begin)
        while await self._world.operate("halt", scope, key) != 200:
            await asyncio.sleep(1.0)
        await asyncio.sleep(max(0.0, end - self._world.now()))
        while await self._world.operate("resume", scope, key) not in (200, 404):
            await asyncio.sleep(1.0)

    async def _flatten(self, begin: float, end: float, connection: ConnectionId) -> None:
        await asyncio.sleep(begin)
        while not self._world.flatten(connection):
            await asyncio.sleep(1.0)
        await asyncio.sleep(max(0.0, end - self._world.now()))
        while await self._world.operate("resume", HaltScope.CONNECTION.value, connection) not in (200, 404):
            await asyncio.sleep(1.0)

    # ---- faults

    def _strikes(self) -> list[Strike]:
        profile = self._plan.profile
        if not profile.faults:
            return []
        horizon = profile.busy_s - QUIET_START_S
        drawn = schedule(stream(self._plan.seed, "strikes"), self._ids, profile.faults, horizon)
        if self._plan.late:  # else what only such brokers do would be too rare to be judged
            drawn += schedule(stream(self._plan.seed, "late"), ("B6",), LATE_STRIKES, horizon)
        return [replace(strike, at_s=strike.at_s + QUIET_START_S) for strike in drawn]

    def _strike(self, fault_id: str) -> None:
        world = self._world
        if world.peace:
            return
        told = inject(world, fault_id, self._chance)
        self.faults[fault_id] = self.faults.get(fault_id, 0) + 1
        world.trace.add(world.now(), f"fault {told}")

    # ---- lives

    def _crash(self, crash: Crash) -> None:
        self._rest_s = crash.rest_s
        if crash.point:
            self._armed = crash
            return
        for process in self._at_home():
            self._kill(process, "kill")

    def _reached(self, point: str) -> None:
        """A process came by a crash point."""
        self.points[point] = self.points.get(point, 0) + 1
        if self._armed is None or self._armed.point != point or self._world.peace:
            return
        for process in self._world.living():
            if process.number == LIFE.get():
                self._armed = None
                self._kill(process, point)
                if asyncio.current_task() is not None:  # a callback has nothing after it that would go on
                    raise asyncio.CancelledError(f"killed at {point}")

    def _kill(self, process: Process, how: str) -> None:
        if not process.alive:
            return
        self.crashes[how] = self.crashes.get(how, 0) + 1
        process.kill(how)

    def _restart(self) -> None:
        for process in self._at_home():
            process.stop()

    def _second(self) -> None:
        """A second daemon on the same accounts: it waits for the leases, gets them when the first dies, and ends."""
        if self._stopping or self._world.peace or self._guest is not None:
            return
        self._guest = guest = self._world.give_birth(guest=True)
        act = self._rng.choice((guest.stop, guest.stop, partial(self._kill, guest, "kill of the second")))
        self._at(self._world.now() + self._rng.uniform(*SECOND_LIVES_S), act)

    def _ended(self, process: Process, how: str) -> None:
        if how.startswith("defect"):
            self.defects.append(f"life {process.number} ended by a {how}")
        if process is self._guest:
            self._guest = None
            return
        hopeless = len(self.defects) >= START_LIMIT
        if not self._stopping and not hopeless and not self._at_home():
            self._at(self._world.now() + (RESTART_S if self._world.peace else self._rest()), self._reborn)

    def _rest(self) -> float:
        rest, self._rest_s = self._rest_s, RESTART_S
        return rest

    def _reborn(self) -> None:
        if not self._stopping and not self._at_home():
            self._world.give_birth()

    def _at_home(self) -> list[Process]:
        """Living processes that systemd would start again."""
        return [process for process in self._world.living() if process is not self._guest]

    # ---- peace

    async def _peace(self) -> None:
        """Nothing more is broken; the providers close what they opened."""
        world = self._world
        world.peace = True
        self._armed = None
        world.trace.add(world.now(), "peace")
        calm(world)
        world.venue.mischief.release_all()
        if self._guest is not None:
            self._guest.stop()
        if not self._at_home():
            world.give_birth()
        await asyncio.sleep(10)
        for sender in world.senders:
            sender.end_all()

    # ---- helpers

    def _at(self, at: float, act: Callable[[], object]) -> None:
        self._world.loop.call_at(at, act, context=Context())

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self._helpers.append(asyncio.create_task(work))

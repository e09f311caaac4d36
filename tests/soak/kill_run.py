"""One kill -9 soak: venue and daemon as processes, providers, an operator, and somebody who kills."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.soak.kill_daemon import KEY, Daemon, Member, Restart, VenueProcess
from tests.soak.kill_evidence import evidence, trades, waiting
from tests.soak.kill_judge import Finding, judge
from tests.soak.kill_points import POINTS, Point, Stage, tend
from tests.soak.kill_sender import Sender, spread

LOUD = tuple(f"{base}/USDT:USDT" for base in ("BTC", "ETH", "SOL", "XRP", "ADA", "LTC"))
QUIET = tuple(f"{base}/USDT:USDT" for base in ("DOT", "LINK", "AVAX"))
VICTIM = "c04"
MEMBERS = (
    Member(name="c01", provider="alpha", risk="0.005", drawdown="0.5"),
    Member(name="c02", provider="alpha", risk="0.003", drawdown="0.5"),
    Member(name="c03", provider="alpha", risk="0.002", drawdown="0.5"),
    Member(name=VICTIM, provider="bravo", risk="0.01", drawdown="0.01"),
)
READY_WITHIN_S = 60.0
STUCK_S = 15.0
"""A start that had so much time, waiting for a processor not counted, and is not ready."""
REACHED_WITHIN_S = 40.0
"""How long an armed daemon may live without coming by its crash point before it is killed all the same."""
TRIES = 3
QUIET_WITHIN_S = 120.0
"""Finality of the venue, the patience with forgotten orders, and something for a busy machine."""
MEAN_LIFE_S, LONGEST_LIFE_S = 0.9, 4.0
STARTING_S = (0.3, 4.0)
STARTING_SHARE = 1 / 3
TRAFFIC_ENDS_S = 20.0
ACT_EVERY_S, QUOTE_EVERY_S = 1.0, 0.2
RANDOM = "random"
STARTING = "starting"


@dataclass(slots=True)
class Outcome:
    """What a soak found."""

    kills: Counter[str] = field(default_factory=Counter)
    """By crash point, `random` (at work) or `starting`."""
    missed: Counter[str] = field(default_factory=Counter)
    """Armed lives that did not come by their crash point."""
    restarts: list[Restart] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """What should not happen and is none of the counted: a daemon that died by itself, a message refused."""
    sent: int = 0
    acked: int = 0
    orders: int = 0
    legs: int = 0
    trades: int = 0

    def add(self, other: Outcome) -> None:
        """What another soak found, too."""
        self.kills += other.kills
        self.missed += other.missed
        self.restarts += other.restarts
        self.findings += other.findings
        self.strange += other.strange
        self.sent += other.sent
        self.acked += other.acked
        self.orders += other.orders
        self.legs += other.legs
        self.trades += other.trades

    @property
    def total(self) -> int:
        """All kills."""
        return self.kills.total()


def plan(points: Sequence[str], kills: int, rng: random.Random) -> list[str]:
    """In an order of chance: every crash point in turn for half of the kills, at least once; the rest at random."""
    rounds = max(1, kills // 2 // len(points)) if points else 0
    planned = (list(points) * rounds)[:kills]
    planned += [RANDOM] * (kills - len(planned))
    rng.shuffle(planned)
    return planned


@dataclass(slots=True)
class Soak:
    """Runs once, in an empty directory. `lives`: where each daemon is to die. `tell` is called after each kill."""

    home: Path
    lives: Sequence[str]
    rng: random.Random
    tell: Callable[[], None] = lambda: None
    outcome: Outcome = field(default_factory=Outcome)
    _traffic: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> Outcome:
        """From an empty disk to the judgement."""
        async with self._stage() as stage:
            self._traffic = spread(LOUD, "alpha", stage.sender)
            for name in self.lives:
                for _ in range(TRIES):
                    if await self._life(stage, POINTS.get(name)):
                        break
                self.tell()
            await self._end(stage)
        return self.outcome

    @asynccontextmanager
    async def _stage(self) -> AsyncIterator[Stage]:
        venue = VenueProcess(
            self.home, [member.name for member in MEMBERS], LOUD + QUIET, QUIET, self.rng.getrandbits(32)
        )
        daemon = Daemon(self.home, MEMBERS, LOUD + QUIET)
        work: list[asyncio.Task[None]] = []
        connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(total=5)
        try:
            venue.start()
            daemon.prepare(venue.url)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                prices = await venue.mids(session)
                followers = {
                    provider: tuple(member.name for member in MEMBERS if member.provider == provider)
                    for provider in ("alpha", "bravo")
                }
                sender = Sender(
                    daemon.url, KEY, session, self.rng, followers, prices, lambda: daemon.ready_at is not None
                )
                stage = Stage(daemon, venue, session, sender, self.rng, VICTIM, QUIET, LOUD)
                work += [asyncio.create_task(_quote(stage, prices)), asyncio.create_task(tend(stage))]
                try:
                    yield stage
                finally:
                    for task in [*work, *self._traffic]:
                        task.cancel()
                    await asyncio.wait([*work, *self._traffic])
        finally:
            if daemon.process is not None and daemon.exit_code() is None:
                daemon.kill()
            venue.stop()

    # ---- one life

    async def _life(self, stage: Stage, point: Point | None) -> bool:
        """Start the daemon and see it die by SIGKILL; True when it died where it was to die."""
        if point is None:
            stage.daemon.start()
            await self._at_random(stage)
            return True
        await point.before(stage)
        stage.daemon.start(f"{point.name}:{self.rng.randint(1, point.arrivals)}")
        await self._until_dead(stage, point)
        if stage.daemon.exit_code() == -signal.SIGKILL:
            self._buried(stage, point.name)
            return True
        self.outcome.missed[point.name] += 1
        self._kill(stage, RANDOM)
        return False

    async def _at_random(self, stage: Stage) -> None:
        """SIGKILL at work, or (one in three) while it starts."""
        daemon = stage.daemon
        watching = asyncio.create_task(daemon.watch(stage.session))
        starting = self.rng.random() < STARTING_SHARE
        await asyncio.wait({watching}, timeout=self.rng.uniform(*STARTING_S) if starting else READY_WITHIN_S)
        if daemon.ready_at is not None:
            await asyncio.sleep(min(LONGEST_LIFE_S, self.rng.expovariate(1 / MEAN_LIFE_S)))
        elif not starting and (own := daemon.so_far().own) > STUCK_S:
            self.outcome.strange.append(f"start {daemon.starts} was not ready after {own:.0f} s of its own")
        self._kill(stage, RANDOM if daemon.ready_at is not None else STARTING)
        await watching

    async def _until_dead(self, stage: Stage, point: Point) -> None:
        """Let an armed daemon come by its crash point, or lose patience."""
        daemon = stage.daemon
        await asyncio.wait({asyncio.create_task(daemon.watch(stage.session))}, timeout=READY_WITHIN_S)
        deadline = time.monotonic() + REACHED_WITHIN_S
        while daemon.exit_code() is None and time.monotonic() < deadline:
            acting = asyncio.create_task(_act(point, stage))
            while daemon.exit_code() is None and not acting.done() and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            acting.cancel()
            await asyncio.wait({acting})

    def _kill(self, stage: Stage, name: str) -> None:
        daemon = stage.daemon
        if daemon.exit_code() is not None:
            self.outcome.strange.append(f"start {daemon.starts} ended by itself with exit code {daemon.exit_code()}")
        daemon.kill()
        self._buried(stage, name)

    def _buried(self, stage: Stage, name: str) -> None:
        stage.daemon.ready_at = None
        self.outcome.kills[name] += 1

    # ---- the end

    async def _end(self, stage: Stage) -> None:
        """Stop, compare while positions are open; close, compare again with the daemon stopped."""
        daemon, sender, outcome = stage.daemon, stage.sender, self.outcome
        daemon.start()
        await asyncio.wait_for(daemon.watch(stage.session), READY_WITHIN_S)
        sender.stopping.set()
        await asyncio.wait(self._traffic, timeout=TRAFFIC_ENDS_S)
        await stage.venue.act(stage.session, what="calm", on="1")
        await self._quiet(stage)
        outcome.findings += await self._judged(stage)
        await sender.close_all()
        await self._quiet(stage)
        code = await daemon.stop()
        if code != 0:
            outcome.strange.append(f"SIGTERM ended in exit code {code}")
        outcome.findings += [found for found in await self._judged(stage) if found not in outcome.findings]
        outcome.restarts = daemon.restarts
        outcome.strange += [f"refused: {text}" for text in sender.refused]
        outcome.sent, outcome.acked = sender.messages, len(sender.acked)
        outcome.orders, outcome.legs, outcome.trades = await trades(daemon.database)

    async def _quiet(self, stage: Stage) -> None:
        """Until both sides have nothing under way and agree; or until patience ends, and the judgement tells what."""
        deadline, well = time.monotonic() + QUIET_WITHIN_S, 0
        while well < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            busy = await waiting(stage.daemon.database)
            well = 0 if busy or await self._judged(stage) else well + 1

    async def _judged(self, stage: Stage) -> list[Finding]:
        return judge(await evidence(stage.venue.truth(), stage.daemon.database, list(stage.sender.acked)))


async def _act(point: Point, stage: Stage) -> None:
    await point.during(stage)
    await asyncio.sleep(ACT_EVERY_S)


async def _quote(stage: Stage, prices: dict[str, float]) -> None:
    while True:
        prices.update(await stage.venue.mids(stage.session))
        await asyncio.sleep(QUOTE_EVERY_S)

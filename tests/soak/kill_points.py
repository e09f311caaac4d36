"""The crash points of reliability.md 3.2 in the kill -9 soak: which exist, and what makes a daemon come by each."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from srm_agent.api.control_client import ControlRefused, DaemonUnreachable
from srm_agent.domain.accounts import HaltScope
from srm_agent.failpoints import CRASH_POINTS
from tests.soak.kill_daemon import ROOT, Daemon, VenueProcess
from tests.soak.kill_sender import Sender

OWED = {"CP10": "issue E (there is no model file before it)"}
"""Crash points that cannot exist yet, and who owes them."""
_CALL = re.compile(r"\bfailpoints\.reached\b[(, ]+\"(CP\d+)\"")
FALL = -0.006
"""What the quiet markets lose when the victim's drawdown is provoked: less than its stops, more than its limit."""


def points_in_source(source: Path = ROOT / "srm_agent") -> Mapping[str, list[str]]:
    """Each crash point with the files that come by it."""
    found: dict[str, list[str]] = {point: [] for point in CRASH_POINTS}
    for path in sorted(source.rglob("*.py")):
        for point in dict.fromkeys(_CALL.findall(path.read_text(encoding="utf-8"))):
            found[point].append(str(path.relative_to(source.parent)))
    return found


@dataclass(slots=True)
class Stage:
    """What a provocation can move."""

    daemon: Daemon
    venue: VenueProcess
    session: aiohttp.ClientSession
    sender: Sender
    rng: random.Random
    victim: str
    quiet: tuple[str, ...]
    loud: tuple[str, ...]


async def nothing(_: Stage) -> None:
    """The traffic comes by it on its own."""


async def halt(stage: Stage) -> None:
    """An operator halts a provider whom nobody follows."""
    await _ask(stage, lambda: stage.daemon.control().halt(HaltScope.PROVIDER, "idle", "soak"))


async def reload(stage: Stage) -> None:
    """Other limits, and SIGHUP."""
    stage.daemon.configure(factor=f"{stage.rng.uniform(0.9, 1.1):.3f}")
    stage.daemon.reload()


async def old_schema(stage: Stage) -> None:
    """The database of an older program."""
    stage.daemon.make_schema_older()


async def tighten(stage: Stage) -> None:
    """Somebody moves the stops nearer by hand: the daemon finds it and takes it over."""
    await stage.venue.act(stage.session, what="tighten")


async def stops_fire(stage: Stage) -> None:
    """While the daemon is dead the market goes through stops and comes back: positions are gone without a word."""
    for symbol in stage.loud:
        await stage.venue.shift(stage.session, symbol, stage.rng.choice((-0.02, 0.02)), 0.4)
    await asyncio.sleep(0.3)


async def fall(stage: Stage) -> None:
    """The victim holds positions in the quiet markets, and these fall: its drawdown closes everything."""
    signals = [asyncio.create_task(stage.sender.open("bravo", symbol, "buy")) for symbol in stage.quiet]
    await asyncio.wait(signals, timeout=3)
    await asyncio.sleep(1.0)
    for symbol in stage.quiet:
        await stage.venue.shift(stage.session, symbol, FALL, 3.0)
    await asyncio.sleep(3.2)


async def stubborn_fall(stage: Stage) -> None:
    """The same, and the venue refuses the first closes."""
    await stage.venue.act(stage.session, what="refuse", account=stage.victim, times="4")
    await fall(stage)


@dataclass(frozen=True, slots=True)
class Point:
    """How to make a daemon die at one crash point.

    `before` acts while it is dead, `during` again and again while it is ready and armed. Kills at the n-th arrival, n
    up to `arrivals`.
    """

    name: str
    before: Callable[[Stage], Awaitable[None]] = nothing
    during: Callable[[Stage], Awaitable[None]] = nothing
    arrivals: int = 3


POINTS = {
    point.name: point
    for point in (
        Point("CP1", arrivals=8),
        Point("CP2", arrivals=8),
        Point("CP3"),
        Point("CP4"),
        Point("CP5"),
        Point("CP6", arrivals=2),
        Point("CP7", arrivals=2),
        Point("CP8", during=halt, arrivals=1),
        Point("CP9", during=fall, arrivals=2),
        Point("CP11", before=old_schema, arrivals=1),
        Point("CP12", before=stops_fire, during=tighten, arrivals=2),
        Point("CP13", during=reload, arrivals=2),
        Point("CP14", during=stubborn_fall, arrivals=2),
    )
}


async def tend(stage: Stage) -> None:
    """The operator, once a second: takes up again what was halted or closed, so that the soak goes on."""
    while True:
        await asyncio.sleep(1.0)
        if stage.daemon.ready_at is not None:
            await _ask(stage, lambda: _resume_all(stage.daemon))


def _resume_all(daemon: Daemon) -> None:
    control = daemon.control()
    halts = control.status().get("halts")
    for halt in halts if isinstance(halts, list) else []:
        if halt["state"] == "HALTED":
            control.resume(HaltScope(halt["scope"]), str(halt["key"]))


async def _ask(stage: Stage, question: Callable[[], object]) -> None:
    with suppress(DaemonUnreachable, ControlRefused):  # it died meanwhile, or it is not the moment: asked again
        await asyncio.to_thread(question)

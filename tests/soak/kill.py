"""`python -m tests.soak.kill --kills 100 --db sqlite`: kill -9 on real processes over real sockets, and count.

Exit codes: 0 all counts are 0 and the restarts are within their bound; 1 not so; 64 usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from srm_agent.failpoints import CRASH_POINTS
from tests.soak.kill_judge import Kind, count
from tests.soak.kill_points import OWED, POINTS, points_in_source
from tests.soak.kill_run import RANDOM, STARTING, Outcome, Soak, plan

READY_P99_S = 10.0
COUNTED = (Kind.DUPLICATE, Kind.ORPHAN, Kind.LOST, Kind.UNRESOLVED)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(64)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def slowest(outcome: Outcome) -> tuple[float, float]:
    """The 99th percentile of the restarts: as the clock saw it, and without what a busy machine made them wait."""
    return (
        percentile([restart.seconds for restart in outcome.restarts], 0.99),
        percentile([restart.own for restart in outcome.restarts], 0.99),
    )


def hit(outcome: Outcome, points: Sequence[str]) -> list[str]:
    """Those of the crash points at which a daemon died."""
    return [point for point in points if outcome.kills[point]]


def last_line(outcome: Outcome, points: Sequence[str]) -> str:
    """What a caller reads: the counts, the restarts, the crash points; whatever else was found."""
    counts = count(outcome.findings)
    words = [f"kills {outcome.total}", *(f"{kind.value} {counts[kind]}" for kind in COUNTED)]
    seconds, own = slowest(outcome)
    words.append(f"restart p99 {seconds:.1f} s" + (f" ({own:.1f} s of its own)" if seconds > READY_P99_S else ""))
    words.append(f"points {len(hit(outcome, points))}/{len(points)} hit")
    if counts[Kind.NAKED]:
        words.append(f"naked {counts[Kind.NAKED]}")
    if outcome.strange:
        words.append(f"strange {len(outcome.strange)}")
    return " ".join(words)


def points_asked(text: str) -> tuple[str, ...] | None:
    """Crash points by name; None for a name that is none."""
    if text in ("all", "none"):
        where = points_in_source()
        return tuple(point for point in POINTS if where[point]) if text == "all" else ()
    names = tuple(text.split(","))
    return names if all(name in POINTS for name in names) else None


def passed(outcome: Outcome, points: Sequence[str]) -> bool:
    """Nothing counted, nothing strange, restarts in time, and every crash point asked for was hit.

    The bound of a restart is held against its own time, so that a machine busy with other things fails nobody.
    """
    return (
        not outcome.findings
        and not outcome.strange
        and slowest(outcome)[1] <= READY_P99_S
        and len(hit(outcome, points)) == len(points)
    )


def show(outcome: Outcome, console: Console) -> None:
    """The tables for people."""
    where = points_in_source()
    kills = Table(title="kill -9", title_justify="left")
    for column in ("where", "kills", "missed", "in"):
        kills.add_column(column, justify="left" if column in ("where", "in") else "right")
    for point in CRASH_POINTS:
        files = ", ".join(where[point]) or f"owed by {OWED.get(point, 'nobody has put it in yet')}"
        kills.add_row(point, str(outcome.kills[point]), str(outcome.missed[point]), files)
    kills.add_row(STARTING, str(outcome.kills[STARTING]), "", "at a random moment of a start")
    kills.add_row(RANDOM, str(outcome.kills[RANDOM]), "", "at a random moment of work")
    console.print(kills)
    restarts, own = [one.seconds for one in outcome.restarts], [one.own for one in outcome.restarts]
    console.print(
        f"restarts to ready {len(restarts)}: p50 {percentile(restarts, 0.5):.1f} s, "
        f"p99 {percentile(restarts, 0.99):.1f} s, max {max(restarts, default=0.0):.1f} s; without waiting for a "
        f"processor p50 {percentile(own, 0.5):.1f} s, p99 {percentile(own, 0.99):.1f} s; "
        f"messages {outcome.sent}, acknowledged {outcome.acked}; orders {outcome.orders}, legs {outcome.legs}, "
        f"closed trades {outcome.trades}",
        highlight=False,
    )
    for finding in outcome.findings[:40]:
        console.print(f"{finding.kind.value}: {finding.text}", style="red", highlight=False, markup=False)
    for text in outcome.strange[:20]:
        console.print(f"strange: {text}", style="red", highlight=False, markup=False)


async def soak(home: Path, lives: Sequence[str], seed: int, lanes: int, console: Console) -> Outcome:
    """Run them in that many lanes at once, each with a venue, a disk and a daemon of its own; a bar on a terminal."""
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task("kill -9", total=len(lives))
    runs = []
    for lane in range(lanes):
        place = home / f"lane{lane}"
        place.mkdir(parents=True)
        tell = partial(progress.advance, task)
        runs.append(Soak(place, lives[lane::lanes], random.Random(seed * 1_000 + lane), tell))
    outcome = Outcome()
    with progress:
        for one in await asyncio.gather(*(run.run() for run in runs)):
            outcome.add(one)
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = _Parser(prog="soak-kill", description="kill -9 on real processes over real sockets, and count.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--db", default="sqlite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", default="all", help="crash points such as CP4,CP9; all (that exist), or none")
    parser.add_argument("--lanes", type=int, default=2, help="venues and daemons at once: most of a restart is waiting")
    parser.add_argument("--home", type=Path, help="empty directory that is kept; by default one that is removed")
    asked = parser.parse_args(argv)
    if asked.db != "sqlite":
        parser.error(f"--db must be sqlite, was {asked.db!r}: MariaDB comes with issue C")
    if not 1 <= asked.kills <= 100_000:
        parser.error(f"--kills must be 1..100000, was {asked.kills}")
    if not 1 <= asked.lanes <= 16:
        parser.error(f"--lanes must be 1..16, was {asked.lanes}")
    if asked.home is not None and asked.home.exists() and any(asked.home.iterdir()):
        parser.error(f"--home must be an empty directory, {str(asked.home)!r} is not")
    points = points_asked(asked.points)
    if points is None:
        parser.error(f"--points must be all, none, or a list of {', '.join(POINTS)}, was {asked.points!r}")
    console, began = Console(width=None if sys.stdout.isatty() else 140), time.monotonic()
    lives = plan(points, asked.kills, random.Random(asked.seed))
    lanes = min(asked.lanes, len(lives))
    with tempfile.TemporaryDirectory(prefix="soak-kill-") as scratch:
        home = (asked.home or Path(scratch)).absolute()
        outcome = asyncio.run(soak(home, lives, asked.seed, lanes, console))
    show(outcome, console)
    console.print(
        f"{time.monotonic() - began:.0f} s in {lanes} lanes; load of this machine {os.getloadavg()[0]:.1f} "
        f"on {os.cpu_count()} processors",
        highlight=False,
    )
    sys.stdout.write(last_line(outcome, points) + "\n")
    return 0 if passed(outcome, points) else 1


if __name__ == "__main__":
    sys.exit(main())

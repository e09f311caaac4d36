"""`python -m simulator.simulation`: play seeds of the whole daemon in virtual time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from simulator.simulation import cast
from simulator.simulation.director import Ending
from simulator.simulation.log_sink import configure
from simulator.simulation.profiles import PROFILES, profile_of
from simulator.simulation.runner import INVARIANT, Totals, play, run
from simulator.simulation.totals import silent
from simulator.simulation.trace import Trace

SHOWN = 20


def main() -> int:
    """Exit 0 without a violation, 1 with one, 64 for a wrong command line."""
    options = _options()
    if options.replay is not None:
        return _replay(options.replay, options.profile, options.trace)
    seeds = range(options.seed0, options.seed0 + options.seeds)
    console = Console(stderr=True)
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bad]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar, bad = progress.add_task("seeds", total=len(seeds), bad=""), 0

        def done(ending: Ending) -> None:
            nonlocal bad
            bad += bool(ending.violations)
            progress.update(bar, advance=1, bad=f"[red]{bad} broken" if bad else "")

        totals = run(
            list(seeds),
            options.profile,
            jobs=options.jobs,
            stop_after=options.stop_after,
            again=not options.once,
            on_done=done,
        )
    if options.json is not None:
        options.json.write_text(json.dumps(_summary(totals)), encoding="utf-8")
    return report(totals, options.profile)


def _summary(totals: Totals) -> dict[str, object]:
    """For a program that reads it: how many seeds were played, which broke what, and what else went wrong."""
    others = [f"seed {seed}: {text}" for seed, text in totals.violations if not text.startswith(INVARIANT)]
    return {"seeds": totals.seeds, "broken": totals.broken, "others": others, "seconds": totals.seconds}


def report(totals: Totals, profile: str) -> int:
    """Print the totals, what broke, and the last line that others read; the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for title, counts in (
        ("what happened", totals.counters),
        ("executions per fault", totals.faults),
        ("kills", totals.crashes),
        ("checks per invariant", totals.checks),
    ):
        console.print(_table(title, counts))
    problems = [*totals.violations, *((-1, text) for text in silent(totals, profile))]
    for seed, text in problems[:SHOWN]:
        console.print(f"seed {seed}: {text}" if seed >= 0 else text, style="red", markup=False)
    for seed in sorted({seed for seed, _ in totals.violations})[:SHOWN]:
        command = f".venv/bin/python -m simulator.simulation --profile {profile}"
        console.print(f"replay: {command} --replay {seed} --trace var/{seed}.txt")
    rate = totals.seeds / totals.seconds if totals.seconds else 0.0
    print(f"seeds {totals.seeds} violations {len(problems)} rate {rate:.1f}/s hash {totals.hash}", flush=True)
    return 1 if problems else 0


def _replay(seed: int, profile: str, path: Path | None) -> int:
    configure(cast.secrets())
    trace = Trace(keep=True)
    ending = play(seed, profile_of(profile), trace=trace)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(trace.lines) + "\n", encoding="utf-8")
        print(f"{trace.count} lines in {path}")
    for text in ending.violations:
        print(f"seed {seed}: {text}")
    print(f"seeds 1 violations {len(ending.violations)} hash {ending.digest}")
    return 1 if ending.violations else 0


def _table(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    names = sorted(counts, key=_natural)
    for start in range(0, len(names), 8):
        table.add_row(*(f"{name} {counts[name]}" for name in names[start : start + 8]))
    return table


def _natural(name: str) -> tuple[str, int]:
    letters = name.rstrip("0123456789")
    digits = name[len(letters) :]
    return letters, int(digits) if digits else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulator.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_positive, default=100, help="how many")
    parser.add_argument("--seed0", type=_not_negative, default=0, help="the first")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="default", help="kind of days")
    parser.add_argument("--jobs", type=_not_negative, default=0, help="processes, 0 = one a core")
    parser.add_argument("--stop-after", type=_not_negative, default=0, help="once so many seeds broke something")
    parser.add_argument("--once", action="store_true", help="play no seed a second time (INV-15)")
    parser.add_argument("--json", type=Path, help="write what was found here too")
    parser.add_argument("--replay", type=_not_negative, metavar="SEED", help="play one seed and tell all about it")
    parser.add_argument("--trace", type=Path, help="with --replay: write the trace here")
    try:
        return parser.parse_args()
    except SystemExit as error:
        sys.exit(64 if error.code else 0)


def _positive(text: str) -> int:
    value = _not_negative(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, was {text!r}")
    return value


def _not_negative(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number, was {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

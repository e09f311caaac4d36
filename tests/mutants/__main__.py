"""`python -m tests.mutants`: does the seeded simulation notice single changes that would lose money?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.mutants.catalogue import CATALOGUE, Hunted
from tests.mutants.hunt import Hunt, control, hunt

SEEDS, KILLS = 1500, 10
SAMPLE_SEEDS, SAMPLE_KILLS = 60, 3
NAMED = 4


def main(arguments: Sequence[str] | None = None, catalogue: Sequence[Hunted] = CATALOGUE) -> int:
    """Exit 0 when every mutant was killed and the unchanged agent broke nothing, 1 if not, 64 for a wrong call."""
    options = _options(arguments, catalogue)
    chosen = [one for one in catalogue if (not options.sample or one.quick) and options.only in ("", one.name)]
    seeds = options.seeds or (SAMPLE_SEEDS if options.sample else SEEDS)
    kills = options.kills or (SAMPLE_KILLS if options.sample else KILLS)
    hunts: list[Hunt] = []
    table = Table("mutant", "profile", "seeds", "broken", "by", "seconds", title="hunt", title_justify="left")
    for number, hunted in enumerate(chosen, 1):
        found = hunt(hunted, seeds=seeds, kills=kills, jobs=options.jobs)
        hunts.append(found)
        _show(table, found, killed(found, kills))
        print(
            f"{number}/{len(chosen)} {found.name}: {found.broken} of {found.seeds} seeds", file=sys.stderr, flush=True
        )
    controls = [control(name, seeds=count, jobs=options.jobs) for name, count in _needed(hunts).items()]
    for found in controls:
        _show(table, found, clean(found))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for found in hunts + controls:
        _explain(found)
    dead = sum(killed(found, kills) for found in hunts)
    unclean = [found.profile for found in controls if not clean(found)]
    if unclean:
        print(f"the unchanged agent is not clean: {', '.join(unclean)}")
    print(f"mutants {dead}/{len(hunts)} killed", flush=True)
    return 0 if dead == len(hunts) and not unclean else 1


def killed(found: Hunt, kills: int) -> bool:
    """Enough seeds broke an invariant."""
    return not found.failed and found.broken >= kills


def clean(found: Hunt) -> bool:
    """Nothing at all went wrong."""
    return not (found.failed or found.broken or found.others)


def _needed(hunts: Sequence[Hunt]) -> dict[str, int]:
    """How many seeds of each profile the mutants have needed, by profile in their order."""
    seeds: dict[str, int] = {}
    for found in hunts:
        seeds[found.profile] = max(seeds.get(found.profile, 1), found.seeds)
    return seeds


def _show(table: Table, found: Hunt, good: bool) -> None:
    most = sorted(found.invariants.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    table.add_row(
        found.name,
        found.profile,
        str(found.seeds),
        str(found.broken),
        ", ".join(f"{name} {count}" for name, count in most) or "-",
        f"{found.seconds:.0f}",
        style=None if good else "red",
    )


def _explain(found: Hunt) -> None:
    if found.failed:
        print(f"{found.name} could not be played: {found.failed}")
    for text in found.others[:NAMED]:
        print(f"{found.name}: {text}")


def _options(arguments: Sequence[str] | None, catalogue: Sequence[Hunted]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help=f"at most, a mutant (default {SEEDS})")
    parser.add_argument("--kills", type=int, default=0, help=f"seeds that must break something (default {KILLS})")
    parser.add_argument("--only", default="", choices=["", *(one.name for one in catalogue)], metavar="NAME")
    parser.add_argument("--sample", action="store_true", help="the quick ones, fewer seeds")
    parser.add_argument("--jobs", type=int, default=0, help="processes, 0 = one a core")
    try:
        return parser.parse_args(arguments)
    except SystemExit as error:
        sys.exit(64 if error.code else 0)


if __name__ == "__main__":
    sys.exit(main())

"""Plays a mutated agent until enough seeds broke an invariant; then the true agent, on the same seeds, breaks none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.catalogue import Hunted
from tests.mutation import ROOT, NotApplicable, mutated, run_in

PATIENCE_S = 3 * 3600.0
SEED0 = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """What became of one mutant, or (no mutant) of the true agent. `others`: what went wrong that is no invariant."""

    profile: str
    hunted: Hunted | None = None
    seeds: int = 0
    broken: int = 0
    """Seeds that broke an invariant, those left out whose agent died of a defect."""
    invariants: Mapping[str, int] = field(default_factory=dict)
    """Seeds by invariant."""
    others: tuple[str, ...] = ()
    seconds: float = 0.0
    failed: str = ""
    """Why it could not be played at all."""

    @property
    def name(self) -> str:
        """For the table."""
        return "(unchanged)" if self.hunted is None else self.hunted.name


def hunt(hunted: Hunted, *, seeds: int, kills: int, jobs: int = 0) -> Hunt:
    """Seeds of the mutant's profile in their order, at most `seeds`, until `kills` of them broke an invariant."""
    try:
        with mutated(hunted.mutant) as tree:
            return play(tree, hunted.profile, hunted, seeds=seeds, kills=kills, jobs=jobs)
    except NotApplicable as error:
        return Hunt(profile=hunted.profile, hunted=hunted, failed=str(error))


def control(profile: str, *, seeds: int, jobs: int = 0) -> Hunt:
    """The unchanged agent on the same seeds: a violation means that the judge is wrong, or the agent."""
    return play(ROOT, profile, None, seeds=seeds, kills=1, jobs=jobs)


def play(tree: Path, profile: str, hunted: Hunted | None, *, seeds: int, kills: int, jobs: int) -> Hunt:
    """The simulation of that tree, in a process of its own."""
    with TemporaryDirectory(prefix="srm-hunt-") as folder:
        summary = Path(folder) / "summary.json"
        amounts = ("--seeds", str(seeds), "--seed0", str(SEED0), "--stop-after", str(kills), "--jobs", str(jobs))
        done = run_in(
            tree,
            *("simulator.simulation", "--profile", profile, *amounts, "--once", "--json", str(summary)),
            timeout_s=PATIENCE_S,
        )
        if not summary.exists():
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return Hunt(profile=profile, hunted=hunted, failed=f"exit {done.returncode}: {''.join(last)}")
        found = json.loads(summary.read_text(encoding="utf-8"))
    return Hunt(
        profile=profile,
        hunted=hunted,
        seeds=found["seeds"],
        broken=len(found["broken"]),
        invariants=Counter(name for names in found["broken"].values() for name in names),
        others=tuple(found["others"]),
        seconds=found["seconds"],
    )

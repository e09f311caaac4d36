"""The seeded simulation itself: the same story everywhere, and the seeds that once broke something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from simulator.simulation import cast
from simulator.simulation.log_sink import configure
from simulator.simulation.profiles import profile_of
from simulator.simulation.runner import play, run
from simulator.simulation.totals import ENOUGH_SEEDS, silent
from simulator.simulation.trace import Trace

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT / "tests" / "seeds"
SAME = (3, 50, 77)


def kept() -> list[tuple[str, int]]:
    """Profile and number of each seed that is kept."""
    lines = [(path.stem, line) for path in sorted(SEEDS.glob("*.txt")) for line in path.read_text().splitlines()]
    return [(profile, int(line.split()[0])) for profile, line in lines if line.strip()]


def test_seeds_that_once_broke_something_break_nothing() -> None:
    """What was found once stays mended."""
    configure(cast.secrets())
    broken = {(profile, seed): play(seed, profile_of(profile)).violations for profile, seed in kept()}
    assert {which: violations for which, violations in broken.items() if violations} == {}


def test_two_fresh_processes_with_other_hash_seeds_tell_the_same_story() -> None:
    """INV-15: the trace hash depends on seed and code alone, not on addresses, hashes of strings or the process."""
    code = (
        "from simulator.simulation import cast; from simulator.simulation.log_sink import configure;"
        "from simulator.simulation.profiles import profile_of; from simulator.simulation.runner import play;"
        f"configure(cast.secrets()); print([play(seed, profile_of('default')).digest for seed in {SAME}])"
    )
    told = []
    for hash_seed in ("1", "2718"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        told.append(done.stdout.strip())
    assert told[0] == told[1]
    assert len(set(told[0].split(","))) == len(SAME)


def test_both_stores_tell_the_same_story() -> None:
    """The dictionaries and SQLite lead to the same trace."""
    configure(cast.secrets())
    profile = profile_of("default")
    assert play(4, profile, sql=True).digest == play(4, profile).digest


def test_another_seed_is_another_story_and_the_trace_tells_it() -> None:
    """A trace holds lives, faults, the venue's events and alerts; two seeds differ."""
    configure(cast.secrets())
    first, second = Trace(keep=True), Trace()
    play(11, profile_of("default"), trace=first)
    play(12, profile_of("default"), trace=second)
    assert first.digest() != second.digest()
    kinds = {line.split()[1] for line in first.lines}
    assert {"life", "venue", "fault", "acknowledged", "peace"} <= kinds


def test_a_run_that_never_tried_something_says_so() -> None:
    """Totals over enough seeds name each fault and each check that never came up."""
    totals = run([1], "calm", jobs=1)
    totals.seeds = ENOUGH_SEEDS
    totals.checks["INV-99"] = 0
    totals.faults["B99"] = 0
    assert [line for line in silent(totals, "default") if "99" in line] == [
        "check INV-99 never judged anything",
        "fault B99 never happened",
    ]
    assert silent(totals, "calm") == []


def test_the_command_counts_and_ends_with_the_line_that_others_read() -> None:
    """`python -m simulator.simulation` prints totals and `seeds N violations N rate N/s hash H`; 64 for nonsense."""
    command = [sys.executable, "-m", "simulator.simulation", "--jobs", "1", "--profile", "calm"]
    done = subprocess.run([*command, "--seeds", "2"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("seeds 2 violations 0 rate ")
    wrong = subprocess.run([*command, "--seeds", "-3"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 64
    assert "must be a whole number, was '-3'" in wrong.stderr

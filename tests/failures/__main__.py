"""`python -m tests.failures`: F1 to F26, each shown not to happen, and each seen when one line of ours is changed.

Every test runs on the code as it is, where it must pass, and alone on a copy of the product with its mutant, where it
must fail by an assertion of its own. Exit 1 if a test fails, a mutant is not seen, or its text is not there once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.failures import nursery
from tests.failures.catalogue import FAILURES
from tests.failures.plugin import BY_ASSERTION, HOW, MARKED
from tests.mutation import ROOT, Mutant, NotApplicable, mutated

TESTS = "tests/failures"
PLUGIN = ("-q", "--tb=no", "-p", "tests.failures.plugin")
WORKERS, TIMEOUT_S = 2, 240
PASSED, FAILED = 0, 1
"""pytest's exit codes; all others are accidents."""


@dataclass(slots=True)
class Case:
    """One failure: its test, the mutant of its mark, and what became of both."""

    node: str
    mutant: Mutant
    passes: bool = False
    """On the code as it is."""
    seen: bool = False
    """Under its mutant, by an assertion."""
    problems: list[str] = field(default_factory=list)
    how: str = ""
    """What the assertion said."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Passes as it is, fails under its mutant."""
        return self.passes and self.seen and not self.problems


@dataclass(slots=True)
class _Run:
    """A child at work."""

    done: Callable[[int, str], None]
    output: Path
    stack: ExitStack


def told(output: str) -> list[str]:
    """How each failed test of a run failed."""
    return [json.loads(line) for line in re.findall(rf"^{HOW} = (.*)$", output, re.MULTILINE)]


def judged(code: int, output: str) -> tuple[bool, str]:
    """Whether a run under a mutant has seen it, and by what: an assertion, and nothing but assertions."""
    hows = told(output)
    accidents = [how for how in hows if not how.startswith(f"{BY_ASSERTION}: ")]
    if code == PASSED:
        return False, "NOT SEEN: the test passes under its mutant"
    if code != FAILED or not hows or accidents:
        what = accidents[0] if accidents else f"pytest ended with {code}: {(output.splitlines() or [''])[-1]}"
        return False, f"ACCIDENT: {what}"
    return True, hows[0].removeprefix(f"{BY_ASSERTION}: ")


def collected(code: int, output: str) -> dict[str, Case]:
    """The marked tests, by id. A second test of an id is a problem of that id. Raises RuntimeError without any."""
    cases: dict[str, Case] = {}
    for line in re.findall(rf"^{MARKED} = (.*)$", output, re.MULTILINE):
        name, node, mutant = json.loads(line)
        case = cases.setdefault(name, Case(node=node, mutant=Mutant(**mutant)))
        if case.node != node:
            case.problems.append(f"two tests: {case.node} and {node}")
    if code != PASSED or not cases:
        raise RuntimeError(f"the tests could not be collected (pytest ended with {code}):\n{output[-4000:]}")
    return cases


class Runner:
    """Plays runs, some at a time."""

    def __init__(self, workers: int, scratch: Path) -> None:
        self._workers, self._scratch = workers, scratch
        self._running: dict[int, _Run] = {}
        self._count = 0

    def run(self, tree: Path, arguments: Sequence[str], done: Callable[[int, str], None], stack: ExitStack) -> None:
        """Begin one as soon as there is room; `done` gets its exit code and output, then `stack` is closed."""
        while len(self._running) >= self._workers:
            self._end_one()
        self._count += 1
        output = self._scratch / f"{self._count}.txt"
        base = f"--basetemp={self._scratch / str(self._count)}"  # runs side by side must not share pytest's folders
        child = nursery.start(tree, [*PLUGIN, base, *arguments], output, TIMEOUT_S)
        self._running[child] = _Run(done, output, stack)

    def finish(self) -> None:
        """Until all have ended."""
        while self._running:
            self._end_one()

    def _end_one(self) -> None:
        child, code = nursery.wait()
        run = self._running.pop(child)
        with run.stack:
            run.done(code, run.output.read_text(errors="replace"))


def as_it_is(runner: Runner, case: Case) -> None:
    """The test must pass."""

    def done(code: int, output: str) -> None:
        case.passes = code == PASSED
        if not case.passes:
            case.problems.append(f"FAILS AS IT IS: {'; '.join(told(output)) or f'pytest ended with {code}'}")

    runner.run(ROOT, [case.node], done, ExitStack())


def under_its_mutant(runner: Runner, case: Case) -> None:
    """The test must fail."""
    began = time.monotonic()

    def done(code: int, output: str) -> None:
        case.seen, case.how = judged(code, output)
        case.seconds = time.monotonic() - began
        if not case.seen:
            case.problems.append(case.how)

    stack = ExitStack()
    try:
        tree = stack.enter_context(mutated(case.mutant))
    except NotApplicable as error:
        case.problems.append(f"MUTANT DOES NOT APPLY: {error}")
        return
    runner.run(tree, ["-x", case.node], done, stack)


def table_of(cases: Mapping[str, Case], wanted: Sequence[str]) -> Table:
    """One row for each wanted id."""
    table = Table(show_lines=False, expand=True)
    for name in ("id", "failure of others", "invariant", "our mutant", "seen by", "owed"):
        table.add_column(name, overflow="fold")
    table.add_column("s", justify="right")
    for name in wanted:
        case, failure = cases.get(name), FAILURES[name]
        if case is None:
            table.add_row(name, failure.title, failure.invariants, "", "[bold red]no test[/]", failure.owed, "")
            continue
        said = escape(case.how) if case.good else f"[bold red]{escape('; '.join(case.problems))}[/]"
        mutant = f"{case.mutant.path}: {case.mutant.name}"
        table.add_row(name, failure.title, failure.invariants, mutant, said, failure.owed, f"{case.seconds:.0f}")
    return table


def verdict(cases: Mapping[str, Case], wanted: Sequence[str]) -> tuple[str, int]:
    """The last line (`failures 26/26 seen`) and the exit code."""
    seen = sum(name in cases and cases[name].good for name in wanted)
    return f"failures {seen}/{len(wanted)} seen", 0 if seen == len(wanted) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.failures", description=__doc__)
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"processes (default {WORKERS})")
    parser.add_argument("--only", default="", help="ids, separated by commas")
    options = parser.parse_args(arguments)
    wanted = [name for name in FAILURES if not options.only or name in options.only.split(",")]
    began = time.monotonic()
    nursery.prepare()
    cases: dict[str, Case] = {}
    with TemporaryDirectory(prefix="srm-failures-") as scratch:
        runner = Runner(options.workers, Path(scratch))
        runner.run(ROOT, ["--collect-only", TESTS], lambda *run: cases.update(collected(*run)), ExitStack())
        runner.finish()
        for case in [cases[name] for name in wanted if name in cases]:
            as_it_is(runner, case)
            under_its_mutant(runner, case)
        runner.finish()
    Console(width=None if sys.stdout.isatty() else 220).print(table_of(cases, wanted))
    print(f"{time.monotonic() - began:.0f} s")
    line, code = verdict(cases, wanted)
    print(line, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""`make faults`: every fault of the catalogue by id, what is required, what was measured, and whether it is shown.

Runs each test file that marks a test with `@pytest.mark.fault`; exit 1 if an id has no passing test, or a failing one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from simulator.catalogue import CATALOGUE, FaultCase
from tests.faults.marks import FAULT, SECONDS

TESTS = Path(__file__).resolve().parents[1]
CONFIGURATION = TESTS.parent / "pyproject.toml"
MARK = "mark.fault("


@dataclass(slots=True)
class Shown:
    """What the tests of one id came to."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    """Names of tests that failed, or that did not show what they should (skipped, expected to fail)."""
    seconds: list[float] = field(default_factory=list)
    """Virtual seconds measured."""


class Collector:
    """Listens to pytest and files every marked test under its id."""

    def __init__(self) -> None:
        self.shown: dict[str, Shown] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Once for set-up, call and tear-down of each test."""
        found = [str(value) for name, value in report.user_properties if name == FAULT]
        for fault_id in found:
            shown = self.shown.setdefault(fault_id, Shown())
            if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
                shown.passed += 1
                shown.seconds += [float(str(value)) for name, value in report.user_properties if name == SECONDS]
            elif not report.passed or hasattr(report, "wasxfail"):
                shown.failed.append(report.nodeid)


def result_of(case: FaultCase, shown: Shown | None) -> str:
    """The last column: `done`, `done, wire owed to D`, `FAILED` or `missing`."""
    if shown is not None and shown.failed:
        return "FAILED"
    if shown is None or not shown.passed:
        return "missing"
    return f"done, wire owed to {case.owed}" if case.owed else "done"


def verdict(shown: Mapping[str, Shown]) -> tuple[str, int]:
    """The last line (`faults 72/72 (N owed)`) and the exit code."""
    done = sum(result_of(case, shown.get(name)).startswith("done") for name, case in CATALOGUE.items())
    owed = sum(bool(case.owed) for case in CATALOGUE.values())
    return f"faults {done}/{len(CATALOGUE)} ({owed} owed)", 0 if done == len(CATALOGUE) else 1


def table_of(shown: Mapping[str, Shown]) -> Table:
    """One row an id, in the catalogue's order."""
    table = Table(show_lines=False, expand=True)
    for name in ("id", "fault", "level", "required", "bound"):
        table.add_column(name, overflow="fold")
    table.add_column("worst s", justify="right")
    table.add_column("tests", justify="right")
    table.add_column("result", overflow="fold")
    for name, case in CATALOGUE.items():
        found = shown.get(name, Shown())
        result = result_of(case, shown.get(name))
        table.add_row(
            name,
            case.title,
            case.level,
            case.required,
            case.bound,
            f"{max(found.seconds):.2f}" if found.seconds else "",
            str(found.passed),
            result if result.startswith("done") else f"[bold red]{result}[/]",
        )
    return table


def marked_files(root: Path) -> Sequence[str]:
    """Test files below `root` that mark a test with a fault."""
    return [str(path) for path in sorted(root.rglob("test_*.py")) if MARK in path.read_text(encoding="utf-8")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes of pytest-xdist, 0: none (default 2)")
    parser.add_argument("--only", default="", help="an id, to run the tests of that one alone")
    parser.add_argument("--tests", type=Path, default=TESTS, help="where the tests are looked for")
    options = parser.parse_args(arguments)
    collector = Collector()
    files = marked_files(options.tests)
    if files:
        command = ["-q", "-n", str(options.workers), "-c", str(CONFIGURATION)]
        command += ["-p", "tests.faults.plugin", "-m", "fault", *files]
        if options.only:
            command += ["--fault", options.only]
        pytest.main(command, plugins=[collector])
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table_of(collector.shown))
    for name, found in collector.shown.items():
        for nodeid in found.failed:
            console.print(f"{name}: {nodeid} failed", style="red", highlight=False)
    line, code = verdict(collector.shown)
    print(line, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

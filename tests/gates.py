"""`make test`: every gate in order, each with a budget in minutes, and one limit for all (see CONTRIBUTING.md).

A gate over its own budget is reported; the run fails only when a gate fails or the total limit is passed, so that a
slow machine is told apart from a slow test.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
TOTAL_LIMIT_MINUTES = 25.0


@dataclass(frozen=True)
class Gate:
    """One step of `make test`."""

    name: str
    command: tuple[str, ...]
    minutes: float


PYTEST = (str(BIN / "python"), "-m", "pytest", "-q", "-n", "2")
GATES = (
    Gate("format", (str(BIN / "ruff"), "format", "--check", "--quiet", "."), 0.1),
    Gate("lint", (str(BIN / "ruff"), "check", "--quiet", "."), 0.1),
    Gate("types", (str(BIN / "mypy"),), 1.5),
    Gate("import rules", (str(BIN / "lint-imports"), "--no-logo", "--no-cache"), 0.3),
    Gate("unit and properties", (*PYTEST, "tests/unit", "tests/properties", "tests/architecture"), 3.0),
    Gate("contracts", (*PYTEST, "tests/contract"), 2.0),
    Gate("simulation", (*PYTEST, "tests/simulation"), 2.0),
    Gate(
        "integration",
        (
            *PYTEST,
            "tests/integration",
            "--ignore=tests/integration/test_flood.py",
            "--ignore=tests/integration/test_hostile_peers.py",
        ),
        4.0,
    ),
)


def main() -> int:
    """Run all gates; 0 only if each passed within the total limit."""
    rows: list[tuple[Gate, float, int]] = []
    for gate in GATES:
        print(f"\n== {gate.name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(gate.command, cwd=ROOT, check=False).returncode
        rows.append((gate, (time.monotonic() - began) / 60, code))
    total = sum(minutes for _, minutes, _ in rows)
    print(f"\n{'gate':30}{'minutes':>9}{'budget':>9}  result")
    for gate, minutes, code in rows:
        result = "passed" if code == 0 else f"FAILED ({code})"
        late = "  over budget" if minutes > gate.minutes else ""
        print(f"{gate.name:30}{minutes:9.2f}{gate.minutes:9.2f}  {result}{late}")
    print(f"{'total':30}{total:9.2f}{TOTAL_LIMIT_MINUTES:9.2f}")
    failed = [gate.name for gate, _, code in rows if code != 0]
    if total > TOTAL_LIMIT_MINUTES:
        failed.append(f"total of {total:.1f} minutes over the limit of {TOTAL_LIMIT_MINUTES}")
    print(f"gates failed: {', '.join(failed)}" if failed else "all gates passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

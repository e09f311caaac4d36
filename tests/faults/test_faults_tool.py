"""`make faults` itself: an id counts when a test of its own has passed, and not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from simulator.catalogue import CATALOGUE
from tests.faults.__main__ import Shown, marked_files, result_of, verdict

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
import pytest

@pytest.mark.fault("B7")
def test_shown():
    assert True

@pytest.mark.fault("B14")
@pytest.mark.parametrize("fact", [True, False])
def test_shown_half(fact):
    assert fact

@pytest.mark.fault("B19")
@pytest.mark.skip(reason="one day")
def test_not_run():
    assert True
"""


def run(tests: Path, *options: str) -> tuple[int, list[str]]:
    """`python -m tests.faults` on other tests: exit code and lines."""
    command = [sys.executable, "-m", "tests.faults", "--workers", "0", "--tests", str(tests), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout.strip().splitlines()


def test_everything_shown_is_success() -> None:
    """One passed test for each of the 72 ids: the last line says so, and the exit code is 0."""
    shown = {name: Shown(passed=1) for name in CATALOGUE}
    owed = sum(bool(case.owed) for case in CATALOGUE.values())
    assert verdict(shown) == (f"faults 72/72 ({owed} owed)", 0)


@pytest.mark.parametrize("missing", ["B1", "S9", "P26"])
def test_an_id_without_a_passed_test_is_missing(missing: str) -> None:
    """It is named so, and the exit code is 1."""
    shown = {name: Shown(passed=1) for name in CATALOGUE if name != missing}
    assert result_of(CATALOGUE[missing], shown.get(missing)) == "missing"
    line, code = verdict(shown)
    assert line.startswith("faults 71/72 (")
    assert code == 1


def test_one_failed_test_of_several_is_a_failure() -> None:
    """An id is shown only if all its tests pass; what is owed at the wire is said beside it."""
    assert result_of(CATALOGUE["B1"], Shown(passed=3, failed=["one"])) == "FAILED"
    assert result_of(CATALOGUE["B1"], Shown(passed=3)) == "done, wire owed to D"
    assert result_of(CATALOGUE["B7"], Shown(passed=1)) == "done"


def test_a_run_reads_what_the_tests_came_to(tmp_path: Path) -> None:
    """Passed, failed and skipped tests of a real run: done, FAILED, FAILED; all others missing; exit code 1."""
    (tmp_path / "test_small_faults.py").write_text(SMALL, encoding="utf-8")
    (tmp_path / "test_no_faults.py").write_text("def test_nothing(): pass\n", encoding="utf-8")
    assert [Path(name).name for name in marked_files(tmp_path)] == ["test_small_faults.py"]
    code, lines = run(tmp_path)
    assert (code, lines[-1].split(" (")[0]) == (1, "faults 1/72")
    assert sum("FAILED" in line and "│" in line for line in lines) == 2
    assert sum("missing" in line for line in lines) == 69


def test_an_unknown_id_and_a_loose_bound_stop_the_run(tmp_path: Path) -> None:
    """A typing error is no silent success, nor is a bound beyond the catalogue's."""
    for mark in ('fault("B99")', 'fault("B1", bound_s=30)'):
        text = f"import pytest\n\n@pytest.mark.{mark}\ndef test_wrong():\n    pass\n"
        (tmp_path / "test_wrong_mark.py").write_text(text, encoding="utf-8")
        code, lines = run(tmp_path)
        assert code == 1
        assert lines[-1].startswith("faults 0/72")

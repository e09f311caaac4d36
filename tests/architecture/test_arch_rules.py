"""Rules of the house that a tool must keep."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ONLY_IN = {
    "ccxt": ("adapters/ccxt_venue",),
    "sqlalchemy": ("srm_agent/store",),
    "alembic": ("srm_agent/store",),
    "fastapi": ("srm_agent/api",),
    "uvicorn": ("srm_agent/api",),
}


def _sources() -> list[Path]:
    return sorted(path for top in ("srm_agent", "adapters", "simulator") for path in (ROOT / top).rglob("*.py"))


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_in_one_package_only(library: str) -> None:
    """Each outside library has one home, so that it can be replaced in one place."""
    pattern = re.compile(rf"^\s*(?:import|from)\s+{library}\b|import_module\(.{library}\b", re.MULTILINE)
    homes = {str(path.relative_to(ROOT)) for path in _sources() if pattern.search(path.read_text())}
    assert homes, f"{library} is not imported anywhere: take it out of the requirements"
    assert all(home.startswith(ONLY_IN[library]) for home in homes)


def test_the_daemon_imports_no_training_or_display_library() -> None:
    """The wired daemon loads neither scikit-learn, pandas, numpy nor NiceGUI, nor the simulator."""
    code = (
        "import sys, srm_agent.bootstrap, srm_agent.cli;"
        "print([m for m in ('sklearn','pandas','numpy','nicegui','simulator','numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lock_files_have_hashes_and_no_index_address() -> None:
    """Every pinned package has hashes, and no lock file names where it came from."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        pins = re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)
        assert "://" not in text


def test_no_module_holds_two_ideas() -> None:
    """No module of the product is longer than 500 lines."""
    long = {
        str(path.relative_to(ROOT)): lines for path in _sources() if (lines := len(path.read_text().splitlines())) > 500
    }
    assert not long


def test_nothing_unfinished_is_called_done() -> None:
    """No source of the product carries a TODO or a stub."""
    pattern = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [str(path.relative_to(ROOT)) for path in _sources() if pattern.search(path.read_text())]
    assert not found

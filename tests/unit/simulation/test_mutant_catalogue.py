"""The catalogue of mutants follows the code."""

from __future__ import annotations

from pathlib import Path

from simulator.simulation.profiles import PROFILES
from tests.mutants.catalogue import CATALOGUE
from tests.mutation import ROOT, apply


def test_every_mutant_applies_and_has_a_profile(tmp_path: Path) -> None:
    """Each name is unique, its text stands once in the code, and the days aimed at it exist."""
    assert len({one.name for one in CATALOGUE}) == len(CATALOGUE) >= 12
    for one in CATALOGUE:
        assert one.profile in PROFILES, one.name
        copy = tmp_path / one.name / one.mutant.path
        copy.parent.mkdir(parents=True)
        copy.write_bytes((ROOT / "srm_agent" / one.mutant.path).read_bytes())
        apply(one.mutant, tmp_path / one.name)
        compile(copy.read_text(encoding="utf-8"), str(copy), "exec")

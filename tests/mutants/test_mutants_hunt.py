"""The hunt for mutants: what it does not count as a kill."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import main
from tests.mutants.catalogue import Hunted
from tests.mutation import Mutant


def a_hunted(name: str, old: str, new: str) -> Hunted:
    """A mutant of the chaser."""
    mutant = Mutant(name=name, path="execution/chaser.py", old=old, new=new)
    return Hunted(mutant=mutant, profile="replies", why="a test")


def test_only_broken_invariants_kill(capsys: pytest.CaptureFixture[str]) -> None:
    """What harms nothing survives, what dies of itself proves no judge, what cannot be applied is told: exit 1."""
    start = "    async def run(self) -> None:\n"
    hunted = (
        a_hunted("harmless", "TICK_S, IDLE_S = 0.1, 0.3", "TICK_S, IDLE_S = 0.1, 0.31"),
        a_hunted("dies", start, f"{start}        1 / 0\n"),
        a_hunted("left-behind", "this text is nowhere", ""),
    )
    assert main(("--seeds", "1", "--kills", "1", "--jobs", "1"), hunted) == 1
    text = capsys.readouterr().out
    assert text.strip().splitlines()[-1] == "mutants 0/3 killed"
    assert "dies: seed 1: life 1 ended by a defect: ZeroDivisionError" in text
    assert "left-behind could not be played" in text
    assert "not clean" not in text

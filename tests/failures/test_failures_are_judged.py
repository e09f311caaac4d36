"""The tool that tells whether a mutant was seen: only the test's own word counts, and every id has its row."""

from __future__ import annotations

import json

import pytest

from tests.failures.__main__ import Case, collected, judged, verdict
from tests.failures.catalogue import FAILURES
from tests.failures.plugin import HOW, MARKED, how_of
from tests.mutation import ROOT, Mutant, NotApplicable, mutated

MUTANT = {"name": "n", "path": "p.py", "old": "a", "new": "b"}


def said(*hows: str) -> str:
    """What a run prints."""
    return "".join(f"{HOW} = {json.dumps(how)}\n" for how in hows)


@pytest.mark.parametrize(
    ("code", "output", "seen"),
    [
        (1, said("assertion: assert 2 == 1"), True),
        (0, "", False),
        (1, said("call KeyError: x"), False),
        (1, said("setup AssertionError: x"), False),
        (1, said("assertion: x", "teardown RuntimeError: lost in the loop"), False),
        (1, "", False),
        (2, said("assertion: x"), False),
        (-14, "", False),
    ],
)
def test_only_an_assertion_of_the_test_has_seen_a_mutant(code: int, output: str, seen: bool) -> None:
    """A test that passes, breaks by an accident, or never ends has not seen it."""
    assert judged(code, output)[0] is seen


@pytest.mark.parametrize(
    ("error", "when", "by_assertion"),
    [
        (AssertionError("no"), "call", True),
        (pytest.fail.Exception("not within 5 s"), "call", True),
        (AssertionError("no"), "setup", False),
        (SyntaxError("no"), "call", False),
    ],
)
def test_an_accident_is_no_assertion(error: BaseException, when: str, by_assertion: bool) -> None:
    """What a fixture, an import or a defect raises is told as what it is."""
    assert how_of(error, when).startswith("assertion: ") is by_assertion


def test_a_second_test_of_an_id_is_a_problem() -> None:
    """Which of the two would be the one that must fail?"""
    lines = [f"{MARKED} = {json.dumps(['F1', node, MUTANT])}" for node in ("t.py::a", "t.py::a", "t.py::b")]
    cases = collected(0, "\n".join(lines))
    assert cases["F1"].problems == ["two tests: t.py::a and t.py::b"]
    with pytest.raises(RuntimeError):
        collected(2, "an import error")


def test_every_id_must_be_there_pass_and_be_seen() -> None:
    """25 of 26 is exit code 1."""
    cases = {
        name: Case(node="t.py::a", mutant=Mutant(name="n", path="p", old="a", new="b"), passes=True, seen=True)
        for name in FAILURES
    }
    assert verdict(cases, list(FAILURES)) == ("failures 26/26 seen", 0)
    cases["F7"].passes = False
    assert verdict(cases, list(FAILURES)) == ("failures 25/26 seen", 1)
    del cases["F7"]
    assert verdict(cases, list(FAILURES)) == ("failures 25/26 seen", 1)


def test_a_text_that_is_not_there_once_is_an_error() -> None:
    """The code has moved on: the mutant must follow it, not pass silently."""
    there = (ROOT / "srm_agent" / "flow.py").read_text(encoding="utf-8")
    for old in ("nowhere in this module", "\n"):
        assert there.count(old) != 1
        with (
            pytest.raises(NotApplicable, match=r"flow\.py has"),
            mutated(Mutant(name="n", path="flow.py", old=old, new="")),
        ):
            pass

"""The catalogue of faults as data."""

from __future__ import annotations

import re

from simulator.catalogue import CATALOGUE
from simulator.chaos import IDS


def test_it_has_exactly_the_72_faults_in_their_order() -> None:
    """B1-B34, S1-S12, P1-P26, each once."""
    ids = [f"{group}{number}" for group, most in (("B", 34), ("S", 12), ("P", 26)) for number in range(1, most + 1)]
    assert list(CATALOGUE) == ids
    assert len(ids) == 72
    assert all(case.id == name and case.title and case.required and case.bound for name, case in CATALOGUE.items())


def test_bounds_are_numbers_where_the_catalogue_says_seconds() -> None:
    """`bound_s` is the number of the words; without one there is none."""
    assert (CATALOGUE["B10"].bound_s, CATALOGUE["B10"].bound) == (5, "5 s")
    assert (CATALOGUE["B4"].bound_s, CATALOGUE["B7"].bound) == (None, "-")
    for case in CATALOGUE.values():
        if re.fullmatch(r"[\d.]+ s", case.bound):
            assert case.bound_s == float(case.bound.split()[0])


def test_what_is_owed_to_the_wire_is_said() -> None:
    """C owes the five that need MariaDB; D only faults of brokers and their library."""
    owed = {name: case.owed for name, case in CATALOGUE.items() if case.owed}
    assert [name for name, to in owed.items() if to == "C"] == ["P10", "P11", "P12", "P13", "P14"]
    assert all(name.startswith("B") or name == "P26" for name, to in owed.items() if to == "D")


def test_chance_reaches_all_that_the_world_can_do() -> None:
    """Every fault of the broker, and those of machine, store and files that a running world can have."""
    assert IDS[:34] == tuple(f"B{number}" for number in range(1, 35))
    assert IDS[34:] == tuple(f"P{number}" for number in (5, 6, 7, 8, 9, 10, 12, 15, 17, 22, 23, 24, 25))

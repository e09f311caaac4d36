"""pytest plugin: which fault a test shows, and how many seconds its agent needed, go with the test's report.

`tests/faults/conftest.py` uses the checks, `python -m tests.faults` loads the plugin and reads the reports.
"""

from __future__ import annotations

import pytest

from simulator.catalogue import CATALOGUE

FAULT, SECONDS = "fault", "fault seconds"


def fault_of(item: pytest.Item) -> tuple[str, float | None] | None:
    """Id and bound in seconds of the fault that a test is marked with; None without a mark.

    Raises UsageError for an id that the catalogue does not have, and for a bound looser than the catalogue's.
    """
    mark = item.get_closest_marker("fault")
    if mark is None:
        return None
    name = str(mark.args[0]) if mark.args else ""
    case = CATALOGUE.get(name)
    if case is None:
        raise pytest.UsageError(f"{item.nodeid}: fault {name!r} is not in simulator/catalogue.py")
    bound = mark.kwargs.get("bound_s", case.bound_s)
    if bound is not None and case.bound_s is not None and bound > case.bound_s:
        raise pytest.UsageError(f"{item.nodeid}: bound_s={bound:g} is looser than the catalogue's {case.bound_s:g} s")
    return name, None if bound is None else float(bound)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fault ID` runs the tests of one id alone."""
    parser.addoption("--fault", default="", help="an id of simulator/catalogue.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each report tells its fault."""
    only = str(config.getoption("--fault"))
    kept: list[pytest.Item] = []
    for item in items:
        marked = fault_of(item)
        if marked is not None:
            item.user_properties.append((FAULT, marked[0]))
        if not only or (marked is not None and marked[0] == only):
            kept.append(item)
    items[:] = kept

"""How a test names the fault it shows: `@pytest.mark.fault("B1", bound_s=3)`."""

from __future__ import annotations

import pytest

from simulator.catalogue import CATALOGUE

FAULT, SECONDS = "fault", "fault seconds"
"""Properties of a test's report: its id, and how many seconds its agent needed."""


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

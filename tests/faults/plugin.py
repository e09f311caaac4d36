"""pytest plugin of `python -m tests.faults`: each report tells its fault, and the tests of one fault can be chosen."""

from __future__ import annotations

import pytest

from tests.faults.marks import FAULT, fault_of


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

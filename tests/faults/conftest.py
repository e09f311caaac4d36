"""What the tests of the fault catalogue share: `measured` holds a fault's bound and tells the table what was needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.marks import SECONDS, fault_of

Measured = Callable[[float], None]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Call it with the virtual seconds that the required behaviour took: they must be within the fault's bound."""
    marked = fault_of(request.node)
    assert marked is not None, "a measured test is marked with its fault"
    _, bound = marked

    def measure(seconds: float) -> None:
        request.node.user_properties.append((SECONDS, f"{seconds:.3f}"))
        assert bound is None or seconds <= bound, f"took {seconds:.2f} s, the bound is {bound:g} s"

    return measure

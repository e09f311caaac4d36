"""Tests marked with a failure are checked when they are collected; logs are kept, not drawn."""

from __future__ import annotations

import pytest

from tests.failures.plugin import failure_of
from tests.unit.execution.conftest import quiet

__all__ = ["quiet"]


def pytest_configure(config: pytest.Config) -> None:
    """The mark."""
    config.addinivalue_line(
        "markers", "failure(id, mutant): reproduces that failure of others, and fails under the one-line mutant"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A mark that makes no sense is an error of the collection."""
    for item in items:
        failure_of(item)

"""Virtual time for the tests of protection."""

from tests.unit.execution.conftest import pytest_asyncio_loop_factories, quiet

__all__ = ["pytest_asyncio_loop_factories", "quiet"]

"""Virtual time for tests that are coroutines; whole simulations bring a loop of their own."""

from tests.unit.execution.conftest import pytest_asyncio_loop_factories, quiet

__all__ = ["pytest_asyncio_loop_factories", "quiet"]

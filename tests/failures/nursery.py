"""Runs of pytest in children of a process that has the libraries already, so that fifty of them cost seconds.

A child begins without a module of ours, and takes them from the tree it is given.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

LIBRARIES = (
    "aiohttp", "alembic.command", "fastapi", "hypothesis", "prometheus_client", "pydantic_settings", "pytest_asyncio",
    "rich.table", "sqlalchemy", "starlette.applications", "structlog.testing", "uvicorn",
)  # fmt: skip
OURS = ("srm_agent", "adapters", "simulator")


def prepare() -> None:
    """Import what every run needs and none changes. Raises RuntimeError where a module of ours is loaded already."""
    for name in LIBRARIES:
        importlib.import_module(name)
    ours = [name for name in sys.modules if name.partition(".")[0] in OURS]
    if ours:
        raise RuntimeError(f"a child could not take {ours[0]} from its own tree: import nothing of ours here")


def start(tree: Path, arguments: Sequence[str], output: Path, timeout_s: int) -> int:
    """Begin `pytest` with that tree first on the path; the child's process id. SIGALRM ends it after its time."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        signal.alarm(timeout_s)
        os.chdir(tree)
        sys.path[:] = [str(tree), *(entry for entry in sys.path if entry not in ("", str(Path.cwd())))]
        sys.dont_write_bytecode = True
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # What is imported before pytest begins is not rewritten by it: libraries need not be.
        code = int(pytest.main(["-W", "ignore::pytest.PytestAssertRewriteWarning", *arguments]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def wait() -> tuple[int, int]:
    """The next child that ends: its id, and pytest's exit code (negative: the signal that ended it)."""
    child, status = os.wait()
    return child, os.waitstatus_to_exitcode(status)

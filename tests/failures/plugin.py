"""pytest plugin: which failure a test reproduces, by which mutant it is to be seen, and how a test failed.

`tests/failures/conftest.py` uses the checks, `python -m tests.failures` loads the plugin and reads what it prints.
It asserts nothing (PYTEST_DONT_REWRITE: the command has imported it before pytest does).
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict

import pytest

from tests.failures.catalogue import FAILURES
from tests.mutation import Mutant

MARKED, HOW = "failure test", "how it failed"
BY_ASSERTION = "assertion"
"""`HOW` begins with it when the test itself said no; anything else is an accident."""


def failure_of(item: pytest.Item) -> tuple[str, Mutant] | None:
    """Id and mutant of a marked test; None without a mark. Raises UsageError for a mark that makes no sense."""
    mark = item.get_closest_marker("failure")
    if mark is None:
        return None
    name = str(mark.args[0]) if mark.args else ""
    mutant = mark.kwargs.get("mutant")
    if name not in FAILURES:
        raise pytest.UsageError(f"{item.nodeid}: {name!r} is not in tests/failures/catalogue.py")
    if not isinstance(mutant, Mutant):
        raise pytest.UsageError(f"{item.nodeid}: the mark needs mutant=Mutant(...)")
    return name, mutant


def how_of(error: BaseException, when: str) -> str:
    """How a test failed: by an assertion of its own, or by an accident."""
    said = when == "call" and isinstance(error, AssertionError | pytest.fail.Exception)
    text = (str(error).splitlines() or [""])[0]
    return f"{BY_ASSERTION if said else f'{when} {type(error).__name__}'}: {text}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed report tells by what."""
    report = yield
    if call.excinfo is not None and report.failed:
        report.user_properties.append((HOW, how_of(call.excinfo.value, call.when)))
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    """With --collect-only: one line for each marked test."""
    if not session.config.option.collectonly:
        return
    for item in session.items:
        marked = failure_of(item)
        if marked is not None:
            print(f"\n{MARKED} = {json.dumps([marked[0], item.nodeid.partition('[')[0], asdict(marked[1])])}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each failed test, for who runs pytest in another process."""
    for report in (*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")):
        for name, value in getattr(report, "user_properties", ()):
            if name == HOW:
                terminalreporter.write_line(f"{HOW} = {json.dumps(value)}")

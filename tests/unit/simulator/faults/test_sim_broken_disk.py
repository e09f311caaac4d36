"""A directory in memory, and what a disk can do to it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.broken_disk import MemoryFiles
from srm_agent.files import DiskFiles, Files


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_it_behaves_like_the_disk(kind: str, tmp_path: Path) -> None:
    """The same calls give the same texts on both."""
    files: Files = MemoryFiles() if kind == "memory" else DiskFiles(tmp_path)
    assert files.read("a") is None
    files.remove("a")
    files.append("a", "one")
    files.append("a", "two")
    assert files.read("a") == "one\ntwo\n"
    files.replace("a", "three")
    assert files.read("a") == "three"
    files.append("a", "four")
    assert files.read("a") == "threefour\n"
    files.remove("a")
    assert files.read("a") is None
    assert files.where("a").endswith("a")


@pytest.mark.parametrize(
    ("fault", "code", "readable"),
    [
        pytest.param(lambda files: files.faults.fill(5), errno.ENOSPC, True, id="disk full"),
        pytest.param(lambda files: files.faults.write_protect(5), errno.EROFS, True, id="read-only"),
        pytest.param(lambda files: files.faults.fail(5), errno.EIO, False, id="EIO"),
    ],
)
async def test_writes_fail_whole_and_for_a_while(
    fault: Callable[[MemoryFiles], None], code: int, readable: bool
) -> None:
    """Every write is an OSError that changes nothing; afterwards all is as before (P7, P8)."""
    files = MemoryFiles()
    files.replace("a", "old")
    fault(files)
    assert not files.faults.well
    writes: list[Callable[[], None]] = [
        lambda: files.replace("a", "new"),
        lambda: files.append("a", "x"),
        lambda: files.remove("a"),
    ]
    for write in writes:
        with pytest.raises(OSError, match="a") as refused:
            write()
        assert refused.value.errno == code
    if readable:
        assert files.read("a") == "old"
    else:
        with pytest.raises(OSError, match="a"):
            files.read("a")
    await asyncio.sleep(5)
    assert (files.read("a"), files.faults.well) == ("old", True)


def test_a_line_may_be_torn() -> None:
    """Half of it stands there without an end, and the next line follows on it (P8)."""
    files = MemoryFiles()
    files.append("a", "first")
    files.faults.tear()
    with pytest.raises(OSError, match="a"):
        files.append("a", "abcdef")
    assert files.read("a") == "first\nabc"
    files.append("a", "last")
    assert files.read("a") == "first\nabclast\n"


def test_a_crash_tears_the_last_line() -> None:
    """What was whole before stays whole; nothing to tear is said."""
    files = MemoryFiles()
    files.append("a", "first")
    files.append("a", "abcdef")
    assert files.tear_end("a")
    assert files.read("a") == "first\nabc"
    assert not files.tear_end("none")


async def test_a_mended_disk_works() -> None:
    """All at once and for good."""
    files = MemoryFiles()
    files.faults.fill()
    files.faults.write_protect()
    files.faults.fail()
    files.faults.tear(5)
    files.faults.mend()
    files.append("a", "line")
    assert files.read("a") == "line\n"

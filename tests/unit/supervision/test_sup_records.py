"""The record of starts, the spool, the fuse before learning, and the pipe of log lines."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import ProtectionMark
from srm_agent.domain.ids import ConnectionId, ProviderKey
from srm_agent.files import DiskFiles
from srm_agent.learning.score import PosteriorScorer, ScoreSettings
from srm_agent.learning.slippage_prior import ScalePriorForecaster
from srm_agent.log_pipe import LogPipe
from srm_agent.supervision import spool as spool_file
from srm_agent.supervision import starts as start_file
from srm_agent.supervision.learning_fuse import Fuse, FusedForecaster, FusedScorer
from srm_agent.supervision.spool import Spool, Spooled
from srm_agent.supervision.starts import StartRecord
from tests.unit.execution.conftest import a_leg

C01 = ConnectionId("c01")
ALPHA = ProviderKey.parse("alpha")


# ---- starts


@pytest.mark.fault("P18")
def test_the_start_after_four_failures_is_a_guard(tmp_path: Path, clock: ManualClock) -> None:
    """Four starts within ten minutes that did not end in order make the fifth a guard, and say so."""
    for _ in range(4):
        assert StartRecord(DiskFiles(tmp_path), clock, 4).begin() == ""
        clock.advance(100)
    assert StartRecord(DiskFiles(tmp_path), clock, 4).begin() == "4 starts within 10 minutes did not end in order"


def test_orderly_ends_and_old_failures_do_not_count(tmp_path: Path, clock: ManualClock) -> None:
    """Nine starts that ended in order, and three crashes long ago: the next start is whole."""
    for _ in range(9):
        record = StartRecord(DiskFiles(tmp_path), clock, 4)
        assert record.begin() == ""
        record.end()
    for _ in range(3):
        StartRecord(DiskFiles(tmp_path), clock, 4).begin()
    clock.advance(start_file.WINDOW_S + 1)
    StartRecord(DiskFiles(tmp_path), clock, 4).begin()
    assert StartRecord(DiskFiles(tmp_path), clock, 4).begin() == ""
    assert len(json.loads((tmp_path / start_file.FILE).read_text())) == 2


def test_a_wall_clock_set_back_hides_no_crash(tmp_path: Path, clock: ManualClock) -> None:
    """Failures that lie five minutes in the future after a step back still count (P5)."""
    for _ in range(4):
        StartRecord(DiskFiles(tmp_path), clock, 4).begin()
        clock.advance(1)
    clock._wall -= timedelta(minutes=5)
    assert "4 starts" in StartRecord(DiskFiles(tmp_path), clock, 4).begin()


def test_nought_switches_the_guard_off(tmp_path: Path, clock: ManualClock) -> None:
    """With 0 failures configured no start is ever a guard, not even with a broken record."""
    for _ in range(20):
        assert StartRecord(DiskFiles(tmp_path), clock, 0).begin() == ""
    (tmp_path / start_file.FILE).write_text("{")
    assert StartRecord(DiskFiles(tmp_path), clock, 0).begin() == ""


@pytest.mark.parametrize("text", ["{", "[1]", '["yesterday"]', "7"], ids=["torn", "number", "words", "no list"])
def test_a_record_that_cannot_be_read_counts_as_failures(tmp_path: Path, clock: ManualClock, text: str) -> None:
    """What is not known to be well is not well: guard mode, and the record is written anew."""
    (tmp_path / start_file.FILE).write_text(text)
    assert "could not be read" in StartRecord(DiskFiles(tmp_path), clock, 4).begin()
    assert StartRecord(DiskFiles(tmp_path), clock, 4).begin() == ""


# ---- spool


def _row(clock: ManualClock) -> Spooled:
    mark = ProtectionMark(
        connection_id=C01, high_water_mark=Decimal("10000.5"), start_equity=Decimal(9000), day="2026-01-05",
        day_base=Decimal("1E+4"), last_flow_at=None, updated_at=clock.wall(),
    )  # fmt: skip
    leg = replace(a_leg(), opened_at=clock.wall(), take_profit=None)
    return Spooled(connection_id=C01, mark=mark, legs=(leg,), fills=("f1", "f2"))


def test_a_spool_is_read_as_it_was_written(tmp_path: Path, clock: ManualClock) -> None:
    """Legs, marks and fills come back equal, decimals and times exact."""
    row = _row(clock)
    Spool(DiskFiles(tmp_path)).write([row])
    assert Spool(DiskFiles(tmp_path)).read() == {C01: row}


def test_a_spool_is_written_only_when_something_changed(tmp_path: Path, clock: ManualClock) -> None:
    """The same rows twice touch the disk once."""
    spool, path = Spool(DiskFiles(tmp_path)), tmp_path / spool_file.FILE
    spool.write([_row(clock)])
    path.unlink()
    spool.write([_row(clock)])
    assert not path.exists()
    spool.write([replace(_row(clock), fills=())])
    assert path.exists()


@pytest.mark.parametrize("text", ["{", "[{}]", '[{"connection_id": 1}]'], ids=["torn", "empty row", "wrong type"])
def test_a_damaged_spool_tells_nothing(tmp_path: Path, text: str) -> None:
    """It is not believed in part: nothing is known then, and equity alone is guarded."""
    (tmp_path / spool_file.FILE).write_text(text)
    assert Spool(DiskFiles(tmp_path)).read() == {}


@pytest.mark.fault("P7")
def test_a_disk_that_fails_stops_no_trade(tmp_path: Path, clock: ManualClock) -> None:
    """Writing raises nothing, and is done as soon as the disk takes it."""
    folder = tmp_path / "gone"
    spool = Spool(DiskFiles(folder))
    spool.write([_row(clock)])
    folder.mkdir()
    spool.write([_row(clock)])
    assert Spool(DiskFiles(folder)).read() == {C01: _row(clock)}


# ---- fuse


class Broken:
    """Learning with a defect in everything."""

    def __getattr__(self, name: str) -> Any:
        def fails(*_: Any) -> Any:
            raise ZeroDivisionError(name)

        return fails


@pytest.mark.fault("P20")
def test_a_defect_in_learning_blows_the_fuse(clock: ManualClock) -> None:
    """The spare answers with the prior, nothing is raised, and the reason stands until it is mended (P20)."""
    fuse, broken = Fuse(), Broken()
    spare = PosteriorScorer(ScoreSettings(half_life_weeks=26.0))
    scorer = FusedScorer(broken, spare, fuse)
    assert scorer.score(ALPHA) == spare.score(ALPHA)
    assert "ZeroDivisionError" in fuse.reason
    first = fuse.reason
    FusedForecaster(broken, ScalePriorForecaster(), fuse, clock).observe(None)  # type: ignore[arg-type]
    assert fuse.reason == first
    fuse.mend()
    FusedForecaster(broken, ScalePriorForecaster(), fuse, clock).observe(None)  # type: ignore[arg-type]
    assert "failed to learn" in fuse.reason


def test_a_blown_fuse_keeps_the_real_ones_untouched() -> None:
    """What is not asked cannot fail: guard mode never calls what may have crashed its predecessors."""
    fuse = Fuse()
    fuse.blow("guard mode")
    spare = PosteriorScorer(ScoreSettings(half_life_weeks=26.0))
    assert FusedScorer(Broken(), spare, fuse).observe(type("T", (), {"provider": ALPHA})()) == spare.score(ALPHA)
    assert fuse.reason == "guard mode"


# ---- log pipe


class Slow(io.StringIO):
    """A sink that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.asked = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        """Wait, then take it."""
        self.asked.set()
        self.free.wait(10)
        return super().write(text)


@pytest.mark.fault("P25")
def test_a_blocked_sink_blocks_nobody_and_losses_are_counted() -> None:
    """1,000 lines into a blocked pipe return at once; what did not fit is dropped, counted and told later (P25)."""
    sink = Slow()
    pipe = LogPipe(sink, longest=100)
    pipe.write("first\n")
    assert sink.asked.wait(5)
    for number in range(1000):
        pipe.write(f"line {number}\n")
    assert pipe.dropped == 900
    sink.free.set()
    pipe.close()
    lines = sink.getvalue().splitlines()
    assert lines[:2] == ["first", "line 0"]
    assert json.loads(lines[-1]) == {"event": "log lines dropped", "level": "warning", "count": 900}
    assert len(lines) == 102


@pytest.mark.fault("P25")
def test_a_sink_that_fails_harms_nobody() -> None:
    """The reader is gone: lines are lost and counted, no call raises, and the end comes."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError("gone")

    pipe = LogPipe(Gone())
    pipe.write("a\n")
    pipe.close()
    assert pipe.dropped == 1

"""The dispatcher in virtual time: who gets an alert, when, and what happens when nobody takes it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from srm_agent.alerts.dispatcher import AlertDispatcher, AlertRules
from srm_agent.alerts.journal import FILE, OLDER, AlertFile
from srm_agent.alerts.sink import Sink, SinkFailed
from srm_agent.clock import ManualClock
from srm_agent.domain.ids import ConnectionId
from srm_agent.files import DiskFiles, Files
from tests.unit.execution.conftest import START, LoopClock


class Post:
    """A sink in hand: `answer` says how long a try takes and whether it is taken."""

    def __init__(self, name: str, answer: Callable[[int], tuple[float, bool]] = lambda _: (0.01, True)) -> None:
        self.name = name
        self.answer = answer
        self.tries = 0
        self.taken: list[tuple[float, dict[str, object]]] = []
        self.closed = False

    async def post(self, text: str) -> None:
        """As long as told, at most the two seconds of a real sink."""
        self.tries += 1
        wait_s, takes = self.answer(self.tries)
        await asyncio.sleep(min(wait_s, 2.0))
        if not takes or wait_s > 2.0:
            raise SinkFailed("told to")
        self.taken.append((LoopClock().monotonic(), json.loads(text)))

    async def close(self) -> None:
        """Remember."""
        self.closed = True

    def titles(self) -> list[object]:
        """What it took, in order."""
        return [alert["title"] for _, alert in self.taken]


class BrokenFiles:
    """A disk that is full for a while."""

    def __init__(self, inner: Files) -> None:
        self.inner, self.full = inner, True

    def read(self, name: str) -> str | None:
        """As the disk."""
        return self.inner.read(name)

    def replace(self, name: str, text: str) -> None:
        """As the disk."""
        self.inner.replace(name, text)

    def append(self, name: str, line: str) -> None:
        """Refused while full."""
        if self.full:
            raise OSError(28, "No space left on device")
        self.inner.append(name, line)

    def remove(self, name: str) -> None:
        """As the disk."""
        self.inner.remove(name)

    def where(self, name: str) -> str:
        """As the disk."""
        return self.inner.where(name)


def dispatcher(files: Files, *sinks: Sink, **rules: object) -> AlertDispatcher:
    """One with these sinks."""
    return AlertDispatcher(
        LoopClock(),
        files=files,
        sinks=sinks,
        rng=random.Random(1),
        rules=AlertRules(**rules),  # type: ignore[arg-type]
    )


def lines(home: Path) -> list[dict[str, object]]:
    """The file's alerts."""
    return [json.loads(line) for line in (home / FILE).read_text().splitlines()]


async def test_an_alert_reaches_file_and_sink_as_it_was_told(tmp_path: Path) -> None:
    """Every field arrives; `text` says it in one line for chat programs."""
    post = Post("first")
    told = dispatcher(DiskFiles(tmp_path), post, agent="srm-1")
    told.notify("page", "emergency close", "drawdown 21 %", ConnectionId("main"))
    await told.close()
    ((_, alert),) = post.taken
    assert alert == {
        "id": "srm-1-2026-01-05T11:00:00.000Z-1",
        "agent": "srm-1",
        "at": "2026-01-05T11:00:00.000Z",
        "level": "page",
        "title": "emergency close",
        "message": "drawdown 21 %",
        "connection": "main",
        "count": 1,
        "text": "srm-1 page [main] emergency close: drawdown 21 %",
    }
    assert lines(tmp_path) == [alert]
    assert post.closed


async def test_a_notice_is_kept_and_not_posted(tmp_path: Path) -> None:
    """Below `level` an alert goes to the log and the file only."""
    post = Post("first")
    told = dispatcher(DiskFiles(tmp_path), post)
    told.notify("notice", "small", "x")
    told.notify("warning", "grave", "x")
    await told.close()
    assert post.titles() == ["grave"]
    assert [line["title"] for line in lines(tmp_path)] == ["small", "grave"]


@pytest.mark.parametrize(
    ("first", "bound_s"),
    [
        pytest.param(lambda _: (0.01, False), 0.1, id="refuses"),
        pytest.param(lambda _: (60.0, False), 0.7, id="hangs"),
    ],
)
@pytest.mark.fault("P24")
async def test_when_the_first_sink_is_down_the_second_gets_it(
    first: Callable[[int], tuple[float, bool]], bound_s: float, tmp_path: Path
) -> None:
    """P24: at once after a refusal, after 0.6 s of silence; the file has it in any case."""
    down, second = Post("first", first), Post("second")
    told = dispatcher(DiskFiles(tmp_path), down, second)
    began = LoopClock().monotonic()
    told.notify("page", "help", "x")
    await asyncio.sleep(3)
    assert second.titles() == ["help"]
    assert second.taken[0][0] - began <= bound_s
    assert [line["title"] for line in lines(tmp_path)] == ["help"]
    await told.close()


async def test_a_sink_that_stays_down_is_told_of_and_then_asked_last(tmp_path: Path) -> None:
    """After three failures in a row the other sink hears so, and later alerts no longer wait for the dead one."""
    down, second = Post("first", lambda _: (60.0, False)), Post("second")
    told = dispatcher(DiskFiles(tmp_path), down, second)
    for number in range(6):
        told.notify("page", f"help {number}", "x")
        await asyncio.sleep(3)
    assert "alert sink down" in second.titles()
    assert told.sinks() == [("first", False), ("second", True)]
    began = LoopClock().monotonic()
    told.notify("page", "late", "x")
    await asyncio.sleep(0.1)
    assert second.titles()[-1] == "late"
    assert second.taken[-1][0] - began < 0.05
    await told.close()


async def test_a_sink_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """After its rest the first sink is asked first again, and stands as up after the first success."""
    first = Post("first", lambda n: (0.01, n > 3))
    second = Post("second")
    told = dispatcher(DiskFiles(tmp_path), first, second)
    for number in range(8):
        told.notify("page", f"help {number}", "x")
        await asyncio.sleep(6)
    assert told.sinks() == [("first", True), ("second", True)]
    assert first.titles()[-1] == "help 7"
    await told.close()


@pytest.mark.fault("P24")
async def test_what_nobody_takes_is_offered_again_until_somebody_does(tmp_path: Path) -> None:
    """Ten minutes without any sink: all alerts wait, and arrive once each within half a minute of the return."""
    lost = True
    posts = [Post(name, lambda _: (0.01, not lost)) for name in ("first", "second")]
    told = dispatcher(DiskFiles(tmp_path), *posts)
    for number in range(20):
        told.notify("page", f"help {number}", "x")
    await asyncio.sleep(600)
    assert told.waiting() >= 20
    lost = False
    await asyncio.sleep(35)
    arrived = [title for post in posts for title in post.titles() if str(title).startswith("help")]
    assert sorted(map(str, arrived)) == sorted(f"help {number}" for number in range(20))
    assert told.waiting() == 0
    await told.close()


async def test_the_queue_is_bounded_keeps_the_gravest_and_says_what_it_dropped(tmp_path: Path) -> None:
    """With no sink for a while and more alerts than places, warnings give way to pages, and the loss is told."""
    lost = True
    post = Post("first", lambda _: (0.01, not lost))
    told = dispatcher(DiskFiles(tmp_path), post, max_waiting=10)
    for number in range(30):
        told.notify("warning", f"small {number}", "x")
        await asyncio.sleep(0.01)
    for number in range(8):
        told.notify("page", f"grave {number}", "x")
        await asyncio.sleep(0.01)
    assert told.waiting() <= 10 + 8
    lost = False
    await asyncio.sleep(60)
    assert {f"grave {number}" for number in range(8)} <= set(map(str, post.titles()))
    assert "alerts were dropped" in post.titles()
    assert len([line for line in lines(tmp_path) if line["level"] == "page"]) == 8
    await told.close()


async def test_a_storm_is_a_handful_of_posts(tmp_path: Path) -> None:
    """Ten thousand equal alerts within two seconds: one at once, one with the count before five seconds are over."""
    post = Post("first")
    told = dispatcher(DiskFiles(tmp_path), post)
    began = LoopClock().monotonic()
    for _ in range(200):
        for _ in range(50):
            told.notify("warning", "stream broken", "x", ConnectionId("c1"))
        await asyncio.sleep(0.01)
    await asyncio.sleep(3)
    assert [alert["count"] for _, alert in post.taken] == [1, 9_999]
    assert post.taken[1][0] - began < 5
    assert len(lines(tmp_path)) == 2
    await told.close()


async def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    """P7: while the file cannot be written alerts are posted; when it can, lines are there again."""
    files, post = BrokenFiles(DiskFiles(tmp_path)), Post("first")
    told = dispatcher(files, post)
    told.notify("page", "one", "x")
    await asyncio.sleep(1)
    files.full = False
    told.notify("page", "two", "x")
    await told.close()
    assert post.titles() == ["one", "two"]
    assert [line["title"] for line in lines(tmp_path)] == ["two"]


async def test_closing_posts_what_waits_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A daemon that ends gives its last alerts two seconds; a hanging sink cannot hold it."""
    post, hanging = Post("first"), Post("dead", lambda _: (60.0, False))
    told, stuck = dispatcher(DiskFiles(tmp_path), post), dispatcher(DiskFiles(tmp_path), hanging)
    told.notify("page", "last words", "x")
    await told.close()
    assert post.titles() == ["last words"]
    stuck.notify("page", "unheard", "x")
    began = LoopClock().monotonic()
    await stuck.close(within_s=2.0)
    assert LoopClock().monotonic() - began <= 2.0
    await stuck.close()
    assert [line["title"] for line in lines(tmp_path)] == ["last words", "unheard"]


async def test_secrets_are_taken_out_of_every_text(tmp_path: Path) -> None:
    """INV-16: what `clean` knows appears neither in memory nor in the file nor at the sink."""
    post = Post("first")
    told = AlertDispatcher(
        LoopClock(),
        files=DiskFiles(tmp_path),
        sinks=[post],
        rng=random.Random(1),
        clean=lambda text: text.replace("CANARY", "[hidden]"),
    )
    told.notify("page", "not authorised", "key CANARY refused")
    await told.close()
    assert "CANARY" not in (tmp_path / FILE).read_text() + str(post.taken) + str(told.recent)
    assert post.taken[0][1]["message"] == "key [hidden] refused"


def test_without_a_loop_an_alert_is_remembered_and_waits(tmp_path: Path) -> None:
    """`notify` never raises: before the loop runs it is in the log, in memory and in the queue."""
    told = AlertDispatcher(ManualClock(START), files=DiskFiles(tmp_path), rng=random.Random(1))
    told.notify("page", "early", "x")
    assert [alert.title for alert in told.recent] == ["early"]
    assert told.waiting() == 1


def test_the_file_of_alerts_turns_over(tmp_path: Path) -> None:
    """At its bound the file becomes the older one; two files at most, no line lost between them."""
    file = AlertFile(DiskFiles(tmp_path), largest_bytes=1_000)
    for number in range(60):
        assert file.write([f'{{"n":{number},"pad":"{"x" * 30}"}}'])
    both = (tmp_path / OLDER).read_text() + (tmp_path / FILE).read_text()
    numbers = [json.loads(line)["n"] for line in both.splitlines()]
    assert numbers == list(range(numbers[0], 60))
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 1_200


def test_a_restart_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """A new process counts what is there before it appends."""
    for number in range(2):
        AlertFile(DiskFiles(tmp_path)).write([f'{{"n":{number}}}'])
    assert [line["n"] for line in lines(tmp_path)] == [0, 1]

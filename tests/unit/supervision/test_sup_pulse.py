"""Heartbeat, health, watchdog, and what the manager hears."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from srm_agent.clock import ManualClock, SystemClock
from srm_agent.supervision.health import Vitals, illness
from srm_agent.supervision.notify import NoManager, SystemdManager, manager_of
from srm_agent.supervision.pulse import BEAT_S, Pulse
from srm_agent.supervision.stall import TracebackDump
from srm_agent.supervision.watchdog import Watchdog

if TYPE_CHECKING:
    from tests.unit.supervision.conftest import Told

WELL = Vitals(lag_s=0.0, reconcile_age_s={"c01": 1.0}, dead=())


@pytest.mark.parametrize(
    ("vitals", "words"),
    [
        (WELL, ""),
        (Vitals(lag_s=1.99, reconcile_age_s={}, dead=()), ""),
        (Vitals(lag_s=2.0, reconcile_age_s={}, dead=()), "2.0 s late"),
        (Vitals(lag_s=0, reconcile_age_s={"c01": 29.9}, dead=()), ""),
        (Vitals(lag_s=0, reconcile_age_s={"c01": 1, "c02": 30}, dead=()), "c02 30 s ago"),
        (Vitals(lag_s=0, reconcile_age_s={}, dead=("market bybit",)), "critical task ended: market bybit"),
    ],
    ids=["well", "a little late", "late", "reconcile in time", "one reconcile loop hangs", "a task is dead"],
)
def test_illness_has_a_name(vitals: Vitals, words: str) -> None:
    """Lag from 2 s, a reconcile loop from 30 s, any dead task: and nothing else is an illness."""
    said = illness(vitals)
    assert bool(said) is bool(words)
    assert words in said


def test_a_pulse_knows_how_late_it_is(clock: ManualClock) -> None:
    """Lag is what goes beyond the planned pause; the first beat is never late."""
    pulse = Pulse(clock)
    assert pulse.beat() == 0
    clock.advance(BEAT_S)
    assert pulse.beat() == 0
    clock.advance(BEAT_S + 3)
    assert pulse.beat() == pytest.approx(3)
    assert pulse.worst_s == pytest.approx(3)


def test_a_suspended_host_shows_on_the_wall_clock_alone(clock: ManualClock) -> None:
    """CLOCK_MONOTONIC stands still in a suspend: the wall tells, and whoever asks before the next beat is told (P6)."""
    pulse = Pulse(clock)
    pulse.beat()
    clock._wall += timedelta(minutes=10)
    assert pulse.stands_still()
    assert pulse.beat() == pytest.approx(600 - BEAT_S)
    assert not pulse.stands_still()


@pytest.mark.fault("P5")
def test_a_wall_clock_set_back_is_no_standstill(clock: ManualClock) -> None:
    """One hour back: ages go on by the monotonic clock (P5)."""
    pulse = Pulse(clock)
    pulse.beat()
    clock.advance(BEAT_S)
    clock._wall -= timedelta(hours=1)
    assert not pulse.stands_still()
    assert pulse.beat() == 0


def test_the_watchdog_is_fed_three_times_a_period_while_well(clock: ManualClock, manager: Told) -> None:
    """Well: every second of a period of three. Ill: not at all, with the illness in the status. Well again: fed."""
    watchdog = Watchdog(manager, clock)
    for _ in range(20):
        watchdog.feel(WELL, "fine")
        clock.advance(BEAT_S)
    assert manager.lines.count("ALIVE") == 10
    assert manager.lines.count("STATUS fine") == 1
    manager.lines.clear()
    for _ in range(20):
        watchdog.feel(Vitals(lag_s=9, reconcile_age_s={}, dead=()), "fine")
        clock.advance(BEAT_S)
    assert manager.lines == ["STATUS NOT WELL: the event loop was 9.0 s late; fine"]
    watchdog.feel(WELL, "fine")
    assert manager.lines[-2:] == ["ALIVE", "STATUS fine"]


def test_nobody_is_fed_where_nobody_watches(clock: ManualClock, manager: Told) -> None:
    """Without WATCHDOG_USEC only the status is told."""
    manager.watchdog_s = None
    Watchdog(manager, clock).feel(WELL, "fine")
    assert manager.lines == ["STATUS fine"]


class Ear:
    """A notify socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Datagrams since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Stop."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def ear(request: pytest.FixtureRequest) -> Iterator[tuple[str, Ear]]:
    """An address and who listens there."""
    name = f"srm-{os.getpid()}-{request.param}"
    address = f"/tmp/{name}" if request.param == "path" else f"@{name}"
    made = Ear(address)
    yield address, made
    made.close()
    if request.param == "path":
        Path(address).unlink()


def test_the_words_of_sd_notify(ear: tuple[str, Ear]) -> None:
    """Each message is one datagram in the words of sd_notify(3); a status is one line."""
    address, listener = ear
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "15000000", "WATCHDOG_PID": "7"}
    manager = manager_of(environment, pid=7)
    assert isinstance(manager, SystemdManager)
    assert manager.watchdog_s == 15
    manager.ready("two\nlines")
    manager.status("s")
    manager.alive()
    manager.reloading(1.5)
    manager.stopping()
    heard = listener.heard()
    assert heard[:4] == [
        "READY=1\nSTATUS=two lines",
        "STATUS=s",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=1500000",
    ]
    assert heard[4].startswith("STOPPING=1\nSTATUS=")
    manager.close()


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, None),
    ],
    ids=["unset", "nought", "no number", "for anybody", "for another process"],
)
def test_the_watchdog_is_meant_for_us_or_not(environment: dict[str, str], watched: float | None) -> None:
    """WATCHDOG_USEC counts only when it is a number, and WATCHDOG_PID is ours or absent."""
    manager = manager_of({"NOTIFY_SOCKET": "@srm-nobody", **environment}, pid=7)
    assert isinstance(manager, SystemdManager)
    assert manager.watchdog_s == watched
    manager.close()


def test_without_a_manager_nothing_is_sent() -> None:
    """No NOTIFY_SOCKET, or one of another kind: NoManager, which takes every call."""
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        manager = manager_of(environment, pid=1)
        assert isinstance(manager, NoManager)
        manager.ready("x")
        manager.alive()


def test_a_manager_that_is_gone_harms_nobody() -> None:
    """The socket has no reader any more: no call raises."""
    manager = SystemdManager("@srm-nobody-listens-here", 1.0)
    manager.alive()
    manager.ready("x")
    manager.close()


@pytest.mark.fault("P17")
def test_a_blocked_loop_is_not_fed_and_is_dumped(tmp_path: Path) -> None:
    """A real loop blocked by time.sleep sends no WATCHDOG, its stack is dumped meanwhile, and it is fed when well."""
    address = f"@srm-{os.getpid()}-blocked"
    listener, clock, manager = Ear(address), SystemClock(), SystemdManager(address, 0.6)
    with (tmp_path / "dump").open("w") as dump:
        watchdog = Watchdog(manager, clock, TracebackDump(0.8, dump))
        pulse = Pulse(clock)
        fed: list[list[str]] = []

        async def beats(count: int) -> list[str]:
            for _ in range(count):
                watchdog.feel(Vitals(lag_s=pulse.beat(), reconcile_age_s={}, dead=()), "s")
                await asyncio.sleep(BEAT_S / 4)
            return [line for line in listener.heard() if line == "WATCHDOG=1"]

        async def story() -> None:
            fed.append(await beats(4))
            time.sleep(2.6)  # noqa: ASYNC251  # the point of this test
            fed.append(await beats(1))
            fed.append(await beats(4))

        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(story())
        watchdog.stopping()
    listener.close()
    manager.close()
    assert fed[0]
    assert fed[1] == []
    assert fed[2]
    text = (tmp_path / "dump").read_text()
    assert "Timeout" in text
    assert "story" in text


@pytest.mark.fault("P17")
def test_beats_are_near_enough_to_feed_in_time() -> None:
    """With the unit's 15 s, a feed every 5 s leaves two chances."""
    clock, period = ManualClock(SystemClock().wall()), 15.0
    times: list[float] = []

    class Fed(NoManager):
        watchdog_s: float | None = period

        def alive(self) -> None:
            times.append(clock.monotonic())

    watchdog = Watchdog(Fed(), clock)
    for _ in range(200):
        watchdog.feel(WELL, "")
        clock.advance(BEAT_S)
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= period / 2

"""P1-P4, P17, P18, P22-P26: what happens to the process itself. Scenes of the whole agent in virtual time.

On real processes: tests/soak (kill -9 at every crash point), tests/integration/test_supervision.py (signals, READY,
WATCHDOG, two daemons). What the machine does to it is in test_fault_machine.py.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from decimal import Decimal
from pathlib import Path

import pytest

from simulator.simulation.loop import LIFE
from simulator.simulation.scene import C01, C02, C03, Scene, act
from simulator.simulation.server import ConnectionRefused
from simulator.spells import Message
from srm_agent import failpoints
from srm_agent.domain.accounts import ConnectionState
from srm_agent.settings import Settings
from srm_agent.supervision.reload import Reloader
from tests.faults.conftest import Measured
from tests.faults.helpers import broker, desk, entry_calls, state, stop, told
from tests.faults.letters import ask, body

RESTART_S = 2.0
"""RestartSec of the unit."""
UNITS = Path(__file__).resolve().parents[2] / "systemd"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No crash point stays armed."""
    yield
    failpoints.arm(None)


def changed(settings: Settings) -> Settings:
    """The same with another ceiling of open risk in every policy."""
    text = settings.model_dump()
    for policy in text["policies"].values():
        policy["limits"]["max_open_risk"] = Decimal("0.1")
    return Settings.model_validate(text)


def kill_at(scene: Scene, point: str) -> None:
    """SIGKILL as soon as the living process comes by that crash point."""
    process = scene.process

    def reached(which: str) -> None:
        if which == point and process.alive and LIFE.get() == process.number:
            process.kill(point)
            if asyncio.current_task() is not None:
                raise asyncio.CancelledError(point)

    failpoints.arm(reached)


async def back_again(scene: Scene) -> float:
    """What systemd does after a crash; seconds from birth to ready."""
    await asyncio.sleep(RESTART_S)
    await scene.start()
    scene.world.look()
    life = scene.world.lives[-1]
    assert life.ready is not None
    return life.ready - life.born


async def unanswered(asked: Awaitable[object]) -> None:
    """Ask; whether an answer comes does not matter."""
    with suppress(ConnectionRefused):
        await asked


async def flat(scene: Scene) -> None:
    """c01 has nothing left."""
    await scene.until(lambda: not scene.venue.positions(C01), 10)
    await scene.until(lambda: state(scene) is ConnectionState.HALTED, 10)


# ---- P1

ENTERING = ("CP1", "CP2", "CP3", "CP4", "CP5", "CP6")


@pytest.mark.fault("P1", bound_s=10)
@pytest.mark.parametrize("point", ENTERING)
def test_killed_on_the_way_of_an_entry(point: str, measured: Measured) -> None:
    """The provider repeats what was not answered: one entry per follower with its stop, or none at all for an order
    that had not left within its two seconds (CP3)."""

    async def play(scene: Scene) -> float:
        kill_at(scene, point)
        data = body(scene)
        await unanswered(ask(scene.process, scene, data, "msg"))
        await scene.until(lambda: not scene.process.alive, 30)
        took = await back_again(scene)
        assert (await ask(scene.process, scene, data, "msg"))[0] == 202
        await scene.until(lambda: not desk(scene).ledger.unsettled(), 15)
        await asyncio.sleep(5)
        sent = 0 if point == "CP3" else 1
        assert [len(scene.entries(one)) for one in (C01, C02)] == [sent, sent]
        assert [len(scene.reasons(one)) for one in (C01, C02)] == [1, 1]
        if sent:
            assert scene.lots(C01)
            assert stop(scene) is not None
        assert scene.world.lives[0].how == point
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P1", bound_s=10)
def test_killed_in_the_middle_of_an_adoption(measured: Measured) -> None:
    """CP12: somebody has set a tighter stop at the broker: the next process adopts it."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1", stop="59400")
        kill_at(scene, "CP12")
        scene.venue.mischief.tamper(C01, "BTCUSDT", stop_loss=Decimal(59_700), take_profit=None)
        await scene.until(lambda: not scene.process.alive, 10)
        took = await back_again(scene)
        await scene.until(lambda: bool(told(scene, "tighter stop kept")), 10)
        assert stop(scene) == 59_700
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P1", bound_s=10)
def test_killed_in_the_middle_of_a_stops_change(measured: Measured) -> None:
    """CP7: the change is acknowledged, and made by the next process."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1", stop="59400")
        kill_at(scene, "CP7")
        await unanswered(scene.send("modify", "s1", stop_loss="59500"))
        await scene.until(lambda: not scene.process.alive, 10)
        took = await back_again(scene)
        await scene.until(lambda: all((stop(scene, one) or 0) > 59_450 for one in (C01, C02)), 10)
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P1", bound_s=10)
def test_killed_with_a_halt_in_memory_only(measured: Measured) -> None:
    """CP8: the operator gets no answer, asks again, and is halted; so it is for who closes an account."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        kill_at(scene, "CP8")
        assert await scene.world.operate("halt", "all", "") is None
        assert not scene.process.alive
        first = await back_again(scene)
        assert await scene.world.operate("halt", "all", "") == 200
        status, _ = await scene.open("s2", symbol_id="ETHUSDT")
        assert status == 202
        await scene.until(lambda: scene.reasons(C01)[-1] == "AGENT_HALTED", 5)
        kill_at(scene, "CP8")
        with suppress(asyncio.CancelledError):
            scene.world.flatten(C01)
        await scene.until(lambda: not scene.process.alive, 5)
        second = await back_again(scene)
        scene.world.flatten(C01)
        await flat(scene)
        return max(first, second)

    measured(act(play, peace_s=5))


@pytest.mark.fault("P1", bound_s=10)
@pytest.mark.parametrize("point", ["CP9", "CP14"])
def test_killed_in_the_middle_of_flattening(point: str, measured: Measured) -> None:
    """k of n closed, or the resting orders withdrawn and the close not sent: the next process goes on until flat."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        if point == "CP9":
            broker(scene).network.delay_request(1.0, Message.EXIT)
        else:
            broker(scene).mischief.refuse("reject", Message.EXIT, count=6)
        kill_at(scene, point)
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.process.alive, 10)
        assert scene.venue.positions(C01)
        took = await back_again(scene)
        await flat(scene)
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P1", bound_s=10)
def test_killed_in_the_middle_of_a_reload(measured: Measured) -> None:
    """CP13: one account has the new limits, the others not yet: the next process has one configuration for all."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        agent, wanted = scene.agent, changed(scene.world.settings)
        life = copy_context()
        life.run(LIFE.set, scene.process.number)
        kill_at(scene, "CP13")
        with suppress(asyncio.CancelledError):
            life.run(Reloader(scene.world.settings).adopt, wanted, agent.roster, agent.flow.accounts)
        assert not scene.process.alive
        caps = [caps_of(scene, one) for one in (C01, C02, C03)]
        assert len(set(caps)) == 2
        took = await back_again(scene)
        assert {caps_of(scene, one) for one in (C01, C02, C03)} == {caps[2]}
        assert state(scene) is ConnectionState.ACTIVE
        assert stop(scene) is not None
        return took

    def caps_of(scene: Scene, name: str) -> Decimal:
        member = next(one for key, one in scene.agent.flow.accounts.items() if key == name).member
        return next(iter(member.policies.values())).policy.limits.max_open_risk

    measured(act(play, peace_s=5))


# ---- P2


@pytest.mark.fault("P2", bound_s=5)
def test_a_stop_with_open_work(measured: Measured) -> None:
    """SIGTERM with a position, an entry under way and signals waiting: over within 5 s, no entry after it, stops
    stand, and the next process decides what was acknowledged."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        broker(scene).network.delay_reply(3.0, Message.ENTRY)
        assert (await scene.open("s2", symbol_id="ETHUSDT"))[0] == 202
        await asyncio.sleep(0.05)
        late = [asyncio.create_task(scene.open(f"late{number}", symbol_id="EURUSDT")) for number in range(5)]
        await asyncio.sleep(0)
        began = scene.now
        took = await scene.stop()
        assert [one.result()[0] for one in late if one.done() and not one.exception()] == [202] * 5
        assert scene.world.lives[-1].how == "stop"
        assert not [call for call in entry_calls(scene) + entry_calls(scene, C02) if call.at > began]
        assert stop(scene) is not None
        assert stop(scene, C02) is not None
        kept = len(scene.orders())
        await asyncio.sleep(10)
        assert len(scene.orders()) == kept
        await scene.start()
        await scene.until(lambda: len(scene.reasons(C01)) == 7, 10)
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P2", bound_s=5)
def test_a_stop_while_database_and_broker_hang(measured: Measured) -> None:
    """Nothing answers: each step of the end has its own patience, and together they are within 5 s."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        scene.world.database.slow_down(60, 60)
        for connection in (C01, C02):
            broker(scene, connection).network.cut(60)
        await asyncio.sleep(1)
        took = await scene.stop()
        assert scene.world.lives[-1].how == "stop"
        assert stop(scene) is not None
        scene.world.database.mend()
        for connection in (C01, C02):
            broker(scene, connection).network.restore()
        await scene.start()
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 15)
        return took

    measured(act(play, peace_s=5))


# ---- P3


@pytest.mark.fault("P3")
def test_asked_to_stop_twice() -> None:
    """SIGTERM and again: one end, in order, as fast."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        scene.process.stop()
        await asyncio.sleep(0.01)
        assert await scene.stop() < 5
        assert [life.how for life in scene.world.lives] == ["stop"]
        assert stop(scene) is not None
        await scene.start()
        assert state(scene) is ConnectionState.ACTIVE

    act(play, peace_s=5)


# ---- P4


@pytest.mark.fault("P4")
def test_killed_again_and_again_at_odd_moments() -> None:
    """An OOM kill comes without a word, also while starting: four of them around an entry, a close and an emergency
    lose and double nothing."""

    async def play(scene: Scene) -> None:
        data = body(scene)
        assert (await ask(scene.process, scene, data, "msg"))[0] == 202
        await asyncio.sleep(0.03)
        scene.kill()
        scene.world.give_birth()
        await asyncio.sleep(0.2)
        scene.kill()  # before it was ready
        await back_again(scene)
        assert (await ask(scene.process, scene, data, "msg"))[0] == 202
        await scene.opened("s2", symbol_id="ETHUSDT")
        assert (await scene.send("close", "s2"))[0] == 202
        scene.kill()
        await back_again(scene)
        await scene.until(lambda: not scene.lots(C01, "ETHUSDT"), 10)
        scene.world.flatten(C01)
        await asyncio.sleep(0.06)
        scene.kill()
        await back_again(scene)
        await flat(scene)
        assert len(scene.entries(C01)) <= 2

    act(play, peace_s=5)


@pytest.mark.fault("P4")
def test_others_die_before_the_daemon() -> None:
    """The unit bounds its memory, is started again after an OOM kill, and the kernel prefers every other process."""
    lines = dict(
        line.split("=", 1)
        for line in (UNITS / "srm-agent.service").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert lines["MemoryMax"].endswith("M")
    assert int(lines["OOMScoreAdjust"]) < 0
    assert lines["Restart"] == "on-failure"


# ---- P17


@pytest.mark.fault("P17", bound_s=15)
def test_the_loop_stands_still_for_twenty_seconds(measured: Measured) -> None:
    """REDUCING from the first moment it runs again, told, then everything is read anew and entries are taken."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        scene.world.loop.stall(20)
        assert state(scene) is ConnectionState.REDUCING
        refused = len(entry_calls(scene))
        await scene.open("s2", symbol_id="ETHUSDT")
        assert len(entry_calls(scene)) == refused
        await scene.until(lambda: bool(told(scene, "the process stood still", None)), 2)
        took = await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 15)
        assert stop(scene) is not None
        assert scene.agent.daemon.supervisor.pulse.worst_s > 15
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P17")
def test_a_hiccup_of_a_second_stops_nothing() -> None:
    """1 s late: measured, nobody is paged, the next signal trades."""

    async def play(scene: Scene) -> None:
        scene.world.loop.stall(1)
        await scene.opened("s1")
        assert scene.agent.daemon.supervisor.pulse.worst_s >= 0.5
        assert not told(scene, "the process stood still", None)

    act(play, peace_s=5)


# ---- P18


def _task(scene: Scene, name: str) -> asyncio.Task[object]:
    return next(task for task in scene.world.loop.tasks_of(scene.process.number) if task.get_name() == name)


def _cancel(scene: Scene) -> None:
    _task(scene, "timer").cancel()


def _break_the_market(scene: Scene) -> None:
    scene.agent.markets["simulator"].hygiene = None  # type: ignore[attr-defined]
    _task(scene, "market simulator").cancel()


def _break_the_desk(scene: Scene) -> None:
    _task(scene, f"account {C01}").cancel()


@pytest.mark.fault("P18")
@pytest.mark.parametrize("harm", [_cancel, _break_the_market, _break_the_desk])
def test_a_critical_task_takes_the_process_with_it(harm: Callable[[Scene], None]) -> None:
    """Ended from outside, by whatever: the process ends with a defect that is logged; the next one goes on."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        harm(scene)
        await scene.until(lambda: not scene.process.alive, 10)
        assert scene.world.lives[-1].how.startswith("defect: RuntimeError")
        assert [line for line in scene.world.log_lines if "the daemon died of a defect" in line]
        assert stop(scene) is not None
        await back_again(scene)
        assert (await scene.send("close", "s1"))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=5)


@pytest.mark.fault("P18")
def test_no_task_is_lost_to_the_garbage_collector() -> None:
    """After a collection in the middle of the work every task is still there, and the work goes on."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        before = {task.get_name() for task in scene.world.loop.tasks_of(scene.process.number)}
        gc.collect()
        await asyncio.sleep(0)
        after = {task.get_name() for task in scene.world.loop.tasks_of(scene.process.number)}
        assert {"timer", "leases", "pulse", "inbox", "followers", f"account {C01}"} <= before & after
        await scene.send("close", "s1")
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=5)


@pytest.mark.fault("P18")
def test_after_crashes_exits_only() -> None:
    """A start in guard mode: nothing opens, the provider's close closes, and `resume` makes it whole."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        scene.kill()
        scene.world.settings = scene.world.settings.model_copy(
            update={"agent": scene.world.settings.agent.model_copy(update={"guard_after": 1})}
        )
        await back_again(scene)
        assert told(scene, "guard mode: exits only", None)
        assert (await scene.open("s3", symbol_id="EURUSDT"))[0] == 202
        assert (await scene.send("close", "s1"))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        await asyncio.sleep(3)
        assert not scene.lots(C01, "EURUSDT")
        assert scene.lots(C01, "ETHUSDT")
        assert await scene.world.operate("resume", "all", "") == 200
        await scene.until(lambda: scene.process.ready and state(scene) is ConnectionState.ACTIVE, 20)
        assert (await scene.send("close", "s2"))[0] == 202
        await scene.until(lambda: not scene.lots(C01, "ETHUSDT"), 5)

    act(play, peace_s=5)


# ---- P22, P23


@pytest.mark.fault("P22")
def test_the_second_daemon_waits_and_takes_over() -> None:
    """On another machine, on the same accounts: REDUCING with its reason while the first lives; killed, it takes over
    within ten seconds, knows what was traded and halted since its own start, and nothing was sent twice."""

    async def play(scene: Scene) -> None:
        first = scene.process
        await scene.opened("s1")
        guest = scene.world.give_birth(guest=True)
        await scene.until(lambda: guest.agent is not None and guest.ready, 20)
        assert guest.agent is not None
        passive = guest.agent.flow.accounts[C01]
        assert passive.state() is ConnectionState.REDUCING
        assert passive.why_reducing() == "another daemon holds its lease"
        assert (await scene.send("modify", "s1", stop_loss="59500"))[0] == 202
        await scene.opened("s2", symbol_id="ETHUSDT")
        assert await scene.world.operate("halt", "symbol", "EUR/USDT:USDT") == 200
        await asyncio.sleep(10)
        first.kill("kill")
        assert await scene.until(lambda: guest.ready and state(scene) is ConnectionState.ACTIVE, 20) <= 10
        assert (await scene.open("s3", symbol_id="EURUSDT"))[0] == 202
        await scene.until(lambda: scene.reasons(C01)[-1] == "SYMBOL_HALTED", 5)
        assert (stop(scene) or 0) > 59_450
        assert (await scene.send("close", "s1"))[0] == 202
        assert (await scene.send("close", "s2"))[0] == 202
        await scene.until(lambda: not scene.venue.positions(C01) and not scene.venue.positions(C02), 5)
        assert [len(scene.entries(one)) for one in (C01, C02)] == [2, 2]

    act(play, peace_s=5)


@pytest.mark.fault("P22")
def test_two_that_start_together_do_not_share_the_accounts() -> None:
    """Killed, then started again beside another machine's: one of them gets all leases, and the provider's messages,
    to whichever of them they come, are carried out once."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        scene.kill()
        guest, again = scene.world.give_birth(guest=True), scene.world.give_birth()
        await scene.until(lambda: guest.ready and again.ready, 20)
        await asyncio.sleep(2)
        holders = [
            {name for name, account in process.agent.flow.accounts.items() if account.leased}
            for process in (guest, again)
            if process.agent is not None
        ]
        assert sorted(len(held) for held in holders) == [0, 3]
        await asyncio.sleep(5)
        statuses = [
            (await ask(process, scene, body_of_close(scene), f"m{n}"))[0] for n, process in enumerate((guest, again))
        ]
        assert sorted(statuses) == [202, 503]
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)

    act(play, peace_s=5)


def body_of_close(scene: Scene) -> bytes:
    """The provider closes s1."""
    return json.dumps({"action": "close", "signal_id": "s1", "issued_at": scene.stamp()}).encode()


@pytest.mark.fault("P22")
def test_a_close_that_went_to_the_one_who_gives_way() -> None:
    """Acknowledged by a second daemon that had just started and knows nothing, which then ends: the one in charge
    finds the message and closes."""

    async def play(scene: Scene) -> None:
        guest = scene.world.give_birth(guest=True)
        await scene.until(lambda: guest.server is not None and guest.server.listening, 10)
        await scene.opened("s1")
        assert (await ask(guest, scene, body_of_close(scene), "msg"))[0] == 202
        guest.stop()
        await scene.until(lambda: not guest.alive, 10)
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 15)

    act(play, peace_s=5)


@pytest.mark.fault("P23")
def test_a_lost_lease_stops_entries_and_nothing_else() -> None:
    """A rival holds c01: no entries there; its stops are watched and its closes go on, and the others trade."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        scene.world.database.steal_lease(C01, 25)
        await scene.until(lambda: state(scene) is ConnectionState.REDUCING, 5)
        assert state(scene, C02) is ConnectionState.ACTIVE
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: bool(scene.lots(C02, "ETHUSDT")), 5)
        assert scene.reasons(C01)[-1] == "CONNECTION_REDUCING"
        assert not scene.lots(C01, "ETHUSDT")
        scene.venue.mischief.tamper(C01, "BTCUSDT", stop_loss=None, take_profit=None)
        await scene.until(lambda: stop(scene) is not None, 10)
        await scene.send("close", "s1")
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 30)

    act(play, peace_s=5)


@pytest.mark.fault("P23")
def test_cut_off_from_the_database_and_not_from_the_broker() -> None:
    """The lease cannot be renewed: before a rival could have it no entry leaves; a lost stop and a close by the
    operator's hand go on."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        scene.world.database.take_down(30)
        await scene.until(lambda: state(scene) is ConnectionState.REDUCING, 6)
        scene.venue.mischief.tamper(C01, "BTCUSDT", stop_loss=None, take_profit=None)
        await scene.until(lambda: stop(scene) is not None, 10)
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.lots(C01), 5)
        await asyncio.sleep(25)
        await scene.until(lambda: state(scene, C02) is ConnectionState.ACTIVE, 10)

    act(play, peace_s=10)


# ---- P24


@pytest.mark.fault("P24")
def test_nobody_takes_alerts() -> None:
    """The sink is away for a minute: the emergency and the next trade are as fast as ever, the file has the page at
    once, and the sink has it when it is back."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        scene.world.alerts_down(60)
        began = scene.now
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.lots(C01), 5)
        assert "emergency close" in scene.world.files.texts["alerts.jsonl"]
        assert not scene.world.pager.taken
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: bool(scene.lots(C02, "ETHUSDT")), 3)
        await scene.until(lambda: any("emergency close" in text for _, text in scene.world.pager.taken), 100)
        assert scene.now - began >= 60

    act(play, peace_s=5)


# ---- P25


@pytest.mark.fault("P25")
def test_nobody_takes_log_lines() -> None:
    """The pipe of the log is full for a minute: lines are lost, trades are not (dropped and counted: the pipe's own
    test in tests/unit/supervision/test_sup_records.py)."""

    async def play(scene: Scene) -> None:
        scene.world.logs_blocked(60)
        lines = len(scene.world.log_lines)
        await scene.opened("s1")
        await scene.send("close", "s1")
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        assert len(scene.world.log_lines) == lines
        await asyncio.sleep(61)
        await scene.opened("s2", symbol_id="ETHUSDT")
        assert len(scene.world.log_lines) > lines

    act(play, peace_s=5)


# ---- P26


@pytest.mark.fault("P26")
def test_entries_that_hang_in_the_broker_hold_no_exit() -> None:
    """Every call of an entry hangs for a minute: closes of the provider and of an emergency have slots of their own
    (the blocking library's own threads are issue D's)."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        broker(scene).network.delay_request(60, Message.ENTRY, count=10)
        await scene.open("s3", symbol_id="EURUSDT")
        await asyncio.sleep(0.5)
        assert desk(scene).ledger.unsettled()
        await scene.send("close", "s1")
        assert await scene.until(lambda: not scene.lots(C01), 2) < 1
        scene.world.flatten(C01)
        await scene.until(lambda: not scene.venue.positions(C01), 5)

    act(play, peace_s=70)

"""Lines that break and reads that lie: B15, B18, B22, B26, B33."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from simulator.sight import Blindness, Read
from simulator.simulation.cast import BRAVO
from simulator.simulation.scene import C01, C02, C03, Scene, act
from simulator.spells import Message
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.orders import OrderState, Outcome
from tests.faults.conftest import Measured
from tests.faults.helpers import (
    broker,
    desk,
    entry_calls,
    entry_ticket,
    exit_calls,
    halted,
    leg,
    leg_lots,
    state,
    stop,
    told,
)

ENTRY, EXIT = Message.ENTRY, Message.EXIT


# ---- B15


@pytest.mark.fault("B15", bound_s=5)
def test_throttled_closes_back_off_and_go_out(measured: Measured) -> None:
    """Refused as too many requests, each repeat waits longer than the one before; the close is done all the same."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        broker(scene).faults.add("v5/order/create", "http429", 4)
        began = scene.now
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0, 5)
        seconds = scene.now - began
        calls = [call.at for call in exit_calls(scene)]
        pauses = [later - earlier for earlier, later in pairwise(calls)]
        assert len(calls) == 5
        assert pauses == sorted(pauses)
        assert pauses[-1] > 2 * pauses[0]
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B15", bound_s=5)
def test_after_a_ban_everything_is_closed_first(measured: Measured) -> None:
    """Nothing passes during the ban; within INV-9's 5 s of its end the account is flat, an entry under way included."""

    async def play(scene: Scene) -> float:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        broker(scene).mischief.ban(8)
        began = scene.now
        scene.agent.flow.accounts[C01].flatten("the operator wants out", "olga")
        await asyncio.sleep(7.9)
        assert scene.lots() > 0
        await scene.until(lambda: scene.lots() == scene.lots(C01, "ETHUSDT") == 0, 10)
        return scene.now - (began + 8)

    measured(act(play, peace_s=10))


@pytest.mark.fault("B15")
def test_a_throttled_entry_backs_off_until_its_deadline() -> None:
    """A few tries, further and further apart, and no call after the two seconds of the send deadline."""

    async def play(scene: Scene) -> None:
        broker(scene).mischief.ban(20)
        await scene.open("s1")
        await scene.until(lambda: bool(entry_calls(scene)), 3)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 4)
        calls = [call.at for call in entry_calls(scene)]
        assert entry_ticket(scene).code == "NOT_SENT_IN_TIME"
        assert 3 <= len(calls) <= 6
        assert calls[-1] - calls[0] <= 2
        broker(scene).calm()

    act(play, peace_s=15)


# ---- B18


@pytest.mark.fault("B18", bound_s=5)
def test_an_account_that_may_not_trade_takes_no_entries(measured: Measured) -> None:
    """The first write that is refused halts the account and pages; nothing more is sent until an operator resumes."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.disable_trading()
        began = scene.now
        await scene.open("s1")
        await scene.until(lambda: state(scene) is ConnectionState.HALTED and bool(told(scene, "not authorised")), 5)
        seconds = scene.now - began
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.reasons()[-1] == "CONNECTION_HALTED", 3)
        assert len(entry_calls(scene)) == 1
        assert scene.lots() == 0
        assert state(scene, C02) is ConnectionState.ACTIVE
        broker(scene).mischief.enable_trading()
        assert await scene.world.operate("resume", "connection", C01) == 200
        await asyncio.sleep(4)
        await scene.open("s3", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B18", bound_s=5)
def test_a_close_is_pursued_until_the_account_may_trade_again(measured: Measured) -> None:
    """HALTED stops entries only: the provider's close goes out as soon as the broker takes it."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        broker(scene).mischief.disable_trading()
        await scene.send("close", "s1")
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 5)
        await asyncio.sleep(20)
        assert scene.lots() > 0
        broker(scene).mischief.enable_trading()
        again = scene.now
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 6)
        return scene.now - again

    measured(act(play, peace_s=5))


# ---- B22


@pytest.mark.fault("B22", bound_s=30)
@pytest.mark.parametrize("how", ["reset", "half open", "cut", "refused"])
def test_a_broken_line_is_opened_again_with_a_full_picture(measured: Measured, how: str) -> None:
    """A reset, a half-open socket, a partition, no DNS: REDUCING until a full picture was read, then ACTIVE; what
    happened meanwhile is known."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(3)
        line, healed = broker(scene), scene.now
        match how:
            case "reset":
                line.drop_stream()
            case "half open":
                line.mute_stream()
            case _:
                line.network.cut(12, refused=how == "refused")
                healed += 12
        # The position is stopped out while nobody hears it.
        scene.price("BTCUSDT", "59000")
        await scene.until(lambda: state(scene) is ConnectionState.REDUCING, 8)
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: "CONNECTION_REDUCING" in scene.reasons(), 3)

        def in_step() -> bool:
            return state(scene) is ConnectionState.ACTIVE and desk(scene).synced

        await scene.until(in_step, 42)
        assert leg(scene) is None  # the full picture came first
        seconds = scene.now - healed
        await scene.open("s3", symbol_id="ETHUSDT", take_profit="3100")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") > 0, 5)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B22", bound_s=30)
def test_a_line_that_is_down_at_the_start_is_waited_for(measured: Measured) -> None:
    """The others are ready; this one is REDUCING, and ACTIVE soon after the line is back."""

    async def play(scene: Scene) -> float:
        broker(scene).network.cut(40, refused=True)
        await scene.begin()
        assert state(scene) is ConnectionState.REDUCING
        assert state(scene, C02) is ConnectionState.ACTIVE
        await asyncio.sleep(40 - scene.now)
        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 30)
        return scene.now - 40

    measured(act(play, begun=False, peace_s=5))


# ---- B26


@pytest.mark.fault("B26")
@pytest.mark.parametrize("how", list(Blindness))
@pytest.mark.parametrize("read", [Read.POSITIONS, Read.FILLS, Read.OPEN_ORDERS, Read.ACCOUNT, Read.CASH_FLOWS])
def test_a_read_that_shows_less_than_the_truth_is_not_flat(read: Read, how: Blindness) -> None:
    """Delayed, empty, truncated or an error for 3 s, with a resync in between: the leg stays ours, under its stop, and
    nothing is opened in its place."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        await asyncio.sleep(3)
        broker(scene).sight.blind(read, how, 3)
        broker(scene).drop_stream()
        await scene.open("s2", take_profit="61000")
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert leg_lots(scene) == scene.lots() > 0
        assert stop(scene) is not None
        assert len(entry_calls(scene)) == 1
        assert exit_calls(scene) == []
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)

    act(play, peace_s=10)


@pytest.mark.fault("B26")
@pytest.mark.parametrize("seconds", [10, 40])
def test_positions_that_are_empty_by_error_need_a_second_source(seconds: int) -> None:
    """For longer than any delay: history has no fill that closed it and margin is used, so the leg is not given up."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        await asyncio.sleep(3)
        broker(scene).sight.blind(Read.POSITIONS, Blindness.EMPTY, seconds)
        began = scene.now
        while scene.now - began < seconds + 5:
            await asyncio.sleep(0.1)
            assert leg_lots(scene) == scene.lots() > 0
        assert desk(scene).halted_symbols == {}
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)

    act(play, peace_s=10)


@pytest.mark.fault("B26")
@pytest.mark.parametrize("scope", ["account", "own"])
@pytest.mark.parametrize("seconds", [3, 20])
def test_a_flatten_does_not_believe_an_empty_list(scope: str, seconds: int) -> None:
    """Positions are empty by error while the account is being closed: margin, and our own books, say otherwise, so it
    stays FLATTENING and closes them as soon as they are seen."""

    async def play(scene: Scene) -> None:
        await scene.open("s1", provider=BRAVO)
        await scene.until(lambda: scene.lots(C03) > 0 and leg_lots(scene, C03) > 0, 5)
        await asyncio.sleep(3)
        broker(scene, C03).sight.blind(Read.POSITIONS, Blindness.EMPTY, seconds)
        scene.agent.flow.accounts[C03].flatten("the operator wants out", "olga")
        while broker(scene, C03).sight.truthful_s < 0:
            assert state(scene, C03) is ConnectionState.FLATTENING
            await asyncio.sleep(0.05)
        await scene.until(lambda: scene.lots(C03) == 0, 5)
        await scene.until(lambda: state(scene, C03) is ConnectionState.HALTED, 10)

    act(play, scope=scope, peace_s=10)


@pytest.mark.fault("B26")
@pytest.mark.parametrize("how", [Blindness.EMPTY, Blindness.ERROR])
def test_an_order_that_cannot_be_looked_up_stays_in_doubt(how: Blindness) -> None:
    """Its reply was lost and look-ups show nothing for 3 s, or fail: neither ends the doubt, and it is found."""

    async def play(scene: Scene) -> None:
        broker(scene).mischief.doubt(ENTRY, acted=True)
        broker(scene).mute_stream()
        broker(scene).sight.blind(Read.LOOKUP, how, 3)
        broker(scene).sight.blind(Read.FILLS, how, 3)
        began = scene.now
        await scene.open("s1")
        await scene.until(lambda: bool(entry_calls(scene)) and bool(entry_calls(scene)[0].answer), 3)
        assert entry_calls(scene)[0].answer == Outcome.UNKNOWN
        while scene.now - began < 2.9:
            assert not entry_ticket(scene).state.settled
            await asyncio.sleep(0.1)
        await scene.until(lambda: leg_lots(scene) == scene.lots() > 0, 7)
        assert len(entry_calls(scene)) == 1

    act(play, peace_s=10)


# ---- B33


@pytest.mark.fault("B33", bound_s=2)
@pytest.mark.parametrize("holding", [False, True])
def test_another_account_behind_the_credentials_halts_everything(measured: Measured, holding: bool) -> None:
    """Noticed within 2 s, idle or not: all entries are halted, people are paged, and nothing is done on the stranger's
    account; the others' exits still go out."""

    async def play(scene: Scene) -> float:
        if holding:
            await scene.opened()
        await asyncio.sleep(8)
        broker(scene).switch_account(30)
        began = scene.now
        await scene.until(lambda: halted(scene, HaltScope.ALL), 5)
        seconds = scene.now - began
        assert told(scene, "wrong account, everything is halted") == ["page"]
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.reasons(C02)[-1:] == ["AGENT_HALTED"], 3)
        assert scene.reasons()[-1] == "AGENT_HALTED"
        if holding:
            await scene.send("close", "s1")
            await scene.until(lambda: scene.lots(C02) == 0, 5)
        await asyncio.sleep(began + 35 - scene.now)
        assert await scene.world.operate("resume", "all", "") == 200
        assert await scene.world.operate("resume", "connection", C01) == 200
        await scene.until(lambda: scene.lots() == 0 and state(scene) is ConnectionState.ACTIVE, 20)
        await scene.open("s3", symbol_id="ETHUSDT", take_profit="3100")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") > 0, 5)
        return seconds

    measured(act(play, peace_s=5))

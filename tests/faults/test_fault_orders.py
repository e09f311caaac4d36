"""Entries that are refused, lost, late or told twice: B1-B8, B14, B16, B17, B19, B34."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.simulation.scene import C01, C02, Scene, act
from simulator.spells import Message
from srm_agent.domain.orders import OrderState, Outcome
from tests.faults.conftest import Measured
from tests.faults.helpers import (
    broker,
    entry_calls,
    entry_ticket,
    exit_calls,
    leg,
    leg_lots,
    slow_bridge,
    stop,
    told,
)

ENTRY, EXIT = Message.ENTRY, Message.EXIT
FINALITY_S, SEND_DEADLINE_S = 7.0, 2.0
"""Of the in-process venue: an entry may leave for two seconds, and is final seven seconds later."""


async def decided(scene: Scene, name: str = "s1", **how: str) -> float:
    """Send an opening signal; the moment at which c01's entry left."""
    status, answer = await scene.open(name, **how)  # type: ignore[arg-type]
    assert status == 202, answer
    before = len(entry_calls(scene))
    await scene.until(lambda: len(entry_calls(scene)) > before, 3)
    return entry_calls(scene)[-1].at


# ---- B1


@pytest.mark.fault("B1", bound_s=3)
@pytest.mark.parametrize("name", ["requote", "price changed"])
def test_a_requoted_entry_goes_once_more_with_the_same_id(measured: Measured, name: str) -> None:
    """Refused for its price, the same order is sent a second time within its limit, and fills once."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.refuse(name, ENTRY)
        began = await decided(scene)
        await scene.until(lambda: scene.lots() > 0, 3)
        first, second = entry_calls(scene)
        assert first.intent == second.intent
        assert (first.answer, second.answer) == (Outcome.REJECTED, Outcome.FILLED)
        assert len(scene.entries()) == 1
        return scene.now - began

    measured(act(play, peace_s=5))


@pytest.mark.fault("B1", bound_s=3)
def test_an_entry_requoted_twice_is_rejected(measured: Measured) -> None:
    """After two refusals it is over, with the broker's reason, and nothing is open."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.refuse("requote", ENTRY, count=5)
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 3)
        seconds = scene.now - began
        await asyncio.sleep(5)
        assert len(entry_calls(scene)) == 2
        assert entry_ticket(scene).code == "REQUOTE"
        assert scene.lots() == 0
        assert leg(scene) is None
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B1", bound_s=3)
def test_a_requoted_entry_is_not_sent_beyond_its_limit(measured: Measured) -> None:
    """The fresh price lies beyond the limit that was decided: no second try."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.refuse("requote", ENTRY)
        # The price runs away while the refusal is under way.
        scene.world.seen.on_sent.append(lambda sent: scene.price("BTCUSDT", "60500"))
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 3)
        seconds = scene.now - began
        await asyncio.sleep(5)
        assert [call.answer for call in entry_calls(scene)] == [Outcome.REJECTED]
        assert scene.lots() == 0
        return seconds

    measured(act(play, peace_s=5))


# ---- B2, B3


@pytest.mark.fault("B2", bound_s=10)
def test_a_refusal_is_definitive(measured: Measured) -> None:
    """It is journalled with its reason, the symbol is free again, and nothing is sent again."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.refuse("reject", ENTRY)
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 10)
        seconds = scene.now - began
        assert entry_ticket(scene).code == "REFUSED"
        await asyncio.sleep(12)
        assert len(entry_calls(scene)) == 1
        await decided(scene, "s2", symbol_id="BTCUSDT", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B2", bound_s=10)
@pytest.mark.parametrize("acted", [True, False])
def test_an_error_that_proves_nothing_is_asked_about(measured: Measured, acted: bool) -> None:
    """The order is in doubt, never sent again, and what became of it is found by asking."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.doubt(ENTRY, acted=acted)
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is not OrderState.INTENT, 3)
        if not acted:
            assert entry_ticket(scene).state is OrderState.UNKNOWN
        await scene.until(lambda: entry_ticket(scene).state.settled, 10)
        seconds = scene.now - began
        assert entry_ticket(scene).state is (OrderState.FILLED if acted else OrderState.ABANDONED)
        assert leg_lots(scene) == scene.lots()
        assert (scene.lots() > 0) is acted
        await asyncio.sleep(5)
        assert len(entry_calls(scene)) == 1
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B3")
@pytest.mark.parametrize("how", ["no answer", "time-out", "executed"])
def test_no_answer_is_unknown_until_finality(measured: Measured, how: str) -> None:
    """Without an answer the order is UNKNOWN and holds its symbol until it is found, or finality has passed."""

    async def play(scene: Scene) -> float:
        match how:
            case "no answer":
                broker(scene).mischief.doubt(ENTRY, acted=False, code="NO_ANSWER")
            case "time-out":
                broker(scene).network.lose_request(ENTRY)
            case _:
                broker(scene).network.lose_reply(ENTRY)
        began = await decided(scene)
        if how == "executed":
            await scene.until(lambda: entry_ticket(scene).state is OrderState.FILLED, 7)
            assert leg_lots(scene) == scene.lots() > 0
        else:
            await scene.until(lambda: entry_ticket(scene).state is OrderState.UNKNOWN, 6)
            await scene.open("s2", take_profit="61000")
            await scene.until(lambda: scene.reasons().count("SYMBOL_BUSY") == 1, 3)
            while scene.now - began < FINALITY_S:
                assert not entry_ticket(scene).state.settled
                await asyncio.sleep(0.1)
            await scene.until(lambda: entry_ticket(scene).state is OrderState.ABANDONED, 10)
        seconds = scene.now - began
        await asyncio.sleep(5)
        assert len(entry_calls(scene)) == 1
        return seconds

    measured(act(play, peace_s=5))


# ---- B4, B5


@pytest.mark.fault("B4", bound_s=FINALITY_S + 5)
def test_an_entry_lost_on_the_way_is_given_up_after_finality(measured: Measured) -> None:
    """UNKNOWN at the time-out, given up (ABANDONED) after finality and five look-ups; the symbol is free again."""

    async def play(scene: Scene) -> float:
        broker(scene).network.lose_request(ENTRY)
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.UNKNOWN, 6)
        await scene.until(lambda: entry_ticket(scene).state.settled, 15)
        seconds = scene.now - began
        ticket = entry_ticket(scene)
        assert (ticket.state, ticket.code, len(entry_calls(scene))) == (OrderState.ABANDONED, "ABSENT", 1)
        assert ticket.final_absences >= 5
        await decided(scene, "s2", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B5", bound_s=10)
@pytest.mark.parametrize("deaf", [False, True])
def test_an_accepted_entry_without_a_reply_is_adopted(measured: Measured, deaf: bool) -> None:
    """Found by asking also where the stream says nothing; its stop, which got lost as well, is set."""

    async def play(scene: Scene) -> float:
        broker(scene).network.lose_reply(ENTRY)
        broker(scene).mischief.unstopped = 1
        if deaf:
            broker(scene).mute_stream()
        began = await decided(scene)
        await scene.until(lambda: leg_lots(scene) > 0 and stop(scene) is not None, 10)
        seconds = scene.now - began
        assert leg_lots(scene) == scene.lots()
        assert len(entry_calls(scene)) == len(scene.entries()) == 1
        return seconds

    measured(act(play, peace_s=10))


# ---- B6, B7, B8


@pytest.mark.fault("B6", bound_s=10)
@pytest.mark.parametrize("late_s", [1, 6, 20])
def test_an_entry_executed_late_is_adopted(measured: Measured, late_s: int) -> None:
    """Still in doubt or already given up: what executes while the idea is fresh becomes ours, with its stop."""

    async def play(scene: Scene) -> float:
        slow_bridge(scene)
        await scene.begin()
        broker(scene).network.delay_request(late_s, ENTRY)
        await decided(scene)
        await scene.until(lambda: scene.lots() > 0, late_s + 2)
        visible = scene.now
        await scene.until(lambda: leg_lots(scene) == scene.lots() and stop(scene) is not None, 10)
        assert len(entry_calls(scene)) == 1
        if late_s > FINALITY_S + 5:
            assert told(scene, "late fill adopted") == ["page"]
        return scene.now - visible

    measured(act(play, begun=False, peace_s=10))


@pytest.mark.fault("B6", bound_s=10)
@pytest.mark.parametrize("late_s", [45, 90])
def test_an_entry_executed_after_its_signal_expired_is_flattened(measured: Measured, late_s: int) -> None:
    """Nobody wants it any more: closed at once, and people are told."""

    async def play(scene: Scene) -> float:
        slow_bridge(scene)
        await scene.begin()
        broker(scene).network.delay_request(late_s, ENTRY)
        await decided(scene)
        await scene.until(lambda: scene.lots() > 0, late_s + 2)
        visible = scene.now
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 10)
        assert told(scene, "late fill closed") == ["page"]
        return scene.now - visible

    measured(act(play, begun=False, peace_s=10))


@pytest.mark.fault("B6", bound_s=10)
def test_an_entry_that_the_broker_sits_on_is_adopted(measured: Measured) -> None:
    """Acknowledged, and executed half a minute later."""

    async def play(scene: Scene) -> float:
        broker(scene).hold_next(rest_after_s=25, exits=False)
        await decided(scene)
        await scene.until(lambda: scene.lots() > 0, 27)
        visible = scene.now
        await scene.until(lambda: leg_lots(scene) == scene.lots() and stop(scene) is not None, 10)
        return scene.now - visible

    measured(act(play, peace_s=10))


@pytest.mark.fault("B7")
def test_what_is_told_twice_counts_once() -> None:
    """Replies, requests, reports and fills of entry and exit come twice: one order, one leg, each fill id once."""

    async def play(scene: Scene) -> None:
        line = broker(scene)
        line.mischief.echoes = 20
        line.network.repeat_reply(0.5, ENTRY)
        line.network.repeat_request(0.3, ENTRY)
        await decided(scene)
        await scene.until(lambda: leg_lots(scene) > 0, 5)
        await asyncio.sleep(2)
        assert leg_lots(scene) == scene.lots()
        assert len(scene.entries()) == 1
        line.network.repeat_request(0.3, EXIT)
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        await asyncio.sleep(2)
        fills = [fill for fill in await scene.world.book.fills() if fill.connection_id == C01]
        executions = scene.venue.executions(C01)
        assert sorted(fill.fill.fill_id for fill in fills) == sorted(item.exec_id for item in executions)
        assert sum((item.lots * item.side for item in executions), Decimal(0)) == 0

    act(play, peace_s=5)


@pytest.mark.fault("B8", bound_s=5)
@pytest.mark.parametrize("fraction", ["0.01", "0.5"])
@pytest.mark.parametrize("rest_after_s", [None, 20.0])
def test_a_partly_filled_entry_is_what_the_position_is(
    measured: Measured, fraction: str, rest_after_s: float | None
) -> None:
    """The leg follows the position's volume at each step, the rest late or never, always under its stop."""

    async def play(scene: Scene) -> float:
        broker(scene).hold_next(fraction=Decimal(fraction), rest_after_s=rest_after_s, exits=False)
        worst, volume = 0.0, Decimal(0)
        await decided(scene)
        for _ in range(1 if rest_after_s is None else 2):
            await scene.until(lambda volume=volume: scene.lots() > volume, 25)  # type: ignore[misc]
            seen, volume = scene.now, scene.lots()
            await scene.until(lambda: leg_lots(scene) == scene.lots() and stop(scene) is not None, 5)
            worst = max(worst, scene.now - seen)
        await asyncio.sleep(1)
        found = leg(scene)
        assert found is not None
        assert found.open_lot == scene.lots()
        assert found.planned_risk <= Decimal("0.2") * 10_000
        assert scene.lots() == entry_ticket(scene).filled_lot
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        return worst

    measured(act(play, peace_s=5))


@pytest.mark.fault("B8", bound_s=5)
def test_a_partly_filled_close_is_closed_to_the_end(measured: Measured) -> None:
    """What a close leaves is still ours, keeps its stop, and is closed by the next attempt."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        broker(scene).hold_next(fraction=Decimal("0.3"), rest_after_s=None, exits=True)
        whole, began = scene.lots(), scene.now
        await scene.send("close", "s1")
        await scene.until(lambda: 0 < scene.lots() < whole, 3)
        assert stop(scene) is not None
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        assert all(call.intent.reduce is not None for call in exit_calls(scene))
        return scene.now - began

    measured(act(play, peace_s=5))


# ---- B14, B16, B17, B19: refused, told, not tried again


@pytest.mark.parametrize(
    ("name", "code", "title", "level"),
    [
        pytest.param(
            "no money", "INSUFFICIENT_MARGIN", "entry refused, no money", "warning", marks=pytest.mark.fault("B14")
        ),
        pytest.param(
            "invalid fill",
            "INVALID_REQUEST",
            "the broker calls an order of ours invalid",
            "page",
            marks=pytest.mark.fault("B16", bound_s=2),
        ),
        pytest.param(
            "invalid volume",
            "INVALID_VOLUME",
            "the broker calls an order of ours invalid",
            "page",
            marks=pytest.mark.fault("B17"),
        ),
        pytest.param(
            "invalid price",
            "INVALID_PRICE",
            "the broker calls an order of ours invalid",
            "page",
            marks=pytest.mark.fault("B17"),
        ),
        pytest.param(
            "limits",
            "LIMITS",
            "entry refused, a limit of the broker is reached",
            "warning",
            marks=pytest.mark.fault("B19"),
        ),
    ],
)
def test_an_entry_that_the_broker_does_not_take_is_told_and_not_tried_again(
    measured: Measured, name: str, code: str, title: str, level: str
) -> None:
    """Rejected with the broker's reason after one call, no smaller or other order follows, people hear of it."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.refuse(name, ENTRY, count=5)
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED and bool(told(scene, title)), 3)
        seconds = scene.now - began
        await asyncio.sleep(10)
        assert (entry_ticket(scene).code, told(scene, title)) == (code, [level])
        assert len(entry_calls(scene)) == 1
        assert scene.lots() == 0
        assert leg(scene) is None
        assert scene.lots(C02) > 0  # the other follower has his order
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B19")
def test_a_full_position_limit_refuses_the_entry_and_nothing_else() -> None:
    """The venue's own limit of position size: refused with LIMITS, open positions stay and can be closed."""

    async def play(scene: Scene) -> None:
        await scene.opened("s0", symbol_id="ETHUSDT")
        terms = scene.venue.instruments["BTCUSDT"]
        scene.venue.mischief.set_terms(replace(terms, max_position=Decimal("0.001")))
        await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 3)
        assert entry_ticket(scene).code == "LIMITS"
        assert scene.lots() == 0
        await scene.send("close", "s0")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") == 0, 5)

    act(play, peace_s=5)


# ---- B34


@pytest.mark.fault("B34", bound_s=3)
@pytest.mark.parametrize("count", [1, 3])
def test_a_refused_time_stamp_is_proof_and_the_same_order_goes_again(measured: Measured, count: int) -> None:
    """The venue did nothing, so the same id goes again until its deadline, and executes once."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.skew_clock(count)
        began = await decided(scene)
        await scene.until(lambda: scene.lots() > 0, 3)
        assert len({call.intent.client_id for call in entry_calls(scene)}) == 1
        assert len(scene.entries()) == 1
        return scene.now - began

    measured(act(play, peace_s=5))


@pytest.mark.fault("B34", bound_s=3)
def test_a_clock_that_stays_wrong_costs_the_entry_and_no_more(measured: Measured) -> None:
    """After the send deadline it is over: rejected as not sent in time, nothing can come of it later."""

    async def play(scene: Scene) -> float:
        broker(scene).mischief.skew_clock(10_000)
        began = await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.REJECTED, 4)
        seconds = scene.now - began
        assert entry_ticket(scene).code == "NOT_SENT_IN_TIME"
        broker(scene).calm()
        return seconds

    measured(act(play, peace_s=15))

"""The log of accepted messages, over both runners."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from srm_agent.domain.ids import signal_id
from srm_agent.domain.signals import ModifySignal
from srm_agent.ports import IntakeResult, SignalLog
from srm_agent.store.store import Store


async def test_a_message_is_fresh_once(store: Store, a: Any) -> None:
    """The first delivery is fresh; a repeat, even with another body, gets the first answer byte for byte."""
    log: SignalLog = store.signals
    assert await log.accept(a.open(), "h1", "first") == IntakeResult(fresh=True, answer="first")
    assert await log.accept(a.open(), "h1", "second") == IntakeResult(fresh=False, answer="first")
    assert await log.accept(a.close(message="m1"), "h2", "third") == IntakeResult(fresh=False, answer="first")
    assert list(await log.unfinished()) == [a.open()]


async def test_an_opening_signal_is_taken_once(store: Store, a: Any) -> None:
    """The same opening signal id under a new delivery id gets the first answer and is not stored again."""
    await store.signals.accept(a.open(message="m1"), "h", "first")
    again = await store.signals.accept(a.open(message="m2"), "h", "second")
    assert again == IntakeResult(fresh=False, answer="first")
    assert len(await store.signals.unfinished()) == 1


async def test_many_deliveries_at_once_give_one_accept(store: Store, a: Any) -> None:
    """75 concurrent deliveries of one message leave one row and 75 identical answers."""
    results = await asyncio.gather(*(store.signals.accept(a.open(), "h", f"answer {i}") for i in range(75)))
    assert sum(result.fresh for result in results) == 1
    assert len({result.answer for result in results}) == 1
    assert len(await store.signals.unfinished()) == 1


async def test_all_actions_come_back_in_order(store: Store, a: Any) -> None:
    """Unfinished messages are read back exactly, oldest first, and finishing takes one out, the first time counting."""
    modify = ModifySignal(
        signal_id=signal_id(a.alpha, "s1"), provider=a.alpha, stop_loss=None, take_profit=None, receipt=a.receipt("m9")
    )
    sent = [a.open(), modify, a.close(), a.cancel()]
    for signal in sent:
        assert (await store.signals.accept(signal, "h", "ok")).fresh
    assert list(await store.signals.unfinished()) == sent
    for delay in (1, 2):
        await store.signals.finish(a.alpha, "m9", a.start + timedelta(seconds=delay))
    assert list(await store.signals.unfinished()) == [sent[0], *sent[2:]]
    assert await store.signals.opening(sent[0].signal_id) == sent[0]
    assert await store.signals.opening(signal_id(a.alpha, "s2")) is None


@pytest.mark.parametrize(
    ("first", "buried"),
    [
        pytest.param("close", True, id="a full close before the open buries it"),
        pytest.param("cancel", True, id="a cancel before the open buries it"),
        pytest.param("partial", False, id="a partial close does not"),
        pytest.param("open", True, id="a close while the open waits does"),
    ],
)
async def test_tombstones(store: Store, a: Any, first: str, buried: bool) -> None:
    """An id that was closed or cancelled before it was decided for all stays refused."""
    signals = {"close": a.close(), "cancel": a.cancel(), "partial": a.close(fraction="0.5"), "open": a.open()}
    for _ in range(2):
        await store.signals.accept(signals[first], "h", "ok")
    await store.signals.accept(a.close(message="m8"), "h", "ok") if first == "open" else None
    assert await store.signals.closed_before_open(signal_id(a.alpha, "s1")) is buried

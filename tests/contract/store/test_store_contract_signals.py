"""The log of accepted messages through its port, on every store."""

from __future__ import annotations

import asyncio
from datetime import timedelta, timezone
from decimal import Decimal

import pytest

from srm_agent.domain.ids import ProviderKey, ProviderKind, signal_id
from srm_agent.domain.signals import ModifySignal, Signal
from srm_agent.errors import StoreBroken
from srm_agent.ports import IntakeResult, SignalLog
from tests.contract.store.conftest import KeptStore, Values

BETA = ProviderKey(ProviderKind.USER, "beta")


def modify(a: Values, message: str = "m9") -> ModifySignal:
    """Tighten the stop."""
    return ModifySignal(
        signal_id=signal_id(a.alpha, "s1"),
        provider=a.alpha,
        stop_loss=Decimal("1.0790"),
        take_profit=None,
        receipt=a.receipt(message),
    )


async def test_a_message_is_fresh_once(store: KeptStore, a: Values) -> None:
    """The first delivery is fresh; a repeat, even with another body, gets the first answer byte for byte (INV-1)."""
    log: SignalLog = store.signals
    assert await log.accept(a.open(), "h1", "first") == IntakeResult(fresh=True, answer="first")
    assert await log.accept(a.open(), "h1", "second") == IntakeResult(fresh=False, answer="first")
    assert await log.accept(a.close(message="m1"), "h2", "third") == IntakeResult(fresh=False, answer="first")
    assert list(await log.unfinished()) == [a.open()]
    (kept,) = await store.book.messages()
    assert (kept.signal, kept.body_sha256, kept.answer, kept.finished_at) == (a.open(), "h1", "first", None)
    assert await store.book.tombstones() == []


async def test_delivery_ids_belong_to_their_provider(store: KeptStore, a: Values) -> None:
    """The same delivery id of two providers is two messages."""
    other = a.open(provider=BETA, signal_id=signal_id(BETA, "s1"))
    assert (await store.signals.accept(a.open(), "h", "ok")).fresh
    assert (await store.signals.accept(other, "h", "ok")).fresh
    await store.signals.finish(BETA, "m1", a.start)
    assert list(await store.signals.unfinished()) == [a.open()]


async def test_an_opening_signal_is_taken_once(store: KeptStore, a: Values) -> None:
    """The same opening signal id under a new delivery id gets the first answer and is not stored again (INV-1)."""
    await store.signals.accept(a.open(message="m1"), "h", "first")
    again = await store.signals.accept(a.open(message="m2"), "h", "second")
    assert again == IntakeResult(fresh=False, answer="first")
    assert len(await store.book.messages()) == 1


async def test_many_deliveries_at_once_give_one_accept(store: KeptStore, a: Values) -> None:
    """75 concurrent deliveries of one message leave one row and 75 identical answers."""
    results = await asyncio.gather(*(store.signals.accept(a.open(), "h", f"answer {i}") for i in range(75)))
    assert sum(result.fresh for result in results) == 1
    assert len({result.answer for result in results}) == 1
    assert len(await store.signals.unfinished()) == 1


async def test_all_actions_come_back_in_order(store: KeptStore, a: Values) -> None:
    """Unfinished messages are read back exactly, oldest first; finishing takes one out, the first time counting."""
    sent: list[Signal] = [a.open(), modify(a), a.close(), a.cancel()]
    for signal in sent:
        assert (await store.signals.accept(signal, "h", "ok")).fresh
    assert list(await store.signals.unfinished()) == sent
    for delay in (1, 2):
        await store.signals.finish(a.alpha, "m9", a.start + timedelta(seconds=delay))
    assert list(await store.signals.unfinished()) == [sent[0], *sent[2:]]
    assert [record.signal for record in await store.book.messages()] == sent
    assert (await store.book.messages())[1].finished_at == a.start + timedelta(seconds=1)


async def test_finishing_a_stranger_is_nothing(store: KeptStore, a: Values) -> None:
    """Finishing a message that nobody accepted changes nothing; it can still be accepted and is then unfinished."""
    await store.signals.finish(a.alpha, "m1", a.start)
    assert (await store.signals.accept(a.open(), "h", "ok")).fresh
    assert list(await store.signals.unfinished()) == [a.open()]


async def test_the_opening_of_a_signal(store: KeptStore, a: Values) -> None:
    """The opening signal is found by its id, also when it is finished, and no other message is taken for it."""
    what = a.open().signal_id
    await store.signals.accept(modify(a), "h", "ok")
    assert await store.signals.opening(what) is None
    await store.signals.accept(a.open(), "h", "ok")
    await store.signals.finish(a.alpha, "m1", a.start)
    assert await store.signals.opening(what) == a.open()
    assert await store.signals.opening(signal_id(a.alpha, "s2")) is None


@pytest.mark.parametrize(
    ("first", "buried"),
    [
        pytest.param("close", True, id="a full close before the open buries it"),
        pytest.param("cancel", True, id="a cancel before the open buries it"),
        pytest.param("partial", False, id="a partial close does not"),
        pytest.param("modify", False, id="a change does not"),
        pytest.param("waiting", True, id="a full close that overtakes the open buries it"),
        pytest.param("open", False, id="a close after the open was worked off does not"),
    ],
)
async def test_tombstones(store: KeptStore, a: Values, first: str, buried: bool) -> None:
    """An id that was closed or cancelled before it was decided for all stays refused, and is buried once."""
    signals: dict[str, Signal] = {
        "close": a.close(), "cancel": a.cancel(), "partial": a.close(fraction="0.5"), "modify": modify(a),
        "open": a.open(), "waiting": a.open(),
    }  # fmt: skip
    for _ in range(2):
        await store.signals.accept(signals[first], "h", "ok")
    if first == "open":
        await store.signals.finish(a.alpha, "m1", a.start)
    if first in ("open", "waiting", "close"):
        await store.signals.accept(a.close(message="m8"), "h", "ok")
    await store.signals.accept(a.open(message="m7"), "h", "refused")
    assert await store.signals.closed_before_open(a.open().signal_id) is buried
    assert list(await store.book.tombstones()) == ([a.open().signal_id] if buried else [])


async def test_numbers_come_back_as_their_canonical_text(store: KeptStore, a: Values) -> None:
    """A signal's numbers carry no trailing zeros and its instants are UTC, whatever they were sent as."""
    tokyo = timezone(timedelta(hours=9))
    receipt = a.receipt()
    zoned = type(receipt)(
        message_id="m1", received_at=a.start.astimezone(tokyo), received=1.5, issued_at=a.start.astimezone(tokyo)
    )
    await store.signals.accept(a.open(signal_price=Decimal("1.0800"), receipt=zoned), "h", "ok")
    found = await store.signals.opening(a.open().signal_id)
    assert found is not None
    assert (str(found.signal_price), found.receipt.received_at.isoformat()) == ("1.08", a.start.isoformat())


async def test_a_message_that_cannot_be_stored_leaves_nothing(store: KeptStore, a: Values) -> None:
    """A message with an instant without zone, or an endless second, is refused whole: not even a tombstone stays."""
    receipt = a.receipt("m2")
    naive = type(receipt)(message_id="m2", received_at=a.start.replace(tzinfo=None), received=1.0, issued_at=a.start)
    endless = type(receipt)(message_id="m2", received_at=a.start, received=float("inf"), issued_at=a.start)
    for bad, error in ((naive, StoreBroken), (endless, ValueError)):
        close = type(a.close())(signal_id=a.open().signal_id, provider=a.alpha, fraction=Decimal(1), receipt=bad)
        with pytest.raises(error):
            await store.signals.accept(close, "h", "ok")
    assert (await store.book.messages(), await store.book.tombstones()) == ([], [])
    assert (await store.signals.accept(a.close(), "h", "ok")).fresh

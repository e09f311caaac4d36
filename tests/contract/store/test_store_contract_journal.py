"""The order journal through its port, on every store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from srm_agent.clock import ManualClock
from srm_agent.domain.decisions import Step
from srm_agent.domain.ids import ConnectionId, ProviderKey, ProviderKind
from srm_agent.domain.orders import FillKind, OrderPurpose, OrderState
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import Side
from srm_agent.errors import LeaseLost, StoreBroken
from srm_agent.ports import Journal, OrderUpdate
from tests.contract.store.conftest import C1, C2, KeptStore, Values, fills_of


async def recorded(store: KeptStore, a: Values, *signals: str) -> None:
    """Decisions, entries and legs of these signals on connection c1."""
    names = signals or ("s1",)
    await store.journal.record([a.decision(s) for s in names], [a.intent(s) for s in names], [a.leg(s) for s in names])


async def everything(store: KeptStore) -> list[Any]:
    """The whole book."""
    book = store.book
    reads: list[Callable[[], Any]] = [
        book.orders, book.details, book.decisions, book.legs, book.fills, book.measures, book.messages,
        book.tombstones, book.trades, book.scores, book.metrics, book.marks, book.halts, book.audit, book.equity,
        book.flows, book.leases,
    ]  # fmt: skip
    return [await read() for read in reads]


async def test_the_journal_is_the_port(store: KeptStore) -> None:
    """The journal satisfies its protocol, and knows nothing of a connection it never saw."""
    journal: Journal = store.journal
    nobody = ConnectionId("nobody")
    assert (await journal.unsettled(nobody), await journal.open_legs(nobody)) == ([], [])
    assert await journal.known_fills(nobody, datetime.fromisoformat("2020-01-01T00:00:00+00:00")) == {}


async def test_recorded_values_come_back_equal(store: KeptStore, a: Values) -> None:
    """Intents, legs and decisions are read back exactly as they were recorded, oldest first."""
    names = ("s1", "s2", "s0")
    await recorded(store, a, *names)
    unsettled = await store.journal.unsettled(C1)
    assert [row.intent for row in unsettled] == [a.intent(s) for s in names]
    assert {row.state for row in unsettled} == {OrderState.INTENT}
    assert list(await store.journal.open_legs(C1)) == [a.leg(s) for s in names]
    assert list(await store.book.decisions()) == [a.decision(s) for s in names]
    assert list(await store.book.orders()) == list(unsettled)
    assert set((await store.book.details()).values()) == {""}


async def test_connections_are_apart(store: KeptStore, a: Values) -> None:
    """Orders, legs and fills of one connection are not those of another, even under the same fill id."""
    for name in (C1, C2):
        await store.journal.record([], [a.intent(connection=name)], [a.leg(connection=name)])
        await store.journal.record_fills(name, [a.fill("f1", client_id=None)], [])
    assert [row.intent.connection_id for row in await store.journal.unsettled(C2)] == [C2]
    assert [leg.connection_id for leg in await store.journal.open_legs(C2)] == [C2]
    assert [record.connection_id for record in await store.book.fills()] == [C1, C2]
    assert await store.journal.known_fills(C2, a.start) == {"f1": None}


async def test_recording_twice_changes_nothing(store: KeptStore, a: Values) -> None:
    """A repeated record leaves everything as it was, also after the order has moved on."""
    await recorded(store, a)
    await store.journal.update([a.filled()])
    before = await everything(store)
    await recorded(store, a)
    assert await everything(store) == before


async def test_a_repeat_with_other_values_changes_nothing(store: KeptStore, a: Values) -> None:
    """What is there already stays as it is, and the new rows of the same call are written."""
    await recorded(store, a)
    changed = a.intent(lot=Decimal(9)), a.leg(lot=Decimal(9)), a.decision(lot=Decimal(9))
    await store.journal.record([changed[2], a.decision("s2")], [changed[0], a.intent("s2")], [changed[1], a.leg("s2")])
    assert [row.intent for row in await store.book.orders()] == [a.intent(), a.intent("s2")]
    assert list(await store.book.legs()) == [a.leg(), a.leg("s2")]
    assert list(await store.book.decisions()) == [a.decision(), a.decision("s2")]


BAD: dict[str, Any] = {
    "a lot beyond the scale": {"lot": Decimal("0.00000000001")},
    "a lot that is no number": {"lot": Decimal("NaN")},
    "a lot that is endless": {"lot": Decimal("Infinity")},
    "a lot too large for the column": {"lot": Decimal(10) ** 18},
    "a lot that is a float": {"lot": 0.05},
    "an instant without zone": {"created_at": datetime(2026, 1, 5)},
    "a deadline that is no number": {"deadline": float("nan")},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=list(BAD))
async def test_record_is_all_or_nothing(store: KeptStore, a: Values, changes: dict[str, Any]) -> None:
    """One intent that cannot be stored leaves nothing of the whole call behind."""
    before = await everything(store)
    with pytest.raises(StoreBroken):
        await store.journal.record(
            [a.decision(), a.decision("s2")], [a.intent(), a.intent("s2", **changes)], [a.leg(), a.leg("s2")]
        )
    assert await everything(store) == before
    assert await store.journal.unsettled(C1) == []
    await recorded(store, a, "s1", "s2")
    assert len(await store.journal.unsettled(C1)) == 2


async def test_update_is_all_or_nothing(store: KeptStore, a: Values) -> None:
    """A list of updates whose last one meets a defect leaves nothing of the earlier ones."""
    await recorded(store, a)
    before = await everything(store)
    stranger = a.update(client_id=a.intent("s9").client_id)
    with pytest.raises(StoreBroken, match=stranger.client_id):
        await store.journal.update([a.filled(), a.update(leg=a.closed_leg()), stranger])
    with pytest.raises(StoreBroken):
        await store.journal.update([replace(a.filled(), measure=a.measure(fees=Decimal("NaN")))])
    with pytest.raises(StoreBroken):
        await store.journal.record_fills(C1, [a.fill("f7"), a.fill("f8", price=Decimal("NaN"))], [])
    assert await everything(store) == before
    assert await store.journal.known_fills(C1, a.start) == {}
    assert [row.state for row in await store.journal.unsettled(C1)] == [OrderState.INTENT]
    assert list(await store.journal.open_legs(C1)) == [a.leg()]


async def test_a_fill_is_written_once(store: KeptStore, a: Values) -> None:
    """A fill settles the order, opens the leg and measures it; repeating it adds and changes nothing."""
    await recorded(store, a)
    await store.journal.update([a.filled()])
    once = await everything(store)
    await store.journal.update([a.filled(), a.filled()])
    assert await everything(store) == once
    (order,) = await store.book.orders()
    assert (order.state, order.filled_lot, order.average_price) == (
        OrderState.FILLED, Decimal("0.05"), Decimal("1.08005"),
    )  # fmt: skip
    assert (order.broker_order_id, order.updated_at) == ("b1", a.start + timedelta(seconds=1))
    (fill,) = await store.book.fills()
    assert (fill.connection_id, fill.fill, fill.leg_id) == (C1, a.fill(), a.leg().leg_id)
    (measure,) = await store.book.measures()
    assert (measure.client_id, measure.leg_id, measure.purpose) == (
        a.intent().client_id, a.leg().leg_id, OrderPurpose.ENTRY,
    )  # fmt: skip
    assert measure.measure == a.measure()
    assert await store.journal.unsettled(C1) == []


async def test_partial_fills_accumulate(store: KeptStore, a: Values) -> None:
    """Volume only grows: an older picture of a working order takes neither volume nor price back."""
    await recorded(store, a)
    some = a.update(OrderState.WORKING, filled_lot=Decimal("0.02"), average_price=Decimal("1.08"))
    more = a.update(OrderState.WORKING, filled_lot=Decimal("0.03"), average_price=Decimal("1.0801"))
    await store.journal.update([some, more, some, a.update(OrderState.INTENT)])
    (row,) = await store.journal.unsettled(C1)
    assert (row.state, row.filled_lot, row.average_price) == (OrderState.WORKING, Decimal("0.03"), Decimal("1.0801"))


async def test_the_first_broker_id_stands(store: KeptStore, a: Values) -> None:
    """The broker's id of an order is the first one that was told; code, absences and detail are the last ones."""
    await recorded(store, a)
    told = a.update(OrderState.UNKNOWN, broker_order_id=None, code="TIMEOUT", detail="no answer", absences=1)
    await store.journal.update([told])
    await store.journal.update([replace(told, broker_order_id="b1", absences=2)])
    await store.journal.update([replace(told, broker_order_id="b2", code="LATER", detail="", absences=3)])
    (row,) = await store.journal.unsettled(C1)
    assert (row.state, row.broker_order_id, row.code, row.absences) == (OrderState.UNKNOWN, "b1", "LATER", 3)
    assert await store.book.details() == {a.intent().client_id: ""}


async def test_unsettled_orders_keep_their_order(store: KeptStore, a: Values) -> None:
    """Unsettled rows are told oldest first, whichever of them moved last."""
    await recorded(store, a, "s1", "s2", "s3", "s4")
    ids = [a.intent(s).client_id for s in ("s1", "s2", "s3", "s4")]
    for client_id, state in ((ids[2], OrderState.WORKING), (ids[0], OrderState.UNKNOWN), (ids[1], OrderState.REJECTED)):
        await store.journal.update([a.update(state, client_id=client_id)])
    with pytest.raises(StoreBroken):  # taken back: the settled order is unsettled again, at its own place
        await store.journal.update([a.update(client_id=ids[0]), a.update(client_id=a.intent("s9").client_id)])
    assert [row.intent.client_id for row in await store.journal.unsettled(C1)] == [ids[0], ids[2], ids[3]]


@pytest.mark.parametrize("settled", [OrderState.FILLED, OrderState.REJECTED, OrderState.ABANDONED])
async def test_a_settled_order_keeps_its_state(store: KeptStore, a: Values, settled: OrderState) -> None:
    """No later report moves an order out of FILLED, REJECTED or ABANDONED."""
    await recorded(store, a)
    await store.journal.update([a.update(settled, code="FIRST")])
    before = await everything(store)
    for state in OrderState:
        await store.journal.update([a.update(state, filled_lot=Decimal(0), average_price=None, code="LATER")])
    assert await everything(store) == before


@pytest.mark.parametrize("settled", [OrderState.REJECTED, OrderState.ABANDONED])
async def test_a_late_fill_is_stored_and_flagged(store: KeptStore, a: Values, settled: OrderState) -> None:
    """An order that executes after it was settled keeps its state, stores the fill and gets the code LATE_FILL."""
    await recorded(store, a)
    await store.journal.update([a.update(settled, leg=a.leg(state=LegState.NEVER_OPENED))])
    with capture_logs() as told:
        await store.journal.update([a.filled()])
        await store.journal.update([a.filled()])
    assert [line["event"] for line in told] == ["late_fill"]
    (late,) = await store.book.orders()
    assert (late.state, late.code, late.filled_lot) == (settled, "LATE_FILL", Decimal("0.05"))
    assert len(await store.book.fills()) == 1
    assert list(await store.journal.open_legs(C1)) == [a.open_leg()]


async def test_an_older_picture_of_a_leg_changes_nothing(store: KeptStore, a: Values) -> None:
    """A leg that is closed stays closed when an earlier update is repeated, and reopens only for more volume."""
    await recorded(store, a, "s1", "s2")
    await store.journal.update([a.filled(), a.update(leg=a.closed_leg())])
    await store.journal.update([a.filled(), a.update(leg=a.leg())])
    assert list(await store.journal.open_legs(C1)) == [a.leg("s2")]
    assert list(await store.book.legs()) == [a.closed_leg(), a.leg("s2")]
    reopened = a.closed_leg(state=LegState.OPEN, lot=Decimal("0.07"), close_reason=None)
    await store.journal.record_fills(C1, [a.fill("f9", lot=Decimal("0.02"))], [reopened])
    assert list(await store.journal.open_legs(C1)) == [reopened, a.leg("s2")]


async def test_a_moved_stop_is_kept(store: KeptStore, a: Values) -> None:
    """A leg that has come no further takes its newer stop, target and reason: the last picture of equal progress."""
    await recorded(store, a)
    moved = a.open_leg(stop_loss=Decimal("1.0790"), take_profit=Decimal("1.09"), closing_as=CloseReason.PROVIDER)
    await store.journal.update([a.filled(), a.update(leg=moved)])
    assert list(await store.journal.open_legs(C1)) == [moved]


async def test_a_late_execution_is_flagged_without_its_sum(store: KeptStore, a: Values) -> None:
    """An execution that was not known is enough to flag a refused order, though the report's sum does not say so."""
    await recorded(store, a)
    await store.journal.update([a.update(OrderState.REJECTED, code="NO")])
    await store.journal.update([a.update(OrderState.REJECTED, code="NO", fills=(a.fill(),))])
    assert [(row.code, row.filled_lot) for row in await store.book.orders()] == [("LATE_FILL", Decimal(0))]


async def test_a_leg_nobody_recorded_is_inserted(store: KeptStore, a: Values) -> None:
    """A leg that comes with fills alone (an adoption) is kept, and told to have no entry log once it is open."""
    with capture_logs() as told:
        await store.journal.record_fills(C1, [], [a.open_leg()])
        await store.journal.record_fills(C1, [], [a.open_leg()])
    assert [line["event"] for line in told] == ["leg_without_entry_log"] * 2
    assert list(await store.journal.open_legs(C1)) == [a.open_leg()]


async def test_an_update_without_intent_is_a_defect(store: KeptStore, a: Values) -> None:
    """An update of an order that was never recorded is refused, naming it."""
    with pytest.raises(StoreBroken, match=a.intent().client_id):
        await store.journal.update([a.filled()])


async def test_a_stop_fill_is_tied_to_the_leg_it_closes(store: KeptStore, a: Values) -> None:
    """A fill nobody ordered belongs to the one leg that its side closes; repeated it is stored once."""
    await recorded(store, a)
    await store.journal.update([a.filled()])
    stop = a.fill("f2", client_id=None, side=Side.SELL, kind=FillKind.STOP_LOSS, at=a.start + timedelta(minutes=5))
    closed = a.closed_leg(close_reason=CloseReason.STOP_LOSS)
    for _ in range(2):
        await store.journal.record_fills(C1, [stop], [closed])
    assert await store.journal.known_fills(C1, a.start + timedelta(minutes=1)) == {"f2": closed.leg_id}
    assert await fills_of(store) == {"f1": closed.leg_id, "f2": closed.leg_id}
    assert await store.journal.open_legs(C1) == []


async def test_fills_of_an_order_belong_to_its_leg(store: KeptStore, a: Values) -> None:
    """A fill names its order's leg, whoever brings it; of two possible legs none is guessed; a stranger has none."""
    await recorded(store, a)
    late, foreign = a.fill("f3"), a.fill("f4", client_id=a.intent("s9").client_id)
    await store.journal.record_fills(C1, [late, foreign], [])
    stop = a.fill("f2", client_id=None, side=Side.SELL)
    await store.journal.record_fills(C1, [stop], [a.open_leg(signal="s1"), a.open_leg(signal="s2")])
    assert await fills_of(store) == {"f3": a.leg().leg_id, "f4": None, "f2": None}


async def test_known_fills_since_a_market_time(store: KeptStore, a: Values) -> None:
    """Fills are told from that market time on, that instant included, in the order in which they were recorded."""
    minutes = {"f1": 3, "f2": 1, "f3": 2, "f4": 1}
    for name, minute in minutes.items():
        await store.journal.record_fills(C1, [a.fill(name, at=a.start + timedelta(minutes=minute))], [])
    assert list(await store.journal.known_fills(C1, a.start)) == ["f1", "f2", "f3", "f4"]
    assert list(await store.journal.known_fills(C1, a.start + timedelta(minutes=2))) == ["f1", "f3"]
    assert list(await store.journal.known_fills(C1, a.start + timedelta(minutes=2, microseconds=1))) == ["f1"]
    zoned = (a.start + timedelta(minutes=2)).astimezone(timezone(timedelta(hours=9)))
    assert list(await store.journal.known_fills(C1, zoned)) == ["f1", "f3"]


async def test_who_was_decided(store: KeptStore, a: Values) -> None:
    """A signal's deciders are the connections whose decision is committed, by id; a repeat adds none."""
    what = a.decision().signal_id
    assert list(await store.journal.decided(what)) == []
    for name in ("c2", "c10", "c1", "c2"):
        await store.journal.record([a.decision(connection=name)], [], [])
    await store.journal.record([a.decision("s2", connection="c3")], [], [])
    assert list(await store.journal.decided(what)) == ["c1", "c10", "c2"]


async def test_what_settled_lately(store: KeptStore, a: Values) -> None:
    """Settled rows that changed since an instant, that instant included, come oldest first; a late fill is a change."""
    names = ("s1", "s2", "s3", "s4")
    await recorded(store, a, *names)
    await store.journal.record([], [a.intent("s5", connection=C2)], [])

    def at(second: int) -> datetime:
        return a.start + timedelta(seconds=second)

    plan = (("s3", OrderState.REJECTED, 3), ("s1", OrderState.FILLED, 5), ("s2", OrderState.ABANDONED, 4),
            ("s4", OrderState.UNKNOWN, 9))  # fmt: skip
    for name, state, second in plan:
        await store.journal.update([a.update(state, client_id=a.intent(name).client_id, at=at(second))])
    await store.journal.update([a.update(client_id=a.intent("s5", connection=C2).client_id, at=at(9))])

    async def since(second: int) -> list[str | None]:
        return [row.intent.signal_id for row in await store.journal.settled_since(C1, at(second))]

    s1, s2, s3 = (a.intent(name).signal_id for name in names[:3])
    assert [await since(second) for second in (0, 4, 5, 6)] == [[s1, s2, s3], [s1, s2], [s1], []]
    rejected = a.intent("s3").client_id
    late = a.update(client_id=rejected, at=at(7), fills=(a.fill("f9", client_id=rejected),))
    with pytest.raises(StoreBroken):
        await store.journal.update([late, a.update(client_id=a.intent("s9").client_id)])
    assert await since(6) == []
    await store.journal.update([late])
    assert await since(6) == [s3]
    assert await since(0) == [s1, s2, s3]
    with pytest.raises(StoreBroken):
        await store.journal.settled_since(C1, datetime(2026, 1, 5))


async def test_orders_and_legs_of_ids(store: KeptStore, a: Values) -> None:
    """Orders and legs are found by the ids of legs, oldest first, whatever their state; unknown ids are left out."""
    out = a.intent("s2", leg="close:1", purpose=OrderPurpose.EXIT, target=Decimal("0.010"), requests=("m1", "m2"))
    foreign = a.intent(leg="flatten:1", purpose=OrderPurpose.EMERGENCY, leg_id=None)
    await recorded(store, a, "s1", "s2", "s3")
    await store.journal.record([], [out, foreign], [])
    await store.journal.update([a.filled(), a.update(leg=a.closed_leg())])
    ids = [a.leg(name).leg_id for name in ("s2", "s9", "s1", "s2")]
    orders = await store.journal.orders_of(ids)
    assert [row.intent for row in orders] == [a.intent("s1"), a.intent("s2"), out]
    assert orders[2].intent.requests == ("m1", "m2")
    assert str(orders[2].intent.target) == "0.0100000000"
    assert list(await store.journal.legs(ids)) == [a.closed_leg(), a.leg("s2")]
    assert (list(await store.journal.orders_of([])), list(await store.journal.legs([]))) == ([], [])


async def test_more_volume_replaces_a_measure(store: KeptStore, a: Values) -> None:
    """An order is measured once, and again only where more of it has been filled since."""
    await recorded(store, a)
    first, same = a.measure(filled_lot=Decimal("0.02")), a.measure(filled_lot=Decimal("0.02"), fees=Decimal(9))
    more = a.measure(filled_lot=Decimal("0.05"), fees=Decimal(1))
    for measure, stands in ((first, first), (same, first), (more, more), (first, more)):
        await store.journal.update([a.update(OrderState.WORKING, measure=measure)])
        assert [record.measure for record in await store.book.measures()] == [stands]


async def test_money_is_what_the_columns_make_of_it(store: KeptStore, a: Values) -> None:
    """Prices come back exact at scale 10, results rounded half-even, minus zero as zero, instants in UTC."""
    third, tokyo = Decimal(1) / 3, timezone(timedelta(hours=9))
    await recorded(store, a)
    leg = a.open_leg(fees=third, realised_pnl=Decimal("-0"), opened_at=a.start.astimezone(tokyo))
    await store.journal.update(
        [replace(a.filled(), average_price=third, leg=leg, at=a.start.astimezone(tokyo), filled_lot=Decimal("5E-2"))]
    )
    (row,), (found,) = await store.book.orders(), await store.book.legs()
    assert [str(value) for value in (row.average_price, row.filled_lot, row.intent.lot)] == [
        "0.3333333333", "0.0500000000", "0.0500000000",
    ]  # fmt: skip
    assert [str(value) for value in (found.fees, found.realised_pnl)] == ["0.3333333333", "0E-10"]
    assert [value.isoformat() for value in (row.updated_at, found.opened_at) if value] == [a.start.isoformat()] * 2


async def test_decisions_come_back_as_their_canonical_text(store: KeptStore, a: Values) -> None:
    """A decision's mappings are ordered by key and its numbers carry no trailing zeros."""
    step = Step("cap", {"b": "1", "a": "2"}, Decimal("0.0500"), Decimal("1E-2"))
    await store.journal.record([a.decision(steps=(step,), numbers={"z": "1", "y": "2"}, lot=Decimal("0.0500"))], [], [])
    (found,) = await store.book.decisions()
    assert (list(found.numbers), list(found.steps[0].inputs)) == (["y", "z"], ["a", "b"])
    assert [str(value) for value in (found.lot, found.steps[0].lot_in, found.steps[0].lot_out)] == [
        "0.05", "0.05", "0.01",
    ]  # fmt: skip


async def test_nobody_changes_what_is_stored(store: KeptStore, a: Values) -> None:
    """Neither the mapping a decision was made with nor the values that were read are the store's own."""
    inputs, legs, intents = {"atr": "0.1"}, [a.leg()], [a.intent()]
    await store.journal.record([a.decision(inputs=inputs)], intents, legs)
    inputs["atr"] = "changed"
    legs.clear()
    intents.clear()
    read: Any = (await store.book.decisions())[0].inputs
    read["atr"] = "changed"
    step: Any = (await store.book.decisions())[0].steps[0].inputs
    step["equity"] = "changed"
    rows: Any = await store.journal.unsettled(C1)
    rows.clear()
    assert (await store.book.decisions())[0].inputs == {"atr": "0.1"}
    assert (await store.book.decisions())[0].steps == a.decision().steps
    assert (len(await store.journal.unsettled(C1)), len(await store.journal.open_legs(C1))) == (1, 1)


async def test_a_stale_fence_cannot_record_entries(store: KeptStore, a: Values) -> None:
    """After another owner took the lease, the old writer's entry is refused whole and its exit passes (INV-17)."""
    first = await store.leases.acquire(C1, "old", 0.0)
    second = await store.leases.acquire(C1, "new", 30.0)
    assert (first, second) == (1, 2)
    with pytest.raises(LeaseLost, match="'c1' has fencing token 2, the entry was written under 1"):
        await store.journal.record([a.decision()], [a.intent(fence=1)], [a.leg()])
    assert (await store.book.decisions(), await store.book.legs()) == ([], [])
    await store.journal.record([], [a.intent(leg="close:1", purpose=OrderPurpose.EXIT, fence=1)], [])
    await store.journal.record([], [a.intent(leg="flatten:1", purpose=OrderPurpose.EMERGENCY, fence=0)], [])
    await store.journal.record([a.decision()], [a.intent(fence=2)], [a.leg()])
    await store.journal.record([a.decision()], [a.intent(fence=1)], [a.leg()])  # a repeat writes nothing
    assert [row.intent.fence for row in await store.journal.unsettled(C1)] == [1, 0, 2]


async def test_an_unleased_connection_passes_the_fence(store: KeptStore, a: Values, clock: ManualClock) -> None:
    """A connection that nobody ever leased takes entries under any token; a lease that ran out still binds its own."""
    await store.journal.record([], [a.intent(fence=7)], [])
    assert await store.leases.acquire(C2, "one", 5) == 1
    clock.advance(60)
    await store.journal.record([], [a.intent("s2", connection=C2, fence=1)], [])
    with pytest.raises(LeaseLost):
        await store.journal.record([], [a.intent("s3", connection=C2, fence=2)], [])
    assert len(await store.book.orders()) == 2


async def test_an_order_without_signal_is_kept(store: KeptStore, a: Values) -> None:
    """An emergency close of a foreign position has no signal, leg or decision, and settles like any other."""
    intent = a.intent(
        leg="flatten:1", purpose=OrderPurpose.EMERGENCY, leg_id=None, signal_id=None, decision_id=None,
        reduce="p1", limit_price=None, stop_loss=None,
    )  # fmt: skip
    await store.journal.record([], [intent], [])
    assert [row.intent for row in await store.journal.unsettled(C1)] == [intent]
    update: OrderUpdate = a.update(client_id=intent.client_id, fills=(a.fill("f5", client_id=intent.client_id),))
    await store.journal.update([update])
    assert await fills_of(store) == {"f5": None}
    assert await store.journal.unsettled(C1) == []


async def test_other_providers_are_kept_apart(store: KeptStore, a: Values) -> None:
    """A provider that is a user comes back as one."""
    user = ProviderKey(ProviderKind.USER, "alpha")
    await store.journal.record([a.decision(provider=user)], [], [a.leg(provider=user)])
    assert (await store.book.decisions())[0].provider == (await store.book.legs())[0].provider == user

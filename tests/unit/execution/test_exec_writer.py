"""The journal's writer: in order, for ever, nothing lost with its neighbours."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

from srm_agent.domain.ids import ClientOrderId
from srm_agent.domain.orders import OrderState
from srm_agent.errors import Duplicate, OutcomeUnknown, StoreBroken, StoreUnavailable
from srm_agent.execution.writer import JournalWriter
from srm_agent.ports import OrderUpdate
from srm_agent.store.store import Store
from tests.unit.execution.conftest import C01, START, LoopClock, Twisted, a_leg, an_entry, until


def an_update(number: int) -> OrderUpdate:
    """Some change of some order."""
    return OrderUpdate(
        client_id=ClientOrderId(f"o{number}"),
        state=OrderState.WORKING,
        filled_lot=Decimal(0),
        average_price=None,
        broker_order_id=None,
        code="",
        detail="",
        absences=0,
        at=START,
    )


class Paper:
    """A journal that notes what it takes and refuses what it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.errors: list[Exception] = []
        self.refused: dict[str, list[Exception]] = {}

    async def update(self, updates: list[OrderUpdate]) -> None:
        """All or nothing."""
        if self.errors:
            raise self.errors.pop(0)
        for change in updates:
            if self.refused.get(change.client_id):
                raise self.refused[change.client_id].pop(0)
        self.written += [change.client_id for change in updates]


def at_work(paper: Paper) -> tuple[JournalWriter, asyncio.Task[None]]:
    """A writer that writes."""
    journal: Any = paper
    writer = JournalWriter(journal, C01)
    return writer, asyncio.create_task(writer.run())


async def test_the_order_is_kept_through_an_outage() -> None:
    """The store goes away and comes back: everything is written once, in order, and `behind` says so meanwhile."""
    paper = Paper()
    paper.errors = [StoreUnavailable("away"), OutcomeUnknown("commit lost"), StoreUnavailable("away")]
    writer, task = at_work(paper)
    for number in range(5):
        writer.put(an_update(number))

    async def job() -> None:
        paper.written.append("job")

    writer.put_job(job)
    for number in range(5, 250):
        writer.put(an_update(number))
    await until(lambda: writer.behind)
    await writer.drained()
    assert paper.written == [*(f"o{n}" for n in range(5)), "job", *(f"o{n}" for n in range(5, 250))]
    assert not writer.behind
    task.cancel()


async def test_a_duplicate_does_not_take_its_batch_with_it() -> None:
    """One update of a batch meets another process's row: all the others are written, and so is it."""
    paper = Paper()
    paper.refused["o2"] = [Duplicate("fills"), Duplicate("fills")]
    writer, task = at_work(paper)
    for number in range(5):
        writer.put(an_update(number))
    await writer.drained()
    assert paper.written == [f"o{n}" for n in range(5)]
    assert not writer.behind
    task.cancel()


async def test_a_write_that_can_never_succeed_stops_entries_and_nothing_else() -> None:
    """A defect in one row is given up, the rest is written, and the connection stays REDUCING (INV-10, INV-14)."""
    paper = Paper()
    paper.refused["o2"] = [StoreBroken("a value cannot be stored") for _ in range(9)]
    writer, task = at_work(paper)
    for number in range(5):
        writer.put(an_update(number))
    await writer.drained()
    assert paper.written == ["o0", "o1", "o3", "o4"]
    assert writer.behind
    assert not task.done()
    task.cancel()


async def test_writing_twice_adds_nothing() -> None:
    """A commit whose reply was lost is written again: the journal is as if it had been written once."""
    store = await Store.memory(LoopClock())
    leg = a_leg()
    intent = an_entry(leg)
    journal: Any = Twisted(store.journal)

    async def lost_once(*args: Any) -> None:
        await store.journal.update(*args)
        journal.twists.pop("update")
        raise OutcomeUnknown("commit reply lost")

    journal.twists["update"] = lost_once
    await store.journal.record([], [intent], [leg])
    writer = JournalWriter(journal, C01)
    task = asyncio.create_task(writer.run())
    change = replace(an_update(1), client_id=intent.client_id)
    writer.put(change)
    await writer.drained()
    (row,) = await store.journal.unsettled(C01)
    assert row.state is OrderState.WORKING
    task.cancel()
    await store.close()

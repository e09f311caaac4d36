"""The judges of orders: INV-1, INV-2, INV-5, INV-6, INV-17, each on a violation and on its lawful twin."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from srm_agent.domain.ids import PositionRef, client_order_id
from srm_agent.domain.orders import OrderState
from srm_agent.domain.trades import LegState
from srm_agent.ports import Capabilities
from tests.unit.simulation.court import C01, Court, a_court, an_entry, an_exit, an_open


async def test_one_lawful_story_breaks_nothing() -> None:
    """An entry on its lawful way and its exit break no invariant."""
    court = a_court()
    leg = await court.opened(an_entry())
    court.wait(20)
    close = an_exit(leg)
    await court.door().journal.record([], [close], [])
    court.send(close)
    court.place(close)
    gone = replace(leg, state=LegState.CLOSED, closed_lot=leg.lot)
    await court.settle(close, OrderState.FILLED, leg=gone, filled=leg.lot)
    court.wait(20)
    await court.judge.end()
    assert court.judge.violations == []
    counts = court.judge.counts()
    assert all(counts[f"INV-{number}"] for number in (1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 14, 17, 18))


async def test_a_second_order_of_a_signal_breaks_inv_1() -> None:
    """A resent entry under another attempt is a second order of its signal, in whichever life it is sent."""
    court = a_court()
    entry = an_entry(lot=Decimal("0.1"))
    await court.opened(entry)
    again = client_order_id(C01, entry.intent.signal_id or an_open().signal_id, "entry", 2)
    intent = await court.commit(entry, client_id=again)
    court.place(intent)
    [text] = court.found("INV-1")
    assert entry.intent.client_id in text
    assert again in text


async def test_a_second_order_is_recognised_without_a_row() -> None:
    """A second attempt that nobody journalled is recognised by the id that derives from its signal."""
    court = a_court()
    entry = an_entry(lot=Decimal("0.1"))
    await court.accept(an_open())
    await court.opened(entry)
    again = client_order_id(C01, an_open().signal_id, "entry", 2)
    court.place(replace(entry.intent, client_id=again))
    assert court.verdict == ["INV-1", "INV-2"]


async def test_one_order_a_signal_is_lawful() -> None:
    """Two signals may have an order each."""
    court = a_court()
    await court.opened(an_entry("s1", Decimal("0.1")))
    await court.opened(an_entry("s2", Decimal("0.1")))
    assert court.verdict == []


async def test_an_order_without_a_row_breaks_inv_2() -> None:
    """What the venue accepts before its row is committed is told at once."""
    court = a_court()
    court.place(an_entry().intent)
    [text] = court.found("INV-2")
    assert "without a row" in text


async def test_an_order_unlike_its_row_breaks_inv_2() -> None:
    """An order with other lots than its row's is told."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.place(intent, lots=Decimal("0.2"))
    assert court.found("INV-2")


@pytest.mark.parametrize(
    ("spilt", "database", "disk", "lawful"),
    [(True, False, True, True), (True, True, True, True), (False, False, False, True), (False, False, True, False)],
)
async def test_an_exit_may_be_spilt(spilt: bool, database: bool, disk: bool, lawful: bool) -> None:
    """An exit needs a row or a line in the spill file, and neither only where nothing can be written."""
    court = a_court()
    leg = await court.opened(an_entry())
    court.database, court.disk = database, disk
    close = an_exit(leg)
    court.spills = [close.client_id] if spilt else []
    court.place(close)
    assert bool(court.found("INV-2")) is not lawful


async def test_a_late_entry_breaks_inv_5() -> None:
    """An entry that leaves more than two seconds after its commit is told, one in time is not."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.time += 1.9
    court.send(intent)
    assert court.found("INV-5") == []
    court.time += 1.0
    court.send(intent)
    assert "left 2.90 s after" in court.found("INV-5")[0]


async def test_rejected_after_a_lost_answer_breaks_inv_5() -> None:
    """An answer that never came proves nothing: REJECTED is a guess."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.send(intent)
    await court.settle(intent, OrderState.REJECTED, code="TIMEOUT")
    [text] = court.found("INV-5")
    assert "proves nothing" in text


@pytest.mark.parametrize("answer", ["rejected", "unreachable", "not authorised"])
async def test_rejected_after_a_proof_is_lawful(answer: str) -> None:
    """A refusal, or a call that provably had no effect, is a proof."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.send(intent).answer = answer
    await court.settle(intent, OrderState.REJECTED, code="REFUSED")
    assert court.verdict == []


async def test_rejected_of_an_order_that_ended_unfilled_is_lawful() -> None:
    """What the venue shows as ended without a fill may be taken so, though the answer was lost."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.send(intent)
    court.price("60100")
    court.place(intent)  # beyond its limit: withdrawn without a fill
    await court.settle(intent, OrderState.REJECTED, code="MISSED_PRICE")
    assert court.verdict == []


@pytest.mark.parametrize(("seconds", "absences", "broken"), [(121.0, 5, 0), (60.0, 5, 2), (121.0, 4, 1), (60.0, 1, 2)])
async def test_abandoned_needs_finality_and_absences(seconds: float, absences: int, broken: int) -> None:
    """ABANDONED is lawful after the finality time and five look-ups in a row that said ABSENT after it; both."""
    court = a_court()
    court.seen.capabilities[C01] = Capabilities(
        netting=True, atomic_protection=True, price_capped_entry=True, finality_s=120, absences=5, read_only=False
    )
    intent = await court.commit(an_entry())
    court.send(intent)
    court.wait(seconds)
    court.seen.absent[intent.client_id] = [10.0] * 5 + [court.time] * absences
    await court.settle(intent, OrderState.ABANDONED, code="ABSENT")
    assert len(court.found("INV-5")) == broken


async def _ghost(court: Court) -> None:
    """An order that is journalled ABANDONED and executes afterwards."""
    intent = await court.commit(an_entry())
    court.send(intent).answer = "rejected"
    await court.settle(intent, OrderState.REJECTED, code="REFUSED")
    court.place(intent)


async def test_a_ghost_nobody_cares_for_breaks_inv_6() -> None:
    """A rejected order that executes and is left alone is told after ten seconds of reachable time."""
    court = a_court()
    await _ghost(court)
    court.page()
    court.reached = False
    court.wait(30)
    assert court.found("INV-6") == []
    court.reached = True
    court.wait(11)
    assert "neither adopted nor flattened" in court.found("INV-6")[0]


async def test_a_ghost_adopted_without_a_page_breaks_inv_6() -> None:
    """People must hear of it."""
    court = a_court()
    await _ghost(court)
    await court.door().journal.record_fills(
        C01, [], [replace(an_entry().leg, state=LegState.OPEN, entry_price=Decimal(60_000))]
    )
    court.wait(11)
    assert "nobody was paged" in court.found("INV-6")[0]


async def test_a_ghost_adopted_with_a_page_is_lawful() -> None:
    """Its leg is open, the stop is there, people were told."""
    court = a_court()
    await _ghost(court)
    court.page()
    await court.door().journal.record_fills(
        C01, [], [replace(an_entry().leg, state=LegState.OPEN, entry_price=Decimal(60_000))]
    )
    court.wait(30)
    assert court.verdict == []
    assert court.judge.counts()["INV-6"] == 1


async def test_a_ghost_flattened_with_a_page_is_lawful() -> None:
    """It is closed again, people were told."""
    court = a_court()
    await _ghost(court)
    court.page("late fill closed")
    close = an_exit(an_entry().leg, reduce=PositionRef("p"))
    await court.door().journal.record([], [close], [])
    court.place(close)
    court.wait(30)
    assert court.found("INV-6") == []


async def test_an_entry_under_an_old_token_breaks_inv_17() -> None:
    """A row whose token is not the lease's is told, even if the store lets it in."""
    court = a_court()
    await court.lease()
    entry = an_entry()
    court.seen.recorded(1, [entry.decision], [replace(entry.intent, fence=7)], 0)
    assert "token 7" in court.found("INV-17")[0]


async def test_sending_long_after_losing_the_lease_breaks_inv_17() -> None:
    """Two seconds after another process took the lease nothing committed under the old token leaves any more."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.time += 1.0
    await court.door().leases.release(C01, "process 1", 1)
    await court.lease(2)
    court.time += 0.5
    court.send(intent)
    assert court.found("INV-17") == []
    court.time += 2.0
    court.send(intent)
    assert court.found("INV-17")


async def test_two_lives_under_one_token_break_inv_17() -> None:
    """Two processes that live at once never both get entries accepted under one token; one after the other may."""
    court = a_court()
    court.live(2)
    court.place(await court.commit(an_entry("s1", Decimal("0.1"))))
    court.time += 1.0
    court.place(await court.commit(an_entry("s2", Decimal("0.1")), life=2))
    assert "lives 1 and 2" in court.found("INV-17")[0]
    twin = a_court()
    twin.place(await twin.commit(an_entry("s1", Decimal("0.1"))))
    twin.die(1)
    twin.live(2)
    twin.time += 1.0
    twin.place(await twin.commit(an_entry("s2", Decimal("0.1")), life=2))
    assert twin.found("INV-17") == []

"""The judges of positions: INV-4, INV-7, INV-9, INV-10, INV-11, INV-12."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.terms import SymbolState
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.orders import OrderIntent
from srm_agent.domain.units import Side
from tests.unit.simulation.court import BTC, C01, STOP, Court, a_close, a_court, an_entry, an_exit, an_open, human


async def _naked() -> Court:
    court = a_court()
    await court.opened(an_entry())
    court.wait(1)
    court.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=Decimal(0))
    return court


async def test_a_naked_position_breaks_inv_4() -> None:
    """Five seconds without a stop are lawful, more are not, and 35 s without being flattened are told once more."""
    court = await _naked()
    court.wait(5)
    assert court.verdict == []
    court.wait(1)
    assert "no stop" in court.found("INV-4")[0]
    court.wait(40)
    assert ["nobody asks" in text for text in court.found("INV-4")] == [True, False]


async def test_only_reachable_ready_time_counts() -> None:
    """While nobody can act (no line, nobody ready, market closed) a naked position is not held against the agent."""
    court = await _naked()
    court.reached = False
    court.wait(20)
    court.reached = True
    court.wait(4)
    court.die(1)
    court.wait(20)
    court.live(2)
    court.wait(4)
    court.venue.set_state("BTCUSDT", SymbolState.CLOSED)
    court.wait(20)
    court.venue.set_state("BTCUSDT", SymbolState.TRADING)
    court.wait(4)
    assert court.verdict == []
    court.wait(2)
    assert court.verdict == ["INV-4"]


async def test_a_stop_that_the_broker_refuses_has_thirty_seconds() -> None:
    """Who goes on asking has 30 s, and what closing takes; then it must be flat."""
    court = await _naked()
    for _ in range(34):
        court.seen.protects[C01, BTC] = court.time
        court.wait(1)
    assert court.verdict == []
    for _ in range(3):
        court.seen.protects[C01, BTC] = court.time
        court.wait(1)
    assert "not flattened" in court.found("INV-4")[0]


async def test_a_loosened_stop_breaks_inv_4() -> None:
    """A stop further away than the leg's has ten seconds; a tighter one is nobody's trouble."""
    court = a_court()
    await court.opened(an_entry())
    court.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=STOP - 100)
    court.wait(10)
    assert court.verdict == []
    court.wait(1)
    assert "looser" in court.found("INV-4")[0]
    court.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=STOP + 100)
    court.wait(60)
    assert len(court.found("INV-4")) == 1


async def test_a_naked_position_of_others_is_their_business() -> None:
    """A human's position needs no stop of ours."""
    court = a_court()
    human(court, Side.SELL, "0.2")
    court.wait(60)
    assert court.verdict == []


async def test_a_position_that_no_leg_explains_breaks_inv_7() -> None:
    """Ten seconds after everything works the journal knows what the venue holds."""
    court = a_court()
    court.place(await court.commit(an_entry()))
    court.database = False
    court.wait(30)
    assert court.found("INV-7") == []
    court.database = True
    court.wait(11)
    assert "the venue 0.3" in court.found("INV-7")[0]


async def test_a_leg_that_the_venue_does_not_hold_breaks_inv_7() -> None:
    """A leg that is open in the database while the account is flat is told too."""
    court = a_court()
    leg = await court.opened(an_entry())
    court.place(await _journalled(court, an_exit(leg)))
    court.wait(11)
    assert "legs have 0.3" in court.found("INV-7")[0]


async def test_volume_of_others_is_no_difference() -> None:
    """What a human adds is foreign, and while his trades are in it the legs may be anything up to the position."""
    court = a_court()
    leg = await court.opened(an_entry())
    human(court, Side.BUY, "0.2")
    court.wait(20)
    human(court, Side.SELL, "0.2")  # his own, or ours? the journal may say either
    court.wait(20)
    await court.door().journal.record_fills(C01, [], [replace(leg, closed_lot=Decimal("0.2"))])
    court.wait(20)
    assert court.verdict == []
    await court.door().journal.record_fills(C01, [], [replace(leg, lot=Decimal("0.9"), closed_lot=Decimal("0.2"))])
    court.wait(20)
    assert court.found("INV-7")


async def test_an_exit_that_closes_foreign_lots_breaks_inv_7() -> None:
    """An exit larger than ours touches what is not ours; one of our own size does not."""
    court = a_court()
    leg = await court.opened(an_entry())
    human(court, Side.BUY, "0.2")
    court.wait(10)
    court.place(await _journalled(court, an_exit(leg, Decimal("0.4"))))
    assert "0.1 lots" in court.found("INV-7")[0]
    twin = a_court()
    leg = await twin.opened(an_entry())
    human(twin, Side.BUY, "0.2")
    twin.wait(10)
    twin.place(await _journalled(twin, an_exit(leg)))
    assert twin.verdict == []


async def test_an_account_wide_emergency_may_close_foreign_lots() -> None:
    """With scope account and a flattening account everything goes; with scope own it does not."""
    for whole in (True, False):
        court = a_court(scope_is_account=whole)
        human(court, Side.BUY, "0.2")
        court.wait(10)
        court.state = ConnectionState.FLATTENING
        court.place(await _journalled(court, an_exit(an_entry().leg, Decimal("0.2"))))
        assert bool(court.found("INV-7")) is not whole


async def test_an_account_that_does_not_become_flat_breaks_inv_9() -> None:
    """Five seconds of reachable time for up to ten positions; a break starts the clock again."""
    court = a_court()
    leg = await court.opened(an_entry())
    court.state = ConnectionState.FLATTENING
    court.wait(4)
    court.reached = False
    court.wait(10)
    court.reached = True
    court.wait(5)
    assert court.found("INV-9") == []
    court.wait(1)
    assert "not flat" in court.found("INV-9")[0]
    assert court.judge.counts()["INV-9"] == 1
    twin = a_court()
    leg = await twin.opened(an_entry())
    twin.state = ConnectionState.FLATTENING
    twin.wait(4)
    twin.place(await _journalled(twin, an_exit(leg)))
    twin.state = ConnectionState.HALTED
    twin.wait(9)
    assert twin.found("INV-9") == []


async def test_a_position_that_appears_after_the_flattening_breaks_inv_9() -> None:
    """A fill that arrives later is closed within the same time, or it is told."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.send(intent)
    court.state = ConnectionState.FLATTENING
    court.wait(2)
    court.state = ConnectionState.HALTED
    court.wait(60)
    court.place(intent)
    court.wait(6)
    assert court.found("INV-9")


async def test_a_close_that_nobody_carries_out_breaks_inv_10() -> None:
    """Five reachable seconds after a full close was taken its exit has left, database and halts or not."""
    court = a_court()
    await court.accept(an_open())
    await court.opened(an_entry())
    await court.accept(a_close())
    court.database, court.state = False, ConnectionState.HALTED
    court.wait(5)
    assert court.found("INV-10") == []
    court.wait(1)
    assert "no exit has left" in court.found("INV-10")[0]


async def test_an_exit_that_leaves_in_time_satisfies_inv_10() -> None:
    """What the broker makes of it is another matter; a part close asks for nothing here."""
    court = a_court()
    leg = await court.opened(an_entry())
    await court.accept(a_close(fraction="0.5", message="half"))
    court.wait(10)
    await court.accept(a_close())
    court.wait(4)
    court.send(an_exit(leg))
    court.wait(20)
    assert court.found("INV-10") == []
    assert court.judge.counts()["INV-10"] == 1


async def test_a_closed_signal_with_an_open_leg_at_the_end_breaks_inv_10() -> None:
    """Asking once is not enough for the end."""
    court = a_court()
    leg = await court.opened(an_entry())
    await court.accept(a_close())
    court.send(an_exit(leg))
    await court.judge.end()
    assert "its leg is OPEN" in court.found("INV-10")[0]


async def test_too_much_risk_breaks_inv_11() -> None:
    """Lot x distance from the limit to the stop may reach the cap, not pass it."""
    at_cap = a_court(max_risk=Decimal("0.0306"))
    at_cap.place(await at_cap.commit(an_entry()))
    assert at_cap.verdict == []
    court = a_court(max_risk=Decimal("0.0305"))
    court.place(await court.commit(an_entry()))
    assert "risks 306" in court.found("INV-11")[0]


async def test_an_entry_without_a_stop_breaks_inv_11() -> None:
    """Nothing bounds its risk; a broker that drops the stop of an order is no fault of the order."""
    court = a_court()
    court.place(await court.commit(an_entry()), stop_loss=None)
    assert "no stop" in court.found("INV-11")[0]
    twin = a_court()
    intent = await twin.commit(an_entry())
    twin.send(intent)
    twin.place(intent, stop_loss=None)
    assert twin.verdict == []


async def test_a_stop_moved_away_from_the_one_that_left_breaks_inv_11() -> None:
    """A leg's stop may be tightened and loosened back to the stop its order left with, not beyond it."""
    court = a_court()
    leg = await court.opened(an_entry())
    journal = court.door().journal
    for stop in (STOP + 100, STOP):
        await journal.record_fills(C01, [], [replace(leg, stop_loss=stop)])
        court.wait(0.25)
    assert court.verdict == []
    await journal.record_fills(C01, [], [replace(leg, stop_loss=STOP - 1)])
    court.wait(1)
    assert len(court.found("INV-11")) == 1
    assert "more is at risk than was planned" in court.found("INV-11")[0]


@pytest.mark.parametrize("lot", ["0.0305", "0.0001", "101", "NaN", "Infinity"])
async def test_a_lot_off_the_grid_breaks_inv_12(lot: str) -> None:
    """A lot that is no multiple, too small, too large or no number is told where it leaves."""
    court = a_court()
    court.send(replace(an_entry().intent, lot=Decimal(lot)))
    assert court.found("INV-12")


async def test_too_much_risk_together_breaks_inv_12() -> None:
    """What is open and what is under way count; what has ended does not."""
    court = a_court(max_open_risk=Decimal("0.07"))
    leg = await court.opened(an_entry("s1"))
    await court.commit(an_entry("s2"))
    assert court.found("INV-12") == []
    await court.commit(an_entry("s3"))
    assert "adds 306.0 to an open risk of 606.3" in court.found("INV-12")[0]
    court.place(await _journalled(court, an_exit(leg)))
    await court.commit(an_entry("s4", Decimal("0.05")))
    assert len(court.found("INV-12")) == 1


async def test_a_score_beyond_its_limit_breaks_inv_12() -> None:
    """The multiplier of the score stays within max_up."""
    entry = an_entry()
    grown = replace(entry.decision.steps[0], rule="score_multiplier", inputs={"max_up": "1.5"}, lot_in=Decimal("0.1"))
    court = a_court()
    await court.commit(replace(entry, decision=replace(entry.decision, steps=(grown,))))
    assert "its score made" in court.found("INV-12")[0]


async def _journalled(court: Court, intent: OrderIntent) -> OrderIntent:
    await court.door().journal.record([], [intent], [])
    return intent

"""The negative control of the kill -9 soak: each thing that must not be is counted when it is there."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest

from srm_agent.domain.ids import ConnectionId, SignalId, client_order_id
from tests.soak.kill import last_line, main, passed, points_asked
from tests.soak.kill_daemon import Restart
from tests.soak.kill_judge import (
    Acked,
    BookedLeg,
    BookedOrder,
    Evidence,
    Finding,
    Kind,
    VenueOrder,
    VenuePosition,
    count,
    judge,
)
from tests.soak.kill_points import OWED, POINTS, points_in_source
from tests.soak.kill_run import RANDOM, Outcome, plan

SIGNAL, CLOSED_SIGNAL, SYMBOL = "channel_source:alpha/s1", "channel_source:alpha/s2", "BTC/USDT:USDT"
LOTS = Decimal("1.5")


def entry_id(signal: str, attempt: int = 1) -> str:
    """The id of an entry of c01."""
    return client_order_id(ConnectionId("c01"), SignalId(signal), "entry", attempt)


def order(client_id: str, *, reduce_only: bool = False, working: bool = False, filled: Decimal = LOTS) -> VenueOrder:
    """An order of c01 at the venue."""
    return VenueOrder(
        account="c01", client_id=client_id, symbol=SYMBOL, reduce_only=reduce_only, filled=filled, working=working
    )


def booked(client_id: str, signal: str, *, entry: bool = True, state: str = "FILLED") -> BookedOrder:
    """A row of the journal of c01."""
    return BookedOrder(
        account="c01",
        client_id=client_id,
        signal_id=signal,
        entry=entry,
        settled=state in ("FILLED", "REJECTED", "ABANDONED"),
        denied=state in ("REJECTED", "ABANDONED"),
        state=state,
    )


def message(message_id: str, signal: str, *, opens: bool = False, closes: bool = False) -> Acked:
    """An acknowledged message that c01 follows."""
    return Acked(message_id=message_id, signal_id=signal, opens=opens, closes=closes, followers=("c01",))


@pytest.fixture
def well() -> Evidence:
    """One signal that is open on both sides, one that was opened and closed, a stop order of the venue's own."""
    return Evidence(
        venue_orders=[
            order(entry_id(SIGNAL)),
            order(entry_id(CLOSED_SIGNAL)),
            order("srm1close", reduce_only=True),
            order("", reduce_only=True, working=True, filled=Decimal(0)),
        ],
        positions=[VenuePosition(account="c01", symbol=SYMBOL, lots=LOTS, stopped=True)],
        arrived={("c01", entry_id(SIGNAL)): 1, ("c01", entry_id(CLOSED_SIGNAL)): 1, ("c01", "srm1close"): 1},
        orders=[
            booked(entry_id(SIGNAL), SIGNAL),
            booked(entry_id(CLOSED_SIGNAL), CLOSED_SIGNAL),
            booked("srm1close", CLOSED_SIGNAL, entry=False),
        ],
        legs=[BookedLeg(account="c01", signal_id=SIGNAL, symbol=SYMBOL, lots=LOTS)],
        decided={("c01", SIGNAL): True, ("c01", CLOSED_SIGNAL): True},
        finished={"m1": True, "m2": True, "m3": True},
        acked=[
            message("m1", SIGNAL, opens=True),
            message("m2", CLOSED_SIGNAL, opens=True),
            message("m3", CLOSED_SIGNAL, closes=True),
        ],
        entries={entry_id(SIGNAL): ("c01", SIGNAL), entry_id(SIGNAL, 2): ("c01", SIGNAL)},
    )


def only(evidence: Evidence, kind: Kind) -> str:
    """The text of the one finding there is."""
    findings = judge(evidence)
    assert [found.kind for found in findings] == [kind], findings
    return findings[0].text


def test_a_sound_world_has_no_findings(well: Evidence) -> None:
    """Where venue, database and acknowledgements agree nothing is counted."""
    assert judge(well) == []
    assert count([]) == dict.fromkeys(Kind, 0)


# ---- duplicates


def test_a_second_entry_of_one_signal_is_a_duplicate(well: Evidence) -> None:
    """Two accepted entries of an account and signal, under two ids that the database knows."""
    twice = replace(
        well,
        venue_orders=[*well.venue_orders, order("srm1other", filled=Decimal(0))],
        orders=[*well.orders, booked("srm1other", SIGNAL)],
    )
    assert "entered channel_source:alpha/s1 2 times" in only(twice, Kind.DUPLICATE)


def test_a_duplicate_is_found_without_the_database(well: Evidence) -> None:
    """The ids of a signal's entries are derived, so a second one counts even where the journal knows neither."""
    twice = replace(well, venue_orders=[*well.venue_orders, order(entry_id(SIGNAL, 2), filled=Decimal(0))])
    assert {found.kind for found in judge(twice)} == {Kind.DUPLICATE, Kind.ORPHAN}


def test_an_order_that_arrived_twice_is_a_duplicate(well: Evidence) -> None:
    """An order is sent once: that the venue refuses the second for its id is no excuse."""
    twice = replace(well, arrived={**well.arrived, ("c01", entry_id(SIGNAL)): 2})
    assert "sent srm1" in only(twice, Kind.DUPLICATE)


# ---- orphans


def test_an_order_that_is_not_booked_is_an_orphan(well: Evidence) -> None:
    """The venue has an order of ours that the journal does not know."""
    forgotten = replace(well, venue_orders=[*well.venue_orders, order("srm1lost", filled=Decimal(0))])
    assert "srm1lost" in only(forgotten, Kind.ORPHAN)


def test_what_others_do_is_no_orphan(well: Evidence) -> None:
    """An order under a foreign id is none of ours."""
    foreign = replace(well, venue_orders=[*well.venue_orders, order("by-hand", filled=Decimal(0))])
    assert judge(foreign) == []


@pytest.mark.parametrize("lots", [LOTS * 2, -LOTS, Decimal("0.1")])
def test_a_position_that_the_legs_do_not_explain_is_an_orphan(well: Evidence, lots: Decimal) -> None:
    """More, less or the other way round than the database's legs."""
    other = replace(well, positions=[VenuePosition(account="c01", symbol=SYMBOL, lots=lots, stopped=True)])
    assert f"holds {lots} at the venue, 1.5 in the database" in only(other, Kind.ORPHAN)


def test_an_open_leg_without_a_position_is_an_orphan(well: Evidence) -> None:
    """The database holds what the venue does not have."""
    assert "holds 0 at the venue" in only(replace(well, positions=[]), Kind.ORPHAN)


def test_a_position_without_a_leg_is_an_orphan(well: Evidence) -> None:
    """The venue holds what the database does not know."""
    assert "0 in the database" in only(replace(well, legs=[]), Kind.ORPHAN)


def test_an_execution_that_the_journal_denies_is_an_orphan(well: Evidence) -> None:
    """Rejected or given up in the journal, executed at the venue (INV-6)."""
    denied = replace(well, orders=[booked(entry_id(SIGNAL), SIGNAL, state="ABANDONED"), *well.orders[1:]])
    assert "booked as ABANDONED" in only(denied, Kind.ORPHAN)


def test_a_fill_that_the_venue_never_saw_is_an_orphan(well: Evidence) -> None:
    """Filled in the journal, unknown at the venue."""
    invented = replace(well, orders=[*well.orders, booked("srm1made-up", SIGNAL, entry=False)])
    assert "unknown at the venue" in only(invented, Kind.ORPHAN)


def test_an_order_that_still_works_though_settled_is_an_orphan(well: Evidence) -> None:
    """Settled in the journal, working at the venue."""
    works = replace(well, venue_orders=[*well.venue_orders[:2], order("srm1close", reduce_only=True, working=True)])
    assert "still has srm1close" in only(works, Kind.ORPHAN)


# ---- lost


def test_an_acknowledged_message_that_is_not_there_is_lost(well: Evidence) -> None:
    """2xx was answered, and the database does not know the message."""
    gone = replace(well, finished={"m1": True, "m2": True})
    assert "m3" in only(gone, Kind.LOST)


def test_an_acknowledged_message_that_is_not_finished_is_lost(well: Evidence) -> None:
    """It is there, and nobody has worked it off."""
    assert "not finished" in only(replace(well, finished={**well.finished, "m3": False}), Kind.LOST)


def test_an_opening_without_a_decision_is_lost(well: Evidence) -> None:
    """Each follower of the provider has a decision on each opening."""
    undecided = replace(well, decided={("c01", CLOSED_SIGNAL): True})
    assert "no decision for c01" in only(undecided, Kind.LOST)


def test_an_accepted_decision_without_an_order_is_lost(well: Evidence) -> None:
    """A decision that says yes has an entry in the journal; one that says no needs none."""
    more = [*well.acked, message("m4", "channel_source:alpha/s9", opens=True)]
    decided = {**well.decided, ("c01", "channel_source:alpha/s9"): True}
    accepted = replace(well, acked=more, finished={**well.finished, "m4": True}, decided=decided)
    assert "has no order" in only(accepted, Kind.LOST)
    assert judge(replace(accepted, decided={**decided, ("c01", "channel_source:alpha/s9"): False})) == []


def test_a_close_that_left_the_leg_open_is_lost(well: Evidence) -> None:
    """Closes never expire: an acknowledged one whose signal is still open was lost."""
    asked = replace(
        well, acked=[*well.acked, message("m4", SIGNAL, closes=True)], finished={**well.finished, "m4": True}
    )
    assert "asked to close" in only(asked, Kind.LOST)


# ---- unresolved, naked


@pytest.mark.parametrize("state", ["INTENT", "UNKNOWN", "WORKING"])
def test_an_order_of_unknown_fate_is_unresolved(well: Evidence, state: str) -> None:
    """After finality the journal knows what became of every order."""
    doubt = replace(well, orders=[*well.orders, booked("srm1doubt", SIGNAL, entry=False, state=state)])
    assert only(doubt, Kind.UNRESOLVED) == f"c01 srm1doubt is {state}"


def test_a_position_without_a_stop_is_counted(well: Evidence) -> None:
    """INV-4 at the moment of judgement."""
    bare = replace(well, positions=[replace(well.positions[0], stopped=False)])
    assert "has no stop" in only(bare, Kind.NAKED)


# ---- the program around it


def outcome(*findings: Finding) -> Outcome:
    """A soak of 20 kills with two restarts."""
    made = Outcome(restarts=[Restart(3.0, 0.1), Restart(3.4, 0.2)], findings=list(findings))
    made.kills.update({"CP4": 12, RANDOM: 8})
    return made


def test_the_last_line_has_the_counts() -> None:
    """What callers read, and whether it passed."""
    assert last_line(outcome(), ["CP4", "CP5"]) == (
        "kills 20 duplicates 0 orphans 0 lost 0 unresolved 0 restart p99 3.4 s points 1/2 hit"
    )
    assert passed(outcome(), ["CP4"])
    assert not passed(outcome(), ["CP4", "CP5"])


@pytest.mark.parametrize("kind", list(Kind))
def test_one_finding_of_any_kind_fails_the_soak(kind: Kind) -> None:
    """Each is counted under its name, and none is forgiven."""
    bad = outcome(Finding(kind, "x"))
    assert f"{kind.value} 1" in last_line(bad, ["CP4"])
    assert not passed(bad, ["CP4"])


def test_slow_restarts_and_strange_ends_fail_the_soak() -> None:
    """A restart above ten seconds, a daemon that ended by itself."""
    slow, strange = outcome(), outcome()
    slow.restarts.append(Restart(10.2, 0.1))
    strange.strange.append("start 3 ended by itself with exit code 1")
    assert not passed(slow, ["CP4"])
    assert not passed(strange, ["CP4"])
    assert last_line(strange, ["CP4"]).endswith("strange 1")


def test_a_restart_on_a_busy_machine_is_told_apart_from_a_slow_one() -> None:
    """The line has the time as the clock saw it, and beside it what was the daemon's own."""
    busy = outcome()
    busy.restarts.append(Restart(17.0, 8.5))
    assert passed(busy, ["CP4"])
    assert "restart p99 17.0 s (8.5 s of its own) points" in last_line(busy, ["CP4"])


@pytest.mark.parametrize("kills", [20, 100, 500])
def test_every_crash_point_has_its_turn(kills: int) -> None:
    """Half of the kills go to the crash points in turn, each at least once."""
    lives = plan(tuple(POINTS), kills, Random(1))
    assert len(lives) == kills
    turns = {point: lives.count(point) for point in POINTS}
    assert set(turns.values()) == {max(1, kills // 2 // len(POINTS))}


def test_a_crash_point_is_provoked_or_owed() -> None:
    """Each of the fourteen can be provoked, or the table says who owes it."""
    assert set(points_in_source()) == {*POINTS, *OWED}
    assert points_asked("none") == ()
    assert points_asked("CP4,CP9") == ("CP4", "CP9")
    assert points_asked("CP4,CP15") is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--db", "mariadb"], "issue C"),
        (["--kills", "0"], "--kills must be"),
        (["--kills", "x"], "--kills"),
        (["--points", "CP99"], "--points must be"),
        (["--lanes", "0"], "--lanes must be"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 64 and one line that names the option."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 64
    assert told in error
    assert error.count("\n") == 1

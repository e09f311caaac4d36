"""The judges of promises: INV-3, INV-8, INV-13, INV-14, INV-15, INV-16, INV-18, and the doors they look through."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from simulator.memory_store.book import StoreBook
from simulator.simulation.evidence import Operated
from simulator.simulation.invariants.facts import at_once
from simulator.simulation.invariants.judge import CHECKS
from srm_agent.domain.accounts import ConnectionState, Halt, HaltScope, ProtectionMark
from srm_agent.domain.decisions import Step
from srm_agent.domain.orders import OrderState
from srm_agent.domain.units import ZERO
from tests.unit.simulation.court import ALPHA, BTC, C01, START, Court, a_close, a_court, an_entry, an_open

CONNECTION = HaltScope.CONNECTION


def test_there_is_a_judge_for_each_invariant() -> None:
    """The checks are INV-1 to INV-18, in order."""
    assert [check.name for check in CHECKS] == [f"INV-{number}" for number in range(1, 19)]


async def _ended(court: Court) -> list[str]:
    court.wait(1)
    await court.judge.end()
    return court.found("INV-3")


async def test_a_message_acknowledged_without_a_commit_breaks_inv_3() -> None:
    """Told at once, and again at the end when it is not in the database at all."""
    court = a_court()
    court.acknowledge(an_open())
    court.wait(0.25)
    assert "without a commit" in court.found("INV-3")[0]
    assert "is not in the database" in (await _ended(court))[1]


async def test_a_message_that_is_finished_and_decided_is_kept() -> None:
    """Committed, decided, sent, finished: also when a repeat under another delivery id was acknowledged."""
    court = a_court()
    signal = an_open()
    await court.accept(signal)
    court.acknowledge(signal)
    court.acknowledge(replace(signal, receipt=replace(signal.receipt, message_id="again")))
    await court.opened(an_entry())
    await court.door().signals.finish(ALPHA, "m-open", START)
    assert await _ended(court) == []


async def test_what_was_never_finished_or_decided_breaks_inv_3() -> None:
    """An open without end and without a decision for its follower is lost twice."""
    court = a_court()
    await court.accept(an_open())
    court.acknowledge(an_open())
    unfinished, undecided = await _ended(court)
    assert "never finished" in unfinished
    assert "no decision for c01" in undecided


async def test_an_order_without_an_end_breaks_inv_3() -> None:
    """At the end every order has ended, and says why if it was not filled."""
    court = a_court()
    await court.commit(an_entry("s1"))
    unexplained = await court.commit(an_entry("s2"))
    await court.settle(unexplained, OrderState.REJECTED)
    explained = await court.commit(an_entry("s3"))
    await court.settle(explained, OrderState.REJECTED, code="REFUSED")
    first, second = await _ended(court)
    assert "still INTENT" in first
    assert "without a reason" in second


async def test_an_accepted_decision_without_an_order_breaks_inv_3() -> None:
    """A verdict that nobody carried out."""
    court = a_court()
    await court.door().journal.record([an_entry().decision], [], [])
    assert "has no order" in (await _ended(court))[0]


def _halt(scope: HaltScope = CONNECTION, key: str = "c01") -> Halt:
    return Halt(scope=scope, key=key, state=ConnectionState.HALTED, reason="r", set_at=START, set_by="guard")


@pytest.mark.parametrize(
    ("scope", "key", "broken"),
    [
        (HaltScope.ALL, "", True),
        (CONNECTION, "c01", True),
        (CONNECTION, "c02", False),
        (HaltScope.SYMBOL, BTC, True),
        (HaltScope.PROVIDER, str(ALPHA), True),
        (HaltScope.PROVIDER, "channel_source:bravo", False),
    ],
)
async def test_an_entry_after_a_halt_breaks_inv_8(scope: HaltScope, key: str, broken: bool) -> None:
    """A halt in the database stops what is in its scope; what left before may arrive."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.send(intent)
    court.time += 0.1
    await court.door().protection.save_halt(_halt(scope, key))
    if (scope, key) == (CONNECTION, "c01"):
        court.state = ConnectionState.HALTED
    court.wait(0.25)
    assert court.found("INV-8") == []
    court.time += 0.1
    court.send(intent)
    court.wait(0.25)
    assert bool(court.found("INV-8")) is broken


async def test_an_operators_halt_holds_from_its_answer_to_the_resume() -> None:
    """Between the answer and the resume nothing of the provider leaves, under its short name or its long one."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.time = 1.0
    court.operated.append(Operated(at=1.0, act="halt", scope="provider", key="alpha"))
    court.time = 1.1
    court.send(intent)
    court.wait(0.25)
    assert "operator's halt" in court.found("INV-8")[0]
    court.operated.append(Operated(at=court.time, act="resume", scope="provider", key="alpha"))
    court.time += 0.1
    court.send(intent)
    court.wait(0.25)
    assert len(court.found("INV-8")) == 1


@pytest.mark.parametrize(("disk", "kept"), [(True, False), (True, True), (False, False)])
async def test_a_halt_survives_a_restart(disk: bool, kept: bool) -> None:
    """A later life that says ACTIVE forgot a halt, unless neither file nor database could take it."""
    court = a_court(disk=disk)
    court.state = ConnectionState.FLATTENING
    court.wait(1)
    court.die(1)
    court.state = None
    court.wait(2)
    court.live(2)
    court.state = ConnectionState.HALTED if kept else ConnectionState.ACTIVE
    court.wait(5)
    assert bool(court.found("INV-8")) is (disk and not kept)


@pytest.mark.parametrize(
    ("operator", "asked", "lawful"), [("olga", True, True), ("olga", False, False), ("", True, False)]
)
async def test_only_an_operator_clears_a_halt(operator: str, asked: bool, lawful: bool) -> None:
    """Whoever lifts a halt has a name and asked for it, also when no answer came."""
    court = a_court()
    await court.door().protection.save_halt(_halt())
    court.state = ConnectionState.HALTED
    court.wait(1)
    await court.door().protection.clear_halt(CONNECTION, "c01", operator, START)
    if asked:
        court.operated.append(Operated(at=court.time, act="resume", scope="connection", key="c01", answered=False))
    court.wait(1)
    court.state = ConnectionState.ACTIVE
    court.wait(10)
    await court.judge.end()
    assert bool(court.found("INV-8")) is not lawful


async def test_an_entry_on_an_old_equity_breaks_inv_13() -> None:
    """No figure for more than 5 + 2 s, and the stream or a held symbol silent as long: no entry."""
    court = a_court()
    await court.opened(an_entry("s1", Decimal("0.1")))
    court.wait(20)
    intent = await court.commit(an_entry("s2", Decimal("0.1")))
    court.seen.handed(1, intent)
    assert "BTC/USDT:USDT, the account's stream had been silent" in court.found("INV-13")[0]
    court.seen.heard[1, C01] = court.seen.quoted[1, BTC] = court.time - 7
    court.seen.handed(1, intent)
    court.seen.heard[1, C01], court.seen.figure[1, C01] = 0.0, court.time - 7
    court.seen.handed(1, intent)
    assert len(court.found("INV-13")) == 1
    court.seen.handed(2, intent)  # another life has heard nothing
    assert len(court.found("INV-13")) == 2


def _mark(high: str) -> ProtectionMark:
    return ProtectionMark(
        connection_id=C01, high_water_mark=Decimal(high), start_equity=Decimal(high), day="2026-03-04",
        day_base=Decimal(high), last_flow_at=None, updated_at=datetime(2026, 3, 4, tzinfo=UTC),
    )  # fmt: skip


async def test_a_peak_that_falls_breaks_inv_13() -> None:
    """It rises by itself and falls by withdrawals, each of which explains its amount once, and by a resume."""
    court, marks = a_court(), []
    protection = court.door().protection
    for high in ("10000", "10500"):
        await protection.save_mark(_mark(high))
    court.venue.withdraw("c01", Decimal(300), court.venue.market_ms)
    await protection.save_mark(_mark("10200"))
    court.wait(1)
    marks.append(len(court.found("INV-13")))
    await protection.save_mark(_mark("10100"))
    court.wait(1)
    marks.append(len(court.found("INV-13")))
    court.operated.append(Operated(at=court.time, act="resume", scope="connection", key="c01"))
    await protection.save_mark(_mark("8000"))
    court.wait(1)
    marks.append(len(court.found("INV-13")))
    await protection.save_mark(_mark("7900"))
    court.wait(1)
    marks.append(len(court.found("INV-13")))
    assert marks == [0, 1, 1, 2]


async def test_an_entry_of_an_account_that_is_not_active_breaks_inv_14() -> None:
    """Entries leave from ACTIVE only; exits from anywhere."""
    court = a_court()
    intent = await court.commit(an_entry())
    court.state = ConnectionState.REDUCING
    court.send(intent)
    assert "while the account was REDUCING" in court.found("INV-14")[0]
    court.state = ConnectionState.ACTIVE
    court.send(intent)
    assert len(court.found("INV-14")) == 1


@pytest.mark.parametrize(("down_first", "broken"), [(True, True), (False, False)])
async def test_an_entry_committed_without_a_database_breaks_inv_14(down_first: bool, broken: bool) -> None:
    """What was committed before the database failed may still arrive; what claims to have been committed after, not."""
    court = a_court()
    court.database = not down_first
    intent = await court.commit(an_entry())
    court.database = False
    court.place(intent)
    assert bool(court.found("INV-14")) is broken


async def test_another_trace_of_the_same_seed_breaks_inv_15() -> None:
    """The runner tells two hashes; only equal ones are lawful."""
    court = a_court()
    assert court.judge.replay.compare(7, "aa", "aa") == ()
    [violation] = court.judge.replay.compare(7, "aa", "ab")
    assert violation.invariant == "INV-15"
    assert "seed 7" in violation.text
    assert court.judge.counts()["INV-15"] == 2


@pytest.mark.parametrize("place", ["log", "alert", "database", "nowhere"])
async def test_a_canary_breaks_inv_16(place: str) -> None:
    """A secret in a log line, an alert or the database is told, without being told again."""
    court = a_court()
    word = "canary-of-alpha"
    court.log_lines = ['{"event": "started"}', f'{{"key": "{word}"}}' if place == "log" else "{}"]
    court.page(word if place == "alert" else "late")
    entry = an_entry(inputs={**an_entry().decision.inputs, "note": word if place == "database" else ""})
    await court.opened(entry)
    await court.judge.end()
    assert [word in text for text in court.found("INV-16")] == ([] if place == "nowhere" else [False])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ""),
        ({"steps": ()}, "without steps"),
        ({"lot": Decimal("0.2")}, "its lot is 0.2"),
        ({"stop_loss": Decimal(58_000)}, "is not the planned"),
        ({"planned_risk": Decimal(1)}, "planned risk 1 is not"),
        ({"steps": (Step("base_fixed", {"fixed_lot": "0.4"}, ZERO, Decimal("0.3")),)}, "recomputed 0.4"),
        ({"steps": (Step("lot_step", {"lot_step": "0.1"}, Decimal("0.3"), Decimal("0.3")),)}, "after 0"),
        ({"steps": (Step("guess", {}, ZERO, Decimal("0.3")),)}, "cannot be recomputed"),
    ],
)
async def test_a_decision_that_does_not_explain_itself_breaks_inv_18(changes: dict[str, object], told: str) -> None:
    """Every step, lot, stop and risk follows from the row's own text."""
    court = a_court()
    await court.door().journal.record([replace(an_entry().decision, **changes)], [], [])  # type: ignore[arg-type]
    await court.judge.end()
    assert [told in text for text in court.found("INV-18")] == ([True] if told else [])


async def test_an_order_unlike_its_decision_breaks_inv_18() -> None:
    """The order at the venue has the decision's lot and stop."""
    court = a_court()
    intent = await court.commit(an_entry(), stop_loss=Decimal(58_000))
    court.place(intent)
    assert "its decision 0.3 and 58990" in court.found("INV-18")[0]


async def test_a_close_needs_no_decision() -> None:
    """Only opens are decided for every follower."""
    court = a_court()
    await court.accept(a_close())
    court.acknowledge(a_close())
    await court.door().signals.finish(ALPHA, "m-close", START)
    assert await _ended(court) == []


async def test_a_book_that_waits_is_refused() -> None:
    """The judges read between two steps of the loop: a store with a thread is none for them."""

    async def slow() -> int:
        await asyncio.sleep(0)
        return 1

    book: StoreBook = a_court().book
    assert at_once(book.legs()) == []
    with pytest.raises(RuntimeError, match="at once"):
        at_once(slow())


async def _falling(max_drawdown: str = "0.2") -> Court:
    """0.3 BTC bought at 60,000 with a mark of 10,000; then, still held, they are worth some 2,400 less."""
    court = a_court(max_drawdown=Decimal(max_drawdown))
    await court.opened(an_entry())
    await court.door().protection.save_mark(_mark("10000"))
    court.wait(12)
    assert court.verdict == []
    court.venue.set_trading_stop("c01", "BTCUSDT", stop_loss=Decimal(0))
    court.price("52000")
    assert court.venue.positions("c01")
    return court


async def test_a_floating_loss_beyond_the_limit_that_nobody_acts_on_breaks_inv_13() -> None:
    """Three seconds are lawful, more are not, although no trade was closed (F17)."""
    court = await _falling()
    court.wait(2.75)
    assert court.found("INV-13") == []
    court.wait(1)
    assert len(court.found("INV-13")) == 1
    assert "the account is not closed" in court.found("INV-13")[0]


async def test_a_breach_that_is_acted_on_or_that_nobody_can_see_is_lawful() -> None:
    """Judged is an account that is neither being closed nor out of reach, whose money nobody has moved."""
    closing = await _falling()
    closing.state = ConnectionState.FLATTENING
    cut_off = await _falling()
    cut_off.reached = False
    withdrawn = await _falling()
    withdrawn.venue.withdraw("c01", Decimal(1), withdrawn.venue.market_ms)
    within = await _falling(max_drawdown="0.3")
    for court in (closing, cut_off, withdrawn, within):
        court.wait(6)
        assert [text for text in court.found("INV-13") if "not closed" in text] == []

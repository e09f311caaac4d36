"""The sender and the chaser: every doubt is asked about, nothing is sent twice, no entry holds back an exit."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.latency import LatencyModel
from srm_agent import failpoints
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport, OrderState, Outcome
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.errors import BrokerUnreachable, NotAuthorised, OutcomeUnknown, StoreUnavailable
from tests.unit.execution.conftest import Bench, Twisted, a_leg, an_entry, desk_at_work, until

ENTRY = an_entry(a_leg()).client_id


def twisted(bench: Bench) -> Twisted:
    """The twisted broker of a bench."""
    broker: Any = bench.desk.broker
    assert isinstance(broker, Twisted)
    return broker


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OutcomeUnknown("no reply"), id="the port's doubt"),
        pytest.param(TimeoutError(), id="a time-out"),
        pytest.param(ConnectionResetError(), id="a reset"),
        pytest.param(KeyError("retCode"), id="a defect of the adapter"),
        pytest.param(ValueError("bad json"), id="an answer that makes no sense"),
    ],
)
@pytest.mark.parametrize("executed", [True, False])
async def test_every_doubt_is_unknown_and_resolved_by_asking(tmp_path: Path, error: Exception, executed: bool) -> None:
    """Whatever goes wrong in a submit, the order goes out once; a look-up finds it, or finality abandons it (INV-5)."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def submit(intent: OrderIntent) -> OrderReport:
            if executed:
                await real.submit(intent)
            raise error

        broker.twists["submit"] = submit
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter(wait=False)
        await until(lambda: not bench.desk.ledger.unsettled())
        assert twisted(bench).calls.count("submit") == 1
        state = bench.desk.ledger.tickets[ENTRY].state
        assert state is (OrderState.FILLED if executed else OrderState.ABANDONED)
        assert bench.leg(leg).state is (LegState.OPEN if executed else LegState.NEVER_OPENED)
        assert bench.held() == (Decimal("0.3") if executed else 0)


async def test_unknown_counts_as_filled_until_it_is_resolved(tmp_path: Path) -> None:
    """While look-ups fail for a minute the order stays UNKNOWN and its leg reserved; the fill is adopted then (F3)."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def down(*_: Any) -> Any:
            raise BrokerUnreachable("DNS")

        broker.twists["lookup"] = down
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        bench.broker.faults.add("v5/order/create", "reset_before")
        leg = await bench.enter(wait=False)
        await asyncio.sleep(60)
        assert bench.desk.ledger.tickets[ENTRY].state is OrderState.UNKNOWN
        assert bench.leg(leg).state is LegState.OPENING
        del twisted(bench).twists["lookup"]
        await until(lambda: not bench.desk.ledger.unsettled())
        assert bench.leg(leg).state is LegState.NEVER_OPENED
        asked = twisted(bench).calls.count("lookup")
        assert 20 < asked < 60  # backing off to one in two seconds


async def test_look_ups_that_fail_count_nothing_and_reset_nothing(tmp_path: Path) -> None:
    """Every second look-up fails: those that succeed still follow each other (F3), and five after finality end it."""
    asked: list[str] = []

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def lookup(*args: Any) -> Any:
            asked.append("ok" if len(asked) % 2 else "failed")
            if asked[-1] == "failed":
                raise BrokerUnreachable("502")
            return await real.lookup(*args)

        broker.twists["lookup"] = lookup
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        bench.broker.faults.add("v5/order/create", "reset_before")
        leg = await bench.enter(wait=False)
        finality = bench.desk.broker.capabilities.finality_s
        took = await until(lambda: not bench.desk.ledger.unsettled())
        ticket = bench.desk.ledger.tickets[ENTRY]
        assert (ticket.state, ticket.code, ticket.final_absences) == (OrderState.ABANDONED, "ABSENT", 5)
        assert took >= finality
        assert ticket.absences == asked.count("ok")
        assert bench.leg(leg).state is LegState.NEVER_OPENED


async def test_not_found_for_three_seconds_is_not_refused(tmp_path: Path) -> None:
    """Look-ups say ABSENT for three seconds, then the order is there (F2): UNKNOWN and reserved meanwhile."""
    states: list[OrderState] = []

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def lookup(client_id: Any, symbol: Any) -> Any:
            states.append(holder[0].desk.ledger.tickets[ENTRY].state)
            if asyncio.get_running_loop().time() < holder[1] + 3:
                return OrderReport(client_id=client_id, outcome=Outcome.ABSENT)
            return await real.lookup(client_id, symbol)

        async def submit(intent: OrderIntent) -> OrderReport:
            listeners = list(holder[0].venue._listeners)
            holder[0].venue._listeners.clear()
            await real.submit(intent)
            holder[0].venue._listeners[:] = listeners
            raise TimeoutError

        broker.twists |= {"lookup": lookup, "submit": submit}
        return broker

    holder: list[Any] = []
    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        holder += [bench, asyncio.get_running_loop().time()]
        leg = await bench.enter(wait=False)
        assert bench.desk.ledger.busy(leg.symbol)
        await until(lambda: bench.leg(leg).state is LegState.OPEN)
        assert set(states) <= {OrderState.UNKNOWN}
        assert len(states) >= 4
        assert bench.orders() == [ENTRY]


async def test_one_not_found_at_the_start_proves_nothing(tmp_path: Path) -> None:
    """An order that lives at the broker is not found once after the restart (F6): it is asked about again."""
    async with desk_at_work(tmp_path) as bench:
        leg, entry = a_leg(), an_entry(a_leg())
        await bench.journal.record([], [entry], [leg])
        await bench.broker.submit(entry)
        once = [OrderReport(client_id=entry.client_id, outcome=Outcome.ABSENT)]

        def wrap(real: Any) -> Any:
            broker = Twisted(real)

            async def lookup(*args: Any) -> Any:
                return once.pop() if once else await real.lookup(*args)

            broker.twists["lookup"] = lookup
            return broker

        async with desk_at_work(tmp_path, venue=bench.venue, store=bench.store, wrap=wrap) as after:
            await until(lambda: not after.desk.ledger.unsettled())
            assert after.desk.ledger.tickets[entry.client_id].state is OrderState.FILLED
            assert after.leg(leg).state is LegState.OPEN


async def test_a_doubt_ends_soon_after_finality(tmp_path: Path) -> None:
    """The request was lost before the broker: five look-ups after F take less than five seconds (B4)."""
    async with desk_at_work(tmp_path) as bench:
        bench.broker.faults.add("v5/order/create", "reset_before")
        await bench.enter(wait=False)
        finality = bench.desk.broker.capabilities.finality_s
        assert finality <= await until(lambda: not bench.desk.ledger.unsettled()) <= finality + 5


async def test_crash_points_are_passed_in_their_order(tmp_path: Path) -> None:
    """Committed and not sent, sent and not answered, answered and not journalled, open and its stop not read back."""
    seen: list[tuple[str, int]] = []
    async with desk_at_work(tmp_path, latency=LatencyModel.typical(random.Random(1))) as bench:
        failpoints.arm(lambda point: seen.append((point, len(bench.orders()))))
        try:
            leg = await bench.enter()
            await asyncio.sleep(1)
            bench.desk.moves.want(leg, Decimal(59_200), None)
            await asyncio.sleep(1)
        finally:
            failpoints.arm(None)
        points = [point for point, _ in seen]
        assert points[:2] == ["CP3", "CP4"]
        assert sorted(points) == ["CP3", "CP4", "CP5", "CP6", "CP6", "CP7"]
        assert points[-2:] == ["CP7", "CP6"]
        assert dict(reversed(seen)) == {"CP3": 0, "CP4": 0, "CP5": 1, "CP6": 1, "CP7": 1}


async def test_what_provably_never_left_goes_again_under_the_same_id(tmp_path: Path) -> None:
    """BrokerUnreachable from submit repeats the same id until it works."""
    async with desk_at_work(tmp_path, wrap=Twisted) as bench:
        bench.broker.faults.add("v5/order/create", "http429", times=3)
        await bench.enter()
        assert twisted(bench).calls.count("submit") == 4
        assert bench.orders() == [ENTRY]


async def test_after_the_deadline_it_is_refused_and_never_sent(tmp_path: Path) -> None:
    """The repeats end at the deadline; the reservation ends with them."""
    async with desk_at_work(tmp_path) as bench:
        bench.broker.faults.add("v5/order/create", "http429", times=1000)
        leg = await bench.enter(wait=False)
        await until(lambda: bench.leg(leg).state is LegState.NEVER_OPENED, 3)
        bench.broker.faults.clear()
        await asyncio.sleep(30)
        assert bench.orders() == []
        assert bench.desk.ledger.tickets[ENTRY].code == ReasonCode.NOT_SENT_IN_TIME


async def test_the_gate_has_the_last_word_on_entries_only(bench: Bench) -> None:
    """A halt between commit and wire stops the entry; exits pass (INV-8, INV-10)."""
    leg = await bench.enter()
    bench.closed.append(ReasonCode.HALTED_BEFORE_SEND)
    late = await bench.enter("s2", wait=False)
    await until(lambda: bench.leg(late).state is LegState.NEVER_OPENED)
    bench.desk.close(leg, Decimal(1), CloseReason.PROVIDER, "close:m1")
    await until(lambda: not bench.held())


@pytest.mark.fault("P26")
async def test_hung_entries_never_hold_back_an_exit(tmp_path: Path) -> None:
    """Fifty entries whose replies never come: a close still goes out at once."""

    def wrap(real: Any) -> Any:
        broker = Twisted(real)

        async def submit(intent: OrderIntent) -> OrderReport:
            if intent.purpose is OrderPurpose.ENTRY and intent.client_id != ENTRY:
                await asyncio.sleep(1e6)
            report: OrderReport = await real.submit(intent)
            return report

        broker.twists["submit"] = submit
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter()
        for number in range(50):
            await bench.enter(f"hung{number}", wait=False)
        bench.desk.close(leg, Decimal(1), CloseReason.PROVIDER, "close:m1")
        assert await until(lambda: not bench.held()) < 0.1


async def test_refused_credentials_halt_and_settle(tmp_path: Path) -> None:
    """NotAuthorised is told once per order, and the order ends as refused."""

    async def refuse(_: OrderIntent) -> OrderReport:
        raise NotAuthorised("10003")

    def wrap(real: Any) -> Any:
        broker = Twisted(real)
        broker.twists["submit"] = refuse
        return broker

    async with desk_at_work(tmp_path, wrap=wrap) as bench:
        leg = await bench.enter(wait=False)
        await until(lambda: bench.leg(leg).state is LegState.NEVER_OPENED)
        assert bench.ear.refusals == ["10003"]


async def test_a_lost_exit_is_sent_again_after_finality_under_another_id(tmp_path: Path) -> None:
    """The close never arrived: its doubt ends by finality from its sending, and the next attempt closes."""
    async with desk_at_work(tmp_path) as bench:
        leg = await bench.enter()
        bench.broker.faults.add("v5/order/create", "reset_before")
        bench.desk.close(leg, Decimal(1), CloseReason.PROVIDER, "close:m1")
        assert await until(lambda: not bench.held()) < 10
        assert bench.leg(leg).close_reason is CloseReason.PROVIDER


@pytest.mark.fault("P9")
async def test_exits_go_out_while_the_store_hangs(tmp_path: Path) -> None:
    """Twenty closes with a database that never answers leave within two seconds, each in the spill file (INV-10)."""
    hang = {"on": False}

    def journal(store: Any) -> Any:
        twisted = Twisted(store.journal)

        async def record(*args: Any) -> None:
            if hang["on"]:
                await asyncio.sleep(1e6)
            await store.journal.record(*args)

        twisted.twists["record"] = record
        return twisted

    async with desk_at_work(tmp_path, journal=journal) as bench:
        legs = [await bench.enter(f"s{number}", lot=Decimal("0.01")) for number in range(20)]
        hang["on"] = True
        for leg in legs:
            bench.desk.close(leg, Decimal(1), CloseReason.PROVIDER, "close:m1")
        assert await until(lambda: not bench.held()) < 2
        assert len((tmp_path / "exits.c01.jsonl").read_text().splitlines()) == 20


@pytest.mark.fault("P7")
async def test_an_exit_goes_out_when_neither_store_nor_disk_takes_it(tmp_path: Path) -> None:
    """Database down and disk full: the close is sent all the same, and written when the store is back."""
    down = {"on": False}

    def journal(store: Any) -> Any:
        twisted = Twisted(store.journal)

        async def record(*args: Any) -> None:
            if down["on"]:
                raise StoreUnavailable("disk full")
            await store.journal.record(*args)

        twisted.twists["record"] = record
        return twisted

    async with desk_at_work(tmp_path / "no such folder", journal=journal) as bench:
        leg = await bench.enter()
        down["on"] = True
        bench.desk.close(leg, Decimal(1), CloseReason.PROVIDER, "close:m1")
        assert await until(lambda: not bench.held()) < 2
        await asyncio.sleep(5)
        down["on"] = False
        await bench.desk.writer.drained()
        assert not await bench.journal.open_legs(leg.connection_id)

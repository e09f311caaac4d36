"""Orders of others that were sent twice, given up too soon, or forgotten: F1 to F4, F6 to F8, F24."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from simulator.sight import Blindness, Read
from simulator.simulation.invariants.doors import Sent
from simulator.simulation.scene import C01, Scene, act
from simulator.spells import Message
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ClientOrderId, Symbol
from srm_agent.domain.orders import OrderReport, OrderState
from srm_agent.domain.trades import LegState
from srm_agent.errors import BrokerError
from tests.faults.helpers import (
    BTC,
    ETH,
    broker,
    desk,
    entry_calls,
    entry_ticket,
    exit_calls,
    leg,
    leg_lots,
    slow_bridge,
    state,
    stop,
    told,
)
from tests.mutation import Mutant

ENTRY, CANCEL = Message.ENTRY, Message.CANCEL


async def decided(scene: Scene, name: str = "s1", symbol_id: str = "BTCUSDT") -> None:
    """An opening signal whose entry has left for c01's broker."""
    before = len(entry_calls(scene))
    status, answer = await scene.open(name, symbol_id=symbol_id)
    assert status == 202, answer
    await scene.until(lambda: len(entry_calls(scene)) > before, 3)


def adopted(scene: Scene, symbol_id: str = "BTCUSDT", symbol: Symbol = BTC) -> bool:
    """What c01 holds is in our books, to the lot, under its stop."""
    held = scene.lots(C01, symbol_id)
    return held != 0 and leg_lots(scene, C01, symbol) == held and stop(scene, C01, symbol_id) is not None


# ---- F1


def a_bridge_that_forgets_ids(scene: Scene) -> None:
    """An id is a comment there (MetaTrader): a second order of the same id is taken like the first."""
    links = scene.venue._states[C01].links

    def forget(sent: Sent) -> None:
        links.pop(sent.intent.client_id, None)

    scene.world.seen.on_sent.append(forget)


@pytest.mark.failure(
    "F1",
    mutant=Mutant(
        name="an entry without an answer goes again, like one refused for its price",
        path="execution/sender.py",
        old="    return report.outcome is Outcome.REJECTED and report.code in REQUOTED and not report.fills\n",
        new='    return report.code in REQUOTED | {"TIMEOUT", "NO_ANSWER"} and not report.fills\n',
    ),
)
def test_an_order_without_an_answer_is_never_sent_again() -> None:
    """The reply is lost after acceptance, or the order is executed 1, 20 or 90 s after our time-out: one call of
    submit, one order at a broker that would take a second one, and never more than its volume."""

    async def play(scene: Scene, late_s: int | None) -> None:
        slow_bridge(scene)
        await scene.begin()
        a_bridge_that_forgets_ids(scene)
        if late_s is None:
            broker(scene).mischief.doubt(ENTRY, acted=True, code="NO_ANSWER")
        else:
            broker(scene).network.delay_request(5 + late_s, ENTRY)
        await decided(scene)
        lot = entry_calls(scene)[0].intent.lot
        largest = Decimal(0)
        while scene.now < 10 + (late_s or 0) + 8:
            largest = max(largest, scene.lots())
            await asyncio.sleep(0.2)
        assert len(entry_calls(scene)) == 1
        assert len(scene.entries()) == 1
        assert largest == lot
        assert adopted(scene) if (late_s or 0) < 30 else scene.lots() == 0

    for late_s in (None, 1, 20, 90):
        act(lambda scene, late_s=late_s: play(scene, late_s), begun=False)  # type: ignore[misc]


# ---- F2


@pytest.mark.failure(
    "F2",
    mutant=Mutant(
        name="five times not found ends a doubt, however young it is",
        path="execution/tickets.py",
        old="    final = ticket.final_absences + (now >= final_from(ticket, finality))\n",
        new="    final = ticket.final_absences + 1\n",
    ),
)
def test_an_order_in_flight_stays_unknown_and_counts() -> None:
    """Not found for 4 s and then a position; then no query at all for a minute: the row stays UNKNOWN all the while,
    its leg counts as filled and holds its symbol, and what was executed is adopted."""

    async def play(scene: Scene) -> None:
        line = broker(scene)
        for read in (Read.LOOKUP, Read.FILLS):
            line.sight.blind(read, Blindness.EMPTY, 4)
        line.mute_stream()
        line.mischief.doubt(ENTRY, acted=True)
        await decided(scene)
        await in_doubt(scene, 3.5, BTC)
        await scene.until(lambda: adopted(scene), 10)

        await scene.until(lambda: state(scene) is ConnectionState.ACTIVE, 10)
        for read in Read:
            line.sight.blind(read, Blindness.ERROR, 60)
        line.mute_stream()
        line.mischief.doubt(ENTRY, acted=True)
        await decided(scene, "s2", "ETHUSDT")
        await in_doubt(scene, 58, ETH)
        await scene.until(lambda: adopted(scene, "ETHUSDT", ETH), 12)
        assert len(entry_calls(scene)) == 2

    act(play, peace_s=10)


async def in_doubt(scene: Scene, seconds: float, symbol: Symbol) -> None:
    """For so long the last entry is UNKNOWN in memory and never ended in the journal; its leg counts."""
    await scene.until(lambda: entry_ticket(scene).state is OrderState.UNKNOWN, 3)
    client_id = entry_ticket(scene).intent.client_id
    ends = scene.now + seconds
    while scene.now < ends:
        ticket, mine = entry_ticket(scene), leg(scene, C01, symbol)
        assert ticket.state is OrderState.UNKNOWN
        assert not scene.world.seen.states[client_id].settled
        assert desk(scene).ledger.busy(symbol)
        assert mine is not None
        assert (mine.state, mine.open_lot) == (LegState.OPENING, ticket.intent.lot)
        await asyncio.sleep(0.1)


# ---- F3


@pytest.mark.failure(
    "F3",
    mutant=Mutant(
        name="a look-up that failed has found nothing",
        path="execution/chaser.py",
        old="ticket.intent.client_id, error=str(error))\n            return\n",
        new="ticket.intent.client_id, error=str(error))\n"
        "            report = OrderReport(client_id=ticket.intent.client_id, outcome=Outcome.ABSENT)\n",
    ),
)
def test_a_hundred_failed_queries_prove_nothing() -> None:
    """Every status query fails for more than three minutes: UNKNOWN, never counted as absent, and the fill that comes
    after all is ours."""

    async def play(scene: Scene) -> None:
        slow_bridge(scene)
        line = broker(scene)
        lookup = line.lookup
        failed: list[str] = []

        async def counted(client_id: ClientOrderId, symbol: Symbol) -> OrderReport:
            try:
                return await lookup(client_id, symbol)
            except BrokerError:
                failed.append(client_id)
                raise

        line.lookup = counted  # type: ignore[method-assign]
        await scene.begin()
        line.sight.blind(Read.LOOKUP, Blindness.ERROR, 205)
        line.network.delay_request(210, ENTRY)
        await decided(scene)
        began = scene.now
        await scene.until(lambda: entry_ticket(scene).state is OrderState.UNKNOWN, 6)
        while scene.now - began < 200:
            assert entry_ticket(scene).state is OrderState.UNKNOWN
            await asyncio.sleep(0.5)
        assert len(failed) >= 90
        assert entry_ticket(scene).absences == 0
        await scene.until(lambda: scene.lots() > 0, 15)
        await scene.until(lambda: adopted(scene), 10)
        assert len(scene.entries()) == 1

    act(play, begun=False, peace_s=5)


# ---- F4


@pytest.mark.failure(
    "F4",
    mutant=Mutant(
        name="the comparison takes in symbols with an order under way",
        path="execution/auditor.py",
        old="return compare(self._desk.ledger.legs.values(), self._desk.positions.values(), self._doubtful())\n",
        new="return compare(self._desk.ledger.legs.values(), self._desk.positions.values(), frozenset())\n",
    ),
)
def test_a_list_that_is_older_than_an_order_says_nothing_about_it() -> None:
    """The order is executed, and neither list nor look-up shows it while positions do: nothing is called foreign or
    missing, nothing is halted or sent again, and it is adopted in the end.

    That history is read before positions is shown in tests/unit/execution/test_exec_recovery.py.
    """

    async def looks(scene: Scene, seconds: float) -> None:
        ends = scene.now + seconds
        while scene.now < ends:
            desk(scene).auditor.look_soon()
            await asyncio.sleep(1.2)
            assert told(scene, "journal and broker differ") == []
            assert desk(scene).halted_symbols == {}

    async def play(scene: Scene) -> None:
        line = broker(scene)
        for read in (Read.LOOKUP, Read.FILLS, Read.OPEN_ORDERS):
            line.sight.blind(read, Blindness.STALE, 6.5)
        line.mute_stream()
        line.mischief.doubt(ENTRY, acted=True)
        await decided(scene)
        await looks(scene, 6)
        await scene.until(lambda: adopted(scene), 10)
        assert len(entry_calls(scene)) == len(scene.entries()) == 1

    act(play, peace_s=10)


# ---- F6


@pytest.mark.failure(
    "F6",
    mutant=Mutant(
        name="what this process has not sent and the broker does not know never existed",
        path="execution/tickets.py",
        old="    if final >= finality.absences:\n",
        new="    if final >= finality.absences or ticket.sent is None:\n",
    ),
)
def test_not_found_at_the_start_is_no_end() -> None:
    """Killed while an order is under way; the next process is told "not found", and the order executes: it stayed
    UNKNOWN until then and is ours, with its stop."""

    async def play(scene: Scene) -> None:
        slow_bridge(scene)
        await scene.begin()
        broker(scene).network.delay_request(7, ENTRY)
        await decided(scene)
        left = scene.now
        scene.kill()
        scene.world.give_birth()
        await scene.until(lambda: scene.world.state_of(C01) is not None and bool(desk(scene).ledger.tickets), 3)
        while scene.lots() == 0 and scene.now - left < 8:
            assert entry_ticket(scene).state is OrderState.UNKNOWN
            await asyncio.sleep(0.1)
        assert scene.world.seen.absent[entry_ticket(scene).intent.client_id]
        await scene.until(lambda: adopted(scene), 5)
        assert told(scene, "late fill adopted") == []
        assert len(entry_calls(scene)) == len(scene.entries()) == 1

    act(play, begun=False, peace_s=10)


# ---- F7


@pytest.mark.failure(
    "F7",
    mutant=Mutant(
        name="a leg that never opened is forgotten",
        path="execution/ledger.py",
        old="            self.legs.pop(leg.leg_id, None)\n            self.ended[leg.leg_id] = leg\n",
        new="            self.legs.pop(leg.leg_id, None)\n"
        "            self.ended |= {leg.leg_id: leg} if leg.state is LegState.CLOSED else {}\n",
    ),
)
def test_what_was_given_up_and_fills_all_the_same_is_ours() -> None:
    """An entry given up after finality is executed, without its stop: adopted and stopped. A working entry whose
    cancels are lost fills in the middle of an emergency close: closed with the rest."""

    async def given_up(scene: Scene) -> None:
        slow_bridge(scene)
        await scene.begin()
        broker(scene).network.delay_request(20, ENTRY)
        broker(scene).mischief.unstopped = 1
        await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.ABANDONED, 19)
        await scene.until(lambda: scene.lots() > 0, 12)
        await scene.until(lambda: adopted(scene), 5)
        assert told(scene, "late fill adopted") == ["page"]

    async def cancelled(scene: Scene) -> None:
        broker(scene).hold_next(rest_after_s=4, exits=False)
        await decided(scene)
        await scene.until(lambda: entry_ticket(scene).state is OrderState.WORKING, 3)
        broker(scene).network.lose_request(CANCEL, count=20)
        scene.agent.flow.accounts[C01].flatten("out", "olga")
        await scene.until(lambda: scene.lots() > 0, 5)
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 15)
        assert scene.lots() == 0
        assert leg(scene) is None

    act(given_up, begun=False, peace_s=5)
    act(cancelled, peace_s=5)


# ---- F8


@pytest.mark.failure(
    "F8",
    mutant=Mutant(
        name="fills that an earlier process has counted are not remembered",
        path="execution/recovery.py",
        old="        counted={FillId(fill): leg for fill, leg in counted.items()},\n",
        new="        counted={},\n",
    ),
)
def test_ten_restarts_add_nothing() -> None:
    """Open, partly closed, stop moved; then ten kills without market activity, and every fill told again: no row more
    in any table, the same legs, the same volume."""

    async def rows(scene: Scene) -> Sequence[int]:
        book = scene.world.book
        lists = (
            await book.orders(), await book.decisions(), await book.legs(), await book.fills(), await book.messages(),
            await book.halts(), await book.measures(), await book.trades(),
        )  # fmt: skip
        return [len(one) for one in lists]

    async def play(scene: Scene) -> None:
        await scene.opened()
        await scene.opened("s2", symbol_id="ETHUSDT")
        await scene.send("modify", "s1", stop_loss="59600")
        await scene.send("close", "s1", fraction="0.5")
        await asyncio.sleep(5)
        before, legs = await rows(scene), await scene.world.book.legs()
        held = scene.lots()
        for _ in range(10):
            scene.kill()
            await scene.start()
            assert leg_lots(scene) == scene.lots() == held
        for fill in await broker(scene).fills(entry_ticket(scene).intent.created_at.replace(hour=0)):
            desk(scene).count(fill)
        await asyncio.sleep(3)
        assert leg_lots(scene) == scene.lots() == held
        assert await rows(scene) == before
        assert await scene.world.book.legs() == legs
        assert len(scene.entries()) == 2
        assert len(exit_calls(scene)) == 1

    act(play, peace_s=5)


# ---- F24


@pytest.mark.failure(
    "F24",
    mutant=Mutant(
        name="the leg of a fill is one of those that live",
        path="execution/ledger.py",
        old="            own = self.legs.get(leg_id) or self.ended.get(leg_id)\n",
        new="            own = self.legs[leg_id]\n",
    ),
)
def test_a_fill_of_a_position_that_is_closed_harms_nobody() -> None:
    """Half an entry is executed, closed by its provider, and 20 s later the other half is executed: the process lives,
    closes it, and goes on trading."""

    async def play(scene: Scene) -> None:
        broker(scene).hold_next(fraction=Decimal("0.5"), rest_after_s=20, exits=False)
        await decided(scene)
        await scene.until(lambda: adopted(scene), 5)
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        await scene.until(lambda: scene.lots() > 0, 25)
        await asyncio.sleep(5)
        assert scene.process.alive
        assert scene.lots() == 0
        assert leg(scene) is None
        assert (await scene.open("s2", symbol_id="ETHUSDT"))[0] == 202
        await scene.until(lambda: adopted(scene, "ETHUSDT", ETH), 5)

    act(play, peace_s=5)

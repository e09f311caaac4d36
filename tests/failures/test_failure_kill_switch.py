"""Kill switches of others that raised, failed open, or blocked the way out: F12 to F17."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, NoReturn

import pytest

from simulator.records import Executed, OrderTicket, TimeInForce, VenueEvent
from simulator.sight import Blindness, Read
from simulator.simulation.cast import ALPHA, BRAVO
from simulator.simulation.invariants.doors import Sent
from simulator.simulation.scene import C01, C02, C03, Scene, act
from simulator.simulation.server import ConnectionRefused
from simulator.spells import Message
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import Side
from tests.faults.helpers import broker, desk, entry_calls, exit_calls, leg, state, stop, told
from tests.mutation import Mutant

SYMBOLS = ("BTCUSDT", "ETHUSDT")


def fall_to_the_stops(scene: Scene) -> None:
    """Both symbols go down to just above c03's stops: everything that may be lost is lost, floating."""
    for symbol_id in SYMBOLS:
        at = stop(scene, C03, symbol_id)
        assert at is not None
        scene.price(symbol_id, f"{at + 3 * scene.venue.instruments[symbol_id].tick_size:f}")


async def gamble(scene: Scene) -> None:
    """c03 holds two positions that risk an eighth of it each."""
    for symbol_id in SYMBOLS:
        status, answer = await scene.open(f"g-{symbol_id}", provider=BRAVO, symbol_id=symbol_id)
        assert status == 202, answer
        await scene.until(lambda symbol_id=symbol_id: scene.lots(C03, symbol_id) > 0, 5)  # type: ignore[misc]


def lost_share(scene: Scene) -> Decimal:
    """What c03 has lost of its 5,000, floating."""
    return 1 - scene.venue.wallet(C03).equity / 5000


# ---- F12


def _broken(*_: Any, **__: Any) -> NoReturn:
    raise AttributeError("a defect of the kill switch")


def _break_notifier(scene: Scene) -> None:
    scene.agent.notifier.notify = _broken  # type: ignore[method-assign]


def _break_file(scene: Scene) -> None:
    account: Any = scene.agent.flow.accounts[C01]
    account._parts.halts._file.update = _broken


def _break_store(scene: Scene) -> None:
    account: Any = scene.agent.flow.accounts[C01]
    account._parts.halts._store = None


def _break_listeners(scene: Scene) -> None:
    scene.agent.flow.on_emergency = _broken  # type: ignore[method-assign]
    account: Any = scene.agent.flow.accounts[C01]
    account._emergency._tell = _broken


def _break_journal_of_exits(scene: Scene) -> None:
    desk(scene).note_emergency = _broken  # type: ignore[method-assign]


def _break_prices(scene: Scene) -> None:
    account: Any = scene.agent.flow.accounts[C01]
    account._emergency._market = None


@pytest.mark.failure(
    "F12",
    mutant=Mutant(
        name="people are told before the halt is latched",
        path="account_emergency.py",
        old="        self._safely(lambda: self._halts.set(halt))\n",
        new='        self._notifier.notify("page", "emergency close", reason, self._desk.connection_id)\n'
        "        self._safely(lambda: self._halts.set(halt))\n",
    ),
)
def test_a_kill_switch_that_raises_has_halted_already() -> None:
    """Notifier, file, database, listeners, the note of an exit or prices raise AttributeError: the latch holds from
    the first moment, no entry leaves any more, and the account is flat within 10 s."""

    async def play(scene: Scene, break_it: Callable[[Scene], None]) -> None:
        await scene.opened()
        break_it(scene)
        with suppress(AttributeError):
            scene.agent.flow.accounts[C01].flatten("out", "olga")
        assert state(scene) is ConnectionState.FLATTENING
        before = len(entry_calls(scene))
        with suppress(ConnectionRefused):
            await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: not scene.venue.positions(C01), 10)
        await asyncio.sleep(2)
        assert len(entry_calls(scene)) == before

    for break_it in (
        _break_notifier, _break_file, _break_store, _break_listeners, _break_journal_of_exits, _break_prices,
    ):  # fmt: skip
        act(lambda scene, break_it=break_it: play(scene, break_it), lawful=False)  # type: ignore[misc]


# ---- F13


@pytest.mark.failure(
    "F13",
    mutant=Mutant(
        name="without quotes the account is not judged",
        path="account_reader.py",
        old="        if (blind or drifted) and self._idle:\n",
        new="        if drifted and self._idle:\n",
    ),
)
def test_a_market_that_is_not_ready_does_not_switch_protection_off() -> None:
    """Quotes and balance are both away at the moment of the breach: REDUCING, and a page after half a minute; as soon
    as the broker's own equity can be read, without any quote, everything is closed."""

    async def play(scene: Scene) -> None:
        await gamble(scene)
        await asyncio.sleep(3)
        scene.world.feed.mischief.mute(120)
        broker(scene, C03).sight.blind(Read.ACCOUNT, Blindness.ERROR, 45)
        fall_to_the_stops(scene)
        assert lost_share(scene) > Decimal("0.2")
        await scene.until(lambda: state(scene, C03) is ConnectionState.REDUCING, 8)
        await asyncio.sleep(35)
        assert state(scene, C03) in (ConnectionState.REDUCING, ConnectionState.FLATTENING)
        assert told(scene, "account is not guarded", C03) == ["page"]
        await scene.until(lambda: broker(scene, C03).sight.whole, 10)
        await scene.until(lambda: not scene.venue.positions(C03), 8)
        await scene.until(lambda: state(scene, C03) is ConnectionState.HALTED, 10)

    act(play, peace_s=3)


# ---- F14


@pytest.mark.failure(
    "F14",
    mutant=Mutant(
        name="only new signals are refused while the daemon stops",
        path="flow.py",
        old="        if self.draining or account.state() is not ConnectionState.ACTIVE or ",
        new="        if account.state() is not ConnectionState.ACTIVE or ",
    ),
)
def test_no_entry_leaves_after_the_stop() -> None:
    """SIGTERM while 50 signals are queued and some are being committed: not one entry is sent after it, the process
    ends in time, and the next one has every acknowledged signal."""

    async def play(scene: Scene) -> None:
        scene.world.database.slow_down(0.4, 60)
        posts = [
            asyncio.create_task(scene.open(f"s{number}", provider=provider, symbol_id=symbol_id))
            for number in range(25)
            for provider, symbol_id in ((ALPHA, SYMBOLS[number % 2]), (BRAVO, "EURUSDT"))
        ]
        await scene.until(lambda: bool(desk(scene).ledger.tickets) and not entry_calls(scene), 10)
        scene.process.stop()
        asked = scene.now
        await scene.until(lambda: not scene.process.alive, 15)
        answers = await asyncio.gather(*posts, return_exceptions=True)
        late = [call for name in (C01, C02, C03) for call in entry_calls(scene, name) if call.at > asked]
        assert late == []
        taken = sum(not isinstance(answer, BaseException) and answer[0] == 202 for answer in answers)
        assert len(await scene.world.book.messages()) >= taken > 0

    act(play)


# ---- F15


@pytest.mark.failure(
    "F15",
    mutant=Mutant(
        name="a halt lets only the emergency close pass",
        path="flow.py",
        old="        if intent.purpose is not OrderPurpose.ENTRY:\n            return None\n        if self.draining",
        new="        if intent.purpose is OrderPurpose.EMERGENCY:\n            return None\n        if self.draining",
    ),
)
def test_a_halt_blocks_no_exit_and_no_close_crosses_flat() -> None:
    """Everything is halted: the provider's close, whole and in part, goes out at once. Flattened while the provider's
    own close is still on its way, and executed in part: each next close is of what is left, and what is held shrinks
    to nothing and never becomes the other side."""

    async def halted(scene: Scene) -> None:
        await scene.opened()
        await scene.opened("s2", symbol_id="ETHUSDT")
        assert await scene.world.operate("halt", "all", "") == 200
        half = scene.lots(C01, "ETHUSDT") / 2
        await scene.send("close", "s1")
        await scene.send("close", "s2", fraction="0.5")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        await scene.until(lambda: 0 < scene.lots(C01, "ETHUSDT") <= half + Decimal("0.01"), 5)

    async def in_flight(scene: Scene) -> None:
        held, exits = list[Decimal](), list[OrderIntent]()

        def watch(event: VenueEvent) -> None:
            if isinstance(event, Executed) and event.execution.account_id == C01:
                held.append(scene.lots())

        def note(sent: Sent) -> None:
            if sent.intent.connection_id == C01 and sent.intent.purpose is not OrderPurpose.ENTRY:
                exits.append(sent.intent)

        await scene.opened()
        whole = scene.lots()
        scene.venue.subscribe(watch)
        scene.world.seen.on_sent.append(note)
        broker(scene).network.delay_request(0.8, Message.EXIT)
        await scene.send("close", "s1")
        await scene.until(lambda: bool(exits), 3)
        broker(scene).hold_next(fraction=Decimal("0.3"), rest_after_s=None, exits=True)
        scene.agent.flow.accounts[C01].flatten("out", "olga")
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 15)
        await asyncio.sleep(2)
        assert scene.lots() == 0
        assert whole > held[0] > 0, "the first of the closes must have been executed in part"
        assert held == sorted(held, reverse=True)
        assert exits[-1].lot == held[0], "the rest is closed, not the original volume"
        assert all(intent.reduce is not None and intent.side is Side.SELL for intent in exits)

    act(halted, peace_s=3)
    act(in_flight, peace_s=3)


# ---- F16


@pytest.mark.failure(
    "F16",
    mutant=Mutant(
        name="refused as reduce-only means that there is nothing to reduce",
        path="protection/close_ladder.py",
        old='ALREADY_CLOSED = frozenset({"NO_POSITION", "POSITION_CLOSED", "POSITION_STATUS", "CLOSE_ORDER_EXISTS"})\n',
        new='ALREADY_CLOSED = frozenset({"NO_POSITION", "POSITION_CLOSED", "POSITION_STATUS", "REDUCE_ONLY"})\n',
    ),
)
def test_nothing_of_ours_or_theirs_refuses_a_close() -> None:
    """No free margin, a position below the smallest notional, a resting reduce-only target for which the broker
    refuses every other close: the target is withdrawn, the close goes out, all is flat within 5 s."""

    async def play(scene: Scene) -> None:
        line = broker(scene)
        submit = line.submit

        async def jealous(intent: OrderIntent) -> OrderReport:
            rests = [order for order in scene.venue.orders(C01, working=True) if order.ticket.reduce_only]
            if intent.reduce is not None and rests:
                return OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code="REDUCE_ONLY")
            return await submit(intent)

        line.submit = jealous  # type: ignore[method-assign]
        await scene.begin()
        await scene.opened()
        terms = scene.venue.instruments["BTCUSDT"]
        scene.venue.mischief.set_terms(replace(terms, min_notional=Decimal(10_000_000)))
        scene.venue.place(
            C01,
            OrderTicket(
                symbol_id="BTCUSDT", side=Side.SELL, lots=scene.lots(), price=Decimal(65_000), reduce_only=True,
                time_in_force=TimeInForce.GTC,
            ),
        )  # fmt: skip
        free = scene.venue.wallet(C01).available
        scene.venue.withdraw(C01, free, scene.venue.market_ms)
        await asyncio.sleep(3)
        assert scene.venue.wallet(C01).available < 10
        line.network.lose_request(Message.CANCEL)  # the first try to clear the way is lost
        scene.agent.flow.accounts[C01].flatten("out", "olga")
        await scene.until(lambda: not scene.venue.positions(C01), 5)
        await scene.until(lambda: state(scene) is ConnectionState.HALTED, 5)
        assert scene.venue.orders(C01, working=True) == []
        # A provider's own close, on the other account: neither margin nor notional is asked for.
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots(C02) == 0, 5)
        assert len(exit_calls(scene, C02)) == 1

    act(play, scope="account", begun=False, peace_s=3)


# ---- F17


@pytest.mark.failure(
    "F17",
    mutant=Mutant(
        name="drawdown is what closed trades have lost",
        path="account.py",
        old="self.guard.observe(\n            equity.value,\n",
        new="self.guard.observe(\n            snapshot.balance,\n",
    ),
)
def test_a_floating_loss_alone_closes_the_account() -> None:
    """No trade was ever closed, a fifth is lost on paper: not only entries stop, the positions are closed within 5 s,
    and the loss grows no more."""

    async def play(scene: Scene) -> None:
        await gamble(scene)
        await asyncio.sleep(2)
        fall_to_the_stops(scene)
        assert lost_share(scene) > Decimal("0.2")
        assert scene.venue.positions(C03)
        await scene.until(lambda: not scene.venue.positions(C03), 5)
        await scene.until(lambda: state(scene, C03) is ConnectionState.HALTED, 5)
        halts = json.loads(scene.world.files.texts["halts.json"])
        assert [(row["scope"], row["key"]) for row in halts] == [(HaltScope.CONNECTION.value, "c03")]
        for symbol_id in SYMBOLS:
            scene.price(symbol_id, f"{scene.mid(symbol_id) * Decimal('0.8'):.1f}")
        await asyncio.sleep(3)
        assert lost_share(scene) < Decimal("0.3")

    act(play, peace_s=3)

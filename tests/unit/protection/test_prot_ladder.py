"""What an emergency close does when a position does not close at once (B12, B20, B26-B28, F15, F16)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from simulator.inprocess import InProcessBroker
from simulator.records import OrderTicket, TimeInForce
from srm_agent import failpoints
from srm_agent.domain.accounts import EmergencyScope
from srm_agent.domain.ids import Symbol
from srm_agent.domain.orders import BrokerPosition, OrderIntent, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable
from srm_agent.protection.close_ladder import LONGEST_PAUSE_S, Pursuit
from srm_agent.protection.close_values import notional, wide_limit
from srm_agent.protection.pace import Pace
from tests.unit.execution.conftest import LoopClock, Twisted, an_instrument, build_venue
from tests.unit.protection.test_prot_emergency import a_broker, a_close, a_venue

D = Decimal


@pytest.fixture
def crash_points() -> Iterator[list[str]]:
    """Every crash point that is passed."""
    passed: list[str] = []
    failpoints.arm(passed.append)
    yield passed
    failpoints.arm(None)


def refusing(real: InProcessBroker, code: str, times: int) -> tuple[Twisted, list[OrderIntent]]:
    """A broker that refuses the first closes with this code, and what it was sent."""
    broker, sent = Twisted(real), list[OrderIntent]()

    async def submit(intent: OrderIntent) -> OrderReport:
        sent.append(intent)
        if len(sent) <= times:
            return OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code=code)
        return await real.submit(intent)

    broker.twists["submit"] = submit
    return broker, sent


async def test_the_ladder_goes_market_then_wide_limit_and_a_person_is_told() -> None:
    """Refused again and again: market, market, limit 5 % beyond, market, limit; each names the position; one page."""
    venue, pages = a_venue(1), list[str]()
    broker, sent = refusing(a_broker(venue), "OFF_QUOTES", 4)
    await a_close(broker, page=pages.append, wide_limit=lambda symbol, side: D(100) + 5 * side).until_flat()
    assert [intent.limit_price for intent in sent] == [None, None, D(105), None, D(105)]
    assert all(intent.reduce is not None and intent.side is Side.BUY for intent in sent)
    assert not venue.positions("c01")
    assert pages == ["S0/USDT:USDT does not close: OFF_QUOTES"]


async def test_resting_orders_go_before_the_second_attempt(crash_points: list[str]) -> None:
    """A close refused because a target rests: the target is withdrawn, then the close goes (CP14 lies between)."""
    venue = a_venue(1)
    real = a_broker(venue)
    broker, rests = Twisted(real), [True]

    async def submit(intent: OrderIntent) -> OrderReport:
        if rests[0]:
            return OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code="REDUCE_ONLY")
        return await real.submit(intent)

    async def open_orders() -> list[OrderReport]:
        held = [OrderReport(client_id="t1", outcome=Outcome.WORKING, symbol=Symbol("S0/USDT:USDT"))]  # type: ignore[arg-type]
        return held if rests[0] else []

    async def cancel(client_id: str, symbol: Symbol) -> OrderReport:
        assert (client_id, symbol) == ("t1", "S0/USDT:USDT")
        await asyncio.sleep(0.1)
        rests[0] = False
        return OrderReport(client_id="t1", outcome=Outcome.REJECTED)  # type: ignore[arg-type]

    broker.twists.update(submit=submit, open_orders=open_orders, cancel=cancel)
    await a_close(broker).until_flat()
    assert not venue.positions("c01")
    assert crash_points == ["CP9", "CP14", "CP9"]


async def test_already_closed_is_read_back_not_believed() -> None:
    """The broker says that there is no position while there is one: asked again until a read shows none (B20)."""
    venue = a_venue(2)
    broker, sent = refusing(a_broker(venue), "NO_POSITION", 2)
    await a_close(broker).until_flat()
    assert not venue.positions("c01")
    assert all(intent.limit_price is None for intent in sent)


async def test_a_closed_market_is_waited_for_and_told_once() -> None:
    """Closed for an hour: it asks patiently, tells once, and is flat within five seconds of the opening (B12)."""
    venue, pages = a_venue(1), list[str]()
    real = a_broker(venue)
    broker = Twisted(real)
    loop = asyncio.get_running_loop()
    opens = loop.time() + 3600

    async def submit(intent: OrderIntent) -> OrderReport:
        if loop.time() < opens:
            return OrderReport(client_id=intent.client_id, outcome=Outcome.REJECTED, code="MARKET_CLOSED")
        return await real.submit(intent)

    broker.twists["submit"] = submit
    await a_close(broker, page=pages.append).until_flat()
    assert loop.time() <= opens + 5
    assert broker.calls.count("submit") < 1300
    assert [page.split(":")[0] for page in pages] == ["S0/USDT", "not flat after 30 s"]


async def test_calls_that_never_come_back_hold_back_nothing() -> None:
    """A hung close, a hung list of orders and one hung read: the other positions are closed at once, this one soon."""
    venue = a_venue(12)
    real = a_broker(venue)
    broker, hung = Twisted(real), list[str]()
    loop = asyncio.get_running_loop()
    began, gone = loop.time(), dict[int, float]()

    async def submit(intent: OrderIntent) -> OrderReport:
        if intent.symbol == "S1/USDT:USDT" and not hung:
            hung.append("submit")
            await asyncio.Event().wait()
        return await real.submit(intent)

    async def open_orders() -> Any:
        if "orders" not in hung:
            hung.append("orders")
            await asyncio.Event().wait()
        return await real.open_orders()

    def hear(_: object) -> None:
        gone.setdefault(len(venue.positions("c01")), loop.time() - began)

    venue.subscribe(hear)
    broker.twists.update(submit=submit, open_orders=open_orders)
    await a_close(broker).until_flat()
    assert hung == ["submit", "orders"]
    assert gone[1] < 1.5
    assert gone[0] < 8


async def test_flat_before_a_lost_reply_leaves_the_order_in_doubt() -> None:
    """Its reply is still awaited when reads show flat: the ledger hears UNKNOWN and will ask; nothing runs on."""
    venue, heard = a_venue(1), list[OrderReport]()
    real = a_broker(venue)
    broker = Twisted(real)

    async def submit(intent: OrderIntent) -> OrderReport:
        await real.submit(intent)
        await asyncio.sleep(5)
        raise AssertionError("nobody waits for this any more")

    broker.twists["submit"] = submit
    loop = asyncio.get_running_loop()
    began = loop.time()
    await a_close(broker, heard=heard.append).until_flat()
    assert loop.time() - began < 1
    assert [report.outcome for report in heard] == [Outcome.UNKNOWN]
    assert len(asyncio.all_tasks()) == 1


async def test_an_empty_answer_is_not_flat_while_margin_is_in_use() -> None:
    """The list of positions is empty by error for two seconds: the account's margin says otherwise (B26)."""
    venue = a_venue(2)
    real = a_broker(venue)
    broker = Twisted(real)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def positions() -> Any:
        return [] if loop.time() - began < 2 else await real.positions()

    broker.twists["positions"] = positions
    await a_close(broker).until_flat()
    assert not venue.positions("c01")


async def test_an_order_that_fills_between_the_reads_is_seen() -> None:
    """A resting entry fills right after the list of orders was read: the read of positions that follows shows it."""
    venue = build_venue()
    venue.place(
        "c01",
        OrderTicket(
            symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.01"), price=D(50_000), time_in_force=TimeInForce.GTC,
            link_id="theirs",
        ),
    )  # fmt: skip
    real = a_broker(venue)
    broker, filled = Twisted(real), list[bool]()

    async def cancel(*args: Any) -> Any:
        if not filled:
            filled.append(True)
            venue.set_book("BTCUSDT", D("49000.0"), D("49000.5"), venue.market_ms + 1000)
        return await real.cancel(*args)

    broker.twists["cancel"] = cancel
    await a_close(broker).until_flat()
    assert filled
    assert not venue.positions("c01")
    assert not venue.orders("c01", working=True)


async def test_own_scope_waits_for_the_truth_about_a_close_beside_foreign_volume() -> None:
    """A close whose request never arrived is repeated only once it is finally absent: the rest is not ours."""
    venue = build_venue()
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.5")))
    real = a_broker(venue)
    broker, sent = Twisted(real), list[float]()
    ours = [D("0.3")]
    loop = asyncio.get_running_loop()

    async def submit(intent: OrderIntent) -> OrderReport:
        sent.append(loop.time())
        if len(sent) == 1:
            return OrderReport(client_id=intent.client_id, outcome=Outcome.UNKNOWN, code="TIMEOUT")
        return await real.submit(intent)

    def heard(report: OrderReport) -> None:
        ours[0] -= report.filled_lot

    broker.twists["submit"] = submit
    await a_close(broker, scope=EmergencyScope.OWN, ours=lambda symbol: ours[0], heard=heard).until_flat()
    assert len(sent) == 2
    assert sent[1] - sent[0] >= real.capabilities.finality_s
    assert [position.lots for position in venue.positions("c01")] == [D("0.2")]


async def test_two_closers_at_once_reverse_nothing() -> None:
    """Daemon and `srm-agent flatten` close the same account together: reduce-only, so it ends flat (F15)."""
    venue = a_venue(20)
    closers = [a_close(a_broker(venue), epoch=name) for name in ("daemon", "flatten")]
    sides: list[int] = []
    venue.subscribe(lambda _: sides.append(len(venue.positions("c01"))))
    await asyncio.gather(*(closer.until_flat() for closer in closers))
    assert not venue.positions("c01")
    assert max(sides) <= 20


async def test_a_lost_connection_goes_on_where_it_was() -> None:
    """Nothing is reachable for five minutes in the middle: flat within five seconds of the return (B27)."""
    venue = a_venue(10)
    real = a_broker(venue)
    broker = Twisted(real)
    loop = asyncio.get_running_loop()
    gone, back = loop.time() + 0.2, loop.time() + 300

    def cut(name: str) -> Any:
        async def call(*args: Any) -> Any:
            await asyncio.sleep(0.1)
            if gone <= loop.time() < back:
                raise BrokerUnreachable(name)
            return await getattr(real, name)(*args)

        return call

    broker.twists = {name: cut(name) for name in ("positions", "open_orders", "submit", "account", "cancel")}
    await a_close(broker).until_flat()
    assert loop.time() - back < 5
    assert not venue.positions("c01")


async def test_the_pace_gives_a_burst_and_then_the_rate() -> None:
    """Four at once, then two a second; a pause earns the burst again."""
    loop = asyncio.get_running_loop()
    began, taken = loop.time(), list[float]()
    pace = Pace(2.0, 4, LoopClock())
    for _ in range(8):
        await pace.take()
        taken.append(round(loop.time() - began, 6))
    assert taken == [0, 0, 0, 0, 0.5, 1, 1.5, 2]
    await asyncio.sleep(60)
    began = loop.time()
    for _ in range(4):
        await pace.take()
    assert loop.time() == began


def test_pauses_after_refusals_are_bounded() -> None:
    """The hundredth refusal is followed within three seconds, and a fill begins the ladder anew."""
    pursuit = Pursuit()
    refusal = OrderReport(client_id="x", outcome=Outcome.REJECTED, code="OFF_QUOTES")  # type: ignore[arg-type]
    for _ in range(100):
        pursuit = pursuit.after(refusal, 10.0)
    assert pursuit.not_before == 10.0 + LONGEST_PAUSE_S
    filled = OrderReport(client_id="x", outcome=Outcome.FILLED)  # type: ignore[arg-type]
    assert pursuit.after(filled, 11.0) == Pursuit(not_before=11.0)


def test_values_of_a_close() -> None:
    """Notional at the touch, at the entry without one; a limit 5 % beyond on the grid, none without terms or price."""
    held = BrokerPosition(
        ref="r",  # type: ignore[arg-type]
        symbol=Symbol("X"), side=Side.BUY, lot=D(2), entry_price=D(10), stop_loss=None, take_profit=None,
        opened_at=None,
    )  # fmt: skip
    terms = an_instrument(contract_size=D(3))
    assert notional(held, terms, D(11)) == 66
    assert notional(held, None, None) == 20
    assert wide_limit(terms, D("60000.5"), Side.BUY) == D("63000.5")
    assert wide_limit(terms, D("60000.5"), Side.SELL) == D("57000.5")
    assert wide_limit(None, D(1), Side.BUY) is None
    assert wide_limit(terms, None, Side.BUY) is None

"""The in-process adapter speaks the agent's ports on the venue itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import pytest

from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.latency import LatencyModel
from simulator.records import OrderTicket, TimeInForce
from simulator.venue import Venue
from srm_agent.clock import ManualClock
from srm_agent.domain.events import AccountEvent, Resync, StreamDown
from srm_agent.domain.ids import ClientOrderId, ConnectionId, LegId, PositionRef, Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import Fill, FillKind, OrderIntent, OrderPurpose, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, ConfigurationError, OrderRefused, UnknownInstrument
from srm_agent.ports import Broker, MarketFeed

BTC = Symbol("BTC/USDT:USDT")
START = datetime(2026, 1, 5, 11, tzinfo=UTC)
D = Decimal
Item = TypeVar("Item")


@pytest.fixture
def feed(venue: Venue) -> InProcessFeed:
    """Quotes of the small venue."""
    made = InProcessFeed(venue, ManualClock(START), asset_classes={BTC: AssetClass.CRYPTO}, pip_sizes={})
    port: MarketFeed = made
    assert port.venue == "simulator"
    return made


@pytest.fixture
def broker(venue: Venue) -> InProcessBroker:
    """Account c01 of the small venue."""
    made = InProcessBroker(
        venue, "c01", ConnectionId("conn"), ManualClock(START), LatencyModel.none(), client_timeout_s=0.2
    )
    port: Broker = made
    assert port.connection_id == "conn"
    return made


def intent(client_id: str, side: Side = Side.BUY, lot: str = "1", **changes: object) -> OrderIntent:
    """An entry with a stop unless told otherwise."""
    values: dict[str, object] = {
        "client_id": ClientOrderId(client_id),
        "connection_id": ConnectionId("conn"),
        "leg_id": LegId("leg"),
        "signal_id": None,
        "decision_id": None,
        "purpose": OrderPurpose.ENTRY,
        "symbol": BTC,
        "side": side,
        "lot": D(lot),
        "limit_price": D("101.0"),
        "stop_loss": D("95.0"),
        "take_profit": None,
        "reduce": None,
        "reason": "test",
        "created_at": START,
        "deadline": 2000.0,
    }
    return OrderIntent(**(values | changes))  # type: ignore[arg-type]


def exit_of(client_id: str, lot: str = "1") -> OrderIntent:
    """A reduce-only market sell."""
    return intent(
        client_id, Side.SELL, lot, limit_price=None, stop_loss=None, reduce=PositionRef(f"{BTC}|0"),
        purpose=OrderPurpose.EXIT,
    )  # fmt: skip


async def following(stream: AsyncIterator[Item]) -> Item:
    """The next item within a second."""
    return await asyncio.wait_for(anext(stream), 2)


async def test_an_entry_fills_with_its_stop(broker: InProcessBroker) -> None:
    """The report carries the fills, the position carries the stop."""
    report = await broker.submit(intent("a"))
    assert (report.outcome, report.filled_lot, report.average_price) == (Outcome.FILLED, D(1), D("100.5"))
    assert [fill.client_id for fill in report.fills] == ["a"]
    position = (await broker.positions())[0]
    assert (position.side, position.lot, position.stop_loss) == (Side.BUY, D(1), D("95.0"))
    assert position.opened_at == START


async def test_a_capped_entry_that_misses_is_rejected(broker: InProcessBroker) -> None:
    """An IOC limit below the touch is MISSED_PRICE; one that gets a part is FILLED with less."""
    assert (await broker.submit(intent("a", limit_price=D("100.0")))).code == "MISSED_PRICE"
    part = await broker.submit(intent("b", lot="5"))
    assert (part.outcome, part.filled_lot) == (Outcome.FILLED, D(2))


async def test_the_same_client_id_is_executed_once(broker: InProcessBroker) -> None:
    """The second sending answers with the look-up of the first."""
    first = await broker.submit(intent("a"))
    second = await broker.submit(intent("a"))
    assert second.broker_order_id == first.broker_order_id
    assert (await broker.positions())[0].lot == D(1)


async def test_a_second_close_is_harmless(broker: InProcessBroker) -> None:
    """Reduce-only without a position is NO_POSITION."""
    await broker.submit(intent("a"))
    assert (await broker.submit(exit_of("x", "5"))).filled_lot == D(1)
    again = await broker.submit(exit_of("y"))
    assert (again.outcome, again.code) == (Outcome.REJECTED, "NO_POSITION")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"lot": D("0.001")}, "INVALID_VOLUME", id="volume"),
        pytest.param({"stop_loss": D("101.0")}, "INVALID_STOPS", id="stop"),
        pytest.param({"lot": D(990), "limit_price": D("119.0")}, "INSUFFICIENT_MARGIN", id="margin"),
    ],
)
async def test_refusals_carry_the_stable_words(broker: InProcessBroker, changes: dict[str, object], code: str) -> None:
    """REJECTED with the word that the ccxt adapter uses too."""
    report = await broker.submit(intent("a", **changes))  # type: ignore[arg-type]
    assert (report.outcome, report.code) == (Outcome.REJECTED, code)


@pytest.mark.parametrize(
    ("fault", "acted"),
    [
        pytest.param("reset_before", False, id="nothing happened but nobody knows"),
        pytest.param("hang_after", True, id="no answer"),
        pytest.param("garbage200_after", True, id="garbage"),
        pytest.param("ret_after:10016:Internal server error", True, id="an ambiguous code"),
    ],
)
async def test_a_lost_answer_is_unknown_until_looked_up(broker: InProcessBroker, fault: str, acted: bool) -> None:
    """UNKNOWN, then the look-up finds it or says ABSENT; never two positions."""
    broker.faults.add("v5/order/create", fault)
    assert (await broker.submit(intent("a"))).outcome is Outcome.UNKNOWN
    found = await broker.lookup(ClientOrderId("a"), BTC)
    assert found.outcome is (Outcome.FILLED if acted else Outcome.ABSENT)


async def test_refused_for_now_is_unreachable(broker: InProcessBroker) -> None:
    """A rate limit proves that nothing happened; the same id may be sent again."""
    broker.faults.add("v5/order/create", "http429")
    with pytest.raises(BrokerUnreachable):
        await broker.submit(intent("a"))
    assert (await broker.submit(intent("a"))).outcome is Outcome.FILLED


async def test_a_failed_read_raises(broker: InProcessBroker) -> None:
    """Positions are never an empty list because a read failed."""
    broker.faults.add("v5/position/list", "http502_before")
    with pytest.raises(BrokerUnreachable):
        await broker.positions()


async def test_protect_keeps_the_other_leg_and_is_idempotent(broker: InProcessBroker) -> None:
    """None keeps, 0 clears, repeating changes nothing, a wrong side is refused."""
    with pytest.raises(OrderRefused, match="NO_POSITION"):
        await broker.protect(PositionRef("p"), BTC, D("95.0"), None)
    await broker.submit(intent("a", take_profit=D("110.0")))
    for _ in range(2):
        await broker.protect(PositionRef("p"), BTC, D("96.0"), None)
    position = (await broker.positions())[0]
    assert (position.stop_loss, position.take_profit) == (D("96.0"), D("110.0"))
    await broker.protect(PositionRef("p"), BTC, None, D(0))
    assert (await broker.positions())[0].take_profit is None
    with pytest.raises(OrderRefused, match="INVALID_STOPS"):
        await broker.protect(PositionRef("p"), BTC, D("150.0"), None)


async def test_events_begin_with_a_resync_and_survive_a_break(broker: InProcessBroker, venue: Venue) -> None:
    """A stop hit during a break is in the Resync that follows; later ones are told as they happen."""
    stream: AsyncIterator[AccountEvent] = broker.events()
    first = await following(stream)
    assert isinstance(first, Resync)
    assert first.positions == ()
    await broker.submit(intent("a"))
    told = [await following(stream) for _ in range(4)]
    assert isinstance(told[0], Fill)
    assert isinstance(told[2], OrderReport)
    broker.drop_stream()
    venue.set_book("BTCUSDT", D("90.0"), D("90.5"), venue.market_ms + 1000)
    assert isinstance(await following(stream), StreamDown)
    again = await following(stream)
    assert isinstance(again, Resync)
    assert [fill.kind for fill in again.fills] == [FillKind.ORDER, FillKind.STOP_LOSS]
    assert again.fills[-1].client_id is None
    await broker.submit(intent("b", limit_price=D("91.0"), stop_loss=D("80.0")))
    assert isinstance(await following(stream), Fill)


async def test_cash_flows_and_fills_since(broker: InProcessBroker, venue: Venue) -> None:
    """Deposits and withdrawals with their sign; fills from a market time on."""
    venue.deposit("c01", D(100), venue.market_ms + 1000)
    venue.withdraw("c01", D(40), venue.market_ms + 1000)
    flows = await broker.cash_flows(START)
    assert [(flow.kind, flow.amount) for flow in flows] == [("deposit", D(100)), ("withdrawal", D(-40))]
    assert await broker.cash_flows(START + timedelta(seconds=3)) == []
    await broker.submit(intent("a"))
    assert len(await broker.fills(START + timedelta(seconds=2))) == 1
    assert await broker.fills(START + timedelta(seconds=3)) == []


async def test_working_orders_can_be_cancelled_twice(
    broker: InProcessBroker, venue: Venue, rest: Callable[[Venue, str], None]
) -> None:
    """'Already gone' answers with the look-up; a stranger is ABSENT."""
    rest(venue, "w")
    assert [report.client_id for report in await broker.open_orders()] == ["w"]
    for _ in range(2):
        report = await broker.cancel(ClientOrderId("w"), BTC)
        assert (report.outcome, report.code) == (Outcome.REJECTED, "CANCELLED")
    assert (await broker.cancel(ClientOrderId("stranger"), BTC)).outcome is Outcome.ABSENT


@pytest.fixture
def rest() -> Callable[[Venue, str], None]:
    """Puts a resting buy of c01 into the book."""

    def place(venue: Venue, link_id: str) -> None:
        venue.place(
            "c01",
            OrderTicket(
                symbol_id="BTCUSDT",
                side=Side.BUY,
                lots=D(1),
                price=D("90.0"),
                time_in_force=TimeInForce.GTC,
                link_id=link_id,
            ),
        )

    return place


async def test_quotes_are_the_newest_of_each_symbol(feed: InProcessFeed, venue: Venue) -> None:
    """A slow reader skips what is old; a break is told and followed by the quote of now."""
    stream = feed.events([BTC])
    first = await following(stream)
    assert isinstance(first, Quote)
    assert (first.bid, first.ask, first.at) == (D("100.0"), D("100.5"), START)
    for step in (1, 2, 3):
        venue.set_book("BTCUSDT", D(100 + step), D(101 + step), venue.market_ms + 1)
    newest = await following(stream)
    assert isinstance(newest, Quote)
    assert newest.bid == D(103)
    broken = asyncio.ensure_future(following(stream))
    await asyncio.sleep(0)
    feed.drop_stream()
    assert isinstance(await broken, StreamDown)
    assert isinstance(await following(stream), Quote)


async def test_terms_are_the_instruments(feed: InProcessFeed, venue: Venue) -> None:
    """Lot grid, tick, pip and tradability; an unknown symbol and a missing asset class are named."""
    terms = await feed.instrument(BTC)
    assert (terms.tick_size, terms.lot_step, terms.lot_max, terms.pip_size) == (D("0.1"), D("0.01"), D(500), None)
    venue.suspend("BTCUSDT", True)
    assert not (await feed.instrument(BTC)).tradable
    with pytest.raises(UnknownInstrument, match="XXX"):
        await feed.quote(Symbol("XXX"))
    bare = InProcessFeed(venue, ManualClock(START), asset_classes={}, pip_sizes={})
    with pytest.raises(ConfigurationError, match="asset class of BTC/USDT:USDT"):
        await bare.instrument(BTC)


async def test_bars_are_closed_ones(feed: InProcessFeed, venue: Venue) -> None:
    """The running minute is not a bar yet."""
    assert await feed.bars(BTC, 60, 5) == []
    venue.set_book("BTCUSDT", D("101.0"), D("101.5"), venue.market_ms + 60_000)
    bars = await feed.bars(BTC, 60, 5)
    assert [(bar.start, bar.close) for bar in bars] == [(START, 100.25)]


async def test_latency_is_slept(venue: Venue) -> None:
    """The price that moves during the request leg is the price paid."""
    latency = LatencyModel.typical(random.Random(1))
    broker = InProcessBroker(venue, "c01", ConnectionId("conn"), ManualClock(START), latency)
    sending = asyncio.ensure_future(broker.submit(intent("a", limit_price=None)))
    await asyncio.sleep(0)
    venue.set_book("BTCUSDT", D("105.0"), D("105.5"), venue.market_ms + 1)
    assert (await sending).average_price == D("105.5")


async def test_a_reader_of_events_can_be_cancelled_at_any_moment(broker: InProcessBroker) -> None:
    """A cancellation that meets an arriving event is not swallowed."""
    stream = broker.events()

    async def read() -> None:
        async for _ in stream:
            pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    await broker.submit(intent("a"))
    reader.cancel()
    done, _ = await asyncio.wait([reader], timeout=1)
    assert done == {reader}
    assert reader.cancelled()

"""The contract of the broker port: what every implementation must do, whatever is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

import pytest

from simulator.faults import Faults
from simulator.records import OrderTicket, TimeInForce
from simulator.venue import Venue
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.ids import ClientOrderId, PositionRef, Symbol
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill, FillKind, OrderIntent, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.errors import BrokerUnreachable, OrderRefused, UnknownInstrument
from srm_agent.ports import Broker, MarketFeed

BTC, EUR = Symbol("BTC/USDT:USDT"), Symbol("EUR/USDT:USDT")
Until = Callable[[Callable[[AccountEvent], bool]], Awaitable[AccountEvent]]


class Rig(Protocol):
    """What the fixture gives (see conftest)."""

    venue: Venue
    feed: MarketFeed
    broker: Broker
    faults: Faults
    drop: Callable[[], None]

    def now(self) -> datetime: ...
    def move(self, bid: str, ask: str, after_s: int = 1) -> None: ...
    def intent(
        self, client_id: str, lot: str = "0.1", *, side: Side = Side.BUY, limit: str | None = "60002",
        stop: str | None = "59000", target: str | None = None, reduce: PositionRef | None = None, symbol: Symbol = BTC,
    ) -> OrderIntent: ...  # fmt: skip
    async def settled(self, intent: OrderIntent) -> OrderReport: ...
    async def resolved(self, report: OrderReport) -> OrderReport: ...
    def executed(self) -> Decimal: ...
    def listening(self) -> AbstractAsyncContextManager[Until]: ...


def is_a(kind: type[AccountEvent]) -> Callable[[AccountEvent], bool]:
    """A condition for `until`."""
    return lambda event: isinstance(event, kind)


async def the_position(rig: Rig) -> BrokerPosition:
    """The one open position."""
    found = await rig.broker.positions()
    assert len(found) == 1
    return found[0]


async def opened(rig: Rig, client_id: str = "srm1open", lot: str = "0.1") -> BrokerPosition:
    """An open long position with its stop."""
    report = await rig.settled(rig.intent(client_id, lot))
    assert report.outcome is Outcome.FILLED
    return await the_position(rig)


# ---- market ----------------------------------------------------------------------------------------------------------


async def test_instrument_terms_are_exact(rig: Rig) -> None:
    """Terms come as exact Decimals, with the pip of the class."""
    btc, eur = await rig.feed.instrument(BTC), await rig.feed.instrument(EUR)
    assert (btc.tick_size, btc.lot_step, btc.lot_min) == (Decimal("0.1"), Decimal("0.001"), Decimal("0.001"))
    assert (btc.lot_max, btc.min_notional, btc.contract_size) == (Decimal(50), Decimal(5), Decimal(1))
    assert (btc.settle_currency, btc.tradable, btc.pip_size) == ("USDT", True, None)
    assert (eur.pip_size, eur.tick_size) == (Decimal("0.0001"), Decimal("0.00001"))


async def test_unknown_instrument_is_an_error(rig: Rig) -> None:
    """A symbol that the venue has not is never invented."""
    with pytest.raises(UnknownInstrument):
        await rig.feed.instrument(Symbol("NO/USDT:USDT"))


async def test_quote_carries_market_time(rig: Rig) -> None:
    """A read quote is the touch with the venue's own time."""
    quote = await rig.feed.quote(BTC)
    assert (quote.bid, quote.ask, quote.at) == (Decimal(60000), Decimal("60000.5"), rig.now())


async def test_quote_stream_gives_every_symbols_latest(rig: Rig) -> None:
    """Each symbol arrives, and a move is seen."""
    seen: dict[Symbol, Quote] = {}
    async with asyncio.timeout(5), aclosing(rig.feed.events([BTC, EUR])) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Quote):
                seen[event.symbol] = event
            if len(seen) == 2 and seen[BTC].bid == 60000:
                rig.move("60010", "60010.5")
            if len(seen) == 2 and seen[BTC].bid == 60010:
                break
    assert seen[BTC].at == rig.now()
    assert seen[EUR].ask == Decimal("1.10002")


async def test_quotes_come_again_after_a_break(rig: Rig) -> None:
    """A break is told once, and fresh quotes follow."""
    order: list[str] = []
    async with asyncio.timeout(8), aclosing(rig.feed.events([BTC])) as events:  # type: ignore[type-var]
        async for event in events:
            order.append(type(event).__name__)
            if order == ["Quote"]:
                rig.drop()
            if isinstance(event, Quote) and "StreamDown" in order:
                break
    assert order == ["Quote", "StreamDown", "Quote"]


@pytest.mark.parametrize(("timeframe_s", "count"), [(60, 30), (900, 20), (60, 1500)])
async def test_bars_are_closed_and_oldest_first(rig: Rig, timeframe_s: int, count: int) -> None:
    """Exactly the asked number of closed bars, in order, without the forming one, over several pages too."""
    bars = await rig.feed.bars(BTC, timeframe_s, count)
    assert len(bars) == count
    starts = [bar.start for bar in bars]
    assert starts == [starts[0] + timedelta(seconds=timeframe_s * index) for index in range(count)]
    assert starts[-1] + timedelta(seconds=timeframe_s) <= rig.now()
    assert all(bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high for bar in bars)


# ---- account and orders ----------------------------------------------------------------------------------------------


async def test_account_states_equity(rig: Rig) -> None:
    """Balance and equity are the venue's own, exact."""
    account = await rig.broker.account()
    assert (account.currency, account.balance, account.equity) == ("USDT", Decimal(10000), Decimal(10000))
    await opened(rig)
    rig.move("60100", "60100.5")
    account = await rig.broker.account()
    assert account.equity is not None
    assert account.equity > account.balance
    assert account.margin_used > 0


async def test_entry_fills_and_is_protected_at_once(rig: Rig) -> None:
    """The stop and target are on the position as soon as it exists (INV-4)."""
    report = await rig.settled(rig.intent("srm1a", target="61000"))
    assert (report.outcome, report.filled_lot, report.average_price) == (
        Outcome.FILLED, Decimal("0.1"), Decimal("60000.5"),
    )  # fmt: skip
    position = await the_position(rig)
    assert (position.side, position.lot, position.entry_price) == (Side.BUY, Decimal("0.1"), Decimal("60000.5"))
    assert (position.stop_loss, position.take_profit) == (Decimal(59000), Decimal(61000))


async def test_fills_of_an_order_add_up(rig: Rig) -> None:
    """An order that walks the book has several fills, with its id, its fees and the right average."""
    report = await rig.settled(rig.intent("srm1a", "0.8"))
    assert len(report.fills) == 2
    assert sum(fill.lot for fill in report.fills) == report.filled_lot == Decimal("0.8")
    value = sum(fill.lot * fill.price for fill in report.fills)
    assert report.average_price == value / report.filled_lot
    assert {fill.client_id for fill in report.fills} == {"srm1a"}
    assert all(fill.fee > 0 and fill.kind is FillKind.ORDER and fill.fee_currency == "USDT" for fill in report.fills)


async def test_price_cap_is_respected(rig: Rig) -> None:
    """What the cap cannot reach is not bought: nothing is MISSED_PRICE, something is FILLED with less."""
    missed = await rig.settled(rig.intent("srm1a", limit="59999"))
    assert (missed.outcome, missed.code) == (Outcome.REJECTED, "MISSED_PRICE")
    assert missed.filled_lot == 0
    partial = await rig.settled(rig.intent("srm1b", "0.8", limit="60000.5"))
    assert (partial.outcome, partial.filled_lot) == (Outcome.FILLED, Decimal("0.5"))
    assert (await the_position(rig)).lot == Decimal("0.5")
    assert await rig.broker.open_orders() == []


async def test_a_resting_order_of_somebody_else_can_be_found_and_withdrawn(rig: Rig) -> None:
    """Open orders carry their symbol, so that an emergency close can withdraw what is not ours (INV-9)."""
    ticket = OrderTicket(
        symbol_id="BTCUSDT", side=Side.BUY, lots=Decimal("0.1"), price=Decimal(59000), time_in_force=TimeInForce.GTC
    )
    rig.venue.place("c01", ticket)
    (resting,) = await rig.broker.open_orders()
    assert resting.symbol == BTC
    await rig.broker.cancel(resting.client_id, BTC)
    assert await rig.broker.open_orders() == []


async def test_exit_reduces_only_and_its_duplicate_is_harmless(rig: Rig) -> None:
    """Closing twice closes once; an exit larger than the position never turns it around."""
    position = await opened(rig)
    first = await rig.settled(rig.intent("srm1x", "0.1", side=Side.SELL, reduce=position.ref))
    assert (first.outcome, first.filled_lot) == (Outcome.FILLED, Decimal("0.1"))
    second = await rig.settled(rig.intent("srm1y", "0.1", side=Side.SELL, reduce=position.ref))
    assert (second.outcome, second.code) == (Outcome.REJECTED, "NO_POSITION")
    assert await rig.broker.positions() == []
    position = await opened(rig, "srm1z")
    large = await rig.settled(rig.intent("srm1l", "0.4", side=Side.SELL, reduce=position.ref))
    assert large.filled_lot == Decimal("0.1")
    assert await rig.broker.positions() == []


async def test_same_id_twice_is_one_execution(rig: Rig) -> None:
    """The second sending of an id answers with the first order (INV-1)."""
    intent = rig.intent("srm1a")
    first = await rig.settled(intent)
    again = await rig.settled(intent)
    assert (again.outcome, again.broker_order_id) == (Outcome.FILLED, first.broker_order_id)
    assert rig.executed() == Decimal("0.1")


async def test_protect_sets_values_and_keeps_the_other_leg(rig: Rig) -> None:
    """None keeps, 0 clears, repeating is harmless, the wrong side is refused with its word."""
    position = await opened(rig)
    await rig.broker.protect(position.ref, BTC, None, Decimal(62000))
    await rig.broker.protect(position.ref, BTC, Decimal(59500), None)
    await rig.broker.protect(position.ref, BTC, Decimal(59500), None)
    kept = await the_position(rig)
    assert (kept.stop_loss, kept.take_profit) == (Decimal(59500), Decimal(62000))
    with pytest.raises(OrderRefused) as refused:
        await rig.broker.protect(position.ref, BTC, Decimal(61500), None)
    assert refused.value.code == "INVALID_STOPS"
    await rig.broker.protect(position.ref, BTC, None, Decimal(0))
    cleared = await the_position(rig)
    assert (cleared.stop_loss, cleared.take_profit) == (Decimal(59500), None)


async def test_protect_without_position_is_refused(rig: Rig) -> None:
    """There is nothing to protect, and the word says so."""
    with pytest.raises(OrderRefused) as refused:
        await rig.broker.protect(PositionRef(f"{BTC}|0"), BTC, Decimal(59000), None)
    assert refused.value.code == "NO_POSITION"


async def test_cancel_of_what_is_gone_says_what_became_of_it(rig: Rig) -> None:
    """Cancelling a filled order answers FILLED, a stranger ABSENT, as often as asked."""
    await opened(rig, "srm1a")
    for _ in range(2):
        assert (await rig.broker.cancel(ClientOrderId("srm1a"), BTC)).outcome is Outcome.FILLED
    assert (await rig.broker.cancel(ClientOrderId("srm1none"), BTC)).outcome is Outcome.ABSENT
    assert (await the_position(rig)).lot == Decimal("0.1")


async def test_lookup_of_a_stranger_is_absent(rig: Rig) -> None:
    """A successful look-up that finds nothing says ABSENT, and sends nothing."""
    assert (await rig.broker.lookup(ClientOrderId("srm1never"), BTC)).outcome is Outcome.ABSENT
    assert rig.executed() == 0


async def test_capabilities_are_stated(rig: Rig) -> None:
    """A tradable netting account with bounded doubts."""
    able = rig.broker.capabilities
    assert able.netting
    assert able.atomic_protection
    assert able.price_capped_entry
    assert not able.read_only
    assert able.finality_s > 0
    assert able.absences >= 1


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lot", "stop", "code"),
    [
        ("40", "59000", "INSUFFICIENT_MARGIN"),
        ("0.0004", "59000", "INVALID_VOLUME"),
        ("0.1", "60500", "INVALID_STOPS"),
        ("0.1", "59000.03", "INVALID_STOPS"),
    ],
)
async def test_refusals_carry_the_stable_words(rig: Rig, lot: str, stop: str, code: str) -> None:
    """A refused entry is REJECTED with its word, and nothing happened."""
    report = await rig.settled(rig.intent("srm1a", lot, stop=stop))
    assert (report.outcome, report.code) == (Outcome.REJECTED, code)
    assert rig.executed() == 0


async def test_closed_market_has_its_word(rig: Rig) -> None:
    """A suspended symbol refuses with MARKET_CLOSED."""
    rig.venue.suspend("BTCUSDT", True)
    report = await rig.settled(rig.intent("srm1a"))
    assert (report.outcome, report.code) == (Outcome.REJECTED, "MARKET_CLOSED")


# ---- faults ----------------------------------------------------------------------------------------------------------

LOST = {
    "reset_before": False, "reset_after": True, "hang_after": True, "truncate_after": True, "http502_before": False,
    "http502_html_after": True, "http502_json_after": True, "garbage200_after": True,
    "ret_after:10016:Internal server error": True, "ret_after:10000:Server Timeout": True,
    "ret_before:10016:Internal server error": False,
}  # fmt: skip


@pytest.mark.parametrize("fault", LOST)
async def test_lost_reply_is_unknown_until_asked(rig: Rig, fault: str) -> None:
    """A lost reply proves nothing; the look-up finds the order or says ABSENT, and never is anything doubled."""
    rig.faults.add("v5/order/create", fault)
    report = await rig.broker.submit(rig.intent("srm1a"))
    assert report.outcome is Outcome.UNKNOWN
    assert report.code
    found = await rig.resolved(report)
    assert found.outcome is (Outcome.FILLED if LOST[fault] else Outcome.ABSENT)
    assert rig.executed() == (Decimal("0.1") if LOST[fault] else 0)
    again = await rig.settled(rig.intent("srm1a"))
    assert again.outcome is Outcome.FILLED
    assert rig.executed() == Decimal("0.1")
    position = await the_position(rig)
    assert (position.lot, position.stop_loss) == (Decimal("0.1"), Decimal(59000))


async def test_throttled_order_was_not_sent(rig: Rig) -> None:
    """A refusal of the gateway is BrokerUnreachable: the same id may be sent again."""
    rig.faults.add("v5/order/create", "http429")
    rig.faults.add("v5/order/create", "ret_before:10006:Too many visits")
    for _ in range(2):
        with pytest.raises(BrokerUnreachable):
            await rig.broker.submit(rig.intent("srm1a"))
    assert (await rig.settled(rig.intent("srm1a"))).outcome is Outcome.FILLED
    assert rig.executed() == Decimal("0.1")


@pytest.mark.parametrize("fault", ["reset_before", "http502_before", "http429", "ret_before:10016:Internal error"])
async def test_failed_read_raises_and_is_never_empty(rig: Rig, fault: str) -> None:
    """With an open position, a read that fails says so (INV-7)."""
    await opened(rig)
    since = rig.now() - timedelta(hours=1)
    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "v5/position/list": rig.broker.positions,
        "v5/order/realtime": rig.broker.open_orders,
        "v5/account/wallet-balance": rig.broker.account,
        "v5/execution/list": lambda: rig.broker.fills(since),
        "v5/account/transaction-log": lambda: rig.broker.cash_flows(since),
    }
    for path, read in reads.items():
        # Twice, because an HTTP client repeats a GET by itself when a kept connection turns out to be dead.
        rig.faults.add(path, fault, times=2)
        with pytest.raises(BrokerUnreachable):
            await read()
        rig.faults.clear()
    assert len(await rig.broker.positions()) == 1


async def test_failed_lookup_raises_instead_of_absent(rig: Rig) -> None:
    """ABSENT is said only by a successful look-up."""
    rig.faults.add("v5/order/realtime", "reset_before", times=2)
    with pytest.raises(BrokerUnreachable):
        await rig.broker.lookup(ClientOrderId("srm1never"), BTC)


@pytest.mark.parametrize("fault", ["reset_after", "http502_html_after", "truncate_after"])
async def test_protect_may_be_repeated_after_a_lost_reply(rig: Rig, fault: str) -> None:
    """Setting to a value is unclear once and done after the repetition."""
    position = await opened(rig)
    rig.faults.add("v5/position/trading-stop", fault)
    with pytest.raises(BrokerUnreachable):
        await rig.broker.protect(position.ref, BTC, Decimal(59700), None)
    await rig.broker.protect(position.ref, BTC, Decimal(59700), None)
    assert (await the_position(rig)).stop_loss == Decimal(59700)


async def test_lost_reply_of_an_exit_leaves_nothing_open(rig: Rig) -> None:
    """An exit whose answer is lost was done once; sending another is harmless."""
    position = await opened(rig)
    rig.faults.add("v5/order/create", "reset_after")
    lost = await rig.broker.submit(rig.intent("srm1x", side=Side.SELL, reduce=position.ref))
    assert lost.outcome is Outcome.UNKNOWN
    other = await rig.settled(rig.intent("srm1y", side=Side.SELL, reduce=position.ref))
    assert other.outcome is Outcome.REJECTED
    assert (await rig.resolved(lost)).filled_lot == Decimal("0.1")
    assert await rig.broker.positions() == []


# ---- events ----------------------------------------------------------------------------------------------------------


async def test_events_begin_with_a_resync(rig: Rig) -> None:
    """The first event is the full picture."""
    await opened(rig)
    async with rig.listening() as until:
        first = await until(lambda _: True)
    assert isinstance(first, Resync)
    assert [position.lot for position in first.positions] == [Decimal("0.1")]
    assert [fill.client_id for fill in first.fills] == ["srm1open"]
    assert first.account.equity is not None


async def test_order_is_followed_by_its_events(rig: Rig) -> None:
    """Fill, terminal report and position arrive without asking."""
    async with rig.listening() as until:
        await until(is_a(Resync))
        await rig.broker.submit(rig.intent("srm1a"))
        wanted = {"fill", "report", "position"}
        while wanted:
            match await until(lambda _: True):
                case Fill() as fill:
                    assert (fill.client_id, fill.lot) == ("srm1a", Decimal("0.1"))
                    wanted.discard("fill")
                case OrderReport(outcome=Outcome.FILLED) as report:
                    assert (report.client_id, report.filled_lot) == ("srm1a", Decimal("0.1"))
                    wanted.discard("report")
                case BrokerPosition() as position:
                    assert (position.lot, position.stop_loss) == (Decimal("0.1"), Decimal(59000))
                    wanted.discard("position")
                case _:
                    pass


async def test_stop_hit_arrives_as_a_stop_loss_fill(rig: Rig) -> None:
    """The venue's stop fills at the gap, under no id of ours, and the position's end is told."""
    async with rig.listening() as until:
        await until(is_a(Resync))
        await opened(rig)
        rig.move("58900", "58900.5")
        fill = await until(lambda event: isinstance(event, Fill) and event.kind is FillKind.STOP_LOSS)
        assert isinstance(fill, Fill)
        assert (fill.client_id, fill.side, fill.lot, fill.price) == (None, Side.SELL, Decimal("0.1"), Decimal(58900))
        gone = await until(is_a(BrokerPosition))
        assert isinstance(gone, BrokerPosition)
        assert gone.ref == PositionRef(f"{BTC}|0")
        assert gone.lot == 0


async def test_liquidation_is_not_hidden(rig: Rig) -> None:
    """When the venue liquidates, the fill says so on the stream and in history."""
    async with rig.listening() as until:
        await until(is_a(Resync))
        report = await rig.settled(rig.intent("srm1a", "1.2", limit=None, stop=None))
        assert report.outcome is Outcome.FILLED
        rig.move("51000", "51000.5")
        fill = await until(lambda event: isinstance(event, Fill) and event.kind is FillKind.LIQUIDATION)
        assert isinstance(fill, Fill)
        listed = await rig.broker.fills(rig.now() - timedelta(hours=1))
        assert FillKind.LIQUIDATION in {item.kind for item in listed}
        assert await rig.broker.positions() == []


async def test_trade_in_the_gap_is_in_the_resync(rig: Rig) -> None:
    """What happens while the stream is broken is told by the Resync that follows."""
    async with rig.listening() as until:
        await until(is_a(Resync))
        position = await opened(rig, "srm1a")
        rig.drop()
        report = await rig.settled(rig.intent("srm1gap", "0.2"))
        assert report.outcome is Outcome.FILLED
        await until(is_a(StreamDown))
        picture = await until(is_a(Resync))
        assert isinstance(picture, Resync)
        assert "srm1gap" in {fill.client_id for fill in picture.fills}
        assert [(item.ref, item.lot) for item in picture.positions] == [(position.ref, Decimal("0.3"))]


async def test_idle_account_is_not_stale(rig: Rig) -> None:
    """Heartbeats come although nothing happens (INV-13)."""
    async with rig.listening() as until:
        await until(is_a(Resync))
        first, second = await until(is_a(Heartbeat)), await until(is_a(Heartbeat))
        assert isinstance(first, Heartbeat)
        assert isinstance(second, Heartbeat)
        assert second.received > first.received


async def test_history_is_complete_and_ordered(rig: Rig) -> None:
    """`fills` gives every execution since a time, oldest first."""
    for index in range(6):
        rig.move("60000", "60000.5", after_s=5)
        await rig.settled(rig.intent(f"srm1n{index}", "0.01"))
    fills = await rig.broker.fills(rig.now() - timedelta(hours=1))
    assert [fill.client_id for fill in fills] == [f"srm1n{index}" for index in range(6)]
    late = await rig.broker.fills(rig.now() - timedelta(seconds=6))
    assert [fill.client_id for fill in late] == ["srm1n4", "srm1n5"]


async def test_deposits_and_withdrawals_are_cash_flows(rig: Rig) -> None:
    """Money that moved without a trade is listed with its sign; trades are not."""
    since = rig.now()
    await opened(rig)
    rig.venue.deposit("c01", Decimal(500), rig.venue.market_ms + 1000)
    rig.venue.withdraw("c01", Decimal(200), rig.venue.market_ms + 1000)
    flows = await rig.broker.cash_flows(since)
    assert [(flow.kind, flow.amount) for flow in flows] == [("deposit", Decimal(500)), ("withdrawal", Decimal(-200))]
    assert len({flow.flow_id for flow in flows}) == 2


async def test_accounts_are_apart(rig: Rig) -> None:
    """What another account of the venue does is not seen here."""
    await opened(rig)
    assert rig.venue.positions("c02") == []
    assert (await rig.broker.account()).balance < 10_000


async def test_close_leaves_positions_alone(rig: Rig) -> None:
    """Closing the connection twice touches nothing at the venue."""
    await opened(rig)
    await rig.broker.close()
    await rig.broker.close()
    assert [view.lots for view in rig.venue.positions("c01")] == [Decimal("0.1")]

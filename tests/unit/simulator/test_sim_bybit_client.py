"""The unmodified ccxt.pro.bybit works against the server by plain URL configuration (brokers.md A.2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import ccxt.pro
import pytest

from simulator.bybit_server import BybitServer
from simulator.faults import Faults
from simulator.latency import LatencyModel
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.clock import SystemClock

SYMBOL = "BTC/USDT:USDT"
START_MS = 1_767_610_800_000
"""2026-01-05 11:00 UTC, far from this machine's time: data carries market time."""


@pytest.fixture
def wire_venue() -> Venue:
    """One perpetual with seeded bars and a price, one funded account."""
    bitcoin = SimInstrument(
        symbol_id="BTCUSDT",
        base="BTC",
        tick_size=Decimal("0.1"),
        lot_step=Decimal("0.001"),
        lot_min=Decimal("0.001"),
        lot_max=Decimal(100),
        max_market_lot=Decimal(50),
        level_lots=Decimal("0.5"),
        level_ticks=5,
    )
    account = SimAccount(account_id="c01", api_key="key-1", secret="secret-1", balance=Decimal(100_000))
    venue = Venue([bitcoin], [account], random.Random(1))
    venue.seed_bars(
        "BTCUSDT", [(START_MS - n * 60_000, 60_000.0, 60_010.0, 59_990.0, 60_005.0) for n in range(30, 0, -1)]
    )
    venue.set_book("BTCUSDT", Decimal("60000.0"), Decimal("60000.5"), START_MS)
    return venue


@pytest.fixture
async def wire_server(wire_venue: Venue) -> AsyncIterator[BybitServer]:
    """That venue on a free port."""
    server = BybitServer(
        wire_venue, clock=SystemClock(), rng=random.Random(2), latency=LatencyModel.none(), faults=Faults()
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def make_client(wire_server: BybitServer) -> AsyncIterator[Callable[..., Any]]:
    """Builds clients that are closed after the test."""
    made: list[Any] = []

    def make(key: str = "key-1", secret: str = "secret-1") -> Any:
        client = ccxt.pro.bybit(
            {
                "apiKey": key,
                "secret": secret,
                "timeout": 3000,
                "enableRateLimit": False,
                "options": {
                    "fetchMarkets": {"types": ["linear"]},
                    "brokerId": None,
                    "watchPositions": {"fetchPositionsSnapshot": False, "awaitPositionsSnapshot": False},
                },
            }
        )
        api = client.urls["api"]
        for name in ("spot", "futures", "v2", "public", "private"):
            api[name] = wire_server.url
        for name in ("spot", "inverse", "option", "linear"):
            api["ws"]["public"][name] = f"{wire_server.ws_url}/v5/public/linear"
        private = f"{wire_server.ws_url}/v5/private"
        api["ws"]["private"].update(contract=private, trade=private, usdc=private)
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


async def soon(awaitable: Any) -> Any:
    """The result within 5 s."""
    return await asyncio.wait_for(awaitable, 5)


async def test_the_client_trades_streams_and_sees_its_stop_hit(
    wire_venue: Venue, make_client: Callable[..., Any]
) -> None:
    """An entry with an attached stop is streamed on every private topic, and the stop fills at the gap."""
    client = make_client()
    await client.load_markets()
    market = client.market(SYMBOL)
    assert (market["precision"]["price"], market["limits"]["amount"]["min"]) == (0.1, 0.001)
    watches = {
        "orders": client.watch_orders(SYMBOL),
        "trades": client.watch_my_trades(SYMBOL),
        "positions": client.watch_positions([SYMBOL]),
        "balance": client.watch_balance(),
    }
    first = {name: asyncio.ensure_future(watch) for name, watch in watches.items()}
    quote = await soon(client.watch_bids_asks([SYMBOL]))
    assert (quote[SYMBOL]["bid"], quote[SYMBOL]["ask"], quote[SYMBOL]["timestamp"]) == (60000.0, 60000.5, START_MS)
    await asyncio.sleep(0.3)
    order = await client.create_order(
        SYMBOL, "market", "buy", 0.8, None, {"clientOrderId": "srm1-a", "stopLoss": {"triggerPrice": 59_500}}
    )
    assert order["clientOrderId"] == "srm1-a"
    orders, trades, positions, balance = [await soon(item) for item in first.values()]
    assert (orders[0]["status"], orders[0]["filled"], orders[0]["average"]) == ("closed", 0.8, 60000.6875)
    assert [(item["price"], item["amount"]) for item in trades][:1] == [(60000.5, 0.5)]
    assert (positions[0]["side"], positions[0]["contracts"], positions[0]["stopLossPrice"]) == ("long", 0.8, 59500.0)
    assert Decimal(balance["info"][0]["totalEquity"]) == wire_venue.wallet("c01").equity

    hit = asyncio.ensure_future(client.watch_my_trades(SYMBOL))
    moved = asyncio.ensure_future(client.watch_bids_asks([SYMBOL]))
    await asyncio.sleep(0.05)
    wire_venue.set_book("BTCUSDT", Decimal("59000.0"), Decimal("59001.0"), START_MS + 5000, 2.0)
    quote = await soon(moved)
    assert quote[SYMBOL]["bid"] == 59_000.0
    trades = await soon(hit)
    assert trades[-1]["info"]["stopOrderType"] == "StopLoss"
    assert trades[-1]["info"]["orderLinkId"] == ""
    assert (trades[-1]["price"], trades[-1]["timestamp"]) == (59_000.0, START_MS + 5000)
    assert wire_venue.positions("c01") == []
    assert [item["contracts"] for item in await client.fetch_positions()] == []


async def test_the_client_reads_everything_it_needs(wire_venue: Venue, make_client: Callable[..., Any]) -> None:
    """Ticker, book, bars, balance, fills, ledger, history and look-ups by client id come through the unified calls."""
    client = make_client()
    await client.load_markets()
    wire_venue.deposit("c01", Decimal(250), START_MS + 10)
    await client.create_order(SYMBOL, "market", "buy", 0.01, None, {"clientOrderId": "m-1"})
    await client.create_order(SYMBOL, "limit", "buy", 0.01, 59_000, {"clientOrderId": "l-1"})
    assert (await client.fetch_ticker(SYMBOL))["bid"] == 60_000.0
    assert (await client.fetch_order_book(SYMBOL))["asks"][0][0] == 60_000.5
    bars = await client.fetch_ohlcv(SYMBOL, "1m", None, 10)
    assert [bar[0] for bar in bars] == [START_MS - n * 60_000 for n in range(9, -1, -1)]
    assert (await client.fetch_balance())["info"]["result"]["list"][0]["totalWalletBalance"].startswith("100249.")
    assert [item["clientOrderId"] for item in await client.fetch_open_orders(SYMBOL)] == ["l-1"]
    done = await client.fetch_canceled_and_closed_orders(SYMBOL, params={"orderLinkId": "m-1"})
    assert [(item["clientOrderId"], item["status"]) for item in done] == [("m-1", "closed")]
    fills = await client.fetch_my_trades(SYMBOL, START_MS, params={"orderLinkId": "m-1"})
    assert [(item["amount"], item["price"]) for item in fills] == [(0.01, 60_000.5)]
    ledger = await client.fetch_ledger("USDT", START_MS)
    assert [(row["info"]["type"], row["amount"]) for row in ledger if row["info"]["type"] == "TRANSFER_IN"] == [
        ("TRANSFER_IN", 250.0)
    ]
    edited = await client.edit_order(None, SYMBOL, "limit", "buy", 0.02, 59_100, {"clientOrderId": "l-1"})
    await client.cancel_order(edited["id"], SYMBOL)
    assert await client.fetch_open_orders(SYMBOL) == []
    stop = {"category": "linear", "symbol": "BTCUSDT", "positionIdx": 0, "tpslMode": "Full", "stopLoss": "59000"}
    await client.private_post_v5_position_trading_stop(stop)
    with pytest.raises(ccxt.ExchangeError, match="34040"):
        await client.private_post_v5_position_trading_stop(stop)
    assert (await client.fetch_positions([SYMBOL]))[0]["stopLossPrice"] == 59_000.0
    with pytest.raises(ccxt.InvalidOrder, match="110072"):
        await client.create_order(SYMBOL, "market", "buy", 0.01, None, {"clientOrderId": "m-1"})
    with pytest.raises(ccxt.InsufficientFunds):
        await client.create_order(SYMBOL, "market", "buy", 40, None, {"clientOrderId": "big"})


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [
        pytest.param("key-1", "wrong", "10004", id="a wrong secret is a wrong sign"),
        pytest.param("stranger", "secret-1", "10003", id="an unknown key is refused"),
    ],
)
async def test_bad_credentials_are_refused(make_client: Callable[..., Any], key: str, secret: str, code: str) -> None:
    """The server verifies signatures on REST and on the private stream."""
    client = make_client(key, secret)
    client.has["fetchCurrencies"] = False
    await client.load_markets()
    with pytest.raises(ccxt.AuthenticationError, match=code):
        await client.private_get_v5_user_query_api()
    with pytest.raises(ccxt.AuthenticationError):
        await soon(client.watch_orders(SYMBOL))

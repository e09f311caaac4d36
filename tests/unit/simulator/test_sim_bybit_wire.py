"""The server's wire: signatures, receive window, limits, paging, faults, streams."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web

from simulator.bybit_auth import sign
from simulator.bybit_server import BybitServer
from simulator.faults import Faults, parse_fault
from simulator.latency import LatencyModel, Leg
from simulator.records import OrderTicket, TimeInForce
from simulator.venue import SimAccount, Venue
from srm_agent.clock import SystemClock
from srm_agent.domain.units import Side

START_MS = 1_767_610_800_000
Call = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
async def server(venue: Venue) -> AsyncIterator[BybitServer]:
    """The small venue on a free port, at most 20 requests a second."""
    made = BybitServer(
        venue, clock=SystemClock(), rng=random.Random(2), latency=LatencyModel.none(), rate_limit_per_s=20
    )
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A plain HTTP client."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as made:
        yield made


def signed(
    payload: str, *, account: str = "c01", secret: str | None = None, late_s: float = 0, window: int = 5000
) -> dict[str, str]:
    """Headers as Bybit asks for, `late_s` seconds after signing."""
    stamp = str(int((SystemClock().wall() - timedelta(seconds=late_s)).timestamp() * 1000))
    key = f"key-{account}"
    return {
        "X-BAPI-API-KEY": key,
        "X-BAPI-TIMESTAMP": stamp,
        "X-BAPI-RECV-WINDOW": str(window),
        "X-BAPI-SIGN": sign(secret or f"secret-{account}", stamp + key + str(window) + payload),
    }


@pytest.fixture
def call(server: BybitServer, session: aiohttp.ClientSession) -> Call:
    """Signed calls: `await call("GET", path, params, **signing)`; the JSON envelope."""

    async def request(method: str, path: str, params: dict[str, str], **signing: Any) -> dict[str, Any]:
        text = json.dumps(params) if method == "POST" else urlencode(params)
        url = f"{server.url}/{path}" if method == "POST" else f"{server.url}/{path}?{text}"
        data = text if method == "POST" else None
        async with session.request(method, url, data=data, headers=signed(text, **signing)) as response:
            answer: dict[str, Any] = json.loads(await response.text())
            return answer

    return request


ORDER = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "1"}


@pytest.mark.parametrize(
    ("signing", "code"),
    [
        pytest.param({}, 0, id="a good signature is accepted"),
        pytest.param({"secret": "other"}, 10004, id="another secret is a wrong sign"),
        pytest.param({"account": "nobody"}, 10003, id="an unknown key"),
        pytest.param({"late_s": 6}, 10002, id="older than the receive window"),
        pytest.param({"late_s": -3}, 10002, id="from the future"),
        pytest.param({"late_s": 6, "window": 10_000}, 0, id="a wider window admits it"),
    ],
)
async def test_requests_are_verified(call: Call, signing: dict[str, Any], code: int) -> None:
    """Every private request is checked: key, wall-clock window, HMAC."""
    answer = await call("GET", "v5/account/wallet-balance", {"accountType": "UNIFIED"}, **signing)
    assert answer["retCode"] == code


async def test_the_signed_text_is_what_was_sent(server: BybitServer, session: aiohttp.ClientSession) -> None:
    """Changing one character of a signed body makes the signature wrong, and nothing is executed."""
    body = json.dumps(ORDER)
    changed = body.replace('"1"', '"9"')
    async with session.post(f"{server.url}/v5/order/create", data=changed, headers=signed(body)) as response:
        assert (await response.json())["retCode"] == 10004
    assert server.venue.orders("c01") == []


async def test_an_order_signed_too_long_ago_is_never_accepted(venue: Venue, session: aiohttp.ClientSession) -> None:
    """The window is checked when the order arrives, so a request that was slow on the wire dies there."""
    latency = LatencyModel(
        random.Random(1), request=Leg(median_s=0.3, sigma=0, tail_probability=0), reply=Leg(median_s=0)
    )
    server = BybitServer(venue, clock=SystemClock(), rng=random.Random(2), latency=latency)
    await server.start()
    body = json.dumps(ORDER)
    async with session.post(f"{server.url}/v5/order/create", data=body, headers=signed(body, window=100)) as response:
        assert (await response.json())["retCode"] == 10002
    await server.stop()
    assert venue.orders("c01") == []


async def test_the_price_moves_while_an_order_is_in_flight(venue: Venue, session: aiohttp.ClientSession) -> None:
    """The request leg passes before the match."""
    latency = LatencyModel(
        random.Random(1), request=Leg(median_s=0.2, sigma=0, tail_probability=0), reply=Leg(median_s=0)
    )
    server = BybitServer(venue, clock=SystemClock(), rng=random.Random(2), latency=latency)
    await server.start()
    body = json.dumps(ORDER)
    sending = asyncio.ensure_future(session.post(f"{server.url}/v5/order/create", data=body, headers=signed(body)))
    await asyncio.sleep(0.05)
    venue.set_book("BTCUSDT", Decimal("101.0"), Decimal("101.5"), START_MS + 1000)
    (await sending).close()
    await server.stop()
    assert venue.executions("c01")[0].price == Decimal("101.5")


async def test_too_many_requests_are_10006(call: Call) -> None:
    """The limit counts per account and path, with HTTP 200 as Bybit does."""
    path, params = "v5/position/list", {"category": "linear", "settleCoin": "USDT"}
    codes = [(await call("GET", path, params))["retCode"] for _ in range(21)]
    assert codes == [0] * 20 + [10006]
    assert (await call("GET", path, params, account="c02"))["retCode"] == 0


async def test_a_read_only_key_cannot_trade(session: aiohttp.ClientSession, venue: Venue) -> None:
    """Its permissions say so, its reads work, its orders are 10005."""
    reader = SimAccount(account_id="c01", api_key="key-c01", secret="secret-c01", balance=Decimal(1), read_only=True)
    other = Venue(list(venue.instruments.values()), [reader], random.Random(3))
    server = BybitServer(other, clock=SystemClock(), rng=random.Random(2), latency=LatencyModel.none())
    await server.start()
    async with session.get(f"{server.url}/v5/user/query-api", headers=signed("")) as response:
        assert (await response.json())["result"]["readOnly"] == 1
    body = json.dumps(ORDER)
    async with session.post(f"{server.url}/v5/order/create", data=body, headers=signed(body)) as response:
        assert (await response.json())["retCode"] == 10005
    await server.stop()


async def test_executions_are_paged_newest_first(venue: Venue, call: Call) -> None:
    """Following the cursor gives every execution once, filtered by market time."""
    for step in range(7):
        venue.set_book("BTCUSDT", Decimal("100.0"), Decimal("100.5"), START_MS + step * 1000)
        venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=Decimal("0.1")))
    seen: list[int] = []
    cursor = ""
    while True:
        params = {"category": "linear", "startTime": str(START_MS + 2000), "limit": "2", "cursor": cursor}
        result = (await call("GET", "v5/execution/list", params))["result"]
        seen += [int(row["execTime"]) for row in result["list"]]
        cursor = result["nextPageCursor"]
        if not cursor:
            break
    assert seen == [START_MS + step * 1000 for step in (6, 5, 4, 3, 2)]


async def test_realtime_tells_open_and_finished_apart(venue: Venue, call: Call) -> None:
    """openOnly 0 gives working orders, 1 the finished ones; history only finished ones."""
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=Decimal(1), link_id="done"))
    resting = OrderTicket(
        symbol_id="BTCUSDT",
        side=Side.BUY,
        lots=Decimal(1),
        price=Decimal("90.0"),
        time_in_force=TimeInForce.GTC,
        link_id="open",
    )
    venue.place("c01", resting)
    for path, extra, expected in (
        ("v5/order/realtime", {}, ["open"]),
        ("v5/order/realtime", {"openOnly": "1"}, ["done"]),
        ("v5/order/realtime", {"orderLinkId": "done"}, []),
        ("v5/order/history", {}, ["done"]),
        ("v5/order/history", {"orderLinkId": "stranger"}, []),
    ):
        result = (await call("GET", path, {"category": "linear", "symbol": "BTCUSDT", **extra}))["result"]
        assert [row["orderLinkId"] for row in result["list"]] == expected


ACTED = [
    ("reset_before", False),
    ("reset_after", True),
    ("hang_after", True),
    ("truncate_after", True),
    ("http502_before", False),
    ("http502_html_after", True),
    ("http502_json_after", True),
    ("garbage200_after", True),
    ("ret_before:110007:ab not enough", False),
    ("ret_after:10016:Internal server error", True),
    ("http429", False),
]


@pytest.mark.parametrize(("kind", "acted"), [pytest.param(*row, id=row[0].partition(":")[0]) for row in ACTED])
async def test_each_fault_acts_or_not_and_is_consumed(
    server: BybitServer, session: aiohttp.ClientSession, kind: str, acted: bool
) -> None:
    """A fault strikes one call; `after` means that the order was executed; the next call is clean."""
    server.faults.add("/v5/order/create", kind)
    body = json.dumps({**ORDER, "orderLinkId": "f"})
    answer = ""
    try:
        timeout = aiohttp.ClientTimeout(total=0.4)
        url = f"{server.url}/v5/order/create"
        async with session.post(url, data=body, headers=signed(body), timeout=timeout) as response:
            answer = await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        answer = type(error).__name__
    assert '"retCode": 0' not in answer
    assert (server.venue.order("c01", link_id="f") is not None) is acted
    body = json.dumps({**ORDER, "orderLinkId": "g"})
    async with session.post(f"{server.url}/v5/order/create", data=body, headers=signed(body)) as response:
        assert (await response.json())["retCode"] == 0


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        pytest.param("v5/order/create", "explode", id="unknown kind"),
        pytest.param("v5/order/create", "ret_after:x:y", id="a code that is no number"),
        pytest.param("ws:public", "reset_after", id="a REST fault on a stream"),
        pytest.param("ws:other", "mute", id="no such stream"),
    ],
)
def test_unknown_faults_are_refused(path: str, kind: str) -> None:
    """A misspelt fault is an error, not a fault that never comes."""
    with pytest.raises(ValueError, match="was"):
        parse_fault(path, kind)


async def authenticated(server: BybitServer, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    """A private stream of c01 that has passed `auth`."""
    socket = await session.ws_connect(f"{server.ws_url}/v5/private")
    expires = str(int(SystemClock().wall().timestamp() * 1000) + 5000)
    await socket.send_json({"op": "auth", "args": ["key-c01", expires, sign("secret-c01", f"GET/realtime{expires}")]})
    assert (await socket.receive_json())["success"] is True
    return socket


async def test_private_topics_carry_only_the_own_account(
    server: BybitServer, session: aiohttp.ClientSession, venue: Venue
) -> None:
    """Executions of another account are not pushed."""
    socket = await authenticated(server, session)
    await socket.send_json({"op": "subscribe", "req_id": "1", "args": ["execution"]})
    assert (await socket.receive_json())["req_id"] == "1"
    venue.place("c02", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=Decimal("0.1"), link_id="theirs"))
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=Decimal("0.1"), link_id="ours"))
    assert (await socket.receive_json())["data"][0]["orderLinkId"] == "ours"


async def test_streams_without_authentication_are_refused(server: BybitServer, session: aiohttp.ClientSession) -> None:
    """A wrong signature and an unauthenticated subscription fail; unknown public topics too."""
    socket = await session.ws_connect(f"{server.ws_url}/v5/private")
    await socket.send_json({"op": "subscribe", "req_id": "1", "args": ["order"]})
    assert (await socket.receive_json())["success"] is False
    await socket.send_json({"op": "auth", "args": ["key-c01", "9999999999999", "00"]})
    assert (await socket.receive_json())["success"] is False
    public = await session.ws_connect(f"{server.ws_url}/v5/public/linear")
    await public.send_json({"op": "subscribe", "req_id": "2", "args": ["tickers.NOPE"]})
    assert (await public.receive_json())["ret_msg"] == "error:handler not found,topic:tickers.NOPE"


async def test_public_topics_carry_market_time(
    server: BybitServer, session: aiohttp.ClientSession, venue: Venue
) -> None:
    """Quotes, tickers, trades and bars are stamped with the venue's time; a finished minute is told closed."""
    socket = await session.ws_connect(f"{server.ws_url}/v5/public/linear")
    topics = [f"{kind}.BTCUSDT" for kind in ("orderbook.1", "tickers", "publicTrade", "kline.1")]
    await socket.send_json({"op": "subscribe", "req_id": "1", "args": topics})
    first = [await socket.receive_json() for _ in range(3)]
    assert [item.get("topic") for item in first] == [None, "orderbook.1.BTCUSDT", "tickers.BTCUSDT"]
    venue.set_book("BTCUSDT", Decimal("101.0"), Decimal("101.5"), START_MS + 60_000)
    pushed = {item["topic"].rpartition(".")[0]: item for item in [await socket.receive_json() for _ in range(3)]}
    assert {item["ts"] for item in pushed.values()} == {START_MS + 60_000}
    assert pushed["orderbook.1"]["data"]["a"] == [["101.5", "1"]]
    assert [bar["confirm"] for bar in pushed["kline.1"]["data"]] == [True, False]
    venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.SELL, lots=Decimal("0.1")))
    trade = await socket.receive_json()
    assert (trade["topic"], trade["data"][0]["p"], trade["data"][0]["S"]) == ("publicTrade.BTCUSDT", "101", "Sell")


async def test_stream_faults(server: BybitServer, session: aiohttp.ClientSession, venue: Venue) -> None:
    """Mute answers nothing until cleared, a bad frame replaces one message, refusals and drops are as named."""
    faults = server.faults
    faults.add("ws:public", "refuse_connection")
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await session.ws_connect(f"{server.ws_url}/v5/public/linear")
    socket = await session.ws_connect(f"{server.ws_url}/v5/public/linear")
    faults.add("ws:public", "refuse_subscription")
    subscribe = {"op": "subscribe", "req_id": "1", "args": ["orderbook.1.BTCUSDT"]}
    await socket.send_json(subscribe)
    assert (await socket.receive_json())["success"] is False
    await socket.send_json(subscribe)
    assert (await socket.receive_json())["success"] is True
    await socket.receive_json()
    faults.add("ws:public", "bad_frame")
    venue.set_book("BTCUSDT", Decimal("101.0"), Decimal("101.5"), START_MS + 1)
    assert (await socket.receive_json())["data"]["b"] == [["abc"]]
    faults.add("ws:public", "mute")
    venue.set_book("BTCUSDT", Decimal("102.0"), Decimal("102.5"), START_MS + 2)
    await socket.send_json({"op": "ping"})
    with pytest.raises(TimeoutError):
        await socket.receive_json(timeout=0.2)
    assert server.port > 0


async def test_dropped_streams_end_without_a_close_frame(server: BybitServer, session: aiohttp.ClientSession) -> None:
    """`drop_streams` cuts the chosen kind only."""
    private = await authenticated(server, session)
    public = await session.ws_connect(f"{server.ws_url}/v5/public/linear")
    server.drop_streams(private=True, public=False)
    assert (await private.receive()).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    await public.send_json({"op": "ping", "req_id": "7"})
    assert (await public.receive_json())["ret_msg"] == "pong"


async def test_a_control_page_is_served_beside_the_protocol(venue: Venue, session: aiohttp.ClientSession) -> None:
    """`add_json_route` answers JSON outside /v5."""
    server = BybitServer(venue, clock=SystemClock(), rng=random.Random(2), latency=LatencyModel.none(), faults=Faults())

    async def page(_request: web.Request) -> dict[str, Any]:
        return {"ok": True}

    server.add_json_route("/_sim/report", page)
    await server.start()
    async with session.get(f"{server.url}/_sim/report") as response:
        assert await response.json() == {"ok": True}
    await server.stop()


def test_latency_has_a_heavy_tail_and_a_cap() -> None:
    """The median is as asked, the worst far beyond it, nothing above the cap, and a seed repeats itself."""

    def sample() -> list[float]:
        model = LatencyModel.typical(random.Random(5))
        return [model.request_s() for _ in range(4000)]

    drawn = sorted(sample())
    assert drawn[2000] == pytest.approx(0.025, rel=0.05)
    assert drawn[-1] > 4 * drawn[2000]
    assert drawn[-1] <= 2.0
    assert sorted(sample()) == drawn

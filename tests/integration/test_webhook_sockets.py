"""The doors on real sockets: uvicorn in our loop, the real store, restarts, hostile peers, the CLI's client."""

from __future__ import annotations

import asyncio
import json
import signal as signals
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from srm_agent.api.app import BodyLimits, make_intake_app
from srm_agent.api.control import Operator
from srm_agent.api.control_client import ControlClient, ControlRefused, DaemonUnreachable
from srm_agent.api.front import WithFront
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.server import HttpServer, ServerLimits
from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.clock import SystemClock
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.signals import Signal
from srm_agent.errors import ConfigurationError, UsageError
from srm_agent.store.store import Store

ALPHA = ProviderKey.parse("alpha")
PATH = "/signals/channel_source/alpha"
KEY = WebhookKey(b"a" * 32)
TOKEN = "ann-token-0123456789abcdef"
CLOCK = SystemClock()


class Desk:
    """A control port with one connection."""

    def __init__(self) -> None:
        self.halts: list[tuple[HaltScope, str]] = []

    def health(self) -> tuple[bool, Mapping[str, str]]:
        """Ready."""
        return True, {}

    def status(self) -> Mapping[str, object]:
        """The halts."""
        return {"halts": [f"{scope.value} {key}" for scope, key in self.halts]}

    async def halt(self, scope: HaltScope, key: str, reason: str, operator: str) -> None:
        """Known connections only."""
        if scope is HaltScope.CONNECTION and key != "acc-1":
            raise UsageError(f"there is no connection {key!r}; there is acc-1")
        self.halts.append((scope, key))

    async def resume(self, scope: HaltScope, key: str, operator: str) -> bool:
        """True if it was halted."""
        if (scope, key) not in self.halts:
            return False
        self.halts.remove((scope, key))
        return True


def build(store: Store, delivered: list[Signal], body_timeout_s: float = 5.0) -> WithFront:
    """The application over a real store, with its front as the daemon has it."""
    registry = CollectorRegistry()
    intake = Intake(
        clock=CLOCK,
        keys={ALPHA: [KEY]},
        log=store.signals,
        deliver=delivered.append,
        limits=IntakeLimits(entries_per_s=1000, entries_burst=1000, exits_per_s=1000, exits_burst=1000),
        registry=registry,
    )
    app = make_intake_app(
        intake,
        Desk(),
        registry=registry,
        operators=[Operator.of_token("ann", TOKEN)],
        limits=BodyLimits(timeout_s=body_timeout_s),
    )
    return WithFront(app, intake.let_in)


@asynccontextmanager
async def running(
    database: Path, delivered: list[Signal], limits: ServerLimits | None = None, body_timeout_s: float = 5.0
) -> AsyncIterator[int]:
    """A server on a free port over the store in that file."""
    store = await Store.open(str(database), CLOCK)
    server = HttpServer(build(store, delivered, body_timeout_s), "127.0.0.1", 0, limits=limits)
    try:
        yield await server.start()
    finally:
        await server.stop()
        await store.close()


def opening(signal_id: str = "a-17", **changes: str) -> bytes:
    """An opening message issued now."""
    return json.dumps(
        {
            "action": "open",
            "signal_id": signal_id,
            "symbol": "BTC/USDT:USDT",
            "side": "buy",
            "entry": "60123.4",
            "stop_loss": "59800",
            "issued_at": CLOCK.wall().isoformat(),
            **changes,
        }
    ).encode()


def signed(body: bytes, message_id: str = "msg_1", key: WebhookKey = KEY) -> dict[str, str]:
    """The headers of a try made now."""
    at = int(CLOCK.wall().timestamp())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(key, message_id, at, body),
    }


def client_of(port: int) -> httpx.AsyncClient:
    """A client without proxies or patience."""
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)


async def said(port: int, request: bytes, trickle: bytes = b"") -> bytes:
    """Everything the server says to these bytes, and to some more sent one by one, until it hangs up (or 5 s)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(5):
            writer.write(request)
            heard = await reader.read(100_000) if trickle else b""
            for byte in trickle:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
            return heard + await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the server has ended this connection."""
    try:
        async with asyncio.timeout(0.3):
            return await reader.read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.mark.fault("S2")
async def test_the_same_message_75_times_with_edits_and_restarts_is_one_signal(tmp_path: Path) -> None:
    """S2, S12, INV-1: three runs of 25 concurrent tries, a third of them edited: one signal, one answer."""
    delivered: list[Signal] = []
    answers: set[tuple[int, bytes]] = set()
    body = opening()
    for _run in range(3):
        async with running(tmp_path / "srm.db", delivered) as port, client_of(port) as client:

            async def send(n: int, client: httpx.AsyncClient = client) -> tuple[int, bytes]:
                sent = opening(entry=f"6013{n}") if n % 3 == 0 else body
                message_id = "msg_1" if n % 2 else f"msg_{n}"
                answer = await client.post(PATH, content=sent, headers=signed(sent, message_id))
                return answer.status_code, answer.content

            answers |= set(await asyncio.gather(*(send(n) for n in range(25))))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 202
    assert len(delivered) == 1


async def test_a_message_is_in_the_store_when_it_is_answered(tmp_path: Path) -> None:
    """INV-3: after the 202 another reader of the file finds the message, not yet finished."""
    delivered: list[Signal] = []
    async with running(tmp_path / "srm.db", delivered) as port, client_of(port) as client:
        body = opening()
        assert (await client.post(PATH, content=body, headers=signed(body))).status_code == 202
        other = await Store.open(str(tmp_path / "srm.db"), CLOCK, inline=True)
        try:
            assert list(await other.signals.unfinished()) == delivered
        finally:
            await other.close()


async def test_sockets_and_direct_calls_answer_alike(tmp_path: Path) -> None:
    """The same application says the same bytes under uvicorn and through a direct ASGI call."""
    body, future = opening(), opening(issued_at="2999-01-01T00:00:00Z")
    requests: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("POST", PATH, body, signed(body)),
        ("POST", PATH, body, signed(body, key=WebhookKey(b"x" * 32))),
        ("POST", PATH, b"[[", signed(b"[[", "msg_2")),
        ("POST", PATH, opening(side="sell"), signed(opening(side="sell"), "msg_3", WebhookKey(b"y" * 32))),
        ("POST", PATH, b" " * 70_000, signed(b"")),
        ("POST", "/signals/user/alpha", body, signed(body)),
        ("GET", PATH, b"", {}),
        ("GET", "/health", b"", {}),
        ("GET", "/docs", b"", {}),
        ("GET", "/openapi.json", b"", {}),
        ("GET", "/nothing", b"", {}),
        ("GET", "/control/status", b"", {"authorization": f"Bearer {TOKEN}"}),
        ("POST", "/control/halt", b'{"scope":"all","reason":"news"}', {"authorization": f"Bearer {TOKEN}"}),
        ("POST", "/control/resume", b'{"scope":"all"}', {"authorization": f"Bearer {TOKEN}"}),
        ("POST", "/control/resume", b'{"scope":"all"}', {"authorization": "Bearer wrong"}),
    ]
    names = ("content-type", "cache-control", "connection", "content-security-policy", "www-authenticate")

    async def ask(client: httpx.AsyncClient) -> list[object]:
        answers: list[object] = []
        for method, path, content, headers in requests:
            answer = await client.request(method, path, content=content, headers=headers)
            shown = {name: answer.headers.get(name) for name in names}
            answers.append((method, path, answer.status_code, answer.content, shown))
        return answers

    async with running(tmp_path / "srm.db", []) as port, client_of(port) as client:
        over_sockets = await ask(client)
    # The store remembers the first message, so its answer is the same although the clock has moved.
    store = await Store.open(str(tmp_path / "srm.db"), CLOCK, inline=True)
    try:
        transport = httpx.ASGITransport(build(store, []))
        async with httpx.AsyncClient(base_url="http://direct", transport=transport) as direct:
            directly = await ask(direct)
            refused = await direct.post(PATH, content=future, headers=signed(future, "msg_9"))
            assert refused.json()["error"]["field"] == "issued_at"
    finally:
        await store.close()
    assert over_sockets == directly


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"POST /signals", id="half a request line"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\r\n", id="headers without end"),
    ],
)
@pytest.mark.fault("S9")
async def test_a_request_head_that_never_ends_is_cut_off(tmp_path: Path, head: bytes) -> None:
    """S9: a peer that does not finish its first request head is hung up on."""
    async with running(tmp_path / "srm.db", [], ServerLimits(request_head_s=0.2, keep_alive_s=60)) as port:
        assert await said(port, head) == b""


@pytest.mark.fault("S9")
async def test_a_second_request_head_that_trickles_is_cut_off(tmp_path: Path) -> None:
    """S9: on a kept connection a head that comes byte by byte does not buy more time."""
    async with running(tmp_path / "srm.db", [], ServerLimits(request_head_s=0.2, keep_alive_s=60)) as port:
        heard = await said(port, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /he")
        assert heard.count(b"HTTP/1.1") <= 1


async def test_a_kept_connection_is_not_cut_off_between_requests(tmp_path: Path) -> None:
    """The bound on a head is for a head that has begun: a quiet provider keeps its connection."""
    async with running(tmp_path / "srm.db", [], ServerLimits(request_head_s=0.1)) as port:
        request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(request)
            assert (await reader.readuntil(b'"ready"}')).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.3)
        writer.close()


async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    """After an answer a connection is kept for its time only."""
    async with running(tmp_path / "srm.db", [], ServerLimits(keep_alive_s=1)) as port:
        assert (await said(port, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.fault("S9")
async def test_a_slow_body_gets_408_and_the_connection_ends(tmp_path: Path) -> None:
    """S9: slow-loris in the body."""
    request = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode()
    async with running(tmp_path / "srm.db", [], body_timeout_s=0.2) as port:
        assert (await said(port, request)).startswith(b"HTTP/1.1 408")


@pytest.mark.fault("S9")
async def test_ten_megabytes_get_413_and_the_connection_ends(tmp_path: Path) -> None:
    """S9: a large body in pieces is thrown away as it comes and answered."""
    size = 10_000_000
    request = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode() + b"x" * size
    async with running(tmp_path / "srm.db", []) as port:
        assert (await said(port, request)).startswith(b"HTTP/1.1 413")


async def test_large_heads_and_upgrades_are_refused(tmp_path: Path) -> None:
    """A head above 16 KiB is an error; a WebSocket upgrade is an ordinary, unsigned request."""
    big = b"GET /health HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 20_000
    upgrade = (
        b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: eHg=\r\nsec-websocket-version: 13\r\n\r\n"
    )
    async with running(tmp_path / "srm.db", [], ServerLimits(keep_alive_s=1)) as port:
        assert (await said(port, big)).startswith(b"HTTP/1.1 400")
        assert b"101 Switching" not in await said(port, upgrade)


@pytest.mark.fault("S9")
async def test_connections_beyond_the_bound_are_dropped_and_the_rest_served(tmp_path: Path) -> None:
    """S9: a flood of connections costs its bound and no more; when it ends, service is as before."""
    async with running(tmp_path / "srm.db", [], ServerLimits(connections=20)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        dropped = await asyncio.gather(*(hung_up(reader) for reader, _ in held))
        assert sum(dropped) == 20
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        async with client_of(port) as client:
            assert (await client.get("/health")).status_code == 200


async def test_the_server_leaves_the_signals_to_the_daemon(tmp_path: Path) -> None:
    """SIGTERM and SIGINT are handled by whoever handled them before the server started."""
    before = [signals.getsignal(number) for number in (signals.SIGTERM, signals.SIGINT)]
    async with running(tmp_path / "srm.db", []):
        assert [signals.getsignal(number) for number in (signals.SIGTERM, signals.SIGINT)] == before


async def test_stopping_twice_is_stopping_once_and_frees_the_port(tmp_path: Path) -> None:
    """After `stop` the port can be bound again; `wait` returns; another `stop` does nothing."""
    store = await Store.open(str(tmp_path / "srm.db"), CLOCK, inline=True)
    server = HttpServer(build(store, []), "127.0.0.1", 0)
    port = await server.start()
    waiting = asyncio.create_task(server.wait())
    await server.stop()
    await server.stop()
    await waiting
    again = HttpServer(build(store, []), "127.0.0.1", port)
    assert await again.start() == port
    await again.stop()
    await store.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", ""])
def test_only_loopback_is_served_unless_told_otherwise(host: str) -> None:
    """An address the network can reach is refused with the key and the remedy."""
    with pytest.raises(ConfigurationError, match=r"\[intake\] host must be a loopback address") as caught:
        HttpServer(FastAPI(), host, 0)
    assert "allow_remote = true" in str(caught.value)


async def test_a_remote_address_is_served_when_told() -> None:
    """`allow_remote` opens every interface."""
    server = HttpServer(FastAPI(openapi_url=None), "0.0.0.0", 0, allow_remote=True)
    assert await server.start() > 0
    await server.stop()


async def test_a_port_in_use_is_named_with_the_remedy() -> None:
    """A second daemon on the same port says so instead of failing darkly."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HttpServer(FastAPI(openapi_url=None), "127.0.0.1", port)
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}.*another daemon"):
            await server.start()
        await server.stop()


async def test_the_control_client_sees_halts_and_resumes(tmp_path: Path) -> None:
    """What the command line does, over a real socket."""
    async with running(tmp_path / "srm.db", []) as port:
        client = ControlClient(f"http://127.0.0.1:{port}", TOKEN + "\n")
        assert await asyncio.to_thread(client.health) == (True, {})
        halted = await asyncio.to_thread(client.halt, HaltScope.PROVIDER, "alpha", "Berita \u2014 news")
        assert halted == {
            "status": "halted",
            "scope": "provider",
            "key": "channel_source:alpha",
            "operator": "ann",
        }
        assert await asyncio.to_thread(client.status) == {"halts": ["provider channel_source:alpha"]}
        assert await asyncio.to_thread(client.resume, HaltScope.PROVIDER, "alpha") is True
        assert await asyncio.to_thread(client.resume, HaltScope.PROVIDER, "alpha") is False
        with pytest.raises(ControlRefused, match="there is no connection 'acc-9'; there is acc-1") as refused:
            await asyncio.to_thread(client.halt, HaltScope.CONNECTION, "acc-9", "x")
        assert (refused.value.status, refused.value.code) == (422, "KEY_UNKNOWN")
        stranger = ControlClient(f"http://127.0.0.1:{port}", "CANARY-0123456789abcdef")
        with pytest.raises(ControlRefused, match="does not know this operator token") as unknown:
            await asyncio.to_thread(stranger.status)
        assert "CANARY" not in str(unknown.value)


async def test_a_daemon_that_is_not_there_is_said_to_be_not_there() -> None:
    """Nobody listening, somebody else listening, and somebody silent are three clear errors."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DaemonUnreachable, match=f"daemon not reachable at http://127.0.0.1:{port} .*: is it running?"):
        ControlClient(f"http://127.0.0.1:{port}", TOKEN).status()

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(stranger, "127.0.0.1", 0) as server:
        other = server.sockets[0].getsockname()[1]
        with pytest.raises(DaemonUnreachable, match="is not the daemon"):
            await asyncio.to_thread(ControlClient(f"http://127.0.0.1:{other}", TOKEN).status)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DaemonUnreachable, match=r"did not answer within 0\.1 s"):
            ControlClient(url, TOKEN, timeout_s=0.1).status()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://127.0.0.1/x"])
def test_a_wrong_daemon_address_is_a_configuration_error(url: str) -> None:
    """The address is checked before anything is sent."""
    with pytest.raises(ConfigurationError, match=r"must look like http://127\.0\.0\.1:8080"):
        ControlClient(url, TOKEN)

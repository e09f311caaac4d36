"""The venue behind Bybit V5's wire protocol, for the unmodified client libraries. Loopback unless told otherwise.

Two times, as with a real venue that runs faster: data (quotes, bars, orders, executions) carries *market* time; the
envelope's `time`, `market/time`, signatures and the receive window are *wall* time.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable

from aiohttp import web

from simulator.bybit_auth import ApiError, KeyRing, RateLimit
from simulator.bybit_rest import BybitRest, Params
from simulator.bybit_rows import Json, Row
from simulator.bybit_ws import Streams
from simulator.faults import Fault, Faults
from simulator.latency import LatencyModel
from simulator.terms import SimAccount, VenueRefused
from simulator.venue import Venue
from srm_agent.clock import Clock

JsonRoute = Callable[[web.Request], Awaitable[Json]]


class BybitServer:
    """REST and streams of one venue.

    `rate_limit_per_s` counts requests of one account to one path (10006 above it, HTTP 200 as Bybit does).
    """

    def __init__(
        self,
        venue: Venue,
        *,
        clock: Clock,
        rng: random.Random,
        latency: LatencyModel,
        faults: Faults | None = None,
        rate_limit_per_s: int = 50,
    ) -> None:
        self.venue = venue
        self.faults = faults or Faults()
        self.port = 0
        self._clock = clock
        self._latency = latency
        self._host = ""
        self._keys = KeyRing(venue.accounts.values())
        self._limit = RateLimit(rate_limit_per_s)
        self._rest = BybitRest(venue)
        self._streams = Streams(
            venue,
            keys=self._keys,
            clock=clock,
            rng=rng,
            latency=latency,
            faults=self.faults,
            ticker=self._rest.ticker,
        )
        self._routes: dict[str, JsonRoute] = {}
        self._runner: web.AppRunner | None = None
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """Of REST, e.g. `http://127.0.0.1:8080`."""
        return f"http://{self._host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """Of the streams, e.g. `ws://127.0.0.1:8080`."""
        return f"ws://{self._host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one (see `port`)."""
        app = web.Application()
        app.router.add_get("/v5/public/linear", self._streams.serve)
        app.router.add_get("/v5/private", self._streams.serve)
        app.router.add_route("*", "/{path:v5/.*}", self._serve_rest)
        for path, route in self._routes.items():
            app.router.add_get(path, self._json_handler(route))
        # A hanging answer (fault) must end with its client and with the server.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._host, self.port = host, int(self._runner.addresses[0][1])
        self._unsubscribe = self.venue.subscribe(self._streams.on_event)

    async def stop(self) -> None:
        """Close everything; idempotent."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await self._streams.close()
            await runner.cleanup()

    def drop_streams(self, *, private: bool, public: bool) -> None:
        """Cut WebSocket connections without a word, as a restarting edge server does. REST goes on."""
        self._streams.drop(private=private, public=public)

    def add_json_route(self, path: str, coroutine: JsonRoute) -> None:
        """A control page outside the protocol (GET, JSON); before `start`."""
        self._routes[path] = coroutine

    @staticmethod
    def _json_handler(route: JsonRoute) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return web.json_response(await route(request))

        return handle

    def _wall_ms(self) -> int:
        return int(self._clock.wall().timestamp() * 1000)

    def _envelope(self, result: Row, code: int = 0, message: str = "OK") -> web.Response:
        return web.json_response(
            {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": self._wall_ms()}
        )

    async def _serve_rest(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        body = await request.text()
        fault = self.faults.take(path)
        await asyncio.sleep(self._latency.request_s())
        if fault is not None and not fault.acted:
            return self._fail(request, fault)
        response = self._act(request, path, body)
        await asyncio.sleep(self._latency.reply_s())
        if fault is not None:
            return await self._fail_after(request, fault)
        return response

    def _act(self, request: web.Request, path: str, body: str) -> web.Response:
        try:
            return self._answer(request, path, body)
        except (ApiError, VenueRefused) as refusal:
            return self._envelope({}, refusal.code, refusal.message)

    def _answer(self, request: web.Request, path: str, body: str) -> web.Response:
        if path == "v5/market/time":
            now = self._wall_ms()
            return self._envelope({"timeSecond": str(now // 1000), "timeNano": str(now * 1_000_000)})
        params = parse_params(request, body)
        public = self._rest.public.get((request.method, path))
        if public is not None:
            return self._envelope(public(params))
        private = self._rest.private.get((request.method, path))
        if private is None:
            raise ApiError(10404, f"route not found: {request.method} /{path}")
        account = self._authorised(request, path, body)
        return self._envelope(private(account, params))

    def _authorised(self, request: web.Request, path: str, body: str) -> SimAccount:
        # The raw query string: what was signed is the escaped form.
        payload = body if request.method == "POST" else request.rel_url.raw_query_string
        account = self._keys.verify_request(request.headers, payload, self._wall_ms())
        self._limit.check(account.account_id, path, self._clock.monotonic())
        if account.read_only and request.method == "POST":
            raise ApiError(10005, "Permission denied, please check your API key permissions.")
        return account

    def _fail(self, request: web.Request, fault: Fault) -> web.Response:
        """The faults in which the venue did nothing."""
        match fault.kind:
            case "http429":
                return web.Response(status=429, text="too many requests")
            case "http502_before":
                return bad_gateway()
            case "ret_before":
                return self._envelope({}, fault.code, fault.message)
            case _:
                reset(request)
                return web.Response()

    async def _fail_after(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """The faults in which the venue acted and the answer is lost."""
        match fault.kind:
            case "hang_after":
                await asyncio.Event().wait()
            case "truncate_after":
                return await truncated(request)
            case "http502_html_after":
                return bad_gateway()
            case "http502_json_after":
                return web.json_response({"error": "upstream timed out"}, status=502)
            case "garbage200_after":
                return web.Response(text="OK (please log in to this network)")
            case "ret_after":
                return self._envelope({}, fault.code, fault.message)
            case _:
                reset(request)
        return web.Response()


def parse_params(request: web.Request, body: str) -> Params:
    """Query or JSON body as flat text. Raises ApiError 10001 for a body that is not a JSON object."""
    if request.method != "POST":
        return dict(request.query)
    try:
        parsed = json.loads(body or "{}")
    except ValueError:
        raise ApiError(10001, "params error: body is not JSON") from None
    if not isinstance(parsed, dict):
        raise ApiError(10001, "params error: body is not a JSON object")
    return {str(name): flat(value) for name, value in parsed.items() if value is not None}


def flat(value: object) -> str:
    """A JSON scalar as text, booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def bad_gateway() -> web.Response:
    """A proxy's page."""
    return web.Response(status=502, text="<html><h1>502 Bad Gateway</h1></html>", content_type="text/html")


def reset(request: web.Request) -> None:
    """Cut the connection at once."""
    if request.transport is not None:
        request.transport.abort()


async def truncated(request: web.Request) -> web.StreamResponse:
    """Announce more bytes than are sent, then close."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"retCode":0,"resu')
    if request.transport is not None:
        request.transport.close()
    return response

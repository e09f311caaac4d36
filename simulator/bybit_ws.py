"""Bybit V5's streams: who listens to what, and the venue's events as pushed messages.

A message is written once and queued for every listener, so quotes are cheap; each connection keeps its order even when
single messages are delayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from uuid import UUID

from aiohttp import WSMsgType, web

from simulator import bybit_rows as rows
from simulator.bybit_auth import KeyRing
from simulator.bybit_rows import Json, Row
from simulator.delay_line import DelayLine
from simulator.faults import Faults
from simulator.latency import LatencyModel
from simulator.records import BookMoved, Executed, OrderChanged, PositionChanged, VenueEvent, WalletChanged
from simulator.venue import Venue
from srm_agent.clock import Clock

PRIVATE_TOPICS = ("order", "execution", "position", "wallet")
PUBLIC_TOPICS = ("orderbook.1", "tickers", "publicTrade", "kline.1")
BACKLOG = 10_000
"""A listener that lets more messages wait than this is disconnected, as a venue does with slow readers."""


class Connection:
    """One WebSocket: its topics, its account once authenticated, and what waits to be sent."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, conn_id: str, *, private: bool) -> None:
        self.socket = socket
        self.conn_id = conn_id
        self.private = private
        self.account_id = ""
        self.topics: dict[str, None] = {}
        self._request = request
        self._line: DelayLine[str] = DelayLine()

    @property
    def stream(self) -> str:
        """The fault path of this connection."""
        return "ws:private" if self.private else "ws:public"

    def send(self, message: str, delay_s: float = 0.0) -> None:
        """Queue a message; disconnects a listener that reads too slowly."""
        if len(self._line) > BACKLOG:
            self.drop()
        else:
            self._line.put(message, delay_s)

    def drop(self) -> None:
        """Cut the TCP connection without a word."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def pump(self) -> None:
        """Send what waits, in order, until cancelled or disconnected."""
        with contextlib.suppress(ConnectionError):
            while not self.socket.closed:
                await self.socket.send_str(await self._line.get())


class Streams:
    """All connections of a server."""

    def __init__(
        self,
        venue: Venue,
        *,
        keys: KeyRing,
        clock: Clock,
        rng: random.Random,
        latency: LatencyModel,
        faults: Faults,
        ticker: Callable[[str], Row],
    ) -> None:
        self._venue = venue
        self._keys = keys
        self._clock = clock
        self._rng = rng
        self._latency = latency
        self._faults = faults
        self._ticker = ticker
        self._connections: dict[str, Connection] = {}
        self._minutes: dict[str, int] = {}

    def drop(self, *, private: bool, public: bool) -> None:
        """Cut the connections of a kind without a word."""
        for connection in list(self._connections.values()):
            if (private and connection.private) or (public and not connection.private):
                connection.drop()

    async def close(self) -> None:
        """End all connections politely."""
        for connection in list(self._connections.values()):
            await connection.socket.close()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection's life."""
        private = request.path.endswith("private")
        if self._faults.take_kind("ws:private" if private else "ws:public", "refuse_connection"):
            return web.Response(status=503, text="maintenance")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(socket, request, str(UUID(int=self._rng.getrandbits(128))), private=private)
        self._connections[connection.conn_id] = connection
        pump = asyncio.create_task(connection.pump())
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._on_text(connection, message.data)
        finally:
            del self._connections[connection.conn_id]
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pump
        return socket

    def _on_text(self, connection: Connection, data: str) -> None:
        if self._faults.active(connection.stream, "mute"):
            return
        try:
            request = json.loads(data)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            self._answer(connection, {"success": False, "ret_msg": "error:invalid json", "op": ""})
            return
        operation, arguments = request.get("op"), request.get("args", [])
        names = [str(item) for item in arguments] if isinstance(arguments, list) else []
        answer: Row = {"success": True, "ret_msg": "", "req_id": str(request.get("req_id", "")), "op": str(operation)}
        match operation:
            case "ping":
                self._pong(connection, answer)
            case "auth":
                self._auth(connection, names, answer)
            case "subscribe":
                self._subscribe(connection, names, answer)
            case "unsubscribe":
                for name in names:
                    connection.topics.pop(name, None)
                self._answer(connection, answer)
            case _:
                self._answer(connection, {**answer, "success": False, "ret_msg": "error:invalid op"})

    def _answer(self, connection: Connection, answer: Row) -> None:
        connection.send(json.dumps({**answer, "conn_id": connection.conn_id}), self._latency.reply_s())

    def _pong(self, connection: Connection, answer: Row) -> None:
        # The two forms of https://bybit-exchange.github.io/docs/v5/ws/connect
        if connection.private:
            now = str(int(self._clock.wall().timestamp() * 1000))
            self._answer(connection, {"req_id": answer["req_id"], "op": "pong", "args": [now]})
        else:
            self._answer(connection, {**answer, "ret_msg": "pong"})

    def _auth(self, connection: Connection, arguments: list[str], answer: Row) -> None:
        now_ms = int(self._clock.wall().timestamp() * 1000)
        account = self._keys.verify_stream(arguments, now_ms) if connection.private else None
        if account is None:
            refusal: Row = {"success": False, "ret_msg": "Params Error", "op": "auth", "request": {"op": "auth"}}
            self._answer(connection, refusal)
            return
        connection.account_id = account.account_id
        del answer["req_id"]
        self._answer(connection, answer)

    def _subscribe(self, connection: Connection, names: list[str], answer: Row) -> None:
        refusal = ""
        if self._faults.take_kind(connection.stream, "refuse_subscription"):
            refusal = "error:handler not found"
        elif connection.private and not connection.account_id:
            refusal = "Request not authorized"
        else:
            strange = [name for name in names if not self._known(connection, name)]
            refusal = f"error:handler not found,topic:{strange[0]}" if strange else ""
        if refusal:
            self._answer(connection, {**answer, "success": False, "ret_msg": refusal})
            return
        connection.topics.update(dict.fromkeys(names))
        self._answer(connection, answer)
        for name in names:
            self._first_picture(connection, name)

    def _known(self, connection: Connection, name: str) -> bool:
        if connection.private:
            return name in PRIVATE_TOPICS
        kind, _, symbol_id = name.rpartition(".")
        return kind in PUBLIC_TOPICS and symbol_id in self._venue.instruments

    def _first_picture(self, connection: Connection, name: str) -> None:
        kind, _, symbol_id = name.rpartition(".")
        if kind not in ("orderbook.1", "tickers") or not self._venue.priced(symbol_id):
            return
        touch = self._venue.touch(symbol_id)
        data = rows.book_row(touch) if kind == "orderbook.1" else self._ticker(symbol_id)
        connection.send(self._public_text(name, data, touch.at_ms), self._latency.reply_s())

    # Pushes

    def on_event(self, event: VenueEvent) -> None:
        """Tell everyone who listens; called by the venue, at once."""
        match event:
            case BookMoved():
                self._push_market(event)
            case OrderChanged(order):
                self._push_private(order.account_id, "order", rows.order_row(order))
            case Executed(fill):
                self._push_private(fill.account_id, "execution", rows.execution_row(fill))
                symbol_id = fill.order.ticket.symbol_id
                self._push_public(f"publicTrade.{symbol_id}", lambda: [rows.trade_row(fill)], fill.at_ms)
            case PositionChanged(position):
                self._push_private(position.account_id, "position", rows.position_row(position))
            case WalletChanged(wallet):
                self._push_private(wallet.account_id, "wallet", rows.wallet_row(wallet))

    def _push_market(self, event: BookMoved) -> None:
        symbol_id = event.symbol_id
        self._push_public(f"orderbook.1.{symbol_id}", lambda: rows.book_row(event), event.at_ms)
        self._push_public(f"tickers.{symbol_id}", lambda: self._ticker(symbol_id), event.at_ms)
        self._push_public(f"kline.1.{symbol_id}", lambda: self._klines(symbol_id, event.at_ms), event.at_ms)

    def _klines(self, symbol_id: str, at_ms: int) -> list[Json]:
        # When a minute begins, the one before is told once more, closed; before that only the running one.
        bars = self._venue.bars(symbol_id, 60, 2)
        began = self._minutes.get(symbol_id) != bars[-1].start_ms
        self._minutes[symbol_id] = bars[-1].start_ms
        return [rows.kline_push(bar, at_ms) for bar in (bars if began else bars[-1:])]

    def _push_public(self, topic: str, data: Callable[[], Json], at_ms: int) -> None:
        listeners = [item for item in self._connections.values() if topic in item.topics]
        if not listeners or self._faults.active("ws:public", "mute"):
            return
        message = self._public_text(topic, data(), at_ms)
        if self._faults.take_kind("ws:public", "bad_frame"):
            message = bad_frame(topic)
        for connection in listeners:
            connection.send(message, self._latency.reply_s())

    def _public_text(self, topic: str, data: Json, at_ms: int) -> str:
        return json.dumps({"topic": topic, "type": "snapshot", "ts": at_ms, "cts": at_ms, "data": data})

    def _push_private(self, account_id: str, topic: str, row: Row) -> None:
        listeners = [
            item for item in self._connections.values() if item.account_id == account_id and topic in item.topics
        ]
        if not listeners or self._faults.active("ws:private", "mute"):
            return
        message = json.dumps(
            {
                "id": str(UUID(int=self._rng.getrandbits(128))),
                "topic": topic,
                "creationTime": self._venue.market_ms,
                "data": [row],
            }
        )
        if self._faults.take_kind("ws:private", "bad_frame"):
            message = bad_frame(topic)
        for connection in listeners:
            connection.send(message, self._latency.reply_s())


def bad_frame(topic: str) -> str:
    """A message of the right topic and the wrong shape."""
    data: Json = {"s": topic.rpartition(".")[2], "b": [["abc"]], "a": [[1, 2]], "u": 1}
    kind = "delta" if topic.startswith("orderbook") else "snapshot"
    return json.dumps({"topic": topic, "type": kind, "ts": "x", "data": data if kind == "delta" else [None]})

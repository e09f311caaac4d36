"""The agent's HTTP application without a socket: requests are ASGI calls, run in the life of the process they reach."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import dataclass

from starlette.types import ASGIApp, Message

from simulator.simulation.loop import LIFE

STOP_S = 5.0


class ConnectionRefused(Exception):
    """Nobody listens, or the process died before it answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class VirtualServer:
    """`ports.Server` of one process. `request` is the other end of the line."""

    def __init__(self, app: ASGIApp, life: int) -> None:
        self._app, self._life = app, life
        self._ended = asyncio.Event()
        self._running: dict[int, asyncio.Task[tuple[int, bytes]]] = {}
        self._requests = 0
        self.listening = False

    async def start(self) -> int:
        """Listen."""
        self.listening = True
        return 8787

    async def wait(self) -> None:
        """Until stopped."""
        await self._ended.wait()

    async def stop(self) -> None:
        """No new requests; those under way have some seconds."""
        self.listening = False
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=STOP_S)
        self._ended.set()

    async def request(self, request: Request) -> tuple[int, bytes]:
        """Status and body. Raises ConnectionRefused without an answer; it may have been taken all the same."""
        if not self.listening:
            raise ConnectionRefused
        context = copy_context()
        context.run(LIFE.set, self._life)
        self._requests += 1
        number = self._requests
        task = self._running[number] = context.run(asyncio.create_task, call(self._app, request))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ConnectionRefused from None
            raise
        finally:
            if task.done():
                del self._running[number]
            else:  # the caller gave up; the handler goes on
                task.add_done_callback(lambda _: self._running.pop(number, None))


async def call(app: ASGIApp, request: Request) -> tuple[int, bytes]:
    """One request straight into an ASGI application."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8787),
    }
    sent: list[Message] = []
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            await asyncio.Event().wait()  # the client stays connected
        given = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return int(sent[0]["status"]), body

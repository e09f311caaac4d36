"""uvicorn inside our own event loop: our signals, our limits, our loopback rule."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import ClassVar

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from srm_agent.api.front import ADMITTED, Admitted, Front, Unfinished, WithFront, read_request, refusal
from srm_agent.errors import ConfigurationError

_LOOKED_AT = 16
"""Connections looked at for one that may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What a peer may keep of us. Seconds, bytes, counts."""

    request_head_s: float = 5.0
    """A connection that has not sent a whole request head by then is closed."""
    keep_alive_s: int = 15
    stop_s: int = 5
    """How long requests under way may take after `stop`."""
    head_bytes: int = 16 * 1024
    connections: int = 1024
    """Above it the oldest connection that never brought an authentic message has to go."""
    body_pause_s: float = 0.02
    """How long a body may lag behind its head before its request takes the ordinary way."""


class _BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with what it lacks: bounds on connections and on the time for the first request head, and a
    way to refuse a signal before the framework sees it."""

    limits: ClassVar[ServerLimits]
    front: ClassVar[Front | None]
    strangers: ClassVar[dict[_BoundedProtocol, None]]
    """Connections that have not brought an authentic message, oldest first."""
    _head_timer: asyncio.TimerHandle | None = None
    _held: bytes = b""
    """A request whose body is still coming."""
    _held_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.strangers[self] = None
        if len(self.connections) > self.limits.connections:
            self._make_room()
        if not transport.is_closing():
            self._await_head()

    def data_received(self, data: bytes) -> None:
        front = type(self).front
        if front is None or not (self._held or self._resting()):
            self._pass_on(data)
            return
        held, self._held = self._held + data, b""
        self._forget_held()
        request = read_request(held)
        if isinstance(request, Unfinished):
            self._held = held
            self._held_timer = self.loop.call_later(self.limits.body_pause_s, self._release)
            return
        answer = None if request is None else front(request)
        if not isinstance(answer, tuple):
            self._pass_on(held, answer)
            return
        if answer[0] != HTTPStatus.UNAUTHORIZED:
            self.strangers.pop(self, None)
        self._refuse(*answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.strangers.pop(self, None)
        self._forget_held()
        self._forget_head()
        super().connection_lost(exc)

    def _pass_on(self, data: bytes, admitted: Admitted | None = None) -> None:
        before = self.cycle
        if admitted is not None:
            self.strangers.pop(self, None)
            # uvicorn copies it into the scope of the request that these bytes are.
            self.app_state[ADMITTED] = admitted
        try:
            super().data_received(data)
        finally:
            self.app_state.pop(ADMITTED, None)
        if self.cycle is not before:
            self._forget_head()
        elif self._head_timer is None and before.response_complete:
            # The first bytes of a next request on a kept connection: uvicorn has just dropped its own timer.
            self._await_head()

    def _release(self) -> None:
        held, self._held, self._held_timer = self._held, b"", None
        if held and not self.transport.is_closing():
            self._pass_on(held)

    def _resting(self) -> bool:
        """Between requests, with nothing of a next one read."""
        return (
            getattr(self.cycle, "response_complete", True)
            and self.conn.their_state is h11.IDLE
            and self.conn.our_state is h11.IDLE
            and not self.conn.trailing_data[0]
        )

    def _refuse(self, status: int, text: str) -> None:
        """Answer, and wait for the next request; a peer that does not read its answers is hung up on."""
        self._forget_head()
        self._unset_keepalive_if_required()
        if self.flow.write_paused:
            self.transport.abort()
            return
        default = {name.decode(): value.decode() for name, value in self.server_state.default_headers}
        self.transport.write(refusal(status, text, default))
        self.server_state.total_requests += 1
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _make_room(self) -> None:
        victims = (one for one in islice(self.strangers, _LOOKED_AT) if one._resting())
        victim = next(victims, self)
        self.strangers.pop(victim, None)
        victim.transport.abort()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.request_head_s, self.transport.abort)

    def _forget_held(self) -> None:
        if self._held_timer is not None:
            self._held_timer.cancel()
            self._held_timer = None

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to the daemon and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()


class HttpServer:
    """One listening socket for one application. A `WithFront` may refuse signals before its framework sees them."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        *,
        allow_remote: bool = False,
        limits: ServerLimits | None = None,
    ) -> None:
        if not allow_remote and not _is_loopback(host):
            raise ConfigurationError(
                f"[intake] host must be a loopback address such as 127.0.0.1, was {host!r}; keep it there behind a "
                f"TLS proxy, or set [intake] allow_remote = true if a firewall guards this machine"
            )
        self._app = app
        self._host = host
        self._port = port
        self._limits = limits or ServerLimits()
        self._front = app.front if isinstance(app, WithFront) else None
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; the port (a free one if 0 was asked for).

        Raises ConfigurationError if the address cannot be used.
        """
        listener = self._bind()
        protocol = type(
            "BoundedProtocol",
            (_BoundedProtocol,),
            {
                "limits": self._limits,
                "front": None if self._front is None else staticmethod(self._front),
                "strangers": {},
            },
        )
        config = uvicorn.Config(
            self._app,
            http=protocol,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=self._limits.keep_alive_s,
            timeout_graceful_shutdown=self._limits.stop_s,
            h11_max_incomplete_event_size=self._limits.head_bytes,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http server")
        listening = asyncio.create_task(self._server.listening.wait(), name="http server listening")
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            await self._task
        port: int = listener.getsockname()[1]
        return port

    async def wait(self) -> None:
        """Until the server ends, by `stop` or by a defect (which is raised): for the supervisor."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """No new connections; requests under way have `stop_s`. Idempotent."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await asyncio.wait({self._task})
        self._server = None
        await self._task

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family, backlog=512)
        except OSError as error:
            remedy = (
                "is another daemon running? Stop it or choose another [intake] port"
                if error.errno == errno.EADDRINUSE
                else "choose another [intake] host or port"
            )
            raise ConfigurationError(
                f"[intake] cannot listen on {self._host}:{self._port}: {error.strerror or error}; {remedy}"
            ) from error
        listener.setblocking(False)
        # Accepted sockets inherit it; asyncio sets it only on sockets made with an explicit protocol. Without it the
        # second part of an answer on a kept connection waits 40 ms for the peer's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""uvicorn inside our own event loop: our signals, our limits, our loopback rule."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from srm_agent.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What a peer may keep of us. Seconds, bytes, counts."""

    request_head_s: float = 5.0
    """A connection that has not sent a whole request head by then is closed."""
    keep_alive_s: int = 15
    stop_s: int = 5
    """How long requests under way may take after `stop`."""
    head_bytes: int = 16 * 1024
    requests: int = 512
    connections: int = 1024


class _BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with what it lacks: a bound on connections and on the time for the first request head."""

    limits: ClassVar[ServerLimits]
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._forget_head()
        elif self._head_timer is None and before.response_complete:
            # The first bytes of a next request on a kept connection: uvicorn has just dropped its own timer.
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.request_head_s, self.transport.abort)

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
    """One listening socket for one application."""

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
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; the port (a free one if 0 was asked for).

        Raises ConfigurationError if the address cannot be used.
        """
        listener = self._bind()
        protocol = type("BoundedProtocol", (_BoundedProtocol,), {"limits": self._limits})
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
            limit_concurrency=self._limits.requests,
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
        return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Refusing cheaply: a plain signal request is read from its bytes, and turned away before the web framework wakes.

Only requests in the one form that every client sends are read here; whatever differs, and whatever is not refused, goes
the ordinary way. So nothing is ever accepted by this parser, and a mistake in it costs speed, not safety.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from srm_agent.api.answers import answer_headers
from srm_agent.api.strict_json import MAX_BODY_BYTES
from srm_agent.domain.ids import ProviderKey, ProviderKind
from srm_agent.domain.signals import Signal

MAX_HEAD_BYTES = 4096
_LINE = re.compile(rb"POST /signals/(channel_source|user)/([A-Za-z0-9._-]{1,128}) HTTP/1\.1")
_NAME = re.compile(rb"[A-Za-z0-9-]{1,64}")
_VALUE = re.compile(rb"[ -~\t]*")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,4}")
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"te", b"trailer"})
"""Headers that change what a request means: left to the ordinary way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRequest:
    """A whole request for the intake."""

    provider: ProviderKey
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The head is such a request's, its body is still coming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A message that was let in, verified and understood: nothing of that is done again on the ordinary way."""

    signal: Signal
    body: bytes


ADMITTED = "srm_admitted"
"""Key of the `Admitted` in the state of an ASGI scope."""
Front = Callable[[SignalRequest], tuple[int, str] | Admitted]
"""Status and JSON text of a refusal, or what goes on the ordinary way."""


class WithFront:
    """An ASGI application with its front, for servers that know what to do with one; it is served as ever by others."""

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self._app = app
        self.front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application."""
        await self._app(scope, receive, send)


def read_request(data: bytes) -> SignalRequest | Unfinished | None:
    """The signal request that `data` is, exactly; None for anything else (which says nothing about its validity)."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0 or not data.startswith(b"POST /signals/"):
        return None
    line, *lines = data[:end].split(b"\r\n")
    route = _LINE.fullmatch(line)
    headers = _headers(lines)
    if route is None or headers is None:
        return None
    length = headers.get("content-length", "").encode()
    if "host" not in headers or not _LENGTH.fullmatch(length) or int(length) > MAX_BODY_BYTES:
        return None
    missing = int(length) - (len(data) - end - 4)
    if missing > 0:
        return Unfinished()
    if missing < 0:
        return None
    kind, name = route.groups()
    return SignalRequest(
        provider=ProviderKey(ProviderKind(kind.decode()), name.decode()), headers=headers, body=data[end + 4 :]
    )


def refusal(status: int, text: str, more: Mapping[str, str]) -> bytes:
    """A whole answer, with the headers that the ordinary way gives."""
    body = text.encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in {**more, **answer_headers(status, text)}.items()]
    lines += [f"content-length: {len(body)}", "content-type: application/json", "", ""]
    return "\r\n".join(lines).encode() + body


def _headers(lines: list[bytes]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if (
            not (colon and _NAME.fullmatch(name) and _VALUE.fullmatch(value))
            or name in _SPECIAL
            or (name == b"connection" and value.lower() != b"keep-alive")
        ):
            return None
        key = name.decode()
        if key in found:
            return None
        found[key] = value.decode()
    return found

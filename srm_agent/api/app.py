"""The HTTP shell: routes, body limits and status codes around the intake and the control port.

Everything is `async` and no endpoint has dependencies, because FastAPI runs the sync ones in threads. This module does
without `from __future__ import annotations`, which FastAPI would need to resolve from inside `make_intake_app`.
"""

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import structlog
from fastapi import FastAPI, Path, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srm_agent.api.answers import answer_headers, error_body, shown
from srm_agent.api.control import Control, Operator, identify
from srm_agent.api.front import ADMITTED, Admitted
from srm_agent.api.intake import Intake
from srm_agent.api.page import CONTENT_SECURITY_POLICY, docs_page
from srm_agent.api.refusals import RefusalWatch
from srm_agent.api.signatures import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from srm_agent.api.strict_json import MAX_BODY_BYTES
from srm_agent.api.wire import (
    HALT_EXTRA,
    RESUME_EXTRA,
    SIGNAL_EXTRA,
    STATUS_EXTRA,
    AcceptedAnswer,
    ErrorAnswer,
    HaltAnswer,
    HealthAnswer,
    describe,
    read_halt,
    read_resume,
)
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.decisions import canonical_json
from srm_agent.domain.ids import ProviderKey, ProviderKind
from srm_agent.errors import OutcomeUnknown, SignalRejected, StoreUnavailable, UsageError

logger = structlog.get_logger()

_T = TypeVar("_T")
_JSON = "application/json"
_SIGNED = (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER)
_MAX_PROVIDER_CHARACTERS = 128
_DRAINED_BYTES = 16 * 1024 * 1024
_DESCRIPTION = "Signed signals in (Standard Webhooks), control by named operators, health and metrics."
_MEANING = {
    400: "The body is not one flat JSON object, or a key is there twice.",
    401: "Not signed by this provider, or no known operator token.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    413: f"The body is larger than {MAX_BODY_BYTES} bytes.",
    415: "The body is compressed; send it as it is.",
    422: "A field is missing, unknown or wrong; the answer names it.",
    429: "Too many messages; Retry-After says when to send it again, under the same id.",
    503: "Not written: send it again, under the same id.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How long a body may take to arrive, in seconds; its size is bounded by `strict_json.MAX_BODY_BYTES`."""

    timeout_s: float = 5.0


def make_intake_app(
    intake: Intake,
    control: Control,
    *,
    registry: CollectorRegistry,
    operators: Sequence[Operator],
    limits: BodyLimits | None = None,
    refusals: RefusalWatch | None = None,
    version: str = "0",
) -> FastAPI:
    """The application, built from its parts, so that uvicorn and a direct ASGI call mount the same one.

    Reads no clock and starts no task or thread; `refusals` hears of bad operator tokens. `operators` may be empty: then
    nobody controls over HTTP.
    """
    app = FastAPI(
        title="SRM agent", version=version, description=_DESCRIPTION, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.add_middleware(_Defects)
    _add_errors(app)
    _add_intake(app, intake, limits or BodyLimits())
    refused = Counter("srm_control_refused", "Control requests without a known operator token.", registry=registry)

    def stranger() -> None:
        refused.inc()
        if refusals is not None:
            refusals.refused("operators", "tokens")

    _add_control(app, control, tuple(operators), limits or BodyLimits(), stranger)
    _add_reading(app, control, registry)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def known(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "HTTP_ERROR")
        return _answer(error.status_code, error_body(code, str(error.detail).lower()), error.headers)

    @app.exception_handler(SignalRejected)
    async def rejected(_request: Request, error: Exception) -> Response:
        assert isinstance(error, SignalRejected)
        more = {"www-authenticate": "Bearer"} if error.code == "TOKEN_INVALID" else None
        return _answer(error.status, error_body(error.code, str(error), error.field), more)


class _Defects:
    """Answers 500 to what nobody foresaw. Starlette would raise it on to uvicorn, whose log shows the error's text.

    That text may hold what was sent, so only its kind and its place in our code are logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            logger.error("request failed", path=shown(scope["path"]), error=type(error).__name__, place=place)
            if started:
                raise
            answer = _answer(500, error_body("INTERNAL", "a defect on our side; it is logged"))
            await answer(scope, receive, send)


def _add_intake(app: FastAPI, intake: Intake, limits: BodyLimits) -> None:
    @app.post(
        "/signals/{kind}/{provider_id}",
        status_code=202,
        response_model=None,
        responses=_documented(AcceptedAnswer, 202, "Written.", 400, 401, 408, 413, 415, 422, 429, 503),
        openapi_extra=SIGNAL_EXTRA,
    )
    async def post_signal(
        request: Request,
        kind: Annotated[str, Path(description="`channel_source` or `user`.")],
        provider_id: Annotated[str, Path(description="The provider whose key signs the message.")],
    ) -> Response:
        """Take one signal: open, modify, close or cancel. Answered after it is written; a repeat is harmless."""
        # An unknown kind of provider is a stranger like any other, and answered like one.
        known = kind in list(ProviderKind) and len(provider_id) <= _MAX_PROVIDER_CHARACTERS
        provider = ProviderKey(ProviderKind(kind), provider_id) if known else ProviderKey(ProviderKind.USER, "")
        try:
            body = await _read(request, limits)
        except SignalRejected as refusal:
            return _answer(*intake.refuse(provider, refusal))
        admitted = request.scope.get("state", {}).get(ADMITTED)
        if isinstance(admitted, Admitted) and admitted.body == body and admitted.signal.provider == provider:
            return _answer(*await intake.accept(admitted))
        return _answer(*await intake.receive(provider, _signed_headers(request), body))


def _add_control(
    app: FastAPI,
    control: Control,
    operators: Sequence[Operator],
    limits: BodyLimits,
    stranger: Callable[[], None],
) -> None:
    def operator_of(request: Request) -> Operator:
        operator = identify(operators, request.headers.get("authorization"))
        if operator is None:
            stranger()
            raise SignalRejected(401, "TOKEN_INVALID", "send 'Authorization: Bearer <operator token>'")
        return operator

    @app.get(
        "/control/status",
        response_model=None,
        responses={200: {"description": "The state of everything."}, **_errors(401)},
        openapi_extra=STATUS_EXTRA,
    )
    async def status(request: Request) -> Response:
        """What the daemon is doing: connections, providers, halts, queues."""
        operator_of(request)
        return _answer(200, canonical_json(control.status()))

    @app.post(
        "/control/halt",
        response_model=None,
        responses=_documented(HaltAnswer, 200, "Halted.", 400, 401, 408, 413, 415, 422, 503),
        openapi_extra=HALT_EXTRA,
    )
    async def halt(request: Request) -> Response:
        """Stop new risk for all, a connection, a provider or a symbol. Exits go on; only an operator resumes."""
        body = await _read(request, limits)
        operator = operator_of(request)
        asked = read_halt(body)
        if not asked.reason.isprintable():
            raise SignalRejected(422, "FIELD_INVALID", "reason must be printable text on one line", "reason")
        key = _key(asked.scope, asked.key)
        await _controlled(control.halt(asked.scope, key, asked.reason, operator.name))
        return _done("halted", asked.scope, key, operator)

    @app.post(
        "/control/resume",
        response_model=None,
        responses=_documented(HaltAnswer, 200, "Resumed.", 400, 401, 404, 408, 413, 415, 422, 503),
        openapi_extra=RESUME_EXTRA,
    )
    async def resume(request: Request) -> Response:
        """Clear a halt."""
        body = await _read(request, limits)
        operator = operator_of(request)
        asked = read_resume(body)
        key = _key(asked.scope, asked.key)
        if not await _controlled(control.resume(asked.scope, key, operator.name)):
            what = f"{asked.scope.value} {shown(key)}" if key else asked.scope.value
            raise SignalRejected(404, "NOT_HALTED", f"there is no halt on {what}; see GET /control/status", "key")
        return _done("resumed", asked.scope, key, operator)


def _add_reading(app: FastAPI, control: Control, registry: CollectorRegistry) -> None:
    @app.get(
        "/health",
        response_model=None,
        responses={**_documented(HealthAnswer, 200, "Ready."), 503: {"model": HealthAnswer, "description": "Not yet."}},
    )
    async def health() -> Response:
        """Ready to take signals, or what is missing."""
        ready, missing = control.health()
        text = canonical_json({"status": "ready" if ready else "not ready", "missing": dict(missing)})
        return _answer(200 if ready else 503, text)

    @app.get(
        "/metrics",
        response_model=None,
        responses={200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return _answer(200, json.dumps(app.openapi()))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = docs_page(app.openapi())
        return Response(page, media_type="text/html", headers={"content-security-policy": CONTENT_SECURITY_POLICY})


async def _read(request: Request, limits: BodyLimits) -> bytes:
    """The body, never more of it in memory than is allowed, never waited for longer than is allowed.

    What is too large is read to its end (up to 16 MiB) and thrown away: a sender whose connection is cut while it
    sends sees a broken pipe instead of the 413.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise SignalRejected(415, "ENCODING_UNSUPPORTED", "a compressed body is refused; send it as it is", "body")
    too_large = SignalRejected(
        413, "BODY_TOO_LARGE", f"a body has at most {MAX_BODY_BYTES} bytes; send one message each", "body"
    )
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit() and len(announced) <= 12) or int(announced) > _DRAINED_BYTES:
        raise too_large
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY_BYTES:
                    body += chunk
                elif size > _DRAINED_BYTES:
                    raise too_large
    except TimeoutError:
        raise SignalRejected(
            408, "BODY_TIMEOUT", f"the body must arrive within {limits.timeout_s:g} s; send it again", "body"
        ) from None
    except ClientDisconnect:
        raise SignalRejected(400, "BODY_INCOMPLETE", "the connection ended before the body did", "body") from None
    if size > MAX_BODY_BYTES:
        raise too_large
    return bytes(body)


def _signed_headers(request: Request) -> Mapping[str, str]:
    # A header sent twice is ambiguous between us and a proxy: treated as not sent.
    found = {name: request.headers.getlist(name) for name in _SIGNED}
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _key(scope: HaltScope, key: str) -> str:
    if scope is HaltScope.ALL:
        if key:
            raise SignalRejected(422, "FIELD_INVALID", f"key must be empty for scope all, was {shown(key)}", "key")
        return ""
    if not key:
        raise SignalRejected(422, "FIELD_MISSING", f"key must name the {scope.value}; send it", "key")
    if scope is HaltScope.PROVIDER:
        try:
            return str(ProviderKey.parse(key))
        except ValueError:
            raise SignalRejected(
                422, "FIELD_INVALID", f"key must be 'id', 'channel_source:id' or 'user:id', was {shown(key)}", "key"
            ) from None
    return key


async def _controlled(act: Awaitable[_T]) -> _T:
    try:
        return await act
    except UsageError as error:
        raise SignalRejected(422, "KEY_UNKNOWN", str(error), "key") from None
    except (StoreUnavailable, OutcomeUnknown) as error:
        logger.warning("operator's act not persisted", error=type(error).__name__)
        raise SignalRejected(
            503, "NOT_PERSISTED", "it could not be written; a halt holds until the daemon ends; send it again"
        ) from error


def _done(status: str, scope: HaltScope, key: str, operator: Operator) -> Response:
    logger.warning("operator acted", status=status, scope=scope.value, key=key, operator=operator.name)
    return _answer(200, canonical_json({"status": status, "scope": scope.value, "key": key, "operator": operator.name}))


def _answer(status: int, text: str, more: Mapping[str, str] | None = None) -> Response:
    headers = {**answer_headers(status, text), **(more or {})}
    return Response(text, status_code=status, media_type=_JSON, headers=headers)


_Documented = dict[int | str, dict[str, object]]


def _errors(*statuses: int) -> _Documented:
    return {status: {"model": ErrorAnswer, "description": _MEANING[status]} for status in statuses}


def _documented(model: type[BaseModel], status: int, description: str, *statuses: int) -> _Documented:
    return {status: {"model": model, "description": description}, **_errors(*statuses)}

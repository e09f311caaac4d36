"""The application keeps to its own OpenAPI document: schemathesis sends what it allows and what it forbids."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srm_agent.api.app import make_intake_app
from srm_agent.api.control import Operator
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.ports import IntakeResult

with warnings.catch_warnings():
    # What its own dependencies deprecate is not our business.
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
START = datetime(2026, 1, 5, 11, 0, 4, tzinfo=UTC)
KEY = WebhookKey(b"a" * 32)
TOKEN = "ann-token-0123456789abcdef"
OPERATIONS = [
    ("POST", "/signals/{kind}/{provider_id}"),
    ("POST", "/control/halt"),
    ("POST", "/control/resume"),
    ("GET", "/control/status"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


class MemoryLog:
    """The log's rules in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[ProviderKey, str], str] = {}

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """As the port says."""
        key = (signal.provider, signal.receipt.message_id)
        fresh = key not in self.rows
        return IntakeResult(fresh=fresh, answer=self.rows.setdefault(key, answer))

    async def unfinished(self) -> list[Signal]:
        """Nothing."""
        return []

    async def finish(self, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """Not asked here."""
        raise NotImplementedError

    async def opening(self, signal_id: SignalId) -> OpenSignal | None:
        """Not asked here."""
        raise NotImplementedError

    async def closed_before_open(self, signal_id: SignalId) -> bool:
        """Not asked here."""
        raise NotImplementedError


class Desk:
    """A control port that agrees to everything."""

    def health(self) -> tuple[bool, Mapping[str, str]]:
        """Ready."""
        return True, {}

    def status(self) -> Mapping[str, object]:
        """Little."""
        return {"halts": []}

    async def halt(self, scope: HaltScope, key: str, reason: str, operator: str) -> None:
        """Done."""

    async def resume(self, scope: HaltScope, key: str, operator: str) -> bool:
        """There was one if its key is short."""
        return len(key) < 5


class Authentic:
    """Gives every request a good signature over what it carries, alpha's route and an operator's token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(name, value) for name, value in scope["headers"] if not name.startswith((b"webhook-", b"auth"))]
        at = int(START.timestamp())
        message_id = f"m{len(body)}"
        headers += [
            (b"webhook-id", message_id.encode()),
            (b"webhook-timestamp", str(at).encode()),
            (b"webhook-signature", sign(KEY, message_id, at, body).encode()),
            (b"authorization", f"Bearer {TOKEN}".encode()),
        ]
        path = "/signals/channel_source/alpha" if scope["path"].startswith("/signals/") else scope["path"]

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        return await self._app({**scope, "headers": headers, "path": path}, again, send)


def application() -> ASGIApp:
    """The whole application over memory, with rates that a test does not reach."""
    registry = CollectorRegistry()
    intake = Intake(
        clock=ManualClock(START),
        keys={ProviderKey.parse("alpha"): [KEY]},
        log=MemoryLog(),
        deliver=lambda signal: None,
        limits=IntakeLimits(entries_per_s=1e6, entries_burst=10**6, exits_per_s=1e6, exits_burst=10**6),
        registry=registry,
    )
    return make_intake_app(intake, Desk(), registry=registry, operators=[Operator.of_token("ann", TOKEN)])


@pytest.mark.parametrize("authentic", [False, True], ids=["as generated", "authentic"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[path for _, path in OPERATIONS])
def test_answers_are_those_of_the_document(method: str, path: str, authentic: bool) -> None:
    """No 5xx, no undocumented status, content type or shape, for bodies that fit the schema and bodies that do not."""
    app = application()
    schema = schemathesis.openapi.from_asgi("/openapi.json", Authentic(app) if authentic else app)
    operation = schema[path][method]
    cases = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    ) if method == "POST" else operation.as_strategy()  # fmt: skip
    seen: set[int] = set()

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: schemathesis.Case[Any]) -> None:
        response = case.call()
        seen.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    run()
    if authentic and path.startswith("/signals"):
        assert 202 in seen
        assert 422 in seen

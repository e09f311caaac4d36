"""The HTTP shell through direct ASGI calls: statuses, limits, control, health, pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from srm_agent.api.app import BodyLimits, make_intake_app
from srm_agent.api.control import Operator
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.page import docs_page
from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.clock import ManualClock
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.errors import OutcomeUnknown, SrmError, StoreUnavailable, UsageError
from srm_agent.ports import IntakeResult

START = datetime(2026, 1, 5, 11, 0, 4, tzinfo=UTC)
KEY = WebhookKey(b"a" * 32)
TOKEN, OTHER_TOKEN = "ann-token-0123456789abcdef", "bob-token-0123456789abcdef"
ENDED = b"the connection ended"
ALPHA_PATH = "/signals/channel_source/alpha"
BODY = json.dumps(
    {
        "action": "open",
        "signal_id": "a-17",
        "symbol": "BTC/USDT:USDT",
        "side": "buy",
        "entry": "60123.4",
        "stop_loss": "59800",
        "issued_at": "2026-01-05T11:00:03Z",
    }
).encode()


class MemoryLog:
    """The log's rules in memory; `broken` stands for a defect of ours."""

    def __init__(self) -> None:
        self.rows: dict[tuple[ProviderKey, str], str] = {}
        self.broken = False

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """As the port says."""
        if self.broken:
            raise RuntimeError("CANARY in the text of a defect")
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
    """A control port that writes down what it was asked."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.acts: list[tuple[str, ...]] = []
        self.error: SrmError | None = None

    def health(self) -> tuple[bool, Mapping[str, str]]:
        """Ready unless something is missing."""
        return not self.missing, self.missing

    def status(self) -> Mapping[str, object]:
        """Something nested."""
        return {"connections": [{"id": "acc-1", "state": "ACTIVE"}], "halts": []}

    async def halt(self, scope: HaltScope, key: str, reason: str, operator: str) -> None:
        """Remember, or fail."""
        if self.error is not None:
            raise self.error
        self.acts.append(("halt", scope.value, key, reason, operator))

    async def resume(self, scope: HaltScope, key: str, operator: str) -> bool:
        """True once for what was halted."""
        if self.error is not None:
            raise self.error
        halted = any(act[:3] == ("halt", scope.value, key) for act in self.acts)
        self.acts.append(("resume", scope.value, key, operator))
        return halted


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, object]:
        """The error of a refusal."""
        error = json.loads(self.body)["error"]
        assert isinstance(error, dict)
        return error


class Shop:
    """An application over a memory log, called without a socket."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self.clock = ManualClock(START)
        self.log, self.desk = MemoryLog(), Desk()
        self.delivered: list[Signal] = []
        self.registry = CollectorRegistry()
        intake = Intake(
            clock=self.clock,
            keys={ProviderKey.parse("alpha"): [KEY]},
            log=self.log,
            deliver=self.delivered.append,
            limits=IntakeLimits(entries_per_s=0.1, entries_burst=20),
            registry=self.registry,
        )
        operators = [Operator.of_token("ann", TOKEN), Operator.of_token("bob", OTHER_TOKEN)]
        self.app: FastAPI = make_intake_app(
            intake,
            self.desk,
            registry=self.registry,
            operators=operators,
            limits=BodyLimits(timeout_s=timeout_s),
            version="1.2.3",
        )

    def signed(self, body: bytes = BODY, message_id: str = "msg_1") -> list[tuple[str, str]]:
        """The headers of an authentic message."""
        at = int(self.clock.wall().timestamp())
        return [
            ("webhook-id", message_id),
            ("webhook-timestamp", str(at)),
            ("webhook-signature", sign(KEY, message_id, at, body)),
        ]

    async def post(self, body: bytes = BODY, message_id: str = "msg_1", path: str = ALPHA_PATH) -> Answer:
        """Sign and send a message."""
        return await self.call("POST", path, [body], self.signed(body, message_id))

    async def act(self, path: str, token: str = TOKEN, /, **fields: object) -> Answer:
        """Ask as an operator."""
        return await self.call(
            "POST", f"/control/{path}", [json.dumps(fields).encode()], [("authorization", f"Bearer {token}")]
        )

    async def call(
        self,
        method: str,
        path: str,
        chunks: Iterable[bytes | float] = (b"",),
        headers: Iterable[tuple[str, str]] = (),
    ) -> Answer:
        """One request; a float among the chunks is a pause in seconds, ENDED a connection that ended."""
        coming = list(chunks)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "server": ("test", 80),
            "client": ("10.0.0.1", 1),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        }
        status, given, parts = 0, dict[str, str](), list[bytes]()

        async def receive() -> MutableMapping[str, object]:
            while coming and isinstance(pause := coming[0], float):
                coming.pop(0)
                await asyncio.sleep(pause)
            if not coming or coming[0] == ENDED:
                return {"type": "http.disconnect"}
            chunk = coming.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(coming)}

        async def send(message: MutableMapping[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                code, raw = message["status"], message["headers"]
                assert isinstance(code, int)
                assert isinstance(raw, list)
                status = code
                given.update({name.decode(): value.decode() for name, value in raw})
            else:
                body = message.get("body", b"")
                assert isinstance(body, bytes)
                parts.append(body)

        await self.app(scope, receive, send)
        return Answer(status, given, b"".join(parts))


async def test_a_signed_message_is_accepted_and_a_repeat_gets_the_same_bytes() -> None:
    """202 with the first answer, twice; one delivery."""
    shop = Shop()
    first, second = await shop.post(), await shop.post()
    assert (first.status, first.body) == (second.status, second.body)
    assert first.status == 202
    assert len(shop.delivered) == 1


@pytest.mark.parametrize(
    "path",
    ["/signals/channel_source/beta", "/signals/user/alpha", "/signals/robot/alpha", "/signals/user/" + "x" * 500],
)
@pytest.mark.fault("S10")
async def test_the_route_binds_the_provider(path: str) -> None:
    """S10: alpha's key opens alpha's route only; unknown providers and kinds hear what a forger hears."""
    shop = Shop()
    answer = await shop.post(path=path)
    assert (answer.status, answer.error["code"]) == (401, "SIGNATURE_INVALID")
    assert shop.delivered == []


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.fault("S10")
async def test_a_header_sent_twice_counts_as_missing(name: str) -> None:
    """Two proxies must not disagree with us about which value was signed."""
    shop = Shop()
    headers = shop.signed()
    answer = await shop.call("POST", ALPHA_PATH, [BODY], [*headers, (name, dict(headers)[name])])
    assert (answer.status, answer.error["code"]) == (401, "SIGNATURE_MISSING")


@pytest.mark.fault("S1")
async def test_a_refusal_names_field_value_and_remedy_and_logs_no_payload() -> None:
    """S1: the provider learns what to mend; our log holds the code and not the body."""
    shop = Shop()
    body = BODY.replace(b'"59800"', b'"CANARY"')
    with capture_logs() as logs:
        answer = await shop.post(body)
    assert answer.status == 422
    assert (answer.error["field"], answer.error["code"]) == ("stop_loss", "FIELD_INVALID")
    assert "'CANARY'" in str(answer.error["message"])
    assert logs
    assert "CANARY" not in str(logs)


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([b"x" * 65_537], id="at once"),
        pytest.param([b"x" * 1024] * 65, id="in pieces"),
        pytest.param([b"x" * 1_000_000] * 10, id="10 MB"),
        pytest.param([b"x" * 1_000_000] * 20 + [60.0], id="20 MB and no end"),
    ],
)
@pytest.mark.fault("S9")
async def test_a_large_body_is_refused_whatever_its_headers_say(chunks: list[bytes | float]) -> None:
    """S9: more than 64 KiB is 413, the connection is given up, and the intake counts it."""
    shop = Shop()
    answer = await shop.call("POST", ALPHA_PATH, chunks, shop.signed())
    assert (answer.status, answer.error["code"]) == (413, "BODY_TOO_LARGE")
    assert answer.headers["connection"] == "close"
    labels = {"provider": "channel_source:alpha", "outcome": "BODY_TOO_LARGE"}
    assert shop.registry.get_sample_value("srm_intake_messages_total", labels) == 1


@pytest.mark.parametrize("announced", ["99999999", "9" * 5000, "-1", "abc", "²"])
@pytest.mark.fault("S9")
async def test_an_absurd_content_length_is_refused_unread(announced: str) -> None:
    """S9: what announces itself as too large, or as nonsense, is not waited for."""
    shop = Shop()
    answer = await shop.call("POST", ALPHA_PATH, [60.0, b""], [*shop.signed(), ("content-length", announced)])
    assert answer.status == 413


@pytest.mark.fault("S9")
async def test_a_slow_body_is_given_up() -> None:
    """S9: a body that does not arrive in time gets 408 and the connection is closed."""
    shop = Shop(timeout_s=0.02)
    answer = await shop.call("POST", ALPHA_PATH, [b"{", 5.0, b"}"], shop.signed())
    assert (answer.status, answer.error["code"]) == (408, "BODY_TIMEOUT")
    assert answer.headers["connection"] == "close"


@pytest.mark.fault("S9")
async def test_a_compressed_body_is_refused() -> None:
    """S9: there is no compression bomb where nothing is decompressed."""
    shop = Shop()
    answer = await shop.call("POST", ALPHA_PATH, [BODY], [*shop.signed(), ("content-encoding", "gzip")])
    assert (answer.status, answer.error["code"]) == (415, "ENCODING_UNSUPPORTED")


async def test_a_connection_that_ends_early_leaves_nothing() -> None:
    """Half a body and a closed connection write nothing."""
    shop = Shop()
    broken = await shop.call("POST", ALPHA_PATH, [BODY[:10], ENDED], shop.signed())
    assert (broken.status, broken.error["code"]) == (400, "BODY_INCOMPLETE")
    assert shop.delivered == []


async def test_a_limited_provider_is_told_when_to_come_back() -> None:
    """429 carries the same number in the header Retry-After and in the body."""
    shop = Shop()
    answers = [await shop.post(BODY.replace(b"a-17", f"a-{n}".encode()), f"msg_{n}") for n in range(21)]
    assert [answer.status for answer in answers] == [202] * 20 + [429]
    assert answers[-1].headers["retry-after"] == str(answers[-1].error["retry_after_s"]) == "10"


async def test_a_defect_is_a_500_that_shows_nothing() -> None:
    """An unforeseen error tells neither the provider nor the log its text, and does not escape to the server."""
    shop = Shop()
    shop.log.broken = True
    with capture_logs() as logs:
        answer = await shop.post()
    assert (answer.status, answer.error["code"]) == (500, "INTERNAL")
    assert b"CANARY" not in answer.body
    assert [entry["error"] for entry in logs] == ["RuntimeError"]
    assert "CANARY" not in str(logs)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", ALPHA_PATH, 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/control/halt", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/signals/channel_source/a/b", 404, "NOT_FOUND"),
    ],
)
async def test_other_paths_and_methods_answer_in_the_same_shape(method: str, path: str, status: int, code: str) -> None:
    """Every 4xx has the body `{"error": ...}`."""
    answer = await Shop().call(method, path)
    assert (answer.status, answer.error["code"]) == (status, code)


async def test_health_says_what_is_missing() -> None:
    """200 when ready, 503 with the reasons when not."""
    shop = Shop()
    assert (await shop.call("GET", "/health")).status == 200
    shop.desk.missing = {"acc-1": "reconciling"}
    answer = await shop.call("GET", "/health")
    assert answer.status == 503
    assert json.loads(answer.body) == {"status": "not ready", "missing": {"acc-1": "reconciling"}}


async def test_metrics_are_those_of_the_given_registry() -> None:
    """The counters of this application and of no other are served."""
    shop = Shop()
    await shop.post()
    text = (await shop.call("GET", "/metrics")).body.decode()
    assert 'srm_intake_messages_total{outcome="accepted",provider="channel_source:alpha"} 1.0' in text
    assert "python_info" not in text


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="no token"),
        pytest.param("", id="an empty header"),
        pytest.param("Bearer ", id="an empty token"),
        pytest.param(f"Bearer {TOKEN}x", id="a longer token"),
        pytest.param(f"Bearer {TOKEN[:-1]}", id="a shorter token"),
        pytest.param(f"Basic {TOKEN}", id="another scheme"),
        pytest.param(TOKEN, id="no scheme"),
        pytest.param("Bearer caf\xe9", id="a token outside ASCII"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/control/status"), ("POST", "/control/halt"), ("POST", "/control/resume")]
)
async def test_control_is_for_operators_only(method: str, path: str, authorization: str | None) -> None:
    """Without a known token: 401, nothing done, counted."""
    shop = Shop()
    headers = [] if authorization is None else [("authorization", authorization)]
    answer = await shop.call(method, path, [b'{"scope":"all","reason":"x"}'], headers)
    assert (answer.status, answer.error["code"]) == (401, "TOKEN_INVALID")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert shop.desk.acts == []
    assert shop.registry.get_sample_value("srm_control_refused_total") == 1


async def test_the_status_is_what_the_daemon_says() -> None:
    """The status is passed on as JSON."""
    shop = Shop()
    answer = await shop.call("GET", "/control/status", headers=[("authorization", f"Bearer {OTHER_TOKEN}")])
    assert answer.status == 200
    assert json.loads(answer.body) == shop.desk.status()


@pytest.mark.parametrize(
    ("scope", "key", "normal"),
    [
        ("all", "", ""),
        ("connection", "acc-1", "acc-1"),
        ("provider", "alpha", "channel_source:alpha"),
        ("provider", "user:7", "user:7"),
        ("symbol", "BTC/USDT:USDT", "BTC/USDT:USDT"),
    ],
)
async def test_halt_and_resume_carry_the_operators_name(scope: str, key: str, normal: str) -> None:
    """The name comes from the token, the key in its one spelling; resuming twice says that nothing was halted."""
    shop = Shop()
    assert (await shop.act("halt", scope=scope, key=key, reason="news")).status == 200
    resumed = await shop.act("resume", OTHER_TOKEN, scope=scope, key=key)
    assert json.loads(resumed.body) == {"status": "resumed", "scope": scope, "key": normal, "operator": "bob"}
    assert shop.desk.acts == [("halt", scope, normal, "news", "ann"), ("resume", scope, normal, "bob")]
    shop.desk.acts.clear()
    again = await shop.act("resume", scope=scope, key=key)
    assert (again.status, again.error["code"]) == (404, "NOT_HALTED")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        pytest.param({"scope": "everything", "reason": "x"}, "scope", id="an unknown scope"),
        pytest.param({"reason": "x"}, "scope", id="no scope"),
        pytest.param({"scope": "all"}, "reason", id="no reason"),
        pytest.param({"scope": "all", "reason": ""}, "reason", id="an empty reason"),
        pytest.param({"scope": "all", "reason": "x" * 201}, "reason", id="a long reason"),
        pytest.param({"scope": "all", "reason": "a\nb"}, "reason", id="two lines of reason"),
        pytest.param({"scope": "all", "key": "acc-1", "reason": "x"}, "key", id="a key for all"),
        pytest.param({"scope": "connection", "reason": "x"}, "key", id="a connection without key"),
        pytest.param({"scope": "provider", "key": "robot:1", "reason": "x"}, "key", id="an unknown kind of provider"),
        pytest.param({"scope": "symbol", "key": "A B", "reason": "x"}, "key", id="a space in the key"),
        pytest.param({"scope": "all", "reason": "x", "operator": "eve"}, "operator", id="a name of one's own"),
    ],
)
async def test_a_wrong_halt_names_its_field(fields: dict[str, object], field: str) -> None:
    """422 with the field; nothing is halted by half."""
    shop = Shop()
    answer = await shop.act("halt", **fields)
    assert (answer.status, answer.error["field"]) == (422, field)
    assert shop.desk.acts == []


@pytest.mark.parametrize("path", ["halt", "resume"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UsageError("there is no connection 'acc-9'"), 422, "KEY_UNKNOWN"),
        (StoreUnavailable("no database"), 503, "NOT_PERSISTED"),
        (OutcomeUnknown("connection lost"), 503, "NOT_PERSISTED"),
    ],
)
async def test_what_the_daemon_could_not_do_is_told(path: str, error: SrmError, status: int, code: str) -> None:
    """An unknown key is the operator's mistake; a store that fails is told, never hidden."""
    shop = Shop()
    shop.desk.error = error
    reason = {"reason": "x"} if path == "halt" else {}
    answer = await shop.act(path, TOKEN, scope="connection", key="acc-9", **reason)
    assert (answer.status, answer.error["code"]) == (status, code)


def test_a_short_operator_token_is_refused_without_being_shown() -> None:
    """A token that could be guessed is not taken."""
    with pytest.raises(ValueError, match="at least 20 ASCII characters") as caught:
        Operator.of_token("ann", "CANARY")
    assert "CANARY" not in str(caught.value)


def test_an_operator_does_not_show_its_token() -> None:
    """The repr holds the name only."""
    assert repr(Operator.of_token("ann", TOKEN)) == "Operator(name='ann')"


async def test_the_openapi_page_documents_every_field_of_every_action() -> None:
    """The schema served is that of the models that check, and every reference in it resolves."""
    document = json.loads((await Shop().call("GET", "/openapi.json")).body)
    schemas = document["components"]["schemas"]
    assert set(schemas["OpenBody"]["properties"]) == {
        "action", "signal_id", "symbol", "side", "entry", "stop_loss", "take_profit", "lot", "issued_at"
    }  # fmt: skip
    assert {"ModifyBody", "CloseBody", "CancelBody", "HaltRequest", "ResumeRequest", "ErrorAnswer"} <= set(schemas)
    references = {part.split('"')[0] for part in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)


async def test_the_page_for_people_loads_nothing_and_escapes_everything() -> None:
    """The documentation works offline, without scripts, and no text in it can become markup."""
    page = (await Shop().call("GET", "/docs")).body.decode()
    assert "/signals/{kind}/{provider_id}" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").split("<h2>Schemas")[0].split("<style>")[0]
    assert "<img" not in docs_page({"info": {"title": "<img src=x>"}, "paths": {}})

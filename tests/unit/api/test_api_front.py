"""The front reads plain signal requests from their bytes, and leaves everything else to the framework."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from srm_agent.api.front import Admitted, SignalRequest, Unfinished, read_request, refusal
from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.refusals import MANY, WINDOW_S, RefusalWatch
from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.clock import ManualClock
from srm_agent.domain.ids import ConnectionId, ProviderKey, SignalId
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.ports import IntakeResult

START = datetime(2026, 1, 5, 11, tzinfo=UTC)
ALPHA, BETA = ProviderKey.parse("alpha"), ProviderKey.parse("user:beta")
KEYS = {ALPHA: [WebhookKey(b"a" * 32)], BETA: [WebhookKey(b"b" * 32)]}
PLAIN = (
    b"POST /signals/channel_source/alpha HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\nWebhook-Id: m-1\r\n"
    b"webhook-timestamp:  17 \r\n\r\n{}"
)


def test_a_plain_request_is_read() -> None:
    """Provider, headers with lower-case names, and the body."""
    request = read_request(PLAIN)
    assert isinstance(request, SignalRequest)
    assert (request.provider, request.body) == (ALPHA, b"{}")
    assert request.headers == {"host": "x", "content-length": "2", "webhook-id": "m-1", "webhook-timestamp": "17"}


def test_a_body_that_is_still_coming_is_waited_for() -> None:
    """The head is there, the body is not."""
    assert isinstance(read_request(PLAIN[:-1]), Unfinished)
    assert isinstance(read_request(PLAIN[:-2]), Unfinished)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"POST", b"PUT", id="another method"),
        pytest.param(b"HTTP/1.1", b"HTTP/1.0", id="HTTP/1.0"),
        pytest.param(b"alpha", b"al%70ha", id="an escape in the path"),
        pytest.param(b"alpha", b"alpha?x=1", id="a query"),
        pytest.param(b"alpha", b"alpha/", id="more of a path"),
        pytest.param(b"channel_source", b"nobody", id="an unknown kind"),
        pytest.param(b"Host: x\r\n", b"", id="no host"),
        pytest.param(b"content-length: 2\r\n", b"", id="no length"),
        pytest.param(b"content-length: 2", b"content-length: +2", id="a length with a sign"),
        pytest.param(b"content-length: 2", b"content-length: 02", id="a length with a leading zero"),
        pytest.param(b"content-length: 2", b"content-length: 99999", id="a length beyond the bound"),
        pytest.param(b"content-length: 2", b"content-length: 2\r\ncontent-length: 2", id="two lengths"),
        pytest.param(b"content-length: 2", b"content-length: 1", id="more bytes than announced"),
        pytest.param(b"Host: x", b"Host: x\r\ntransfer-encoding: chunked", id="chunked"),
        pytest.param(b"Host: x", b"Host: x\r\nexpect: 100-continue", id="expects to be asked"),
        pytest.param(b"Host: x", b"Host: x\r\nconnection: close", id="the last of its connection"),
        pytest.param(b"Host: x", b"Host: x\r\ncontent-encoding: gzip", id="compressed"),
        pytest.param(b"Host: x", b"Host : x", id="a blank before the colon"),
        pytest.param(b"Host: x", b"Host: x\r\n folded", id="a folded header"),
        pytest.param(b"Host: x", b"Host: \xff", id="a byte above ASCII"),
        pytest.param(b"Host: x", b"Host: x\x00", id="a control character"),
        pytest.param(b"\r\n", b"\n", id="bare newlines"),
        pytest.param(b"Host: x", b"Host: " + b"x" * 5000, id="a long head"),
    ],
)
def test_anything_unusual_is_left_to_the_framework(old: bytes, new: bytes) -> None:
    """What could mean something else to another parser is not read here."""
    assert old in PLAIN
    assert read_request(PLAIN.replace(old, new)) is None


NAMES = st.sampled_from([b"Host", b"content-length", b"webhook-id", b"Connection", b"x", b"Transfer-Encoding"])
VALUES = st.sampled_from([b"x", b"2", b"02", b" 2", b"keep-alive", b"close", b"chunked", b"a b", b"", b"a\tb"])


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), st.binary(max_size=4))
def test_what_is_read_means_the_same_to_h11(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Whatever the front reads, h11 reads as one whole request with the same headers and body, and nothing after it."""
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    data = b"POST /signals/user/beta HTTP/1.1\r\n" + lines + b"\r\n" + body
    request = read_request(data)
    if not isinstance(request, SignalRequest):
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    head = peer.next_event()
    assert isinstance(head, h11.Request)
    assert {name.decode(): value.decode() for name, value in head.headers} == request.headers
    heard = b""
    while isinstance(event := peer.next_event(), h11.Data):
        heard += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert (heard, peer.trailing_data[0]) == (request.body, b"")


def test_a_refusal_is_a_whole_answer_that_h11_understands() -> None:
    """Status, length, type and Retry-After, and the connection stays."""
    text = '{"error":{"code":"RATE_LIMITED","retry_after_s":3}}'
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(refusal(429, text, {"date": "today"}))
    head, body = peer.next_event(), peer.next_event()
    assert isinstance(head, h11.Response)
    assert isinstance(body, h11.Data)
    assert (head.status_code, bytes(body.data)) == (429, text.encode())
    assert dict(head.headers)[b"retry-after"] == b"3"
    assert dict(head.headers)[b"content-type"] == b"application/json"
    assert isinstance(peer.next_event(), h11.EndOfMessage)
    assert peer.their_state is h11.DONE


class NoStore:
    """A log that must not be asked."""

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """Takes everything."""
        return IntakeResult(fresh=True, answer=answer)

    async def unfinished(self) -> list[Signal]:
        """Nothing."""
        return []

    async def finish(self, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """Nothing."""

    async def opening(self, signal_id: SignalId) -> OpenSignal | None:
        """Nothing."""
        return None

    async def closed_before_open(self, signal_id: SignalId) -> bool:
        """Nothing."""
        return False


class Told:
    """A notifier that remembers."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def notify(self, level: str, title: str, message: str, connection: ConnectionId | None = None) -> None:
        """Remember."""
        self.titles.append(f"{level}: {title}")


class Door:
    """An intake with its clock."""

    def __init__(self, waiting: int = 0, **limits: float) -> None:
        self.clock, self.told = ManualClock(START), Told()
        self.registry = CollectorRegistry()
        self.intake = Intake(
            clock=self.clock,
            keys=KEYS,
            log=NoStore(),
            deliver=lambda _: None,
            limits=IntakeLimits(**limits),  # type: ignore[arg-type]
            registry=self.registry,
            refusals=RefusalWatch(self.clock, self.told),
            waiting=lambda: waiting,
        )

    def request(
        self, body: bytes | None = None, provider: ProviderKey = ALPHA, signer: ProviderKey = ALPHA, number: int = 1
    ) -> SignalRequest:
        """Signed now; an opening unless told otherwise."""
        at = int(self.clock.wall().timestamp())
        raw = self.body("open") if body is None else body
        signature = sign(KEYS[signer][0], f"m-{number}", at, raw)
        headers = {"webhook-id": f"m-{number}", "webhook-timestamp": str(at), "webhook-signature": signature}
        return SignalRequest(provider=provider, headers=headers, body=raw)

    def body(self, action: str, signal: str = "a-1") -> bytes:
        """A message issued now."""
        fields = {"action": action, "signal_id": signal, "issued_at": self.clock.wall().isoformat()}
        if action == "open":
            fields |= {"symbol": "BTC", "side": "buy", "entry": "100", "stop_loss": "90"}
        return json.dumps(fields).encode()

    def status(self, request: SignalRequest) -> int | None:
        """Of turning it away; None if it is let through."""
        answer = self.intake.let_in(request)
        return answer[0] if isinstance(answer, tuple) else None

    async def receive(self, request: SignalRequest) -> int:
        """The ordinary way."""
        return (await self.intake.receive(request.provider, request.headers, request.body))[0]


async def test_what_is_let_in_has_spent_its_token_once() -> None:
    """One token: of a hundred messages that come together one is let in, and accepting it spends no other."""
    door = Door(entries_per_s=0.001, entries_burst=2)
    first = door.intake.let_in(door.request())
    assert isinstance(first, Admitted)
    assert (await door.intake.accept(first))[0] == 202
    statuses = [door.status(door.request(number=number)) for number in range(100)]
    assert statuses == [None] + [429] * 99


@pytest.mark.fault("S8")
async def test_a_flood_of_opens_is_turned_away_without_being_parsed_and_exits_pass() -> None:
    """INV-10: with the lane of entries empty an open gets 429, a close and a cancel of the same provider pass."""
    door = Door(entries_per_s=0.001, entries_burst=1)
    await door.receive(door.request())
    assert door.status(door.request(number=2)) == 429
    assert door.status(door.request(b'{"action":"open", not even JSON', number=3)) == 429
    for action in ("close", "cancel"):
        assert door.status(door.request(door.body(action), number=4)) is None


async def test_a_close_that_speaks_of_opening_is_a_close() -> None:
    """The bytes of an opening action inside a text of a close do not send it to the wrong lane."""
    door = Door(entries_per_s=0.001, entries_burst=1)
    await door.receive(door.request())
    body = json.dumps({**json.loads(door.body("close")), "signal_id": "open"}).encode()
    assert door.status(door.request(body, number=2)) is None
    odd = door.body("close").replace(b'"close"', b'"cl\\u006fse"')
    assert door.status(door.request(odd, number=3)) is None


@pytest.mark.fault("S10")
async def test_strangers_are_turned_away_at_the_front() -> None:
    """S10: a bad signature gets its 401 without the framework, and spends nothing of the provider's."""
    door = Door(entries_per_s=0.001, entries_burst=1)
    assert door.status(door.request(signer=BETA)) == 401
    assert door.status(door.request(provider=ProviderKey.parse("nobody"))) == 401
    assert await door.receive(door.request()) == 202


async def test_rubbish_of_a_provider_is_turned_away_at_the_front() -> None:
    """Malformed messages are parsed once, counted against the lane of entries, and then limited."""
    door = Door(entries_per_s=0.001, entries_burst=2)
    statuses = [door.status(door.request(b'{"action":"close"}', number=number)) for number in range(4)]
    assert statuses == [422, 422, 429, 429]
    assert door.status(door.request(door.body("close"), number=9)) is None


@pytest.mark.fault("S8")
def test_a_backlog_of_decisions_turns_entries_away_and_keeps_room_for_exits() -> None:
    """S8: what waits for its decision counts as much as what waits for its commit."""
    door = Door(waiting=10, backlog=10, in_flight_reserve=5)
    answer = door.intake.let_in(door.request())
    assert isinstance(answer, tuple)
    assert (answer[0], json.loads(answer[1])["error"]["code"]) == (503, "QUEUE_FULL")
    assert door.status(door.request(door.body("close"))) is None
    assert Door(waiting=15, backlog=10, in_flight_reserve=5).status(door.request(door.body("close"))) == 503


@pytest.mark.fault("S8")
async def test_a_house_full_of_others_turns_away_who_sends_much() -> None:
    """S8: with the house's budget spent a frequent provider waits, a seldom one is let in."""
    door = Door(total_per_s=1.0, total_burst=10)
    for number in range(7):
        assert await door.receive(door.request(door.body("open", f"a-{number}"), number=number)) == 202
    answer = door.intake.let_in(door.request(number=99))
    assert isinstance(answer, tuple)
    assert json.loads(answer[1])["error"]["code"] == "HOUSE_FULL"
    seldom = door.request(door.body("open", "b-1"), provider=BETA, signer=BETA)
    assert door.status(seldom) is None


def test_more_fields_than_any_message_has_are_refused_unparsed() -> None:
    """S1: thousands of keys cost a count of colons."""
    door = Door()
    body = json.dumps({f"k{number}": 1 for number in range(5000)}).encode()
    answer = door.intake.let_in(door.request(body))
    assert isinstance(answer, tuple)
    assert (answer[0], json.loads(answer[1])["error"]["code"]) == (400, "TOO_MANY_FIELDS")


@pytest.mark.fault("S10")
def test_many_bad_signatures_are_told_once_a_minute() -> None:
    """S10: counted, and alerted at rate: twenty within a minute at one door are one alert; strangers share a door."""
    door = Door()
    for number in range(MANY - 1):
        door.intake.let_in(door.request(signer=BETA, number=number))
    assert door.told.titles == []
    for number in range(MANY * 3):
        door.intake.let_in(door.request(signer=BETA, number=number))
        door.intake.let_in(door.request(provider=ProviderKey.parse(f"evil-{number}"), number=number))
    expected = ["bad signatures at provider channel_source:alpha", "bad signatures at unknown providers"]
    assert sorted(door.told.titles) == [f"warning: {title}" for title in expected]
    door.clock.advance(WINDOW_S)
    for number in range(MANY):
        door.intake.let_in(door.request(signer=BETA, number=number))
    assert len(door.told.titles) == 3


def test_a_few_bad_signatures_over_hours_are_no_alert() -> None:
    """A provider whose clock is off once an hour wakes nobody."""
    door = Door()
    for number in range(50):
        door.intake.let_in(door.request(signer=BETA, number=number))
        door.clock.advance(WINDOW_S / 4)
    assert door.told.titles == []

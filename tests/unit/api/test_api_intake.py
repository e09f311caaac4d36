"""The way of a message through the intake: once, in bounds, written before it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from srm_agent.api.intake import Intake
from srm_agent.api.limits import IntakeLimits
from srm_agent.api.signatures import WebhookKey, sign
from srm_agent.clock import ManualClock
from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.errors import ConfigurationError, OutcomeUnknown, SrmError, StoreBroken, StoreUnavailable
from srm_agent.ports import IntakeResult

START = datetime(2026, 1, 5, 11, 0, 4, tzinfo=UTC)
ALPHA, BETA = ProviderKey.parse("alpha"), ProviderKey.parse("user:beta")
KEYS = {ALPHA: [WebhookKey(b"a" * 32)], BETA: [WebhookKey(b"b" * 32)]}
Answer = tuple[int, str]


class MemoryLog:
    """The log's rules in memory, with the faults that a database has."""

    def __init__(self) -> None:
        self.rows: dict[tuple[ProviderKey, str], tuple[Signal, str]] = {}
        self.openings: dict[SignalId, str] = {}
        self.finished: list[tuple[ProviderKey, str]] = []
        self.gate: asyncio.Event | None = None
        self.before_commit: SrmError | None = None
        self.after_commit: BaseException | None = None

    async def accept(self, signal: Signal, body_sha256: str, answer: str) -> IntakeResult:
        """As the port says, after a turn of the loop."""
        assert len(body_sha256) == 64
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.before_commit is not None:
            raise self.before_commit
        key = (signal.provider, signal.receipt.message_id)
        if key in self.rows:
            return IntakeResult(fresh=False, answer=self.rows[key][1])
        if isinstance(signal, OpenSignal):
            if signal.signal_id in self.openings:
                return IntakeResult(fresh=False, answer=self.openings[signal.signal_id])
            self.openings[signal.signal_id] = answer
        self.rows[key] = (signal, answer)
        if self.after_commit is not None:
            raise self.after_commit
        return IntakeResult(fresh=True, answer=answer)

    async def unfinished(self) -> Sequence[Signal]:
        """Everything not finished."""
        return [signal for key, (signal, _) in self.rows.items() if key not in self.finished]

    async def finish(self, provider: ProviderKey, message_id: str, at: datetime) -> None:
        """Remember."""
        self.finished.append((provider, message_id))

    async def opening(self, signal_id: SignalId) -> OpenSignal | None:
        """Not asked here."""
        raise NotImplementedError

    async def closed_before_open(self, signal_id: SignalId) -> bool:
        """Not asked here."""
        raise NotImplementedError


class House:
    """An intake with its clock and what came out of it; `restart` keeps the log and forgets the rest."""

    def __init__(self, limits: IntakeLimits | None = None) -> None:
        self.clock = ManualClock(START)
        self.log = MemoryLog()
        self.delivered: list[Signal] = []
        self.limits = limits or IntakeLimits(entries_per_s=1000, entries_burst=1000, exits_per_s=1000, exits_burst=1000)
        self.restart()

    def restart(self) -> None:
        """A new process over the same log."""
        self.registry = CollectorRegistry()
        self.intake = Intake(
            clock=self.clock,
            keys=KEYS,
            log=self.log,
            deliver=self.delivered.append,
            limits=self.limits,
            registry=self.registry,
        )

    def body(self, action: str = "open", signal_id: str = "a-17", **changes: object) -> bytes:
        """A message issued now."""
        fields: dict[str, object] = {"action": action, "signal_id": signal_id}
        if action == "open":
            fields |= {"symbol": "BTC/USDT:USDT", "side": "buy", "entry": "60123.4", "stop_loss": "59800"}
        if action == "modify":
            fields |= {"stop_loss": "59900"}
        return json.dumps({**fields, "issued_at": self.clock.wall().isoformat(), **changes}).encode()

    async def send(
        self, body: bytes, message_id: str = "msg_1", provider: ProviderKey = ALPHA, signer: ProviderKey | None = None
    ) -> Answer:
        """Sign now and send."""
        at = int(self.clock.wall().timestamp())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
            "webhook-signature": sign(KEYS[signer or provider][0], message_id, at, body),
        }
        return await self.intake.receive(provider, headers, body)

    def counted(self, outcome: str, provider: str = "channel_source:alpha") -> float:
        """The counter of an outcome."""
        labels = {"provider": provider, "outcome": outcome}
        return self.registry.get_sample_value("srm_intake_messages_total", labels) or 0.0


def code(answer: Answer) -> str:
    """The code of a refusal."""
    return str(json.loads(answer[1])["error"]["code"])


async def test_an_accepted_message_is_written_delivered_and_answered() -> None:
    """The answer names signal, message and time; the signal reaches the flow once."""
    house = House()
    status, text = await house.send(house.body())
    assert status == 202
    assert json.loads(text) == {
        "status": "accepted",
        "signal_id": "a-17",
        "message_id": "msg_1",
        "received_at": "2026-01-05T11:00:04.000000Z",
    }
    assert [signal.signal_id for signal in house.delivered] == ["channel_source:alpha/a-17"]
    assert house.counted("accepted") == 1


async def test_nothing_is_answered_or_delivered_before_the_commit() -> None:
    """INV-3: while the log has not committed, neither the provider nor the flow hears anything."""
    house = House()
    house.log.gate = asyncio.Event()
    sending = asyncio.create_task(house.send(house.body()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not sending.done()
    assert house.delivered == []
    assert house.registry.get_sample_value("srm_intake_in_flight") == 1
    house.log.gate.set()
    assert (await sending)[0] == 202
    assert len(house.delivered) == 1
    assert house.registry.get_sample_value("srm_intake_in_flight") == 0


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "after a restart"])
@pytest.mark.parametrize("later_s", [0.0, 1.0, 86_400.0], ids=["at once", "a second later", "a day later"])
@pytest.mark.parametrize(
    ("message_id", "changes"),
    [
        pytest.param("msg_1", {}, id="the same message"),
        pytest.param("msg_1", {"entry": "60124"}, id="the same delivery id with an edited body"),
        pytest.param("msg_1", {"signal_id": "a-18"}, id="the same delivery id with another signal"),
        pytest.param("msg_2", {}, id="another delivery of the same opening"),
        pytest.param("msg_2", {"side": "sell", "stop_loss": "70000"}, id="the same opening id with another trade"),
    ],
)
async def test_a_repeat_gets_the_first_answer_and_changes_nothing(
    restart: bool, later_s: float, message_id: str, changes: dict[str, str]
) -> None:
    """S2 and INV-1: delivery id and opening id are taken once; the answer is the first, byte for byte."""
    house = House()
    first = await house.send(house.body())
    house.clock.advance(later_s)
    if restart:
        house.restart()
    assert await house.send(house.body(**changes), message_id) == first
    assert len(house.delivered) == 1
    assert house.counted("repeated") == 1


async def test_seventy_five_concurrent_deliveries_with_edits_are_one() -> None:
    """S12: the same webhook 75 times at once, a third of them edited, is accepted once and answered alike."""
    house = House()
    house.log.gate = asyncio.Event()
    bodies = [house.body(entry=f"6012{n}") if n % 3 == 0 else house.body() for n in range(75)]
    tasks = [asyncio.create_task(house.send(body)) for body in bodies]
    await asyncio.sleep(0)
    house.log.gate.set()
    answers = await asyncio.gather(*tasks)
    assert len(set(answers)) == 1
    assert answers[0][0] == 202
    assert len(house.delivered) == 1
    assert (house.counted("accepted"), house.counted("repeated")) == (1, 74)


async def test_two_closes_of_one_signal_are_two_messages() -> None:
    """Only an opening id is unique: two partial closes under their own delivery ids both count."""
    house = House()
    await house.send(house.body("close", fraction="0.5"), "msg_1")
    await house.send(house.body("close", fraction="1"), "msg_2")
    assert len(house.delivered) == 2


async def test_providers_do_not_share_ids() -> None:
    """The same delivery and signal ids of another provider are another signal."""
    house = House()
    await house.send(house.body())
    await house.send(house.body(), provider=BETA)
    assert [str(signal.signal_id) for signal in house.delivered] == ["channel_source:alpha/a-17", "user:beta/a-17"]


async def test_a_key_signs_for_its_own_provider_only() -> None:
    """S10: alpha's key does not speak for beta."""
    house = House()
    answer = await house.send(house.body(), provider=BETA, signer=ALPHA)
    assert (answer[0], code(answer)) == (401, "SIGNATURE_INVALID")
    assert house.counted("SIGNATURE_INVALID", "user:beta") == 1
    assert house.delivered == []


async def test_a_stranger_is_counted_without_a_name() -> None:
    """Providers that do not exist make one time series together, not one each."""
    house = House()
    for n in range(3):
        answer = await house.send(house.body(), provider=ProviderKey.parse(f"evil-{n}"), signer=ALPHA)
        assert answer[0] == 401
    assert house.counted("SIGNATURE_INVALID", "unknown") == 3


async def test_a_revoked_key_stops_new_messages_but_not_those_under_way() -> None:
    """S11: what was authentic when it came finishes; the next message is refused."""
    house = House()
    house.log.gate = asyncio.Event()
    under_way = asyncio.create_task(house.send(house.body()))
    await asyncio.sleep(0)
    house.intake.replace_keys({ALPHA: [WebhookKey(b"n" * 32)]})
    house.log.gate.set()
    assert (await under_way)[0] == 202
    assert (await house.send(house.body(signal_id="a-18"), "msg_2"))[0] == 401


@pytest.mark.parametrize("count", [0, 3])
def test_a_provider_has_one_or_two_keys(count: int) -> None:
    """No key, or more than a rotation needs, is a configuration error that names the provider."""
    house = House()
    with pytest.raises(ConfigurationError, match="channel_source:alpha must have 1 or 2 webhook keys"):
        house.intake.replace_keys({ALPHA: [WebhookKey(b"n" * 32)] * count})


async def test_a_refused_message_is_counted_and_not_written() -> None:
    """S6: a wrong-side stop is refused with its field, and the same delivery id may bring the corrected message."""
    house = House()
    status, text = await house.send(house.body(stop_loss="70000"))
    assert (status, json.loads(text)["error"]["field"]) == (422, "stop_loss")
    assert (house.log.rows, house.delivered) == ({}, [])
    assert house.counted("STOP_WRONG_SIDE") == 1
    assert (await house.send(house.body()))[0] == 202


async def test_an_old_close_is_accepted() -> None:
    """S5: a close issued an hour ago is taken; closes never expire."""
    house = House()
    body = house.body("close")
    house.clock.advance(3600)
    assert (await house.send(body))[0] == 202


async def test_a_flood_of_entries_is_limited_and_says_when_to_come_back() -> None:
    """S8: beyond the burst an entry gets 429 with the seconds to wait, and passes after them."""
    house = House(IntakeLimits(entries_per_s=0.5, entries_burst=2, exits_per_s=1, exits_burst=1))
    answers = [await house.send(house.body(signal_id=f"a-{n}"), f"msg_{n}") for n in range(4)]
    assert [status for status, _ in answers] == [202, 202, 429, 429]
    wait_s = json.loads(answers[2][1])["error"]["retry_after_s"]
    assert wait_s == 2
    house.clock.advance(wait_s)
    assert (await house.send(house.body(signal_id="a-2"), "msg_2"))[0] == 202


async def test_a_flood_of_entries_or_rubbish_never_blocks_an_exit() -> None:
    """INV-10: close, cancel and modify have a lane that entries and malformed messages cannot use up."""
    house = House(IntakeLimits(entries_per_s=0.1, entries_burst=1, exits_per_s=1, exits_burst=3))
    await house.send(house.body())
    assert (await house.send(b"rubbish", "msg_r"))[0] == 429
    for action in ("modify", "cancel", "close"):
        assert (await house.send(house.body(action), f"msg_{action}"))[0] == 202


async def test_strangers_cannot_spend_a_providers_rate() -> None:
    """A flood under alpha's name without alpha's key leaves alpha's rate untouched."""
    house = House(IntakeLimits(entries_per_s=0.1, entries_burst=1, exits_per_s=1, exits_burst=1))
    for _ in range(50):
        assert (await house.send(house.body(), signer=BETA))[0] == 401
    assert (await house.send(house.body()))[0] == 202


async def test_one_providers_flood_leaves_the_others_alone() -> None:
    """S8: rates are per provider."""
    house = House(IntakeLimits(entries_per_s=0.1, entries_burst=1, exits_per_s=1, exits_burst=1))
    await house.send(house.body())
    assert (await house.send(house.body(signal_id="a-18"), "msg_2"))[0] == 429
    assert (await house.send(house.body(), provider=BETA))[0] == 202


async def test_the_queue_is_bounded_and_keeps_room_for_exits() -> None:
    """S8: with a stuck store, entries beyond the queue get 503, exits use the reserve, and then get 503 too."""
    house = House(
        IntakeLimits(
            entries_per_s=99, entries_burst=99, exits_per_s=99, exits_burst=99, in_flight=2, in_flight_reserve=1
        )
    )
    house.log.gate = asyncio.Event()
    waiting = [asyncio.create_task(house.send(house.body(signal_id=f"a-{n}"), f"msg_{n}")) for n in range(2)]
    await asyncio.sleep(0)
    entry = await house.send(house.body(signal_id="a-3"), "msg_3")
    assert (entry[0], code(entry), json.loads(entry[1])["error"]["retry_after_s"]) == (503, "QUEUE_FULL", 1)
    waiting.append(asyncio.create_task(house.send(house.body("close"), "msg_4")))
    await asyncio.sleep(0)
    assert (await house.send(house.body("close"), "msg_5"))[0] == 503
    house.log.gate.set()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [202, 202, 202]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreUnavailable("no database"), "STORE_UNAVAILABLE"),
        (OutcomeUnknown("connection lost"), "STORE_OUTCOME_UNKNOWN"),
        (StoreBroken("no such table"), "STORE_BROKEN"),
    ],
)
async def test_a_store_that_fails_asks_for_a_retry(error: SrmError, expected: str) -> None:
    """P9 at the door: 503 and another try under the same id, which then succeeds once."""
    house = House()
    house.log.before_commit = error
    answer = await house.send(house.body())
    assert (answer[0], code(answer)) == (503, expected)
    assert house.delivered == []
    house.log.before_commit = None
    assert (await house.send(house.body()))[0] == 202
    assert len(house.delivered) == 1


async def test_a_commit_whose_reply_was_lost_is_delivered_on_the_retry() -> None:
    """P12: the row is there, the caller heard nothing; the retry finds the row and delivers what was written."""
    house = House()
    house.log.after_commit = OutcomeUnknown("connection lost at commit")
    assert (await house.send(house.body()))[0] == 503
    assert house.delivered == []
    house.log.after_commit = None
    status, _ = await house.send(house.body(entry="60200"))
    assert status == 202
    assert [str(signal.signal_price) for signal in house.delivered if isinstance(signal, OpenSignal)] == ["60123.4"]
    assert await house.intake.settle_doubts() == 0


async def test_a_commit_whose_reply_was_lost_is_delivered_without_a_retry() -> None:
    """P12: a provider that never comes back does not leave its written close undelivered."""
    house = House()
    house.log.after_commit = OutcomeUnknown("connection lost at commit")
    await house.send(house.body("close"))
    assert house.registry.get_sample_value("srm_intake_in_doubt") == 1
    assert await house.intake.settle_doubts() == 1
    assert await house.intake.settle_doubts() == 0
    assert len(house.delivered) == 1
    assert house.registry.get_sample_value("srm_intake_in_doubt") == 0


async def test_a_doubt_that_was_never_written_is_given_up_after_five_minutes() -> None:
    """What does not appear in the log within five minutes was not committed."""
    house = House()
    house.log.before_commit = OutcomeUnknown("connection lost")
    await house.send(house.body())
    assert await house.intake.settle_doubts() == 0
    house.clock.advance(301)
    assert await house.intake.settle_doubts() == 0
    assert house.registry.get_sample_value("srm_intake_in_doubt") == 0
    assert house.delivered == []


async def test_a_cancelled_request_that_had_committed_is_delivered() -> None:
    """A server that cancels its requests while stopping loses no written signal."""
    house = House()
    house.log.after_commit = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await house.send(house.body())
    assert await house.intake.settle_doubts() == 1


async def test_ten_thousand_bytes_more_than_allowed_are_refused_unread() -> None:
    """S9: size comes before the signature, so a large body costs nothing."""
    house = House()
    assert (await house.intake.receive(ALPHA, {}, b" " * 75_536))[0] == 413
    assert house.counted("BODY_TOO_LARGE") == 1

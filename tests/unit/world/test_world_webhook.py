"""The providers' outbox: signature, form of the bodies, retries."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import aiohttp
from aiohttp import web

from simulator.providers import Action, Message
from simulator.webhook_client import TRIES, WebhookClient, render, sign
from srm_agent.clock import ManualClock

KEY = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
NOW = datetime(2026, 1, 5, 11, 0, 3, 123456, tzinfo=UTC)
SYMBOLS = {"BTCUSDT": "BTC/USDT:USDT"}


def an_open(signal_id: str = "a-17", **changes: object) -> Message:
    """An opening message of alpha."""
    fields: dict[str, object] = {
        "provider_id": "alpha",
        "action": Action.OPEN,
        "signal_id": signal_id,
        "symbol_id": "BTCUSDT",
        "at_ms": 0,
        "side": 1,
        "entry": Decimal("60123.4"),
        "stop_loss": Decimal("59800.0"),
        "take_profit": Decimal("60700.0"),
        "lot": Decimal("0.05"),
    }
    return Message(**{**fields, **changes})  # type: ignore[arg-type]


def a_close(signal_id: str) -> Message:
    """A full close of alpha."""
    return Message(
        provider_id="alpha",
        action=Action.CLOSE,
        signal_id=signal_id,
        symbol_id="BTCUSDT",
        at_ms=0,
        fraction=Decimal(1),
    )


class Intake:
    """Answers in the order given, 202 afterwards, and remembers what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        """The route."""
        self.seen.append((request.path, dict(request.headers), await request.read()))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 202)


@asynccontextmanager
async def outbox(intake: Intake | None, clock: ManualClock) -> AsyncIterator[WebhookClient]:
    """A running client against the intake, or against a port where nobody listens."""
    url, runner = "http://127.0.0.1:9", None
    if intake is not None:
        app = web.Application()
        app.router.add_post("/{path:.*}", intake.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with aiohttp.ClientSession() as session:
        client = WebhookClient(
            webhook=url,
            provider_id="alpha",
            key=KEY,
            session=session,
            clock=clock,
            rng=Random(1),
            symbols=SYMBOLS,
            first_pause_s=0.005,
        )
        worker = asyncio.create_task(client.run())
        try:
            yield client
        finally:
            worker.cancel()
    if runner is not None:
        await runner.cleanup()


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The published example of the specification's authors gives the published signature."""
    signed = sign(KEY, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_opening_body_is_strict_json_with_decimals_as_text() -> None:
    """All fields of an opening, on the wall clock; what is unknown is absent, not null."""
    assert json.loads(render(an_open(), SYMBOLS, NOW)) == {
        "action": "open",
        "signal_id": "a-17",
        "symbol": "BTC/USDT:USDT",
        "side": "buy",
        "entry": "60123.4",
        "stop_loss": "59800",
        "take_profit": "60700",
        "lot": "0.05",
        "issued_at": "2026-01-05T11:00:03.123456Z",
    }
    bare = json.loads(render(an_open(stop_loss=None, lot=None, stale_s=60.0, side=-1), SYMBOLS, NOW))
    assert "stop_loss" not in bare
    assert "lot" not in bare
    assert bare["side"] == "sell"
    assert bare["issued_at"] == "2026-01-05T10:59:03.123456Z"


def test_closes_and_cancels_say_only_what_they_mean() -> None:
    """No symbol and no prices beside the fraction."""
    assert json.loads(render(a_close("a-1"), SYMBOLS, NOW)) == {
        "action": "close",
        "signal_id": "a-1",
        "fraction": "1",
        "issued_at": "2026-01-05T11:00:03.123456Z",
    }
    cancel = Message(provider_id="alpha", action=Action.CANCEL, signal_id="a-1", symbol_id="BTCUSDT", at_ms=0)
    assert set(json.loads(render(cancel, SYMBOLS, NOW))) == {"action", "signal_id", "issued_at"}


async def test_messages_arrive_signed_and_in_order() -> None:
    """Path, headers and signature are right, and a close never overtakes its opening."""
    intake = Intake()
    async with outbox(intake, ManualClock(NOW)) as client:
        client.post(an_open("a-1"))
        client.post(a_close("a-1"))
        assert await client.drain(2.0)
        assert client.deliveries.accepted == 2
    assert [json.loads(body)["action"] for _, _, body in intake.seen] == ["open", "close"]
    for path, headers, body in intake.seen:
        assert path == "/signals/channel_source/alpha"
        message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        assert timestamp == str(int(NOW.timestamp()))
        assert headers["webhook-signature"] == sign(KEY, message_id, int(timestamp), body)
    assert len({headers["webhook-id"] for _, headers, _ in intake.seen}) == 2


async def test_trouble_is_retried_under_the_same_id_with_a_fresh_signature() -> None:
    """429 and 5xx are repeated: same id, same body, new timestamp and signature."""
    clock, intake = ManualClock(NOW), Intake(503, 429, 500)
    take = intake.take

    async def later(request: web.Request) -> web.Response:
        clock.advance(2)
        return await take(request)

    intake.take = later  # type: ignore[method-assign]
    async with outbox(intake, clock) as client:
        client.post(an_open())
        assert await client.drain(2.0)
        assert (client.deliveries.accepted, client.deliveries.retries, client.deliveries.rejected) == (1, 3, 0)
    assert len({(headers["webhook-id"], body) for _, headers, body in intake.seen}) == 1
    assert len({headers["webhook-signature"] for _, headers, _ in intake.seen}) == 4


async def test_a_refusal_is_counted_and_never_repeated() -> None:
    """Another 4xx ends the delivery; the next message goes out."""
    intake = Intake(422)
    async with outbox(intake, ManualClock(NOW)) as client:
        client.post(an_open("a-1"))
        client.post(an_open("a-2"))
        assert await client.drain(2.0)
        assert client.deliveries.refused == {422: 1}
        assert client.deliveries.accepted == 1
    assert len(intake.seen) == 2


async def test_nobody_there_is_given_up_after_bounded_tries() -> None:
    """Connection refusals are repeated a few times, then the message is lost and counted."""
    async with outbox(None, ManualClock(NOW)) as client:
        client.post(an_open())
        assert await client.drain(3.0)
        assert client.deliveries.lost == 1
        assert client.deliveries.retries == TRIES - 1

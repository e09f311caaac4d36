"""How providers deliver their signals: Standard Webhooks over HTTP, in order, with bounded retries.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from random import Random

import aiohttp
import structlog

from simulator.providers import Action, Message
from srm_agent.clock import Clock
from srm_agent.domain.units import plain

log = structlog.get_logger()

TRIES = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`; the timestamp is in unix seconds."""
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, sha256).digest()
    return f"v1,{b64encode(digest).decode()}"


def signed_headers(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a Standard Webhooks delivery, and the content type."""
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, message_id, timestamp, body),
    }


def render(message: Message, symbols: Mapping[str, str], wall: datetime) -> bytes:
    """The body of a message: strict JSON, decimals as strings, `issued_at` on the wall clock.

    `symbols` maps the venue's ids to the names that signals use (`BTCUSDT` -> `BTC/USDT:USDT`).
    """
    fields: dict[str, str | None] = {"action": message.action.value, "signal_id": message.signal_id}
    if message.action is Action.OPEN:
        fields["symbol"] = symbols[message.symbol_id]
        fields["side"] = "buy" if message.side > 0 else "sell"
        fields["entry"] = _decimal(message.entry)
        fields["lot"] = _decimal(message.lot)
    if message.action in (Action.OPEN, Action.MODIFY):
        fields["stop_loss"] = _decimal(message.stop_loss)
        fields["take_profit"] = _decimal(message.take_profit)
    if message.action is Action.CLOSE:
        fields["fraction"] = _decimal(message.fraction)
    issued = wall - timedelta(seconds=message.stale_s)
    fields["issued_at"] = issued.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    present = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(present, separators=(",", ":")).encode()


def _decimal(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


@dataclass(slots=True)
class Deliveries:
    """What became of one provider's messages. `refused` counts answers 4xx by status, they are never repeated."""

    sent: int = 0
    accepted: int = 0
    retries: int = 0
    lost: int = 0
    """Given up after the last try."""
    refused: Counter[int] = field(default_factory=Counter)

    @property
    def rejected(self) -> int:
        """Messages that the other side did not take."""
        return self.refused.total()


class WebhookClient:
    """One provider's outbox: messages leave in order, one at a time.

    Repeats a delivery (same id, same body, fresh signature) on connection trouble, 429 and 5xx, at most `TRIES` times;
    never on another 4xx. `run` is the worker; `drain` waits until the outbox is empty.
    """

    def __init__(
        self,
        *,
        webhook: str,
        provider_id: str,
        key: bytes,
        session: aiohttp.ClientSession,
        clock: Clock,
        rng: Random,
        symbols: Mapping[str, str],
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self.url = f"{webhook.rstrip('/')}/signals/channel_source/{provider_id}"
        self.provider_id = provider_id
        self.deliveries = Deliveries()
        self._key, self._session, self._clock, self._rng, self._symbols = key, session, clock, rng, symbols
        self._first_pause_s = first_pause_s
        self._outbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def post(self, message: Message) -> None:
        """Stamp the message now and put it into the outbox; never blocks."""
        body = render(message, self._symbols, self._clock.wall())
        self._outbox.put_nowait((f"msg_{self._rng.randbytes(12).hex()}", body))

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            message_id, body = await self._outbox.get()
            try:
                await self._deliver(message_id, body)
            finally:
                self._outbox.task_done()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until everything is delivered or given up; False after the time-out."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._outbox.join()
        except TimeoutError:
            return False
        return True

    async def _deliver(self, message_id: str, body: bytes) -> None:
        self.deliveries.sent += 1
        pause = self._first_pause_s
        for attempt in range(1, TRIES + 1):
            status, wanted = await self._attempt(message_id, body)
            if status is not None and 200 <= status < 300:
                self.deliveries.accepted += 1
                return
            if status is not None and status < 500 and status != 429:
                self.deliveries.refused[status] += 1
                log.info("signal refused", provider=self.provider_id, status=status, message_id=message_id)
                return
            if attempt < TRIES:
                self.deliveries.retries += 1
                await asyncio.sleep(min(LONGEST_PAUSE_S, max(wanted, pause * self._rng.uniform(0.8, 1.2))))
                pause *= 2
        self.deliveries.lost += 1
        log.warning("signal lost", provider=self.provider_id, message_id=message_id, tries=TRIES)

    async def _attempt(self, message_id: str, body: bytes) -> tuple[int | None, float]:
        """Status and the pause asked for (429); None when no answer came."""
        timestamp = int(self._clock.wall().timestamp())
        headers = signed_headers(self._key, message_id, timestamp, body)
        try:
            async with self._session.post(self.url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                asked = answer.headers.get("retry-after", "")
                return answer.status, float(asked) if asked.isascii() and asked.isdigit() else 0.0
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return None, 0.0

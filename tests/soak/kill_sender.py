"""The providers of the kill -9 soak: signed signals at their own pace, repeated until they are acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp

from simulator.webhook_client import signed_headers
from tests.soak.kill_judge import Acked

REPEAT_S = 0.15
STOP, NEARER_STOP, TARGET = 0.008, 0.006, 0.02
"""Shares of the price."""
REMEMBERED = 60
PATIENT = 0.85
"""Share of the openings that are let live through a start; the others may be closed while they still wait."""
Body = Mapping[str, str]


@dataclass(slots=True)
class Sender:
    """All providers. `acked` is what the daemon must never lose; `refused` holds answers 4xx, which nothing explains.

    `prices` is kept fresh from outside, by symbol. `followers`: accounts by provider. `ready`: the daemon is.
    """

    url: str
    key: str
    session: aiohttp.ClientSession
    rng: random.Random
    followers: Mapping[str, tuple[str, ...]]
    prices: Mapping[str, float]
    ready: Callable[[], bool]
    acked: list[Acked] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    open_signals: dict[str, str] = field(default_factory=dict)
    """Signals that were opened and not yet closed, with their provider."""
    messages: int = 0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _number: int = 0
    _recent: list[tuple[str, str, bytes]] = field(default_factory=list)
    _sides: dict[str, int] = field(default_factory=dict)

    async def trade(self, provider: str, symbol: str) -> None:
        """One provider's life on one symbol: open, change, close, for ever; `stopping` leaves the last one open."""
        while not self.stopping.is_set():
            signal = await self.open(provider, symbol)
            if self.rng.random() < PATIENT:
                await self._served()
            await self._pause(0.7)
            if self.rng.random() < 0.6:
                await self.modify(provider, signal, symbol)
                await self._pause(0.4)
            if self.rng.random() < 0.35:
                await self.close(provider, signal, "0.5")
                await self._pause(0.4)
            if self.stopping.is_set():
                return
            await self.close(provider, signal)
            await self._pause(0.25)

    async def open(self, provider: str, symbol: str, side: str = "") -> str:
        """Open a signal at the present price; the provider's id of it."""
        self._number += 1
        signal, price = f"s{self._number}", self.prices[symbol]
        side = side or self.rng.choice(("buy", "sell"))
        sign = 1 if side == "buy" else -1
        self._sides[signal] = sign
        self.open_signals[signal] = provider
        await self.post(
            provider,
            {
                "action": "open",
                "signal_id": signal,
                "symbol": symbol,
                "side": side,
                "entry": f"{price:.2f}",
                "stop_loss": f"{price * (1 - sign * STOP):.2f}",
                "take_profit": f"{price * (1 + sign * TARGET):.2f}",
            },
        )
        return signal

    async def modify(self, provider: str, signal: str, symbol: str) -> None:
        """Move the stop nearer."""
        stop = self.prices[symbol] * (1 - self._sides[signal] * NEARER_STOP)
        await self.post(provider, {"action": "modify", "signal_id": signal, "stop_loss": f"{stop:.2f}"})

    async def close(self, provider: str, signal: str, fraction: str = "1") -> None:
        """Close a part or all of a signal."""
        await self.post(provider, {"action": "close", "signal_id": signal, "fraction": fraction})
        if fraction == "1":
            self.open_signals.pop(signal, None)

    async def close_all(self) -> None:
        """Close every signal that was left open."""
        await asyncio.gather(*(self.close(provider, signal) for signal, provider in list(self.open_signals.items())))

    async def repeat(self) -> None:
        """Send again what was acknowledged before, under the same id, for ever (S2): it must change nothing."""
        while not self.stopping.is_set():
            await self._pause(0.5)
            if self._recent:
                await self._once(*self.rng.choice(self._recent))

    async def post(self, provider: str, body: Body) -> None:
        """One message, as often as it takes."""
        self.messages += 1
        message = f"m{self.messages}"
        raw = json.dumps({**body, "issued_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}).encode()
        while True:
            status = await self._once(provider, message, raw)
            if 200 <= status < 300:
                break
            if 400 <= status < 500 and status != 429:
                self.refused.append(f"{message} {body['action']} {body['signal_id']}: {status}")
                return
            await asyncio.sleep(REPEAT_S * self.rng.uniform(0.7, 1.3))
        self.acked.append(
            Acked(
                message_id=message,
                signal_id=f"channel_source:{provider}/{body['signal_id']}",
                opens=body["action"] == "open",
                closes=body["action"] == "close" and body["fraction"] == "1",
                followers=self.followers[provider],
            )
        )
        self._recent = [*self._recent[1 - REMEMBERED :], (provider, message, raw)]

    async def _once(self, provider: str, message: str, raw: bytes) -> int:
        """The status, 0 when no answer came."""
        headers = signed_headers(
            b64decode(self.key.removeprefix("whsec_")), message, int(datetime.now(UTC).timestamp()), raw
        )
        url = f"{self.url}/signals/channel_source/{provider}"
        with suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
            async with self.session.post(url, data=raw, headers=headers) as answer:
                await answer.read()
                return answer.status
        return 0

    async def _served(self) -> None:
        """Until the daemon is ready: what is closed before would all be refused as closed before it opened."""
        while not self.ready() and not self.stopping.is_set():
            await asyncio.sleep(REPEAT_S)

    async def _pause(self, mean: float) -> None:
        await asyncio.sleep(min(4 * mean, self.rng.expovariate(1 / mean)))


def spread(symbols: Sequence[str], provider: str, sender: Sender) -> list[asyncio.Task[None]]:
    """One task a symbol, and one that repeats."""
    work = [asyncio.create_task(sender.trade(provider, symbol)) for symbol in symbols]
    return [*work, asyncio.create_task(sender.repeat())]

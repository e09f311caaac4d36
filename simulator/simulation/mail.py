"""Providers who write to the agent: signed messages, repeated until they are answered, some of them odd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from random import Random

from simulator.simulation.clock import VirtualClock
from simulator.simulation.evidence import Acknowledged
from simulator.simulation.server import ConnectionRefused, Request, VirtualServer
from simulator.venue import Venue
from simulator.webhook_client import signed_headers
from srm_agent.domain.ids import ProviderKey, SignalId, signal_id

ANSWER_S = 5.0
TRIES = 40
LOST_ANSWER_SHARE = 0.03
STRANGE = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S10")


@dataclass(slots=True)
class Idea:
    """A trade of a provider, as he knows it."""

    name: str
    symbol_id: str
    side: int
    stop: Decimal
    ended: bool = False


@dataclass(slots=True)
class Letters:
    """What was written, for the report."""

    sent: int = 0
    answers: dict[int, int] = field(default_factory=dict)
    strange: dict[str, int] = field(default_factory=dict)
    """Messages that were wrong on purpose, by fault id; S12 = answers that got lost."""


class Sender:
    """One provider. `server` is whoever listens at the moment, None while nobody does."""

    def __init__(
        self,
        key: ProviderKey,
        secret: bytes,
        *,
        venue: Venue,
        clock: VirtualClock,
        rng: Random,
        server: Callable[[], VirtualServer | None],
        now: Callable[[], float],
        on_acknowledged: Callable[[Acknowledged], None],
        letters: Letters,
    ) -> None:
        self.key, self._secret = key, secret
        self._venue, self._clock, self._rng = venue, clock, rng
        self._server, self._now, self._tell, self._letters = server, now, on_acknowledged, letters
        self._ideas: list[Idea] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._count = 0
        self.urgent = True
        """Repeat what was not answered (until the world ends); False: give up."""

    def begin(self, symbol_id: str) -> None:
        """Have an idea on a symbol, write about it, and follow it up."""
        rng = self._rng
        self._count += 1
        side = rng.choice((1, -1))
        touch = self._venue.touch(symbol_id)
        entry = touch.ask if side > 0 else touch.bid
        tick = self._venue.instruments[symbol_id].tick_size
        share = rng.uniform(0.0006, 0.002) if symbol_id.startswith("EUR") else rng.uniform(0.002, 0.006)
        distance = max(tick, (entry * Decimal(repr(share)) // tick) * tick)
        idea = Idea(f"{self.key.id}-{self._count}", symbol_id, side, entry - side * distance)
        self._ideas.append(idea)
        body = self._open_body(idea, entry, entry + 2 * side * distance if rng.random() < 0.6 else None)
        strange = rng.choice(STRANGE) if rng.random() < 0.15 else ""
        if strange:
            self._strange(strange, idea, body)
        else:
            self._write(body)
        for delay, follow in self._follow_ups(idea, entry, distance):
            self._later(delay, follow)

    def end_all(self) -> None:
        """Close every idea: in peace the books are emptied."""
        for idea in self._ideas:
            if not idea.ended:
                idea.ended = True
                self._write(self._body("close", idea, fraction="1"))

    async def idle(self) -> None:
        """Until everything written was answered."""
        while any(not task.done() for task in self._tasks):
            await asyncio.sleep(0.5)

    def _follow_ups(self, idea: Idea, entry: Decimal, distance: Decimal) -> list[tuple[float, Callable[[], None]]]:
        rng, plans = self._rng, list[tuple[float, Callable[[], None]]]()
        tick = self._venue.instruments[idea.symbol_id].tick_size
        if rng.random() < 0.4:
            moved = idea.stop + idea.side * (distance / 2 // tick) * tick * rng.choice((1, 1, 1, -1))
            plans.append((rng.uniform(1, 15), lambda: self._modify(idea, moved)))
        if rng.random() < 0.2:
            plans.append((rng.uniform(2, 20), lambda: self._part_close(idea, rng.choice(("0.5", "0.25")))))
        if rng.random() < 0.05:
            plans.append((rng.uniform(0.0, 2.0), lambda: self._cancel(idea)))
        if rng.random() < 0.75:
            plans.append((rng.uniform(0.05, 30), lambda: self._close(idea)))
        return plans

    def _modify(self, idea: Idea, stop: Decimal) -> None:
        if not idea.ended:
            self._write(self._body("modify", idea, stop_loss=f"{stop:f}"))

    def _cancel(self, idea: Idea) -> None:
        self._write(self._body("cancel", idea))

    def _part_close(self, idea: Idea, fraction: str) -> None:
        if not idea.ended:
            self._write(self._body("close", idea, fraction=fraction))

    def _close(self, idea: Idea) -> None:
        if not idea.ended:
            idea.ended = True
            self._write(self._body("close", idea, fraction="1"))

    def _strange(self, kind: str, idea: Idea, body: dict[str, str]) -> None:
        """Write something that is wrong in one documented way."""
        self._letters.strange[kind] = self._letters.strange.get(kind, 0) + 1
        rng = self._rng
        match kind:
            case "S1":
                self._write(body, raw=rng.choice((b"{", b'{"action":"open","action":"open"}', b'{"lot":NaN}', b"\xff")))
            case "S2":
                message = self._write(body)
                self._later(rng.uniform(0.5, 20), lambda: self._write(body, message_id=message))
            case "S3":
                self._write(body)
                twin = body | {"signal_id": f"{idea.name}-twin"}
                self._later(rng.uniform(0.2, 2), lambda: self._write(twin | {"issued_at": self._stamp()}))
            case "S4":
                idea.ended = True
                self._write(self._body("close", idea, fraction="1"))
                self._later(rng.uniform(0.5, 5), lambda: self._write(body | {"issued_at": self._stamp()}))
            case "S5":
                self._write(body | {"issued_at": self._stamp(rng.choice((-60.0, -45.0, 5.0)))})
            case "S6":
                entry = Decimal(body["entry"])
                stop = rng.choice((f"{2 * entry - idea.stop:f}", body["entry"], "", f"{entry * 2:f}"))
                odd = {name: value for name, value in body.items() if name not in ("stop_loss", "take_profit")}
                self._write(odd | ({"stop_loss": stop} if stop else {}))
            case "S7":
                wrong = rng.choice(({"lot": "0"}, {"lot": "-1"}, {"lot": "1e9"}, {"symbol": "DOGE/USDT:USDT"}))
                self._write(body | wrong)
            case "S10":
                self._write(body, secret=b"w" * 32)

    def _open_body(self, idea: Idea, entry: Decimal, target: Decimal | None) -> dict[str, str]:
        body = self._body(
            "open",
            idea,
            symbol=self._venue.instruments[idea.symbol_id].symbol,
            side="buy" if idea.side > 0 else "sell",
            entry=f"{entry:f}",
            stop_loss=f"{idea.stop:f}",
        )
        return body if target is None else body | {"take_profit": f"{target:f}"}

    def _body(self, action: str, idea: Idea, **fields: str) -> dict[str, str]:
        return {"action": action, "signal_id": idea.name, "issued_at": self._stamp(), **fields}

    def _stamp(self, wrong_s: float = 0.0) -> str:
        # The provider's own clock is right: the agent's may not be.
        at = self._clock.wall() - timedelta(seconds=self._clock.skew_s - wrong_s)
        return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _later(self, delay: float, act: Callable[[], object]) -> None:
        async def wait() -> None:
            await asyncio.sleep(delay)
            act()

        self._tasks.append(asyncio.create_task(wait()))

    def send(self, action: str, name: str, **fields: str) -> str:
        """Write one message about the signal of that name; its message id."""
        body = {"action": action, "signal_id": name, "issued_at": self._stamp(), **fields}
        return self._write(body)

    def _write(
        self, body: dict[str, str], *, raw: bytes | None = None, message_id: str = "", secret: bytes | None = None
    ) -> str:
        """Send one message, in a task of its own; its id."""
        message_id = message_id or f"msg_{self._rng.randbytes(8).hex()}"
        data = raw if raw is not None else json.dumps(body, separators=(",", ":")).encode()
        action = body["action"] if raw is None else "malformed"
        name = signal_id(self.key, body["signal_id"])
        self._letters.sent += 1
        self._tasks.append(asyncio.create_task(self._deliver(message_id, data, action, name, secret or self._secret)))
        return message_id

    async def _deliver(self, message_id: str, data: bytes, action: str, name: SignalId, secret: bytes) -> None:
        pause = 0.3
        for attempt in range(TRIES):
            status, answer = await self._attempt(message_id, data, secret)
            if status is not None:
                self._letters.answers[status] = self._letters.answers.get(status, 0) + 1
            if status is not None and 200 <= status < 300:
                self._tell(
                    Acknowledged(
                        at=self._now(),
                        provider=self.key.id,
                        message_id=message_id,
                        action=action,
                        signal_id=name,
                        answer=answer,
                    )
                )
                return
            if (status is not None and status < 500 and status != 429) or not self.urgent:
                return
            if action == "open" and attempt >= 5:
                return  # an old entry is nothing worth
            await asyncio.sleep(pause * self._rng.uniform(0.8, 1.2))
            pause = min(pause * 1.7, 5.0)

    async def _attempt(self, message_id: str, data: bytes, secret: bytes) -> tuple[int | None, str]:
        server = self._server()
        await asyncio.sleep(self._rng.uniform(0.005, 0.03))
        if server is None:
            return None, ""
        right = self._clock.wall() - timedelta(seconds=self._clock.skew_s)
        headers = signed_headers(secret, message_id, int(right.timestamp()), data)
        try:
            async with asyncio.timeout(ANSWER_S):
                status, answer = await server.request(
                    Request(
                        method="POST", path=f"/signals/{self.key.kind.value}/{self.key.id}", headers=headers, body=data
                    )
                )
        except (ConnectionRefused, TimeoutError):
            return None, ""
        if self._rng.random() < LOST_ANSWER_SHARE:
            self._letters.strange["S12"] = self._letters.strange.get("S12", 0) + 1
            return None, ""
        return status, answer.decode()

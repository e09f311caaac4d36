"""The flood itself, in a process of its own: signed requests prepared beforehand, sent at a rate over many connections.

`python -m tests.soak.flood_client PLAN` reads a JSON plan, prints `ready`, waits for a line, floods, writes the result.
A message is sent when its time has come and a connection is free; what finds none free waits, and the result says how
much was really offered.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from array import array
from collections import deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from srm_agent.api.signatures import WebhookKey, sign


@dataclass(frozen=True)
class Plan:
    """What to send: `providers` maps an id to its key in base64; `rate` 0 is as fast as the answers come."""

    port: int
    providers: dict[str, str]
    seconds: float
    rate: float
    connections: int
    messages: int
    run: str
    result: str


@dataclass
class Result:
    """What was offered and answered; `acked` are (provider, message id) with a 2xx."""

    offered: int = 0
    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    lost_connections: int = 0
    acked: list[tuple[str, str]] = field(default_factory=list)
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def request_of(port: int, provider: str, key: WebhookKey, message_id: str, body: bytes, at: float) -> bytes:
    """One whole HTTP request, signed for the second `at`."""
    stamp = int(at)
    return (
        f"POST /signals/channel_source/{provider} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\nwebhook-id: {message_id}\r\n"
        f"webhook-timestamp: {stamp}\r\nwebhook-signature: {sign(key, message_id, stamp, body)}\r\n\r\n"
    ).encode() + body


def opening(signal_id: str, at: float) -> bytes:
    """A plausible opening; a loop gone wild sends thousands of them."""
    issued = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
    fields = {"action": "open", "signal_id": signal_id, "symbol": "BTC/USDT:USDT", "side": "buy"}
    return json.dumps({**fields, "entry": "60000", "stop_loss": "59400", "issued_at": issued}).encode()


class Lane(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, flood: Flood) -> None:
        self.flood = flood
        self.transport: asyncio.Transport | None = None
        self.heard = b""
        self.current: tuple[str, str] | None = None
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Free for work."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.flood.free.append(self)

    def send(self, who: tuple[str, str], data: bytes) -> None:
        """One request."""
        self.current, self.sent_at, self.heard = who, time.monotonic(), b""
        assert self.transport is not None
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Until the whole answer is there."""
        self.heard += data
        head, ended, rest = self.heard.partition(b"\r\n\r\n")
        if not ended:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        if self.current is not None:
            self.flood.answered(self, self.current, int(head[9:12]))
            self.current = None
        if b"connection: close" in lower and self.transport is not None:
            self.transport.close()
        else:
            self.flood.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Another connection takes its place."""
        self.transport = None
        self.flood.lost(self)


class Flood:
    """The run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.free: deque[Lane] = deque()
        self.result = Result()
        self.latencies = array("d")
        self.again: set[asyncio.Task[None]] = set()
        self.running = True

    def prepare(self, start: float) -> list[tuple[tuple[str, str], bytes]]:
        """All requests, signed for the second in which they will be sent."""
        plan, keys = self.plan, {name: WebhookKey(base64.b64decode(key)) for name, key in self.plan.providers.items()}
        names = list(keys)
        step = plan.seconds / plan.messages
        made = []
        for number in range(plan.messages):
            at, name = start + number * step, names[number % len(names)]
            message_id = f"{plan.run}-{number}"
            body = opening(f"{plan.run}-{number}", at)
            made.append(((name, message_id), request_of(plan.port, name, keys[name], message_id, body, at)))
        return made

    def answered(self, lane: Lane, who: tuple[str, str], status: int) -> None:
        """Note an answer."""
        self.latencies.append(time.monotonic() - lane.sent_at)
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1
        if 200 <= status < 300:
            self.result.acked.append(who)

    def lost(self, lane: Lane) -> None:
        """Connect anew."""
        self.result.lost_connections += 1
        if lane in self.free:
            self.free.remove(lane)
        if self.running:
            task = asyncio.get_running_loop().create_task(self.connect())
            self.again.add(task)
            task.add_done_callback(self.again.discard)

    async def connect(self) -> None:
        """One more connection, however long it takes."""
        while self.running:
            try:
                await asyncio.get_running_loop().create_connection(lambda: Lane(self), "127.0.0.1", self.plan.port)
                return
            except OSError:
                await asyncio.sleep(0.05)

    async def run(self) -> Result:
        """Flood for the seconds of the plan."""
        plan = self.plan
        requests = self.prepare(time.time() + 0.5)
        await asyncio.gather(*(self.connect() for _ in range(plan.connections)))
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        began, sent = time.monotonic(), 0
        while (now := time.monotonic() - began) < plan.seconds and sent < len(requests):
            due = len(requests) if plan.rate == 0 else min(len(requests), int(now * plan.rate))
            while sent < due and self.free:
                lane = self.free.popleft()
                if lane.transport is not None and not lane.transport.is_closing():
                    lane.send(*requests[sent])
                    sent += 1
            await asyncio.sleep(0.001)
        self.result.seconds = time.monotonic() - began
        self.result.offered = sent
        await asyncio.sleep(2.0)
        self.running = False
        ordered = sorted(self.latencies)
        if ordered:
            self.result.p50_ms = ordered[len(ordered) // 2] * 1000
            self.result.p99_ms = ordered[int(len(ordered) * 0.99)] * 1000
        return self.result


def main() -> None:
    """Read, wait, flood, write."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    result = asyncio.run(Flood(plan).run())
    Path(plan.result).write_text(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()

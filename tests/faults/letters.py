"""Messages as alpha writes them, good ones and what is changed in them, and where they are posted."""

from __future__ import annotations

import json

from simulator.simulation import cast
from simulator.simulation.process import Process
from simulator.simulation.scene import C01, C02, C03, NAMES, Scene
from simulator.simulation.server import Request
from simulator.webhook_client import signed_headers

MIB = 1024 * 1024
PATH = "/signals/channel_source/alpha"


def fields(scene: Scene, name: str = "s1", **changes: object) -> dict[str, object]:
    """A good opening of BTC at 60,000 with a stop 1 % away, and what is different."""
    good = {
        "action": "open",
        "signal_id": name,
        "issued_at": scene.stamp(),
        "symbol": NAMES["BTCUSDT"],
        "side": "buy",
        "entry": "60000",
        "stop_loss": "59400",
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def body(scene: Scene, name: str = "s1", **changes: object) -> bytes:
    """The same as bytes."""
    return json.dumps(fields(scene, name, **changes)).encode()


async def ask(process: Process, scene: Scene, data: bytes, message_id: str) -> tuple[int, bytes]:
    """Post to that process's own port, signed by alpha now."""
    assert process.server is not None
    now = int(scene.world.clock.wall().timestamp())
    headers = signed_headers(cast.provider_secret(cast.ALPHA), message_id, now, data)
    return await process.server.request(Request(method="POST", path=PATH, headers=headers, body=data))


async def metric(scene: Scene, name: str) -> float:
    """The sum of a counter over its labels, as Prometheus reads it."""
    assert scene.process.server is not None
    _, text = await scene.process.server.request(Request(method="GET", path="/metrics", headers={}))
    rows = [line for line in text.decode().splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in rows)


def untouched(scene: Scene) -> None:
    """Nothing was decided, nothing was sent."""
    assert not scene.world.seen.decisions
    assert not [order for name in (C01, C02, C03) for order in scene.orders(name)]

"""One seed, many independent streams of chance: adding a part never changes what another part draws."""

from __future__ import annotations

from hashlib import sha256
from random import Random


def stream(seed: int, *names: str) -> Random:
    """A generator of its own for the part named, e.g. `stream(7, "prices", "BTCUSDT")`."""
    text = "/".join([str(seed), *names])
    return Random(int.from_bytes(sha256(text.encode()).digest()[:16]))

"""The line between one account (or the feed) and the venue: request and reply are packets of their own.

A packet under way does not need its sender any more: it arrives after a kill as well. Packets of one account may
overtake each other. All chance comes from the latency model's generator; time is the running loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from math import inf

from simulator.latency import LatencyModel
from simulator.spells import Message, Spell, Waiting, loop_time

FORGOTTEN_S = 10.0
"""After somebody has calmed the line: so long may what was sent before still arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one exchange: seconds of each leg, None where the packet is lost on the way."""

    request_s: float | None
    reply_s: float | None
    again_s: float | None = None
    """A second copy of the request arrives so long after the first (a proxy that repeats by itself)."""
    echo_s: float | None = None
    """A second copy of the reply."""


Change = Callable[[Fate], Fate]


class Network:
    """Delays and losses of one line. `cut` is a partition: nothing passes, in neither direction."""

    def __init__(self, latency: LatencyModel) -> None:
        self._latency = latency
        self._cut, self._refusing = Spell(), Spell()
        self._calmed = -inf
        self._changes: Waiting[Change] = Waiting()
        self._on_cut: list[Callable[[], None]] = []
        # Packets belong to the world, not to the process that sent them: no context of the sender goes with them.
        self._context = Context()
        self.sent = self.lost = 0
        """Packets."""

    # ---- states

    def cut(self, seconds: float = inf, *, refused: bool = False) -> None:
        """Nothing passes for so long. `refused`: connecting fails at once, which proves that nothing was sent (B22)."""
        (self._refusing if refused else self._cut).begin(seconds)
        for listener in tuple(self._on_cut):
            listener()

    def restore(self) -> None:
        """The line works again."""
        self._cut.end()
        self._refusing.end()

    def calm(self) -> None:
        """The line works, nothing waits for the next exchanges, and what has been under way for long never arrives."""
        self.restore()
        self._changes.clear()
        self._calmed = loop_time()

    @property
    def down(self) -> bool:
        """Nothing passes now."""
        return self._cut.on or self._refusing.on

    @property
    def refusing(self) -> bool:
        """New connections are refused now (no listener, no DNS)."""
        return self._refusing.on

    def on_cut(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Hear of partitions as they begin; the answer unsubscribes."""
        self._on_cut.append(listener)
        return lambda: self._on_cut.remove(listener)

    # ---- what happens to the next exchanges (`only`: of these kinds)

    def lose_request(self, *only: Message, count: int = 1) -> None:
        """Lost before the broker (B4)."""
        self._next(lambda fate: replace(fate, request_s=None), only, count)

    def lose_reply(self, *only: Message, count: int = 1) -> None:
        """Carried out, the answer never comes (B5)."""
        self._next(lambda fate: replace(fate, reply_s=None, echo_s=None), only, count)

    def delay_request(self, seconds: float, *only: Message, count: int = 1) -> None:
        """Reaches the broker so much later (B6)."""
        self._next(lambda fate: replace(fate, request_s=_later(fate.request_s, seconds)), only, count)

    def delay_reply(self, seconds: float, *only: Message, count: int = 1) -> None:
        """The answer comes so much later."""
        self._next(lambda fate: replace(fate, reply_s=_later(fate.reply_s, seconds)), only, count)

    def repeat_request(self, after_s: float, *only: Message, count: int = 1) -> None:
        """The broker gets the request twice, `after_s` apart."""
        self._next(lambda fate: replace(fate, again_s=after_s), only, count)

    def repeat_reply(self, after_s: float, *only: Message, count: int = 1) -> None:
        """The answer comes twice, `after_s` apart (B7)."""
        self._next(lambda fate: replace(fate, echo_s=after_s), only, count)

    def _next(self, change: Change, only: tuple[Message, ...], count: int) -> None:
        self._changes.add(change, only or None, count)

    # ---- packets

    def fate(self, message: Message) -> Fate:
        """Draw what becomes of an exchange that begins now."""
        fate = Fate(request_s=self._latency.request_s(), reply_s=self._latency.reply_s())
        change = self._changes.take(message)
        return fate if change is None else change(fate)

    def push_s(self) -> float:
        """Seconds that a pushed message takes."""
        return self._latency.reply_s()

    def send(self, seconds: float | None, arrive: Callable[[], None]) -> None:
        """Put a packet on the line: `arrive` is called when it is there, unless it is lost or the line is cut."""
        self.sent += 1
        if seconds is None or self.down:
            self.lost += 1
            return
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, self._arrive, arrive, loop.time(), context=self._context)

    def _arrive(self, arrive: Callable[[], None], sent: float) -> None:
        forgotten = sent < self._calmed and loop_time() - self._calmed > FORGOTTEN_S
        if self.down or forgotten:
            self.lost += 1
        else:
            arrive()


def _later(leg: float | None, seconds: float) -> float | None:
    return None if leg is None else leg + seconds

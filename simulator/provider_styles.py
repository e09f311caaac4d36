"""Providers whose habits are more than numbers: the breakout trader and the loss holder; and how one is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from random import Random

from simulator.providers import Idea, Message, PathView, Provider, Run, Seat, draw_accuracy

_RANGE_SAMPLES = 24


class Breakout(Provider):
    """Waits for the price to leave the range of the last while and goes with it, unless he perceives the contrary."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._ranges: dict[str, deque[float]] = {symbol: deque(maxlen=_RANGE_SAMPLES) for symbol in self.symbols}
        self._sampled_ms = 0

    def act(self, now_ms: int) -> list[Message]:
        """As every provider, after a look at the range."""
        said = super().act(now_ms)
        if now_ms >= self._sampled_ms + self._run.span(0.002):
            self._sampled_ms = now_ms
            for symbol, seen in self._ranges.items():
                seen.append(self._paths[symbol].mid)
        return said

    def _direction(self, symbol_id: str, now_ms: int) -> int:
        seen, mid = self._ranges[symbol_id], self._paths[symbol_id].mid
        if len(seen) < _RANGE_SAMPLES:
            return 0
        side = 1 if mid >= max(seen) else (-1 if mid <= min(seen) else 0)
        return side if side * self._perceive(symbol_id, now_ms) > -0.5 else 0


class LossHolder(Provider):
    """Takes small profits at once, never closes a loss, buys more of it, and is back as soon as he is stopped."""

    _MOST_AT_ONCE = 3

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._again = dict.fromkeys(self.symbols, False)
        self._back_ms = {symbol: seat.run.begin_ms + seat.rng.random() * seat.run.span(0.05) for symbol in self.symbols}

    def _patience(self, hold_ms: int) -> float:
        return inf

    def _enter(self, now_ms: int) -> list[Message]:
        said: list[Message] = []
        for symbol in self.symbols:
            if now_ms < self._back_ms[symbol]:
                continue
            held = [idea for idea in self.ideas if idea.symbol_id == symbol]
            if not held:
                side = self._direction(symbol, now_ms)
            elif len(held) < self._MOST_AT_ONCE and (
                self._again[symbol] or held[-1].result_r(self._paths[symbol].mid) < -0.1
            ):
                side = held[-1].side
            else:
                continue
            self._again[symbol] = False
            self._back_ms[symbol] = now_ms + self._run.span(0.05 if side else 0.002)
            if side:
                said += self._open(symbol, side, now_ms)
        return said

    def _finish(self, idea: Idea, mid: float, now_ms: int) -> Message:
        patience = self._rng.uniform(0.004, 0.012) if idea.result_r(mid) < 0 else self._rng.uniform(0.008, 0.03)
        self._again[idea.symbol_id] = True
        self._back_ms[idea.symbol_id] = now_ms + self._run.span(patience)
        return super()._finish(idea, mid, now_ms)


def make_provider(
    provider_id: str, style: str, paths: Mapping[str, PathView], symbols: Sequence[str], run: Run, rng: Random
) -> Provider:
    """A provider of the style, his accuracy drawn around the style's mean. Raises KeyError for an unknown style."""
    kinds: Mapping[str, type[Provider]] = {"breakout": Breakout, "loss_holder": LossHolder}
    seat = Seat(
        provider_id=provider_id,
        style=style,
        accuracy=draw_accuracy(style, rng),
        paths=paths,
        symbols=tuple(symbols),
        run=run,
        rng=rng,
    )
    return kinds.get(style, Provider)(seat)

"""Signal providers: who opens what, when, and how well.

A provider sees the market's true quotes and, through his own noise, its hidden drift: what he perceives is
`accuracy x hidden + sqrt(1 - accuracy^2) x noise`. Accuracy is his true skill; everything else is style. He keeps book
of his own ideas on the true path, without costs, and that book is his true expectancy.

All times are market time in milliseconds; spans are shares of the planned run, so that a short demo is lively too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from math import inf, sqrt
from random import Random
from typing import Protocol

from simulator.prices import SymbolSpec, Touch


class Action(StrEnum):
    """What a message asks for."""

    OPEN = "open"
    MODIFY = "modify"
    CLOSE = "close"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a provider says. Prices on the tick grid; `stale_s` is by how much his own clock stamps it too old."""

    provider_id: str
    action: Action
    signal_id: str
    symbol_id: str
    at_ms: int
    side: int = 0
    entry: Decimal | None = None
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    lot: Decimal | None = None
    fraction: Decimal | None = None
    stale_s: float = 0.0


class PathView(Protocol):
    """What a provider may look at."""

    spec: SymbolSpec
    usual_sigma: float
    spread: float

    @property
    def mid(self) -> float:
        """Middle price now."""
        ...

    def perceived(self, at_ms: int) -> float:
        """Hidden drift in its standard deviations."""
        ...

    def touch(self, fraction: float) -> Touch:
        """Best bid and ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The planned run: shares of it give the spans of the styles. `ends` False: it goes on, length is nominal."""

    begin_ms: int
    length_ms: int
    ends: bool

    def at(self, share: float) -> int:
        """The moment after this share of the run."""
        return self.begin_ms + round(self.length_ms * share)

    def span(self, share: float) -> int:
        """Milliseconds of a share of the run (of six hours, if it is longer)."""
        return round(min(self.length_ms, 6 * 3_600_000) * share)

    def past(self, share: float) -> float:
        """Moment of `share`, or never for a run without an end."""
        return self.at(share) if self.ends else inf


STOP_OPENING, GO_FLAT, FALL_SILENT = 0.92, 0.94, 0.97
"""Shares of the run after which providers open nothing, close what they hold, and say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a provider trades. Spans are shares of the run; distances multiples of volatility over the holding span."""

    hold: float
    stop: float
    reward: float
    opens: float
    """Opening signals over a run."""
    accuracy: float
    """Mean accuracy of the style; the provider's own is drawn around it."""
    trails: float = 0.0
    """Share of ideas whose stop follows to the entry after half of the way to the target."""
    halves: float = 0.0
    """Share of ideas half of which is closed there."""
    slips: float = 0.06
    """Share of opening messages with a real provider's mistake."""
    cancels: float = 0.03


STYLES: Mapping[str, Style] = {
    "scalper": Style(hold=0.04, stop=1.1, reward=1.0, opens=24, accuracy=0.30),
    "intraday": Style(hold=0.12, stop=1.2, reward=1.6, opens=15, accuracy=0.50, trails=0.7, halves=0.35),
    "swing": Style(hold=0.30, stop=1.3, reward=2.0, opens=8, accuracy=0.55, trails=0.8, halves=0.4),
    "breakout": Style(hold=0.10, stop=1.0, reward=1.8, opens=13, accuracy=0.15, trails=0.5, slips=0.1),
    "fader": Style(hold=0.08, stop=1.2, reward=0.8, opens=14, accuracy=-0.15, cancels=0.08, slips=0.1),
    "loss_holder": Style(hold=0.30, stop=1.3, reward=0.35, opens=0, accuracy=-0.85, slips=0.0, cancels=0.0),
}
ACCURACY_DEVIATION = 0.1


def draw_accuracy(style: str, rng: Random) -> float:
    """True skill of a provider: around the mean of the style, within +-0.92."""
    return max(-0.92, min(0.92, rng.gauss(STYLES[style].accuracy, ACCURACY_DEVIATION)))


@dataclass(slots=True, kw_only=True)
class Idea:
    """An open signal in the provider's own book; prices are middles of the true path."""

    signal_id: str
    symbol_id: str
    side: int
    opened_ms: int
    expires_ms: float
    entry: float
    distance: float
    """Planned stop distance, price units."""
    stop: float
    target: float
    trails: bool
    halves: bool
    left: float = 1.0
    realised_r: float = 0.0

    def result_r(self, mid: float) -> float:
        """Open result at this price, in R of the whole idea's planned stop."""
        return self.side * (mid - self.entry) / self.distance


@dataclass(slots=True)
class Book:
    """A provider's own record without costs."""

    opened: int = 0
    results: list[float] = field(default_factory=list)

    @property
    def expectancy_r(self) -> float | None:
        """Mean R of the closed ideas, None before the first."""
        return sum(self.results) / len(self.results) if self.results else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a provider sits: who he is, what he sees, when he trades, and his own chance."""

    provider_id: str
    style: str
    accuracy: float
    paths: Mapping[str, PathView]
    symbols: tuple[str, ...]
    run: Run
    rng: Random


class Provider:
    """One provider. Call `act` at every grid point of the market, in order."""

    def __init__(self, seat: Seat) -> None:
        self.provider_id, self.style, self.accuracy = seat.provider_id, seat.style, seat.accuracy
        self.symbols = seat.symbols
        self.book = Book()
        self.ideas: list[Idea] = []
        self._terms = STYLES[seat.style]
        self._paths, self._run, self._rng = seat.paths, seat.run, seat.rng
        self._later: deque[Message] = deque()
        self._next_ms = float(seat.run.begin_ms + round(seat.rng.random() * seat.run.span(0.08)))

    def act(self, now_ms: int) -> list[Message]:
        """What he says at this moment of market time; empty most of the time."""
        if now_ms < self._run.begin_ms or now_ms >= self._run.past(FALL_SILENT):
            return []
        said = [self._later.popleft()] if self._later else []
        for idea in tuple(self.ideas):
            said += self._manage(idea, now_ms)
        if now_ms < self._run.past(STOP_OPENING):
            said += self._enter(now_ms)
        return said

    def _enter(self, now_ms: int) -> list[Message]:
        if now_ms < self._next_ms:
            return []
        free = [symbol for symbol in self.symbols if all(idea.symbol_id != symbol for idea in self.ideas)]
        side = 0
        if free:
            symbol = self._rng.choice(free)
            side = self._direction(symbol, now_ms)
        if not side:
            self._next_ms = now_ms + self._run.span(0.004)
            return []
        self._next_ms = now_ms + self._rng.expovariate(1) * self._run.span(0.85 / self._terms.opens)
        return self._open(symbol, side, now_ms)

    def _direction(self, symbol_id: str, now_ms: int) -> int:
        """+1, -1, or 0 when nothing is worth a signal."""
        seen = self._perceive(symbol_id, now_ms)
        return 0 if abs(seen) < 0.3 else (1 if seen > 0 else -1)

    def _perceive(self, symbol_id: str, now_ms: int) -> float:
        noise = self._rng.gauss(0, 1) * sqrt(1 - self.accuracy**2)
        return self.accuracy * self._paths[symbol_id].perceived(now_ms) + noise

    def _open(self, symbol_id: str, side: int, now_ms: int) -> list[Message]:
        path, terms, rng = self._paths[symbol_id], self._terms, self._rng
        mid, hold_ms = path.mid, self._run.span(terms.hold)
        move = path.usual_sigma * sqrt(hold_ms / 1000) * mid
        distance = max(terms.stop * move * rng.uniform(0.85, 1.15), 6 * path.spread * mid)
        self.book.opened += 1
        idea = Idea(
            signal_id=f"{self.provider_id}-{self.book.opened}",
            symbol_id=symbol_id,
            side=side,
            opened_ms=now_ms,
            expires_ms=now_ms + self._patience(hold_ms),
            entry=mid,
            distance=distance,
            stop=mid - side * distance,
            target=mid + side * distance * terms.reward,
            trails=rng.random() < terms.trails,
            halves=rng.random() < terms.halves,
        )
        self.ideas.append(idea)
        message = self._announce(idea, path, now_ms)
        if rng.random() < terms.cancels:
            self._later.append(self._message(Action.CANCEL, idea, now_ms))
        return [message]

    def _patience(self, hold_ms: int) -> float:
        return hold_ms * self._rng.uniform(0.5, 1.2)

    def _announce(self, idea: Idea, path: PathView, now_ms: int) -> Message:
        rng, tick = self._rng, path.spec.tick_size
        touch = path.touch(0.0)
        entry = touch.ask if idea.side > 0 else touch.bid
        stop: Decimal | None = _stop_away(idea.stop, idea.side, tick)
        lot = Decimal(rng.randint(1, 20)) / 100 if rng.random() < 0.6 else None
        stale_s = 0.0
        if rng.random() < self._terms.slips:
            match rng.randrange(3):
                case 0:
                    stop = None
                case 1:
                    stale_s = rng.uniform(60, 600)
                case _:
                    # He names the price he got a while ago: the market has already run away from it.
                    entry = _near(float(entry) - idea.side * 0.6 * idea.distance, tick)
        return self._message(
            Action.OPEN,
            idea,
            now_ms,
            side=idea.side,
            entry=entry,
            stop_loss=stop,
            take_profit=_near(idea.target, tick),
            lot=lot,
            stale_s=stale_s,
        )

    def _manage(self, idea: Idea, now_ms: int) -> list[Message]:
        mid = self._paths[idea.symbol_id].mid
        stopped, reached = idea.side * (mid - idea.stop) <= 0, idea.side * (mid - idea.target) >= 0
        leaves = now_ms >= self._run.past(GO_FLAT) and self._rng.random() < 0.02
        if stopped or reached or leaves or now_ms >= idea.expires_ms:
            return [self._finish(idea, mid, now_ms)]
        said: list[Message] = []
        if (idea.trails or idea.halves) and 2 * idea.side * (mid - idea.entry) >= abs(idea.target - idea.entry):
            if idea.halves:
                idea.halves, idea.left = False, 0.5
                idea.realised_r += 0.5 * idea.result_r(mid)
                said.append(self._message(Action.CLOSE, idea, now_ms, fraction=Decimal("0.5")))
            if idea.trails:
                idea.trails, idea.stop = False, idea.entry
                stop = _stop_away(idea.stop, idea.side, self._paths[idea.symbol_id].spec.tick_size)
                said.append(self._message(Action.MODIFY, idea, now_ms, stop_loss=stop))
        return said

    def _finish(self, idea: Idea, mid: float, now_ms: int) -> Message:
        self.ideas.remove(idea)
        self.book.results.append(idea.realised_r + idea.left * idea.result_r(mid))
        return self._message(Action.CLOSE, idea, now_ms, fraction=Decimal(1))

    def _message(
        self,
        action: Action,
        idea: Idea,
        now_ms: int,
        *,
        side: int = 0,
        entry: Decimal | None = None,
        stop_loss: Decimal | None = None,
        take_profit: Decimal | None = None,
        lot: Decimal | None = None,
        fraction: Decimal | None = None,
        stale_s: float = 0.0,
    ) -> Message:
        return Message(
            provider_id=self.provider_id,
            action=action,
            signal_id=idea.signal_id,
            symbol_id=idea.symbol_id,
            at_ms=now_ms,
            side=side,
            entry=entry,
            stop_loss=stop_loss,
            take_profit=take_profit,
            lot=lot,
            fraction=fraction,
            stale_s=stale_s,
        )


def _near(price: float, tick: Decimal) -> Decimal:
    return round(price / float(tick)) * tick


def _stop_away(price: float, side: int, tick: Decimal) -> Decimal:
    """On the tick grid, away from the entry of a position of `side`."""
    rounding = ROUND_FLOOR if side > 0 else ROUND_CEILING
    return (Decimal(price) / tick).to_integral_value(rounding) * tick

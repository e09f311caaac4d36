"""The world without sockets: market, news, one declared gap and the providers who live through it.

Pure and deterministic: the same seed, start and run give the same messages and events, however the steps are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1
from random import Random

from simulator.prices import GapPlan, Market, Shock, SymbolSpec
from simulator.provider_styles import make_provider
from simulator.providers import Message, Provider, Run
from simulator.seeds import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPlan:
    """A provider of the scenario: he trades `count` of `symbols`, drawn by the seed."""

    provider_id: str
    style: str
    symbols: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GapTerms:
    """The declared gap: on one of `symbols`, `smallest` to `largest` relative size, within a window of the run.

    `victim` is the provider whose positions it meets; nobody else trades the symbol on that day.
    """

    victim: str
    symbols: tuple[str, ...]
    smallest: float = 0.06
    largest: float = 0.09
    earliest: float = 0.50
    latest: float = 0.65


_CREEP_SHARE, _PINNED_SHARE = 0.20, 0.10
"""The market goes quiet this share of the run before the gap, and is pinned for the last part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of what the world did or will do; `at_ms` market time, `size` relative move or magnitude of news."""

    at_ms: int
    kind: str
    symbol_id: str
    detail: str
    size: float


class Story:
    """Steps the market and its providers together.

    `begin` starts the planned run: it places the gap and wakes the providers. Before it only the market moves.
    """

    def __init__(
        self,
        *,
        seed: int,
        start_ms: int,
        specs: Sequence[SymbolSpec],
        providers: Sequence[ProviderPlan],
        gap: GapTerms,
        history_days: int = 5,
        step_ms: int = 1_000,
    ) -> None:
        self.seed, self.start_ms = seed, start_ms
        self.market = Market(specs, seed, start_ms, history_days=history_days, step_ms=step_ms)
        self.providers: Sequence[Provider] = ()
        self.run: Run | None = None
        self.gap: GapPlan | None = None
        self.events: list[Event] = []
        self._plans, self._terms = tuple(providers), gap
        draw = stream(seed, "gap")
        self._gap_symbol = draw.choice(sorted(gap.symbols))
        self._gap_size = draw.choice((-1, 1)) * draw.uniform(gap.smallest, gap.largest)
        self._gap_share = draw.uniform(gap.earliest, gap.latest)
        self._note(self.market.first_shocks)

    def declare(self, length_ms: int) -> None:
        """Write down, before anything happens, what the seed has in store for a run of this length."""
        where = f"{self._gap_share:.0%} of the run, {self._gap_size:+.1%}"
        at_ms = self.start_ms + round(length_ms * self._gap_share)
        self.events.append(self._gap_event("gap_declared", at_ms, f"declared by the seed: at {where}"))
        for release in self.market.calendar.between(self.start_ms, self.start_ms + 2 * length_ms):
            if release.known:
                symbols = [
                    symbol
                    for symbol, path in self.market.paths.items()
                    if release.impact(path.spec.currencies) == release.magnitude
                ]
                event = Event(
                    at_ms=release.at_ms,
                    kind="news_declared",
                    symbol_id=",".join(symbols),
                    detail=f"{release.currency}: {release.name}",
                    size=release.magnitude,
                )
                self.events.append(event)

    def begin(self, length_ms: int, *, ends: bool) -> None:
        """Start the planned run now. Raises ValueError when it has begun already."""
        if self.run is not None:
            raise ValueError("the run has begun already")
        run = self.run = Run(begin_ms=self.market.at_ms, length_ms=length_ms, ends=ends)
        at_ms = run.at(self._gap_share) // self.market.step_ms * self.market.step_ms
        self.gap = GapPlan(
            symbol_id=self._gap_symbol,
            at_ms=at_ms,
            size=self._gap_size,
            from_ms=run.begin_ms,
            creep_ms=at_ms - round(length_ms * _CREEP_SHARE),
            pinned_ms=at_ms - round(length_ms * _PINNED_SHARE),
        )
        self.market.paths[self._gap_symbol].declare_gap(self.gap)
        self.events.append(self._gap_event("gap_scheduled", at_ms, "the run has begun: this is its moment"))
        self.providers = [self._cast(plan, run) for plan in self._plans]

    def step(self, to_ms: int) -> list[Message]:
        """Advance to a market time; what the providers said on the way, oldest first. Going back does nothing."""
        said: list[Message] = []
        while self.market.at_ms + self.market.step_ms <= to_ms:
            self._note(self.market.advance())
            now_ms = self.market.at_ms
            for provider in self.providers:
                said += provider.act(now_ms)
        return said

    def _cast(self, plan: ProviderPlan, run: Run) -> Provider:
        rng = stream(self.seed, "provider", plan.provider_id)
        symbols = self._symbols(plan, rng)
        return make_provider(plan.provider_id, plan.style, self.market.paths, symbols, run, rng)

    def _symbols(self, plan: ProviderPlan, rng: Random) -> list[str]:
        others = sorted(symbol for symbol in plan.symbols if symbol != self._gap_symbol)
        if plan.provider_id == self._terms.victim:
            return [self._gap_symbol, *rng.sample(others, min(plan.count - 1, len(others)))]
        return rng.sample(others, min(plan.count, len(others)))

    def _note(self, shocks: Sequence[Shock]) -> None:
        self.events += [
            Event(
                at_ms=shock.at_ms, kind=shock.kind, symbol_id=shock.symbol_id, detail=shock.name, size=expm1(shock.size)
            )
            for shock in shocks
        ]

    def _gap_event(self, kind: str, at_ms: int, detail: str) -> Event:
        return Event(at_ms=at_ms, kind=kind, symbol_id=self._gap_symbol, detail=detail, size=self._gap_size)

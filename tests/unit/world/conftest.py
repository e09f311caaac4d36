"""The demo's world without sockets, cheap to make."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.calendar import to_ms
from simulator.scenario import Scenario, load_scenario
from simulator.story import Story

StoryMaker = Callable[..., Story]


@pytest.fixture(scope="session")
def demo() -> Scenario:
    """The demo's scenario."""
    return load_scenario()


@pytest.fixture(scope="session")
def a_story(demo: Scenario) -> StoryMaker:
    """Makes a story of the demo's scenario: `a_story(seed, step_ms=1000)`; no history unless asked for."""

    def make(seed: int, step_ms: int = 1_000, history_days: int = 0) -> Story:
        return Story(
            seed=seed,
            start_ms=to_ms(demo.start),
            specs=demo.specs(),
            providers=demo.plans(),
            gap=demo.gap_terms(),
            history_days=history_days,
            step_ms=step_ms,
        )

    return make

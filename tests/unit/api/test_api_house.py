"""The house's budget: bursts pass, floods wait, who sends little never notices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srm_agent.api.house import House
from srm_agent.domain.ids import ProviderKey

CALM = ProviderKey.parse("calm")
LOUD = [ProviderKey.parse(f"loud-{number}") for number in range(50)]


def ask(house: House, provider: ProviderKey, now: float) -> bool:
    """A message of this provider; whether it was let in."""
    if house.wait(provider, now):
        return False
    house.take(provider, now)
    return True


def test_a_burst_passes_whoever_sends_it() -> None:
    """Thirty signals at once of one provider, or one each of thirty: nobody waits."""
    alone = House(20, 40, 0.0)
    assert all(ask(alone, LOUD[0], 0.0) for _ in range(30))
    together = House(20, 40, 0.0)
    assert all(ask(together, provider, 0.0) for provider in LOUD[:30])


def test_a_flood_that_lasts_gets_the_rate_of_the_house() -> None:
    """Fifty providers that never stop are let in twenty times a second together, after the first burst."""
    house = House(20, 40, 0.0)
    let_in = sum(ask(house, provider, tick / 100) for tick in range(6000) for provider in LOUD)
    assert 20 * 60 <= let_in <= 20 * 60 + 40


@pytest.mark.parametrize("every_s", [4.0, 5.0, 7.3, 20.0])
def test_who_sends_little_is_let_in_during_a_flood(every_s: float) -> None:
    """A signal now and then among fifty providers that never stop: each is let in at the first try."""
    house, calm, due = House(20, 40, 0.0), [], 0.5
    assert ask(house, CALM, -30.0)
    for tick in range(6000):
        for provider in LOUD:
            ask(house, provider, tick / 100)
        if tick / 100 >= due:
            calm.append(ask(house, CALM, tick / 100))
            due += every_s
    assert len(calm) >= 3
    assert all(calm)


def test_one_flood_leaves_the_reserve_to_others() -> None:
    """A single provider that never stops cannot empty the house: three others are served at once in the midst of it."""
    house = House(20, 50, 0.0)
    for tick in range(500):
        ask(house, LOUD[0], tick / 1000)
    assert all(ask(house, provider, 0.5) for provider in LOUD[1:4])


def test_a_promised_wait_is_at_least_a_second_and_enough_for_one_alone() -> None:
    """Who waits as long as told and meets nobody else is let in."""
    house = House(2, 10, 0.0)
    while ask(house, LOUD[0], 0.0):
        pass
    wait_s = house.wait(LOUD[0], 0.0)
    assert wait_s >= 1
    assert ask(house, LOUD[0], float(wait_s))


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 9)), max_size=200))
def test_never_more_than_rate_and_burst(arrivals: list[tuple[float, int]]) -> None:
    """Over any time no more messages are let in than the burst and the rate allow."""
    house, now, let_in = House(5, 10, 0.0), 0.0, 0
    for wait, who in arrivals:
        now += wait
        let_in += ask(house, LOUD[who], now)
        assert let_in <= 10 + 5 * now + 1e-6

"""The request budget: exits first, and a reserve that only they may use."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ccxt_venue.budget import Priority, RequestBudget, TokenBucket
from srm_agent.clock import ManualClock, SystemClock

steps = st.lists(st.tuples(st.sampled_from(Priority), st.floats(min_value=0, max_value=2)), max_size=60)


@given(steps, st.floats(min_value=0.5, max_value=20), st.integers(1, 10), st.integers(0, 9))
def test_budget_is_never_exceeded(asked: list[tuple[Priority, float]], rate: float, burst: int, reserve: int) -> None:
    """Over any time, no more than burst + rate x time requests leave; others never touch the reserve."""
    reserve = min(reserve, burst - 1)
    now, taken, others = 0.0, 0, 0
    bucket = TokenBucket(rate=rate, burst=burst, reserve=reserve, now=now)
    for priority, pause in asked:
        now += pause
        wait = bucket.take(priority, now)
        assert wait >= 0.0
        if wait == 0.0:
            taken += 1
            others += priority is not Priority.EXIT
        assert taken <= burst + rate * now + 1e-6
        assert others <= burst - reserve + rate * now + 1e-6


def test_exit_finds_the_reserve_that_entries_left() -> None:
    """After entries took all they may, the reserved number of exits still goes out at once."""
    bucket = TokenBucket(rate=1.0, burst=10, reserve=3, now=0.0)
    while bucket.take(Priority.ENTRY, 0.0) == 0.0:
        pass
    assert [bucket.take(Priority.EXIT, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(Priority.EXIT, 0.0) == pytest.approx(1.0)


def test_clock_that_goes_back_gives_nothing() -> None:
    """Time that runs backwards neither adds nor removes tokens."""
    bucket = TokenBucket(rate=1.0, burst=1, reserve=0, now=100.0)
    assert bucket.take(Priority.READ, 100.0) == 0.0
    assert bucket.take(Priority.READ, 50.0) > 0.0


async def test_waiting_exits_overtake_waiting_entries() -> None:
    """An exit that comes last is served first."""
    budget = RequestBudget(rate=200.0, burst=1, reserve=0, clock=SystemClock())
    await budget.take(Priority.EXIT)
    order: list[str] = []

    async def take(name: str, priority: Priority) -> None:
        await budget.take(priority)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, priority in (("entry", Priority.ENTRY), ("read", Priority.READ), ("exit", Priority.EXIT)):
            group.create_task(take(name, priority))
    assert order == ["exit", "read", "entry"]


async def test_cancelled_waiter_takes_no_token() -> None:
    """Whoever gives up waiting leaves the token to the next."""
    budget = RequestBudget(rate=100.0, burst=1, reserve=0, clock=SystemClock())
    await budget.take(Priority.EXIT)
    first = asyncio.create_task(budget.take(Priority.EXIT))
    second = asyncio.create_task(budget.take(Priority.EXIT))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 1.0)
    assert first.cancelled()


async def test_standing_clock_blocks_without_spinning() -> None:
    """With a clock that does not move nothing leaves, and the loop stays free."""
    clock = ManualClock(datetime(2024, 1, 1, tzinfo=UTC))
    budget = RequestBudget(rate=10.0, burst=1, reserve=0, clock=clock)
    await budget.take(Priority.READ)
    waiting = asyncio.create_task(budget.take(Priority.READ))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    clock.advance(1.0)
    await asyncio.wait_for(waiting, 1.0)

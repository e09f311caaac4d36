"""A broker's figure that is older than the prices beside it (INV-13)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from srm_agent.domain.accounts import ConnectionState
from tests.unit.execution.conftest import until
from tests.unit.flow.conftest import C01, agent


async def test_a_figure_from_before_a_jump_of_prices_is_not_believed(tmp_path: Path) -> None:
    """It says 2 % less than quotes allow, and no cash flow explains it: another one is read before anything is decided,
    so that the account is worth within a second what the venue says."""
    async with agent(tmp_path) as world:
        await world.opened()
        await asyncio.sleep(2)
        figure = await world.brokers[C01].real.account()
        world.move("61500")
        await asyncio.sleep(0.2)
        world.a.hear(replace(figure, received=asyncio.get_running_loop().time()))

        def right() -> bool:
            equity = world.a.equity()
            assert equity is not None
            return abs(equity.value - world.venue.wallet("c01").equity) < 5

        assert not right()
        await until(right, 1)
        await asyncio.sleep(3)
        assert right()
        assert world.state() is ConnectionState.ACTIVE

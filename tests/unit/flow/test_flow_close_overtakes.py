"""Closes that come before what they close: the open still waits, or its order executes after all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.orders import OrderState
from tests.unit.execution.conftest import until
from tests.unit.flow.conftest import C01, C02, World, agent, pytest_asyncio_loop_factories, quiet
from tests.unit.flow.test_flow_recovery import an_entry_that_ended, execute_late

__all__ = ["pytest_asyncio_loop_factories", "quiet"]


@pytest.mark.parametrize("end", ["close", "cancel"])
async def test_what_was_closed_while_it_waited_is_not_opened_by_the_next_process(tmp_path: Path, end: str) -> None:
    """Both are acknowledged, the close is finished, the open is not: after the restart it is refused (INV-3)."""
    async with agent(tmp_path) as world:
        opening = world.open_signal()
        await world.store.signals.accept(opening, "0" * 64, "{}")
        await world.give(world.close_signal() if end == "close" else world.cancel_signal())
        await asyncio.sleep(1)
        assert await world.unfinished() == [opening.receipt.message_id]
        async with agent(tmp_path, venue=world.venue, store=world.store) as after:
            await after.flow.on_signal(opening)
            await asyncio.sleep(3)
            assert {one.reason for one in after.witness.decisions} == {ReasonCode.CLOSED_BEFORE_OPEN}
            assert [after.brokers[name].calls.count("submit") for name in (C01, C02)] == [0, 0]
            assert await after.unfinished() == []


async def test_a_late_fill_of_a_signal_that_was_closed_meanwhile_is_closed(world: World) -> None:
    """Given up, closed by its provider, then executed: adopting it would leave a leg that nobody closes (INV-6)."""
    intent = await an_entry_that_ended(world, OrderState.ABANDONED)
    await world.give(world.close_signal())
    await asyncio.sleep(1)
    assert await world.unfinished() == []
    execute_late(world, intent.client_id, intent.lot, intent.stop_loss)
    await until(lambda: bool(world.entries()) and not world.held() and not world.lots(), 5)
    assert "late fill adopted" not in world.pages()

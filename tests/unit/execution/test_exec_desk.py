"""A desk on a real venue: entries, exits, restarts."""

from __future__ import annotations

from decimal import Decimal

from srm_agent.domain.trades import CloseReason, LegState
from tests.unit.execution.conftest import Bench, until


async def test_an_entry_and_its_close(bench: Bench) -> None:
    """Open fills the leg, close flattens it, the journal knows both."""
    leg = await bench.enter()
    assert bench.held() == Decimal("0.3")
    bench.desk.close(leg, Decimal(1), CloseReason.PROVIDER, "close:m1")
    await until(lambda: bench.leg(leg).state is LegState.CLOSED)
    assert bench.leg(leg).close_reason is CloseReason.PROVIDER
    assert not bench.held()
    await bench.desk.writer.drained()
    assert not await bench.journal.open_legs(leg.connection_id)

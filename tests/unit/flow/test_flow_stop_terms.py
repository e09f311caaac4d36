"""What policy and equity allow a stop in force."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.ids import Symbol
from srm_agent.domain.policies import StopPolicy
from srm_agent.stop_terms import risk_cap_of, stop_policy_of
from tests.unit.flow.conftest import World


async def test_the_cap_is_a_share_of_an_equity_that_is_known(world: World) -> None:
    """Equity x max_risk while the account is ACTIVE; not known when it is not, nor for a symbol without terms."""
    await world.opened()
    (leg,) = world.a.desk.ledger.legs.values()
    equity = world.a.equity()
    assert equity is not None
    assert risk_cap_of(world.a, leg) == equity.value * Decimal("0.02")
    assert stop_policy_of(world.a, leg) == StopPolicy()
    assert risk_cap_of(world.a, replace(leg, symbol=Symbol("XYZ/USDT:USDT"))) is None
    await world.control.halt(HaltScope.CONNECTION, "c01", "test", "ann")
    assert risk_cap_of(world.a, leg) is None

"""SIGHUP: what changes at run time, what waits for a restart, and that a mistake changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from srm_agent import failpoints
from srm_agent.clock import ManualClock
from srm_agent.domain.instrument import AssetClass
from srm_agent.roster import Roster
from srm_agent.settings import Settings, load
from srm_agent.supervision.life import Reload
from srm_agent.supervision.reload import Reloader
from tests.unit.execution.conftest import ALPHA
from tests.unit.flow.conftest import C01, C02, World, agent
from tests.unit.supervision.conftest import Told

CONFIG = """
[agent]
name = "{name}"
[protection]
emergency_scope = "account"
max_drawdown = {max_drawdown}
daily_loss = {daily_loss}
[venues.simulator]
environment = "testnet"
[policies.crypto.limits]
max_risk = {max_risk}
[instruments."BTC/USDT:USDT"]
pip_size = 1
[providers.alpha]
[[connections]]
id = "c01"
follower = "f"
venue = "simulator"
providers = ["alpha"]
risk_per_trade = {risk}
[[connections]]
id = "c02"
follower = "f"
venue = "simulator"
providers = ["alpha"]
max_drawdown = 0.1
{more}
"""
USUAL = {"name": "a", "max_drawdown": "0.2", "daily_loss": "0.05", "max_risk": "0.02", "risk": "0.01", "more": ""}

Written = Callable[..., Settings]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Write and read a configuration with some values changed."""

    def _write(**changes: str) -> Settings:
        path = tmp_path / "srm.toml"
        path.write_text(CONFIG.format(**(USUAL | changes)))
        return load(path)

    return _write


@pytest.fixture
def points() -> Iterator[list[str]]:
    """Crash points that were passed."""
    passed: list[str] = []
    failpoints.arm(passed.append)
    yield passed
    failpoints.arm(None)


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    """Both accounts at work."""
    (tmp_path / "state").mkdir()
    async with agent(tmp_path / "state") as made:
        yield made


def _roster(world: World) -> Roster:
    return Roster([account.member for account in world.flow.accounts.values()])


@pytest.mark.fault("P3")
async def test_limits_policies_and_copy_settings_change(world: World, written: Written, points: list[str]) -> None:
    """Drawdown, day's loss, ceilings and a follower's risk are in force at once, in roster and accounts."""
    roster, reloader = _roster(world), Reloader(written())
    changed = reloader.adopt(
        written(max_drawdown="0.15", daily_loss="0.03", max_risk="0.01", risk="0.005"), roster, world.flow.accounts
    )
    assert changed.waiting == ()
    assert set(changed.applied) == {
        "protection.max_drawdown: 0.2 -> 0.15",
        "protection.daily_loss: 0.05 -> 0.03",
        "policies.crypto.limits.max_risk: 0.02 -> 0.01",
        "connections.c01.risk_per_trade: 0.01 -> 0.005",
    }
    first, second = world.flow.accounts[C01], world.flow.accounts[C02]
    assert first.guard.limits.max_drawdown == first.member.max_drawdown == Decimal("0.15")
    assert second.guard.limits.max_drawdown == Decimal("0.1"), "its own limit stands"
    assert first.guard.limits.daily_loss == Decimal("0.03")
    assert first.member.copy.risk_per_trade == Decimal("0.005")
    assert first.member.policies[AssetClass.CRYPTO].policy.limits.max_risk == Decimal("0.01")
    assert roster.followers(ALPHA) == [first.member, second.member]
    assert roster.members[C01] is first.member
    assert points.count("CP13") == 2


async def test_the_rest_waits_for_a_restart(world: World, written: Written) -> None:
    """Another name, another scope, a third connection: said, not done; the reloadable beside them is done."""
    third = '[[connections]]\nid = "c03"\nfollower = "f"\nvenue = "simulator"\nproviders = ["alpha"]'
    roster, reloader = _roster(world), Reloader(written())
    changed = reloader.adopt(written(name="b", risk="0.002", more=third), roster, world.flow.accounts)
    assert changed.applied == ("connections.c01.risk_per_trade: 0.01 -> 0.002",)
    assert "agent.name: a -> b" in changed.waiting
    assert "connections.c03.id: unset -> c03" in changed.waiting
    assert set(roster.members) == {C01, C02}


async def test_a_second_reload_compares_with_what_is_in_force(world: World, written: Written) -> None:
    """Changed back is a change again; what still waits for the restart is said again."""
    roster, reloader = _roster(world), Reloader(written())
    reloader.adopt(written(name="b", risk="0.002"), roster, world.flow.accounts)
    changed = reloader.adopt(written(name="b"), roster, world.flow.accounts)
    assert changed.applied == ("connections.c01.risk_per_trade: 0.002 -> 0.01",)
    assert changed.waiting == ("agent.name: a -> b",)


class Reborn:
    """A life with an agent in it, or not yet."""

    def __init__(self, world: World | None) -> None:
        self.agent: Any = None
        if world is not None:
            supervisor = type("S", (), {"ready": staticmethod(lambda: self.said.append("READY"))})
            daemon = type("D", (), {"supervisor": supervisor})
            parts = {"roster": _roster(world), "flow": world.flow, "notifier": world.notifier, "daemon": daemon}
            self.agent = type("A", (), parts)
        self.said: list[str] = []


@pytest.mark.fault("P3")
async def test_a_mistake_changes_nothing_and_is_told(
    world: World, written: Written, manager: Told, clock: ManualClock
) -> None:
    """A misspelt key: the old configuration stands, people are paged, the manager hears the end of the reload (P3)."""
    life: Any = Reborn(world)
    before = world.flow.accounts[C01].member
    reload = Reload(written(), lambda: written(more="max_los = 1"), life, manager, clock)
    reload()
    assert world.flow.accounts[C01].member is before
    assert world.pages() == ["configuration refused"]
    assert manager.lines == ["RELOADING"]
    assert life.said == ["READY"]


async def test_a_new_life_keeps_what_was_reloaded(
    world: World, written: Written, manager: Told, clock: ManualClock
) -> None:
    """The database came back after a reload: the new life begins with the limits in force before it."""
    life: Any = Reborn(world)
    reload = Reload(written(), lambda: written(risk="0.003"), life, manager, clock)
    reload.renew(life.agent)
    before = world.flow.accounts[C01].member
    reload()
    adopted = world.flow.accounts[C01].member
    assert (before.copy.risk_per_trade, adopted.copy.risk_per_trade) == (Decimal("0.01"), Decimal("0.003"))
    world.flow.accounts[C01].member = before
    reload.renew(life.agent)
    assert world.flow.accounts[C01].member.copy.risk_per_trade == Decimal("0.003")


def test_a_reload_while_starting_is_put_off(written: Written, manager: Told, clock: ManualClock) -> None:
    """No agent yet: nothing is read, the manager is not told of a reload that does not happen."""
    life: Any = Reborn(None)
    Reload(written(), lambda: pytest.fail("was read"), life, manager, clock)()
    assert manager.lines == []

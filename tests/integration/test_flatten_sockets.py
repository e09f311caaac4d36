"""`srm-agent flatten` and `check --flatten` over real sockets, with the keys and files of a daemon that died."""

from __future__ import annotations

import asyncio
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from simulator.records import OrderTicket
from srm_agent.check import run_checks
from srm_agent.clock import SystemClock
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ConnectionId
from srm_agent.domain.units import Side
from srm_agent.errors import UsageError
from srm_agent.flatten_command import FlattenOptions, chosen, run_flatten, scope_of
from srm_agent.settings import Credentials, load
from tests.integration.conftest import ACCOUNTS, CONFIG, CONNECTION, World

D = Decimal


def configured(world: World, *, scope: str = "account", port: int = 8787) -> Path:
    """The configuration as the daemon's, written anew."""
    path = world.home / "flatten.toml"
    connections = "".join(CONNECTION.format(name=name, more="") for name in ACCOUNTS)
    text = CONFIG.format(home=world.home / "data", url=world.server.url, connections=connections)
    text = text.replace('emergency_scope = "account"', f'emergency_scope = "{scope}"')
    path.write_text(text.replace("port = 0", f"port = {port}"))
    return path


async def flatten(world: World, config: Path, *names: str, scope: str | None = None) -> tuple[bool, str]:
    """The command as a person sees it: whether it exits 0, and what stands on the screen."""
    screen = io.StringIO()
    settings = load(config)
    options = FlattenOptions(connections=names, everything=not names, reason="a test", scope=scope, timeout_s=20)
    done = await run_flatten(
        settings, Credentials(world.home / "secrets"), options, SystemClock(), Console(file=screen, width=160)
    )
    return done, screen.getvalue()


def halts(world: World) -> dict[str, str]:
    """State by key, as the file says it."""
    return {row["key"]: row["state"] for row in json.loads((world.home / "data" / "halts.json").read_text())}


async def test_the_daemon_is_dead(world: World) -> None:
    """Killed with positions open: flat, latched, with a table in money; the next daemon starts HALTED (K4)."""
    async with world.agent(abrupt=True) as running:
        await running.open()
        await running.until(lambda: all(running.open_lots(name) for name in ACCOUNTS))
    world.venue.place("c01", OrderTicket(symbol_id="EURUSDT", side=Side.SELL, lots=D(100)))
    done, screen = await flatten(world, configured(world), "c01")
    assert done, screen
    assert not world.venue.positions("c01")
    assert world.venue.positions("c02"), "only the named connection is meant"
    assert halts(world) == {"c01": "HALTED"}
    for words in ("latched in", "no daemon answers", "what was closed", "BTC/USDT:USDT", "USDT", "c01: flat after"):
        assert words in screen, screen
    assert "unknown" not in screen
    assert "equity 9," in screen
    async with world.agent() as running:
        account = running.agent.flow.accounts[ConnectionId("c01")]
        assert account.state() is ConnectionState.HALTED
        await running.until(lambda: not running.open_lots("c01"), 15)
        await running.open(2, symbol="EUR/USDT:USDT", entry="1.10000", stop_loss="1.09500", take_profit="1.11000")
        await asyncio.sleep(1)
        assert not world.venue.positions("c01")


async def test_beside_a_daemon_that_lives(world: World) -> None:
    """The daemon is told over its control API, takes no entries, closes as well, and nothing is reversed."""
    async with world.agent() as running:
        await running.open()
        await running.until(lambda: all(running.open_lots(name) for name in ACCOUNTS))
        assert running.agent.daemon.port is not None
        config = configured(world, port=running.agent.daemon.port)
        # The command is another process in life; here it only must not stop the daemon's loop while it speaks to it.
        screen = await asyncio.to_thread(lambda: asyncio.run(flatten(world, config)))
        assert screen[0], screen[1]
        for name in ACCOUNTS:
            await running.until(
                lambda name=name: running.agent.flow.accounts[name].state() is ConnectionState.HALTED  # type: ignore[misc]
            )
            assert not world.venue.positions(name)
        assert "the daemon was told" in screen[1]
        await running.until(lambda: not any(running.open_lots(name) for name in ACCOUNTS))
    assert halts(world) == {"c01": "HALTED", "c02": "HALTED"}


async def test_without_the_database(world: World) -> None:
    """Scope account needs none and says so; scope own cannot know what is ours and asks for the other."""
    world.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.01")))
    with pytest.raises(UsageError, match="--scope account"):
        await flatten(world, configured(world, scope="own"), "c01")
    assert world.venue.positions("c01")
    done, screen = await flatten(world, configured(world, scope="own"), "c01", scope="account")
    assert done, screen
    assert "database not read" in screen
    assert not world.venue.positions("c01")


async def test_own_scope_leaves_what_is_not_ours(world: World) -> None:
    """Ours by the journal goes, the rest of the same position and another symbol stay."""
    async with world.agent(abrupt=True) as running:
        await running.open()
        await running.until(lambda: bool(running.open_lots("c01")))
        ours = running.open_lots("c01")
        await asyncio.sleep(0.5)  # the fills reach the journal
    world.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.02")))
    world.venue.place("c01", OrderTicket(symbol_id="EURUSDT", side=Side.SELL, lots=D(100)))
    done, screen = await flatten(world, configured(world, scope="own"), "c01")
    assert done, screen
    assert {p.symbol_id: p.lots for p in world.venue.positions("c01")} == {"BTCUSDT": D("0.02"), "EURUSDT": D(100)}
    assert str(ours.normalize()) in screen


async def test_a_rehearsal_sends_nothing(world: World) -> None:
    """`check --flatten` opens each broker with its key and says what it would close, in which order and how."""
    world.venue.place("c01", OrderTicket(symbol_id="EURUSDT", side=Side.SELL, lots=D(100)))
    world.venue.place("c01", OrderTicket(symbol_id="BTCUSDT", side=Side.BUY, lots=D("0.01")))
    before = [len(world.venue.orders(name)) for name in ACCOUNTS]
    screen = io.StringIO()
    await run_checks(
        configured(world), world.home / "secrets", SystemClock(), Console(file=screen, width=160), flatten=True
    )
    text = screen.getvalue()
    assert [len(world.venue.orders(name)) for name in ACCOUNTS] == before
    assert len(world.venue.positions("c01")) == 2
    assert text.index("sell market, reduce-only") < text.index("buy market, reduce-only")
    assert "600.01 USDT" in text
    assert "flatten c01: 2 closes, 0 withdrawals" in text
    assert "flatten c02: 0 closes, 0 withdrawals" in text
    assert not (world.home / "data" / "halts.json").exists()


def test_what_is_meant_must_be_said(world_settings: Path) -> None:
    """Neither --connection nor --all, both, a name that is not there, a scope that is none: usage errors with names."""
    settings = load(world_settings)

    def options(*names: str, everything: bool = False, scope: str | None = None) -> FlattenOptions:
        return FlattenOptions(connections=names, everything=everything, reason="", scope=scope, timeout_s=1)

    for wrong in (options(), options("c01", everything=True), options("c9")):
        with pytest.raises(UsageError, match="c01, c02"):
            chosen(settings, wrong)
    assert [account.id for account in chosen(settings, options(everything=True))] == ["c01", "c02"]
    assert [account.id for account in chosen(settings, options("c02", "c02"))] == ["c02"]
    with pytest.raises(UsageError, match="account or own, was 'all'"):
        scope_of(settings, options("c01", scope="all"))


@pytest.fixture
def world_settings(tmp_path: Path) -> Path:
    """A configuration without a venue behind it."""
    path = tmp_path / "srm.toml"
    connections = "".join(CONNECTION.format(name=name, more="") for name in ACCOUNTS)
    path.write_text(CONFIG.format(home=tmp_path, url="http://127.0.0.1:1", connections=connections))
    return path

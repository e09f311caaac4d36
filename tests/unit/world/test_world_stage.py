"""The stage and its command line: credentials, scenario files, a short run over sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from simulator.__main__ import is_loopback, main
from simulator.credentials import Credentials, ensure_credentials, parse_webhook_key
from simulator.scenario import DEMO, Scenario, load_scenario
from simulator.stage import Stage, StageOptions
from simulator.webhook_client import sign
from srm_agent.clock import SystemClock
from srm_agent.errors import ConfigurationError

ROOT = Path(__file__).parents[3]


def credentials(directory: Path, seed: int = 1) -> Credentials:
    """Of two accounts and one provider."""
    return ensure_credentials(directory, seed, ["c01", "c02"], ["alpha"])


def test_missing_secrets_are_made_readable_by_the_owner_only(tmp_path: Path) -> None:
    """Directory 0700, files 0600, under the names that the agent reads."""
    directory = tmp_path / "credentials"
    made = credentials(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    names = {path.name for path in directory.iterdir()}
    assert names == {
        "connection.c01.api_key",
        "connection.c01.secret",
        "connection.c02.api_key",
        "connection.c02.secret",
        "provider.alpha.key",
        "operator.token",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert parse_webhook_key((directory / "provider.alpha.key").read_text(), "x") == made.providers["alpha"]
    assert len(made.providers["alpha"]) >= 24


def test_secrets_come_from_the_seed_and_stay(tmp_path: Path) -> None:
    """The same seed draws the same, another seed leaves existing files alone."""
    one, two = credentials(tmp_path / "a"), credentials(tmp_path / "b")
    assert one == two
    assert credentials(tmp_path / "a", seed=2) == one
    assert credentials(tmp_path / "c", seed=2) != one
    assert one.accounts["c01"] != one.accounts["c02"]


def test_secrets_never_show(tmp_path: Path) -> None:
    """Neither in a repr nor in the error about a broken key."""
    made = credentials(tmp_path)
    secret = made.accounts["c01"].secret
    assert secret not in repr(made)
    assert secret not in repr(made.accounts["c01"])
    with pytest.raises(ConfigurationError, match=r"provider\.alpha\.key") as error:
        parse_webhook_key("whsec_c2VjcmV0", "provider.alpha.key")
    assert "c2VjcmV0" not in str(error.value)
    with pytest.raises(ConfigurationError, match="whsec_"):
        parse_webhook_key("plain", "provider.alpha.key")


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The message names the file and the remedy."""
    credentials(tmp_path)
    (tmp_path / "operator.token").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        credentials(tmp_path)


def test_the_demo_has_the_world_it_promises(demo: Scenario) -> None:
    """Six instruments, six providers of different styles, ten accounts from 800 to 250,000."""
    assert len(demo.instruments) == 6
    assert len({part.style for part in demo.providers}) == 6
    balances = sorted(part.balance for part in demo.accounts)
    assert (len(balances), balances[0], balances[-1]) == (10, Decimal(800), Decimal(250_000))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('style = "swing"', 'style = "genius"', "style must be one of"),
        ('victim = "foxtrot"', 'victim = "alpha"', "loss_holder"),
        ("spread_bps = 0.5", "spread_bps = -1", "spread_bps"),
        ("history_days = 5", "history_day = 5", "history_day"),
        ('id = "c02"', 'id = "c01"', "declared 2 times"),
        ("[market]", "[market", "not TOML"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_by_key(tmp_path: Path, old: str, new: str, words: str) -> None:
    """The error names the file and what is wrong."""
    path = tmp_path / "bad.toml"
    path.write_text(DEMO.read_text().replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=words) as error:
        load_scenario(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "command"),
        (["bybit"], 64, "--credentials"),
        (["bybit", "--credentials", "{}", "--host", "0.0.0.0"], 64, "--allow-remote"),
        (["bybit", "--credentials", "{}", "--speed", "nan"], 64, "--speed"),
        (["bybit", "--credentials", "{}", "--seconds", "-1"], 64, "--seconds"),
        (["bybit", "--credentials", "{}", "--port", "70000"], 64, "--port"),
        (["bybit", "--credentials", "{}", "--webhook", "http://198.51.100.7/"], 64, "--allow-remote"),
        (["bybit", "--credentials", "{}", "--webhook", "127.0.0.1:80"], 64, "--webhook"),
        (["bybit", "--credentials", "{}", "--report", "{}/no/such/report.json"], 64, "--report"),
        (["bybit", "--credentials", "{}", "--scenario", "{}/none.toml"], 78, "none.toml"),
    ],
)
def test_bad_arguments_end_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    """Exit 64 for usage, 78 for a scenario; one line that names the option."""
    assert main([argument.replace("{}", str(tmp_path)) for argument in arguments]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_loopback_is_recognised() -> None:
    """Names and addresses of this machine only."""
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "192.168.1.1", "example.com", "::"))


class Agent:
    """Stands where the agent will: unhealthy at first, then takes signed signals."""

    def __init__(self) -> None:
        self.asked = 0
        self.signals: list[tuple[str, dict[str, str], bytes]] = []

    async def health(self, _: web.Request) -> web.Response:
        """503 twice, then 200."""
        self.asked += 1
        return web.Response(status=200 if self.asked > 2 else 503)

    async def take(self, request: web.Request) -> web.Response:
        """Accept everything."""
        assert self.asked > 2
        self.signals.append((request.match_info["provider"], dict(request.headers), await request.read()))
        return web.Response(status=202)


async def test_a_short_run_over_sockets(tmp_path: Path, demo: Scenario) -> None:
    """Providers wait for health, every signal is signed with its provider's key, the report adds up, the run ends."""
    agent = Agent()
    app = web.Application()
    app.router.add_get("/health", agent.health)
    app.router.add_post("/signals/channel_source/{provider}", agent.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    options = StageOptions(
        credentials=tmp_path,
        seed=3,
        speed=2_400.0,
        seconds=1.5,
        webhook=f"http://127.0.0.1:{runner.addresses[0][1]}",
    )
    stage = Stage(demo, options, SystemClock())
    await stage.open()
    playing = asyncio.create_task(stage.play())
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{stage.server.url}/_sim/report") as answer:
                first = await answer.json()
            async with asyncio.timeout(10):
                await playing
            async with session.get(f"{stage.server.url}/_sim/report") as answer:
                report = await answer.json()
    finally:
        await stage.close()
        await runner.cleanup()
    assert first["run_started"] is None
    assert first["events"][0]["kind"] == "gap_declared"
    assert report["seed"] == 3
    assert report["market_start"] == "2026-01-05T11:00:00.000Z"
    assert report["market_now"] > report["run_started"] > report["market_start"]
    assert {"gap_declared", "gap_scheduled", "gap", "deposit", "withdrawal"} <= {
        event["kind"] for event in report["events"]
    }
    assert [row["id"] for row in report["providers"]] == [part.id for part in demo.providers]
    assert sum(row["accepted"] for row in report["providers"]) == len(agent.signals) > 60
    assert {row["id"]: row["balance"] for row in report["accounts"]}["c04"] == "50000"
    keys = ensure_credentials(tmp_path, 3, [], [part.id for part in demo.providers]).providers
    for provider, headers, body in agent.signals:
        timestamp = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == sign(keys[provider], headers["webhook-id"], timestamp, body)


async def test_the_command_says_when_it_is_ready_and_reports_when_stopped(tmp_path: Path) -> None:
    """First line of output is the JSON of readiness; SIGTERM ends it with 0 and a report file."""
    report = tmp_path / "report.json"
    arguments = ["bybit", "--credentials", str(tmp_path / "keys"), "--seed", "4", "--report", str(report)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulator", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        ready = json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert ready["ready"] is True
    assert ready["seed"] == 4
    assert ready["port"] > 0
    assert ready["market_start"] == "2026-01-05T11:00:00.000Z"
    assert json.loads(report.read_text())["seed"] == 4

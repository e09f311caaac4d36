"""`srm-agent demo`: a venue in its own process, the daemon as `run` starts it, a screen, a report."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console

from srm_agent.assembly import Agent
from srm_agent.bootstrap import build, secrets_of
from srm_agent.clock import Clock
from srm_agent.daemon import Ending
from srm_agent.demo.report import Run, machine_report, print_report
from srm_agent.demo.screen import Screen
from srm_agent.demo.story import Story
from srm_agent.demo.venue_process import VenueFailed, VenueOptions, VenueProcess
from srm_agent.domain.ids import ProviderKey
from srm_agent.errors import ConfigurationError
from srm_agent.logs import configure
from srm_agent.settings import Credentials, Settings, load

CONFIG = Path(__file__).resolve().parents[2] / "config" / "demo.toml"
SPEED = 120.0
MARGIN_S = 8.0
"""The venue outlives the agent by this much, so that the report can be read from both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the command line says."""

    seconds: float
    seed: int
    json_path: Path | None
    config: Path = CONFIG


async def run_demo(options: DemoOptions, clock: Clock, console: Console) -> None:
    """Play it once. Raises VenueFailed, ConfigurationError, OSError (report file)."""
    if options.json_path is not None and not options.json_path.absolute().parent.is_dir():
        raise ConfigurationError(f"--json: directory {str(options.json_path.absolute().parent)!r} does not exist")
    with tempfile.TemporaryDirectory(prefix="srm-demo-") as directory:
        home = Path(directory)
        intake_port = _free_port()
        venue = VenueProcess(
            VenueOptions(
                credentials=home / "credentials",
                webhook=f"http://127.0.0.1:{intake_port}",
                seed=options.seed,
                speed=SPEED,
                seconds=options.seconds + MARGIN_S,
            )
        )
        with console.status("starting the simulated venue…") if console.is_terminal else _Nothing():
            await venue.start()
        try:
            settings = _settings(options.config, home, venue.url, intake_port)
            run = await _play(options, settings, Credentials(home / "credentials"), venue, clock, console)
        finally:
            await venue.stop()
    print_report(console, run)
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(machine_report(run), indent=2) + "\n", encoding="utf-8")
        console.print(f"report for machines: {options.json_path}", markup=False, highlight=False, soft_wrap=True)


def _settings(path: Path, home: Path, venue_url: str, intake_port: int) -> Settings:
    return load(
        path,
        {
            "agent": {"data_dir": str(home / "agent")},
            "store": {"url": f"sqlite:///{home / 'agent' / 'srm.db'}"},
            "intake": {"port": intake_port},
            "venues": {"bybit": {"base_url": venue_url}},
        },
    )


async def _play(
    options: DemoOptions,
    settings: Settings,
    credentials: Credentials,
    venue: VenueProcess,
    clock: Clock,
    console: Console,
) -> Run:
    log_file = (Path(settings.agent.data_dir).parent / "srm.log").open("w", encoding="utf-8")
    configure(settings.agent.log_level, settings.agent.log_format, secrets_of(settings, credentials), log_file)
    agent = await build(settings, credentials, clock, random.Random(options.seed))
    story = Story()
    agent.flow.observers.append(story)
    stop, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave.set)
    daemon = asyncio.create_task(agent.daemon.run(stop), name="daemon")
    try:
        started = await _until_ready(agent, daemon, leave, clock)
        await _watch(options, agent, story, daemon, leave, started, clock, console)
        truth = await _truth(venue)
        run = Run(
            seed=options.seed,
            duration_s=clock.monotonic() - started,
            story=story,
            accounts=[*agent.flow.accounts.values()],
            scores={key: agent.scorer.score(key) for key in _providers(settings)},
            counters=agent.flow.status(),
            venue=truth,
            names={provider: terms.name for provider, terms in settings.providers.items()},
        )
    finally:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await asyncio.wait({daemon}, timeout=20)
    daemon.result()
    return run


def _providers(settings: Settings) -> list[ProviderKey]:
    return [settings.provider_key(provider) for provider in settings.providers]


async def _until_ready(agent: Agent, daemon: asyncio.Task[Ending], leave: asyncio.Event, clock: Clock) -> float:
    ready, gone = asyncio.create_task(agent.daemon.ready.wait()), asyncio.create_task(leave.wait())
    await asyncio.wait({ready, gone, daemon}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    gone.cancel()
    if daemon.done():
        daemon.result()
    return clock.monotonic()


async def _watch(
    options: DemoOptions,
    agent: Agent,
    story: Story,
    daemon: asyncio.Task[Ending],
    leave: asyncio.Event,
    started: float,
    clock: Clock,
    console: Console,
) -> None:
    market = next(iter(agent.markets.values()))
    with Screen(console, story, market, options.seconds, options.seed) as screen:
        while not leave.is_set() and not daemon.done() and clock.monotonic() - started < options.seconds:
            screen.draw([*agent.flow.accounts.values()], clock.monotonic() - started)
            await asyncio.sleep(0.25)
    if daemon.done():
        daemon.result()


async def _truth(venue: VenueProcess) -> Mapping[str, object]:
    try:
        return await venue.report()
    except (aiohttp.ClientError, OSError, VenueFailed):
        return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None

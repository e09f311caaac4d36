"""`python -m simulator bybit ...`: a simulated venue behind Bybit's wire protocol, with providers of known skill.

Exit codes: 0, 1 failure, 64 usage, 78 configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import structlog

from simulator.report import Report, market_text
from simulator.scenario import DEMO, load_scenario
from simulator.stage import Stage, StageOptions
from srm_agent.clock import SystemClock
from srm_agent.errors import ConfigurationError, UsageError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Usage errors end with 64 and one line (argparse: 2 and the usage)."""
        raise UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="srm-simulator", description="A simulated venue for the SRM agent.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    bybit = commands.add_parser("bybit", help="a venue behind Bybit's V5 REST and WebSocket protocol")
    bybit.add_argument("--port", type=int, default=0, help="0 takes a free one, see the first line of output")
    bybit.add_argument("--host", default="127.0.0.1")
    bybit.add_argument("--allow-remote", action="store_true", help="listen on, or post to, more than loopback")
    bybit.add_argument("--credentials", type=Path, required=True, help="directory; missing secrets are created")
    bybit.add_argument("--webhook", help="base URL of the agent's intake; providers wait until its /health is 200")
    bybit.add_argument("--seed", type=int, default=1)
    bybit.add_argument("--speed", type=float, default=120.0, help="market seconds per second")
    bybit.add_argument("--seconds", type=float, default=0.0, help="length of the run after its beginning, 0 = no end")
    bybit.add_argument("--scenario", type=Path, default=DEMO)
    bybit.add_argument("--report", type=Path, help="write the report (JSON) here at the end")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError naming the option, its value and the remedy."""
    if not 0 <= arguments.port <= 65_535:
        raise UsageError(f"--port must be 0..65535, was {arguments.port}")
    if not (isfinite(arguments.speed) and 0 < arguments.speed <= 3600):
        raise UsageError(f"--speed must be above 0 and at most 3600, was {arguments.speed}")
    if not (isfinite(arguments.seconds) and (arguments.seconds == 0 or arguments.seconds >= 5)):
        raise UsageError(f"--seconds must be 0 (no end) or at least 5, was {arguments.seconds}")
    if arguments.report is not None and not arguments.report.absolute().parent.is_dir():
        raise UsageError(f"--report: directory {arguments.report.absolute().parent} does not exist; create it first")
    webhook = urlsplit(arguments.webhook) if arguments.webhook is not None else None
    if webhook is not None and (webhook.scheme not in ("http", "https") or not webhook.hostname):
        raise UsageError(f"--webhook must be an http(s) URL, was {arguments.webhook!r}")
    if arguments.allow_remote:
        return
    if not is_loopback(arguments.host):
        raise UsageError(f"--host must be loopback, was {arguments.host!r}; --allow-remote if you mean it")
    if webhook is not None and not is_loopback(webhook.hostname or ""):
        raise UsageError(f"--webhook must be on loopback, was {arguments.webhook!r}; --allow-remote if you mean it")


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1 or localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def write_report(path: Path, report: Report) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(partial, path)


async def _run(arguments: argparse.Namespace) -> None:
    options = StageOptions(
        credentials=arguments.credentials,
        seed=arguments.seed,
        speed=arguments.speed,
        seconds=arguments.seconds,
        host=arguments.host,
        port=arguments.port,
        webhook=arguments.webhook,
    )
    stage = Stage(load_scenario(arguments.scenario), options, SystemClock())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stage.end)
    try:
        await stage.open()
        ready = {
            "ready": True,
            "port": stage.server.port,
            "market_start": market_text(stage.story.start_ms),
            "seed": options.seed,
        }
        sys.stdout.write(json.dumps(ready, separators=(",", ":")) + "\n")
        sys.stdout.flush()
        await stage.play()
    finally:
        if arguments.report is not None and stage.server.port:
            write_report(arguments.report, stage.report())
        await stage.close()


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        # Looked up at every call: standard error may have been replaced since.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    _log_to_stderr()
    try:
        arguments = _parser().parse_args(argv)
        _check(arguments)
        asyncio.run(_run(arguments))
    except UsageError as error:
        return _fail(64, str(error))
    except ConfigurationError as error:
        return _fail(78, str(error))
    except OSError as error:
        return _fail(1, str(error))
    return 0


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"srm-simulator: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

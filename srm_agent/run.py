"""`srm-agent run`: the daemon as a process, with what a simulation does without: signals, threads, a manager."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import signal
import sys
from pathlib import Path
from typing import TextIO, cast

import structlog

from srm_agent import failpoints
from srm_agent.assembly import Agent
from srm_agent.bootstrap import build, make_directory, secrets_of
from srm_agent.clock import SystemClock
from srm_agent.errors import ConfigurationError
from srm_agent.files import DiskFiles
from srm_agent.log_pipe import LogPipe
from srm_agent.logs import configure
from srm_agent.settings import Credentials, Settings, load
from srm_agent.supervision.health import STANDSTILL_S
from srm_agent.supervision.life import Life, Reload
from srm_agent.supervision.notify import manager_of
from srm_agent.supervision.stall import TracebackDump
from srm_agent.supervision.starts import StartRecord

log = structlog.get_logger()


async def serve(settings: Settings, secrets: Credentials, config: Path, exits_only: str) -> None:
    """Until SIGTERM or SIGINT. `exits_only`: why this process is to be a guard, empty to let the record of starts say.

    Raises the error that ended it.
    """
    faulthandler.enable(sys.stderr)  # the watchdog's SIGABRT then leaves a traceback of every thread
    pipe = LogPipe(sys.stderr)
    configure(settings.agent.log_level, settings.agent.log_format, secrets_of(settings, secrets), cast(TextIO, pipe))
    try:
        if failpoint := os.environ.get(failpoints.VARIABLE):
            failpoints.arm_from(failpoint)
            log.error("THIS PROCESS WILL KILL ITSELF: a crash point is armed", armed=failpoint)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    clock, manager = SystemClock(), manager_of(os.environ, os.getpid())
    dump, rng, stop = TracebackDump(STANDSTILL_S, sys.stderr), random.Random(), asyncio.Event()

    async def make(guard: str) -> Agent:
        agent = await build(settings, secrets, clock, rng, manager=manager, dump=dump, exits_only=guard)
        reload.renew(agent)
        return agent

    make_directory(Path(settings.agent.data_dir), "agent.data_dir")
    starts = StartRecord(DiskFiles(Path(settings.agent.data_dir)), clock, settings.agent.guard_after)
    life = Life(make, starts, exits_only=exits_only)
    reload = Reload(settings, lambda: load(config), life, manager, clock)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await life.run(stop)
    finally:
        dump.disarm()
        pipe.close()

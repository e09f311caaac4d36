"""The simulated venue as a process of its own, reached over sockets like any broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from srm_agent.errors import SrmError

START_S = 30.0


class VenueFailed(SrmError):
    """The simulator did not start, or ended before its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueOptions:
    """What the simulator is told."""

    credentials: Path
    webhook: str
    seed: int
    speed: float
    seconds: float


class VenueProcess:
    """`python -m simulator bybit …` with its first line read."""

    def __init__(self, options: VenueOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Base URL of its REST API."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start and wait for the ready line. Raises VenueFailed with what it said."""
        options = self._options
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "simulator", "bybit", "--port", "0", "--credentials", str(options.credentials)),
            *("--webhook", options.webhook, "--seed", str(options.seed)),
            *("--speed", str(options.speed), "--seconds", str(options.seconds)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C is ours: we end it after the agent
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await self._process.stdout.readline()
            self.port = int(json.loads(line)["port"])
        except (TimeoutError, ValueError, KeyError, TypeError):
            raise VenueFailed(f"the simulator did not start: {await self._last_words()}") from None

    async def report(self) -> dict[str, object]:
        """The simulator's own account of the run: true skills and declared events."""
        async with aiohttp.ClientSession(trust_env=False) as session, session.get(f"{self.url}/_sim/report") as reply:
            content = await reply.json()
            if not isinstance(content, dict):
                raise VenueFailed(f"the simulator's report is no table, was {content!r:.80}")
            return content

    async def stop(self) -> None:
        """End it; idempotent."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(5):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _last_words(self) -> str:
        process = self._process
        if process is None or process.stderr is None:
            return "no output"
        if process.returncode is None:
            process.kill()
        return (await process.stderr.read())[-500:].decode(errors="replace").strip() or "no output"

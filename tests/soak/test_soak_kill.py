"""The kill -9 soak in `make test` (20 kills) and in `make soak` (500)."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.soak.kill_daemon import ROOT

LONG = os.environ.get("SRM_TEST_PROFILE") == "soak"
KILLS, LANES, PATIENCE_S = (500, 3, 5400) if LONG else (20, 2, 900)


def test_twenty_kills_lose_and_double_nothing() -> None:
    """After kill -9 at every crash point that exists and at random moments, venue, database and providers agree."""
    command = [sys.executable, "-m", "tests.soak.kill", "--kills", str(KILLS), "--lanes", str(LANES), "--db", "sqlite"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SRM_")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    assert "duplicates 0 orphans 0 lost 0 unresolved 0" in done.stdout.splitlines()[-1]

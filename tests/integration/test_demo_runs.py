"""`srm-agent demo` as a person starts it: a process of its own, real sockets, its report read afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from simulator.credentials import ensure_credentials
from simulator.scenario import load_scenario
from srm_agent.__main__ import run

ROOT = Path(__file__).resolve().parents[2]
LONG, SHORT, CUT = 11, 12, 13
"""Seeds of the run of 30 s, of the run of 12 s, and of the run that Ctrl-C ends."""
KEYS = {
    "seed", "duration_s", "signals", "decisions", "orders", "fills", "slippage_pips", "latency_ms", "providers",
    "connections", "emergency_closes", "explanation", "events",
}  # fmt: skip

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """One demonstration that is over."""

    seed: int
    code: int
    output: str
    report: Report


async def _demo(home: Path, seed: int, seconds: float, *, interrupt_after: float | None = None) -> Ended:
    path = home / f"{seed}.json"
    words = ("-m", "srm_agent", "demo", "--seconds", f"{seconds:g}", "--seed", str(seed), "--json", str(path))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *words),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("SRM_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    reading = asyncio.create_task(process.communicate())
    if interrupt_after is not None:
        await asyncio.sleep(interrupt_after)
        process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(seconds + 30):
            output, _ = await asyncio.shield(reading)
    finally:
        if process.returncode is None:
            process.kill()
            await reading
    assert process.returncode is not None
    text = output.decode()
    assert path.exists(), text
    return Ended(seed, process.returncode, text, json.loads(path.read_text()))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Ended]:
    """A long run, and beside it a short one and one that is interrupted."""
    home = tmp_path_factory.mktemp("demo")

    async def beside() -> Sequence[Ended]:
        return [await _demo(home, SHORT, 12), await _demo(home, CUT, 60, interrupt_after=9)]

    async def play() -> Sequence[Ended]:
        long, others = await asyncio.gather(_demo(home, LONG, 30), beside())
        return [long, *others]

    return {ended.seed: ended for ended in asyncio.run(play())}


@pytest.fixture(scope="module")
def report(runs: dict[int, Ended]) -> Report:
    """What the long run says for machines."""
    return runs[LONG].report


def test_every_run_ends_with_its_report_and_exit_0(runs: dict[int, Ended]) -> None:
    """In its own time or by Ctrl-C, the demonstration closes with tables for people and JSON for machines."""
    assert {seed: ended.code for seed, ended in runs.items()} == {LONG: 0, SHORT: 0, CUT: 0}
    for ended in runs.values():
        assert ended.report.keys() >= KEYS
        assert ended.report["seed"] == ended.seed
        for title in ("decisions by reason", "entry slippage in pips", "provider score", "accounts", "declared"):
            assert title in ended.output
    assert 30 <= runs[LONG].report["duration_s"] < 33
    assert 12 <= runs[SHORT].report["duration_s"] < 15
    assert runs[CUT].report["duration_s"] < 12


def test_nothing_is_printed_that_should_not_be(runs: dict[int, Ended]) -> None:
    """No traceback, and none of the secrets, which the same seed draws again in another directory."""
    scenario = load_scenario()
    accounts = [follower.account_id for follower in scenario.followers()]
    providers = [plan.provider_id for plan in scenario.plans()]
    for ended in runs.values():
        assert "Traceback" not in ended.output
        assert "Error" not in ended.output
        for secret in _secrets(ended.seed, accounts, providers):
            assert secret not in ended.output
            assert secret not in json.dumps(ended.report)


def _secrets(seed: int, accounts: Sequence[str], providers: Sequence[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        ensure_credentials(Path(directory), seed, accounts, providers)
        found = [path.read_text() for path in Path(directory).iterdir()]
    assert len(found) == 2 * len(accounts) + len(providers) + 1
    return found


def test_the_counts_agree(report: Report) -> None:
    """Each accepted decision is one order; trades need fills; refusals have at least three different reasons."""
    decisions = report["decisions"]
    assert report["signals"] > 20
    assert decisions["accepted"] > 20
    assert len(decisions["refused"]) >= 3
    assert all(re.fullmatch(r"[A-Z_]+", code) and count > 0 for code, count in decisions["refused"].items())
    assert report["orders"] == decisions["accepted"]
    assert report["fills"] >= report["trades"] > 0


def test_execution_is_measured(report: Report) -> None:
    """Slippage per symbol over crypto and FX, signed; latency of signal to fill within a second."""
    slippage = report["slippage_pips"]
    assert len(slippage) >= 3
    assert sum(row["n"] for row in slippage.values()) <= report["orders"]
    assert all(row["n"] > 0 for row in slippage.values())
    assert any(row["p90"] > 0 for row in slippage.values())
    assert 0 < report["latency_ms"]["p50"] < 1000
    assert report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]


def test_each_provider_has_a_score_beside_his_true_skill(report: Report) -> None:
    """At least five providers of different skill and style; the score lies in its interval, the truth beside it."""
    providers = report["providers"]
    assert len(providers) >= 5
    for provider in providers:
        low, high = provider["interval"]
        assert 0 <= low <= provider["score"] <= high <= 100
        assert -1 <= provider["true_skill"] <= 1
    assert len({provider["true_skill"] for provider in providers}) == len(providers)
    assert len({provider["style"] for provider in providers}) >= 5


def test_the_explanation_ends_in_exactly_the_lot_sent(report: Report) -> None:
    """The steps chain without a gap, several changed the lot, and the last one is the lot."""
    explained = report["explanation"]
    steps = explained["steps"]
    assert Decimal(steps[0]["lot_in"]) == 0
    for before, after in pairwise(steps):
        assert before["lot_out"] == after["lot_in"]
    assert steps[-1]["lot_out"] == explained["lot"]
    assert sum(step["lot_in"] != step["lot_out"] for step in steps) >= 3
    assert explained["lot"] in explained["sentence"].replace(",", "")


def test_the_declared_gap_comes(report: Report) -> None:
    """The seed's gap is declared before the run and then happens, same symbol and size."""
    events = {event["kind"]: event for event in report["events"] if event["kind"].startswith("gap")}
    declared, happened = events["gap_declared"], events["gap"]
    assert declared["symbol"] == happened["symbol"]
    assert declared["size"] == happened["size"]
    assert abs(happened["size"]) > 0.05


def test_one_account_is_closed_by_its_drawdown_and_the_others_live(report: Report) -> None:
    """The gap drives the over-leveraged account beyond 20 %: closed, flat, HALTED. Nobody else is touched."""
    closed = {close["connection"] for close in report["emergency_closes"]}
    assert closed == {"c07"}
    assert len(report["connections"]) == 10
    for connection in report["connections"]:
        if connection["id"] in closed:
            assert connection["state"] == "HALTED"
            assert connection["drawdown"] >= 0.2
            assert connection["open_legs"] == 0
        else:
            assert connection["state"] == "ACTIVE"
            assert connection["drawdown"] < 0.2


def test_another_seed_tells_another_story(runs: dict[int, Ended]) -> None:
    """Signals, skills, the gap, the lots: nothing of one seed's story stands in the other's."""
    one, other = runs[LONG].report, runs[SHORT].report
    for part in ("events", "providers", "connections", "explanation", "slippage_pips"):
        assert one[part] != other[part], part
    skills = [{provider["true_skill"] for provider in each["providers"]} for each in (one, other)]
    assert not skills[0] & skills[1]
    gaps = [next(event for event in each["events"] if event["kind"] == "gap_declared") for each in (one, other)]
    assert gaps[0]["size"] != gaps[1]["size"]


def test_a_report_that_cannot_be_written_is_refused_before_the_show(tmp_path: Path) -> None:
    """The directory of --json is looked at first: 78 and the path, not a lost report after a minute and a half."""
    assert run(["demo", "--seconds", "10", "--json", str(tmp_path / "no" / "report.json")]) == 78

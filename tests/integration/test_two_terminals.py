"""Two terminals, as the README says: a simulated venue in one, the daemon and its commands in the other.

Everything that runs for long is a process of its own; the short commands run here, through the entry point that gives
`srm-agent` its exit code.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from srm_agent.__main__ import run
from srm_agent.clock import SystemClock
from srm_agent.domain.decisions import Decision, ReasonCode
from srm_agent.domain.ids import ConnectionId
from srm_agent.settings import load
from srm_agent.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "config" / "demo.toml"
WEBHOOK_PAGE = ROOT / "docs" / "webhook.md"
READY_S = 30.0


@dataclass(slots=True)
class Terminals:
    """The two terminals: where everything is, and what was started."""

    home: Path
    venue_port: int
    intake_port: int
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def credentials(self) -> Path:
        """The directory that the simulator fills."""
        return self.home / "credentials"

    @property
    def database(self) -> Path:
        """The daemon's database."""
        return self.home / "srm.db"

    @property
    def intake(self) -> str:
        """URL of the daemon."""
        return f"http://127.0.0.1:{self.intake_port}"

    @property
    def variables(self) -> dict[str, str]:
        """config/demo.toml pointed elsewhere by variables alone."""
        return {
            "SRM_VENUES__BYBIT__BASE_URL": f"http://127.0.0.1:{self.venue_port}",
            "SRM_INTAKE__PORT": str(self.intake_port),
            "SRM_STORE__URL": f"sqlite:///{self.database}",
            "SRM_AGENT__DATA_DIR": str(self.home / "data"),
        }

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m …` with its output in files beside."""
        out = (self.home / f"{name}.out").open("w")
        errors = (self.home / f"{name}.err").open("w")
        with out, errors:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, **self.variables},
                stdout=out,
                stderr=errors,
                text=True,
            )
        self.processes.append(process)
        return process

    def start_daemon(self, name: str) -> subprocess.Popen[str]:
        """`srm-agent run`, ready for signals."""
        daemon = self.start(name, "srm_agent", "run", "--config", str(DEMO), "--credentials", str(self.credentials))
        _wait(lambda: self._healthy() or daemon.poll() is not None, "the daemon is ready")
        assert daemon.poll() is None, self.said(name)
        return daemon

    def _healthy(self) -> bool:
        try:
            with urlopen(f"{self.intake}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def said(self, name: str) -> str:
        """Everything a process has printed."""
        return (self.home / f"{name}.out").read_text() + (self.home / f"{name}.err").read_text()

    def decisions(self, count: int = 60) -> list[Decision]:
        """The latest decisions in the daemon's database, newest first."""

        async def read() -> list[Decision]:
            store = await Store.open(f"sqlite:///{self.database}", SystemClock(), read_only=True)
            try:
                return await store.reads.recent_decisions(count)
            finally:
                await store.close()

        return asyncio.run(read())

    def open_legs(self, connections: list[str]) -> set[str]:
        """Ids of the legs the database holds open."""

        async def read() -> set[str]:
            store = await Store.open(f"sqlite:///{self.database}", SystemClock(), read_only=True)
            try:
                return {
                    str(leg.leg_id) for one in connections for leg in await store.journal.open_legs(ConnectionId(one))
                }
            finally:
                await store.close()

        return asyncio.run(read())


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    """First terminal: the venue is up. Every variable of the second one is set."""
    made = Terminals(tmp_path_factory.mktemp("terminals"), _free_port(), _free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name, value in made.variables.items():
            patch.setenv(name, value)
        made.start(
            *("venue", "simulator", "bybit", "--port", str(made.venue_port), "--seed", "3"),
            *("--credentials", str(made.credentials), "--webhook", made.intake),
        )
        _wait(lambda: '"ready":true' in made.said("venue"), "the venue is ready")
        yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def daemon(terminals: Terminals) -> subprocess.Popen[str]:
    """Second terminal: the daemon is up and copies."""
    started = terminals.start_daemon("run-1")
    _wait(lambda: terminals.database.exists() and any(one.accepted for one in terminals.decisions()), "a decision")
    return started


@pytest.fixture
def command(terminals: Terminals, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run one `srm-agent` command: exit code, what it printed, its errors."""

    def _run(*words: str, credentials: Path | None = None) -> tuple[int, str, str]:
        secrets = [] if words[0] == "explain" else ["--credentials", str(credentials or terminals.credentials)]
        code = run([*words, "--config", str(DEMO), *secrets])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return _run


Command = Callable[..., tuple[int, str, str]]


def _wait(condition: Callable[[], bool], what: str, seconds: float = READY_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("srm-agent: ")


# ---- before the daemon


def test_a_variable_for_one_key_of_a_venue_keeps_its_other_keys(terminals: Terminals) -> None:
    """SRM_VENUES__BYBIT__BASE_URL replaces that key alone; the rest of [venues.bybit] stands as in the file."""
    venue = load(DEMO).venues["bybit"]
    assert venue.base_url == f"http://127.0.0.1:{terminals.venue_port}"
    assert venue.environment == "url"
    assert venue.requests_per_s == 20


def test_without_a_daemon_each_command_says_so_in_one_line(command: Command, terminals: Terminals) -> None:
    """Nobody answers: exit 1 and where was asked; no database yet: exit 78 and the remedy."""
    for words in (("status",), ("halt", "--reason", "x"), ("resume",)):
        code, out, error = command(*words)
        assert (code, out) == (1, "")
        assert _one_line(error)
        assert f"daemon not reachable at {terminals.intake}" in error
    code, _, error = command("explain", "d1")
    assert code == 78
    assert _one_line(error)
    assert "start the agent once" in error


def test_check_finds_everything_well_before_the_first_run(command: Command) -> None:
    """Configuration, secrets, database, port, venue, clock and each account are asked and found well."""
    code, out, error = command("check")
    assert (code, error) == (0, "")
    assert "wrong" not in out
    for words in ("10 connections, 6 providers", "webhook keys", "operators: operator", "database", "is free"):
        assert words in out
    assert len(re.findall(r"ok +venue bybit \S+: [\d.]+ / [\d.]+", out)) == 6
    assert "clock within" in out
    assert re.findall(r"connection (c\d\d): equity [\d.]+ USDT, 0 open positions, may trade", out) == [
        f"c{number:02}" for number in range(1, 11)
    ]


def test_check_says_which_credentials_are_wrong(command: Command, terminals: Terminals, tmp_path: Path) -> None:
    """A wrong secret, a missing webhook key and a missing token are told apart by name; no secret is shown."""
    mine = tmp_path / "credentials"
    shutil.copytree(terminals.credentials, mine)
    (mine / "connection.c03.secret").write_text("not-the-secret-of-c03")
    (mine / "provider.delta.key").unlink()
    (mine / "operator.token").unlink()
    code, out, _ = command("check", credentials=mine)
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 2, out
    assert "provider.delta.key" in wrong[0]
    assert "connection c03" in wrong[1]
    assert "no operator token" in out
    assert "connection c04: equity" in out
    for secret in mine.iterdir():
        assert secret.read_text() not in out, secret.name
    code, _, error = command("status", credentials=mine)
    assert code == 64
    assert _one_line(error)
    assert "operator.token" in error


def test_check_says_what_it_cannot_reach(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A venue that does not answer is wrong once, with its address; its accounts are named as not asked."""
    nowhere = f"http://127.0.0.1:{_free_port()}"
    monkeypatch.setenv("SRM_VENUES__BYBIT__BASE_URL", nowhere)
    code, out, _ = command("check")
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("wrong")]
    assert len(wrong) == 1, out
    assert "venue bybit is not reached" in wrong[0]
    assert nowhere in wrong[0]
    assert re.search(r"not asked, because their venue was not reached: connections c01, .*c10", out)


# ---- while it runs


def test_status_is_a_table_for_people_and_json_for_machines(
    command: Command, daemon: subprocess.Popen[str], terminals: Terminals
) -> None:
    """Both show the ten accounts, their state and money."""
    assert daemon.poll() is None
    code, out, _ = command("status")
    assert code == 0
    assert "agent demo ready" in out
    assert len(re.findall(r"c\d\d .* ACTIVE .* USDT", out)) == 10
    code, out, _ = command("status", "--json")
    assert code == 0
    state = json.loads(out)
    assert state["ready"] is True
    assert [row["id"] for row in state["connections"]] == [f"c{number:02}" for number in range(1, 11)]
    assert all(float(row["equity"]) > 0 for row in state["connections"])
    for secret in terminals.credentials.iterdir():
        assert secret.read_text() not in out


@pytest.mark.usefixtures("daemon")
def test_a_halt_refuses_entries_of_that_account_until_it_is_resumed(command: Command, terminals: Terminals) -> None:
    """After `halt --connection c02` its decisions are refused CONNECTION_HALTED, others go on; `resume` clears it."""
    code, out, _ = command("halt", "--reason", "trying it out", "--connection", "c02")
    assert code == 0
    assert "connection c02" in out
    halted_at = SystemClock().wall()
    _, out, _ = command("status")
    assert re.search(r"c02 .* HALTED", out)
    assert "trying it out (by operator at" in out

    def since(connection: str) -> list[Decision]:
        return [one for one in terminals.decisions() if one.connection_id == connection and one.decided_at > halted_at]

    _wait(lambda: bool(since("c02")), "a signal for c02")
    assert {one.reason for one in since("c02")} == {ReasonCode.CONNECTION_HALTED}
    assert all(one.reason is not ReasonCode.CONNECTION_HALTED for one in since("c03"))
    assert command("resume", "--connection", "c02")[0] == 0
    code, out, _ = command("resume", "--connection", "c02")
    assert (code, "nothing was halted" in out) == (0, True)
    assert re.search(r"c02 .* ACTIVE", command("status")[1])


@pytest.mark.usefixtures("daemon")
def test_what_does_not_exist_is_refused_by_name(command: Command, terminals: Terminals, tmp_path: Path) -> None:
    """An unknown connection, two scopes at once, a missing reason, a wrong token: one clear message, no effect."""
    code, _, error = command("halt", "--reason", "x", "--connection", "c99")
    assert code == 1
    assert _one_line(error)
    assert "no connection 'c99': known are c01, c02" in error
    code, _, error = command("halt", "--reason", "x", "--connection", "c01", "--symbol", "BTC/USDT:USDT")
    assert code == 64
    assert "name one of" in error
    code, _, error = command("halt", "--connection", "c01")
    assert code == 64
    assert "--reason" in error
    mine = tmp_path / "credentials"
    shutil.copytree(terminals.credentials, mine)
    (mine / "operator.token").write_text("a-token-that-nobody-knows-0123456789")
    code, _, error = command("halt", "--reason", "x", credentials=mine)
    assert code == 1
    assert _one_line(error)
    assert "does not know this operator token" in error
    assert json.loads(command("status", "--json")[1])["halts"] == []


@pytest.mark.usefixtures("daemon")
def test_explain_tells_a_decision_in_two_languages(command: Command, terminals: Terminals) -> None:
    """A beginning of the id is enough; the waterfall ends in the lot, and each step is recomputed from its record."""
    decision = next(one for one in terminals.decisions() if one.accepted)
    prefix = decision.decision_id[:12]
    code, english, _ = command("explain", prefix)
    assert code == 0
    assert decision.symbol in english
    assert english.startswith(("Buy", "Sell"))
    assert english.count("equal") == len(decision.steps)
    assert "rounding down" in english
    code, indonesian, _ = command("explain", prefix, "--language", "id")
    assert code == 0
    assert indonesian.startswith(("Beli", "Jual"))
    assert "pembulatan ke bawah" in indonesian


@pytest.mark.usefixtures("daemon")
def test_explain_refuses_what_is_not_one_decision(command: Command) -> None:
    """No decision, several, or another language: exit 64 and what there is instead."""
    code, _, error = command("explain", "nothing")
    assert code == 64
    assert _one_line(error)
    assert re.search(r"no decision begins with 'nothing'; the latest are: d\w+, d\w+", error)
    code, _, error = command("explain", "d")
    assert code == 64
    assert "decisions begin with 'd'" in error
    code, _, error = command("explain", "d", "--language", "fr")
    assert code == 64
    assert "must be one of en, id, was 'fr'" in error


def _example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", WEBHOOK_PAGE.read_text(), re.DOTALL)
    assert found is not None, f"docs/webhook.md has no {language} example"
    return found[1]


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("language", ["bash", "python"])
def test_the_examples_of_the_webhook_page_work(language: str, terminals: Terminals, tmp_path: Path) -> None:
    """The signed message of docs/webhook.md is accepted with 202 and decided, from a shell and from Python."""
    if language == "bash" and not all(map(shutil.which, ("openssl", "curl", "base64", "od"))):
        pytest.skip("needs openssl, curl, base64 and od")
    script = tmp_path / f"example.{language}"
    script.write_text(_example(language))
    done = subprocess.run(
        ["bash" if language == "bash" else sys.executable, str(script)],
        env={
            **os.environ,
            "URL": f"{terminals.intake}/signals/channel_source/alpha",
            "KEY_FILE": str(terminals.credentials / "provider.alpha.key"),
            "SIGNAL_ID": f"from-{language}",
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"status":"accepted"' in done.stdout.replace(" ", "")
    _wait(
        lambda: any(one.signal_id.endswith(f"/from-{language}") for one in terminals.decisions(200)),
        "a decision on the example's signal",
    )


# ---- its end, and the next beginning


def test_a_stop_is_orderly_and_the_next_run_knows_its_legs(
    command: Command, daemon: subprocess.Popen[str], terminals: Terminals
) -> None:
    """SIGTERM ends with exit 0 within 10 s, positions stay; a second run takes them up, in step with the broker."""
    accounts = [f"c{number:02}" for number in range(1, 11)]
    _wait(lambda: bool(terminals.open_legs(accounts)), "an open leg")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(10) == 0, terminals.said("run-1")
    before = terminals.open_legs(accounts)
    assert before
    terminals.start_daemon("run-2")
    assert before & terminals.open_legs(accounts), "no leg outlived the restart"
    rows: list[dict[str, object]] = []

    def in_step() -> bool:
        rows[:] = json.loads(command("status", "--json")[1])["connections"]
        return not any(row["halted_symbols"] or row["unsettled_orders"] or row["why"] for row in rows)

    _wait(in_step, "all accounts in step with the broker", 10)
    assert {row["state"] for row in rows} == {"ACTIVE"}, {row["why"] for row in rows}
    assert any(row["open_legs"] for row in rows)
    for name in ("run-1", "run-2"):
        assert "Traceback" not in terminals.said(name)
        for secret in terminals.credentials.iterdir():
            assert secret.read_text() not in terminals.said(name)

"""The unit files, judged by the real systemd tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from srm_agent.settings import load

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
SERVICES = ("srm-agent.service", "srm-guard.service", "srm-alert@.service")
EXPOSURE = "15"
"""systemd counts in tenths: 1.5 (reliability.md 4.2)."""


@pytest.fixture(scope="module")
def analyze() -> str:
    """systemd-analyze; as root on a machine of the Debian family it is installed first."""
    if shutil.which("systemd-analyze") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", "systemd"]):
            subprocess.run(["apt-get", "-qq", *words], env=quiet, check=False, timeout=240, capture_output=True)
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed, and only root can install it")
    return found


def _verify(analyze: str, unit: Path) -> tuple[int, str]:
    """`verify`: 0 and silence is well. Without --recursive-errors a misspelt key is a warning with exit code 0."""
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr


def _keys(unit: str) -> dict[str, list[str]]:
    """Every key of a unit's [Service] with its values in order."""
    section = (UNITS / unit).read_text().split("\n[Service]\n")[1].split("\n[Install]")[0]
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", section, re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", SERVICES)
def test_systemd_knows_every_key(analyze: str, unit: str) -> None:
    """`systemd-analyze verify` ends with 0 and says nothing at all."""
    assert _verify(analyze, UNITS / unit) == (0, "")


def test_a_misspelt_key_is_found(analyze: str, tmp_path: Path) -> None:
    """Negative control: one letter wrong, and the same check fails."""
    wrong = tmp_path / "srm-agent.service"
    wrong.write_text((UNITS / "srm-agent.service").read_text().replace("ProtectSystem=", "ProtectSytem="))
    code, said = _verify(analyze, wrong)
    assert (code, said) != (0, "")
    assert "ProtectSytem" in said


@pytest.mark.parametrize("unit", SERVICES)
def test_little_is_exposed(analyze: str, unit: str) -> None:
    """`systemd-analyze security` finds an exposure of 1.5 at most."""
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(UNITS / unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-300:]


def test_a_plain_unit_would_be_refused(analyze: str, tmp_path: Path) -> None:
    """Negative control of the threshold: without a sandbox the same check fails."""
    plain = tmp_path / "plain.service"
    plain.write_text("[Service]\nExecStart=/usr/bin/env true\nRestart=always\n")
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(plain)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0


def test_the_guard_runs_as_the_agent_does() -> None:
    """The two services differ in what they start and how soon again, and in nothing else."""
    agent, guard = _keys("srm-agent.service"), _keys("srm-guard.service")
    different = {key for key in {**agent, **guard} if agent.get(key) != guard.get(key)}
    assert different == {"ExecStart", "RestartSec"}
    assert guard["ExecStart"] == [agent["ExecStart"][0] + " --exits-only"]


def test_the_unit_fits_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables are settings, its state directory is the data directory, its limits are those of the page."""
    keys = _keys("srm-agent.service")
    variables = dict(pair.split("=", 1) for line in keys["Environment"] for pair in line.split())
    for name, value in variables.items():
        if name.startswith("SRM_"):
            monkeypatch.setenv(name, value.replace("%S", "/var/lib"))
    settings = load(ROOT / "config" / "srm.example.toml")
    assert settings.agent.data_dir == f"/var/lib/{keys['StateDirectory'][0]}"
    assert settings.store.url == "sqlite:////var/lib/srm/srm.db"
    text = (UNITS / "srm-agent.service").read_text()
    for line in (
        "Type=notify", "NotifyAccess=main", "WatchdogSec=15s", "WatchdogSignal=SIGABRT", "Restart=on-failure",
        "RestartPreventExitStatus=64 78", "StartLimitIntervalSec=600", "StartLimitBurst=5", "KillMode=mixed",
        "TimeoutStopSec=60s", "OOMPolicy=stop", "DynamicUser=yes", "MemoryDenyWriteExecute=yes", "LimitCORE=0",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "IPAddressDeny=any",
    ):  # fmt: skip
        assert line in text.splitlines(), line
    burst = int(re.findall(r"StartLimitBurst=(\d+)", text)[0])
    assert settings.agent.guard_after < burst, "the guard must come before systemd gives up"


def test_each_credential_has_its_fallback() -> None:
    """For every encrypted credential the plain one stands beside it, commented out."""
    text = (UNITS / "srm-agent.service").read_text()
    encrypted = re.findall(r"^LoadCredentialEncrypted=([^:]+):", text, re.MULTILINE)
    plain = re.findall(r"^#LoadCredential=([^:]+):", text, re.MULTILINE)
    assert encrypted == plain
    assert "operator.token" in encrypted

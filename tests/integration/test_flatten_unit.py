"""The unit of the kill switch: real systemd tools judge it, and it is the daemon's sandbox."""

from __future__ import annotations

import re
import shlex
import subprocess

from typer.core import TyperGroup as Group
from typer.main import get_command

from srm_agent.cli import app
from tests.integration.test_supervision_units import EXPOSURE, UNITS, _keys, _verify, analyze

__all__ = ["analyze"]

UNIT = "srm-flatten@.service"
OWN = {
    "Type", "NotifyAccess", "ExecStart", "ExecReload", "WatchdogSec", "WatchdogSignal", "TimeoutStartSec",
    "TimeoutStopSec", "TimeoutAbortSec", "KillMode", "KillSignal", "OOMPolicy", "RuntimeDirectory",
    "RuntimeDirectoryMode", "RuntimeDirectoryPreserve", "LogsDirectory", "LogsDirectoryMode", "LoadCredentialEncrypted",
    "MemoryHigh", "MemoryMax", "TasksMax", "CPUWeight", "IOWeight",
}  # fmt: skip
"""What a command that ends by itself has otherwise than a daemon."""


def test_systemd_knows_every_key_and_little_is_exposed(analyze: str) -> None:
    """`verify` ends with 0 and silence, `security` finds 1.5 at most."""
    assert _verify(analyze, UNITS / UNIT) == (0, "")
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(UNITS / UNIT)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-300:]


def test_it_is_the_daemons_sandbox_user_and_state() -> None:
    """Same dynamic user, state directory and sandbox, or it could not latch the halts that the daemon reads."""
    agent, flatten = _keys("srm-agent.service"), _keys(UNIT)
    different = {key for key in {**agent, **flatten} if agent.get(key) != flatten.get(key)}
    assert different <= OWN
    assert flatten["User"] == ["srm"]
    assert flatten["StateDirectory"] == ["srm"]


def test_its_command_line_is_one_that_the_program_understands() -> None:
    """The command's own parser takes every word of ExecStart; it names the instance, and asks nobody."""
    words = shlex.split(_keys(UNIT)["ExecStart"][0])
    words = words[words.index("srm_agent") + 1 :]
    group = get_command(app)
    assert isinstance(group, Group)
    parsed = group.commands[words[0]].make_context(words[0], [word.replace("%i", "main") for word in words[1:]])
    assert parsed.params["connection"] == ["main"]
    assert parsed.params["yes"] is True
    assert parsed.params["reason"] == "systemctl start srm-flatten@main"


def test_it_has_only_the_keys_of_its_account() -> None:
    """Its credentials are the instance's two, each with its fallback beside it."""
    text = (UNITS / UNIT).read_text()
    encrypted = re.findall(r"^LoadCredentialEncrypted=([^:]+):", text, re.MULTILINE)
    plain = re.findall(r"^#LoadCredential=([^:]+):", text, re.MULTILINE)
    assert encrypted == plain == ["connection.%i.api_key", "connection.%i.secret"]

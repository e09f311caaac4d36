"""Mistakes in the configuration end in one message that names key, value and remedy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from srm_agent.__main__ import run
from srm_agent.bootstrap import build, operators_of
from srm_agent.clock import SystemClock
from srm_agent.errors import ConfigurationError
from srm_agent.settings import Credentials, load

ROOT = Path(__file__).resolve().parents[3]
SECRETS = {
    "connection.c1.api_key": "key-of-c1",
    "connection.c1.secret": "secret-of-c1",
    "provider.alpha.key": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
    "operator.token": "operator-token-operator-token-1234",
}
GOOD = """
[protection]
emergency_scope = "account"
[venues.bybit]
environment = "testnet"
[instruments."BTC/USDT:USDT"]
[providers.alpha]
[[connections]]
id = "c1"
follower = "ann"
venue = "bybit"
providers = ["alpha"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a configuration file and give its path."""

    def _write(text: str) -> Path:
        path = tmp_path / "srm.toml"
        path.write_text(text)
        return path

    return _write


def test_a_minimal_file_is_enough(write: Callable[[str], Path]) -> None:
    """Everything but the emergency scope, a venue, a provider and a connection has a default."""
    settings = load(write(GOOD))
    assert settings.protection.max_drawdown == Decimal("0.20")
    assert str(settings.policies.fx.filter.max_entry_drift) == "5 pips"
    assert str(settings.policies.crypto.filter.max_entry_drift) == "5 bps"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("", "[agnet]\nname='x'"), ["agnet", "unknown key", "did you mean agent"]),
        (('emergency_scope = "account"', ""), ["protection.emergency_scope", "required"]),
        (
            ('emergency_scope = "account"', 'emergency_scope = "account"\nmax_drawdown = 20'),
            ["max_drawdown", "was 20", "0.2"],
        ),
        (
            ('emergency_scope = "account"', 'emergency_scope = "account"\nmax_drawdown = nan'),
            ["max_drawdown", "finite"],
        ),
        (
            ('emergency_scope = "account"', 'emergency_scope = "account"\nmax_drawdown = true'),
            ["max_drawdown", "number"],
        ),
        (("", "[policies.fx.filter]\nmax_entry_drift = 5"), ["max_entry_drift", "unit", "pips = 5"]),
        (("", "[policies.fx.filter]\nmax_entry_drift = {pips = 5, bps = 1}"), ["max_entry_drift", "exactly one"]),
        (('venue = "bybit"', 'venue = "bibit"'), ["connections[0]", "bibit", "bybit"]),
        (('"alpha"]\n', '"alpha", "beta"]\n'), ["connections[0]", "beta"]),
        (('id = "c1"', 'id = "c1"\nsize_mode = "FIXED"'), ["fixed_lot"]),
        (('environment = "testnet"', 'environment = "url"'), ["base_url"]),
        (("", "[protection]\n"), ["not valid TOML"]),
        (("", "[store]\nurl = 'postgres://x'"), ["store.url", "sqlite:///"]),
        (("", "[store]\nurl = 'sqlite:///'"), ["store.url", "name a file"]),
        (("", "[protection2]\n"), ["protection2", "did you mean protection"]),
    ],
    ids=lambda value: value[1][:40] if isinstance(value, tuple) else "",
)
@pytest.mark.fault("P21")
def test_each_mistake_is_named(write: Callable[[str], Path], change: tuple[str, str], words: list[str]) -> None:
    """The message holds the key, what was written, and what to write instead."""
    before, after = change
    text = GOOD.replace(before, after, 1) if before else f"{GOOD}\n{after}\n" if "[[" not in after else GOOD
    with pytest.raises(ConfigurationError) as caught:
        load(write(text))
    for word in words:
        assert word in str(caught.value)


def test_gates_and_ceilings_can_be_switched_off(write: Callable[[str], Path]) -> None:
    """TOML has no null: the word off stands for it, where a key has a default."""
    off = '[policies.fx.filter]\nmax_spread = "off"\n[policies.fx.limits]\nmax_total_notional = "off"\n'
    policy = load(write(GOOD + off)).policies.fx.domain("fx")
    assert policy.filter.max_spread is None
    assert policy.limits.max_total_notional is None


@pytest.mark.fault("P21")
def test_a_missing_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """pydantic-settings would use defaults; we do not."""
    with pytest.raises(ConfigurationError, match=r"does not exist: start from config/srm\.example\.toml"):
        load(tmp_path / "nothing.toml")


@pytest.mark.fault("P21")
def test_a_misspelt_variable_is_refused(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An SRM_ variable that is no setting would be silently ignored; it is an error with the nearest name."""
    monkeypatch.setenv("SRM_PROTECTON__MAX_DRAWDOWN", "0.1")
    with pytest.raises(ConfigurationError, match=r"SRM_PROTECTON__MAX_DRAWDOWN.*did you mean SRM_PROTECTION"):
        load(write(GOOD))


def test_a_variable_overrides_the_file(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins over the file, and is checked like it."""
    monkeypatch.setenv("SRM_PROTECTION__MAX_DRAWDOWN", "0.1")
    assert load(write(GOOD)).protection.max_drawdown == Decimal("0.1")
    monkeypatch.setenv("SRM_PROTECTION__MAX_DRAWDOWN", "10")
    with pytest.raises(ConfigurationError, match=r"max_drawdown.*was 10"):
        load(write(GOOD))


def test_a_secret_in_the_file_is_refused_and_never_shown(write: Callable[[str], Path]) -> None:
    """Secrets belong into the credentials directory; the message does not repeat them (INV-16)."""
    with pytest.raises(ConfigurationError) as caught:
        load(write(GOOD + 'api_key = "CANARY-12345"\n'))
    assert "credentials directory" in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.fault("P21")
def test_the_exit_code_of_a_configuration_mistake_is_78(
    write: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd does not restart on 78, and a person sees one message without a traceback."""
    assert run(["run", "--config", str(write(GOOD + "nonsense = 1\n"))]) == 78
    shown = capsys.readouterr().err
    assert "nonsense" in shown
    assert "Traceback" not in shown


def test_usage_mistakes_exit_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or option is a usage error."""
    assert run(["demo", "--seconds", "1"]) == 64
    assert run(["nonsense"]) == 64
    assert "Traceback" not in capsys.readouterr().err


def test_the_demo_configuration_is_valid() -> None:
    """config/demo.toml loads and has ten connections."""
    assert len(load(ROOT / "config" / "demo.toml").connections) == 10


def test_credentials_open_to_others_are_refused(tmp_path: Path) -> None:
    """A secret file that others may read is refused with the remedy."""
    (tmp_path / "operator.token").write_text("x" * 32)
    (tmp_path / "operator.token").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Credentials(tmp_path).require("operator.token")
    (tmp_path / "operator.token").chmod(0o600)
    assert repr(Credentials(tmp_path).require("operator.token")) == "Secret(hidden)"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"agent": {"data_dir": "/proc/nope"}}, "agent.data_dir", id="data directory"),
        pytest.param({"store": {"url": "sqlite:////proc/nope/srm.db"}}, "store.url", id="database directory"),
    ],
)
def test_a_directory_that_cannot_be_made_is_a_configuration_mistake(
    write: Callable[[str], Path], tmp_path: Path, change: dict[str, dict[str, str]], word: str
) -> None:
    """The key is named and the exit code is 78, without a traceback."""
    for name, text in SECRETS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    settings = load(write(GOOD), {"agent": {"data_dir": str(tmp_path / "data")}, **change})
    with pytest.raises(ConfigurationError, match=word):
        asyncio.run(build(settings, Credentials(tmp_path), SystemClock(), random.Random(1)))


def test_a_short_operator_token_is_named(tmp_path: Path) -> None:
    """A token that could be guessed is refused by its operator's name, and is not shown."""
    (tmp_path / "operator.token").write_text("short")
    (tmp_path / "operator.token").chmod(0o600)
    with pytest.raises(ConfigurationError, match="operator token of 'operator'"):
        operators_of(Credentials(tmp_path))


def test_an_empty_name_never_means_everything(write: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    """`--connection "$UNSET"` is a mistake, not a halt or resume of all."""
    path = str(write(GOOD))
    assert run(["resume", "--connection", "", "--config", path]) == 64
    assert "need a name" in capsys.readouterr().err


@pytest.mark.fault("P21")
def test_a_wrong_variable_is_named(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says that the environment said it, not the file."""
    monkeypatch.setenv("SRM_INTAKE__PORT", "abc")
    with pytest.raises(ConfigurationError, match=r"intake\.port.*SRM_INTAKE__PORT"):
        load(write(GOOD))

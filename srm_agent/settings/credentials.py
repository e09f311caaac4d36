"""Secrets: flat files in one directory, as systemd's LoadCredential leaves them. Never in the configuration file.

connection.<id>.api_key, connection.<id>.secret; provider.<id>.key (and provider.<id>.key.next while rotating);
operator.token or operator.<name>.token.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from srm_agent.errors import ConfigurationError


class Secret:
    """A value that does not show itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"


class Credentials:
    """A directory of secret files. Raises ConfigurationError naming the file and the remedy, never its content."""

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            raise ConfigurationError(
                f"credentials directory {str(directory)!r} does not exist: name it with --credentials, "
                "agent.credentials_dir or systemd's LoadCredential"
            )
        self._directory = directory

    def require(self, name: str) -> Secret:
        """The secret of that file name."""
        found = self.find(name)
        if found is None:
            raise ConfigurationError(
                f"credential file {name!r} is missing in {str(self._directory)!r}: create it, mode 0600"
            )
        return found

    def find(self, name: str) -> Secret | None:
        """The secret of that file name, or None."""
        path = self._directory / name
        try:
            mode = path.stat().st_mode
            value = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"credential file {str(path)!r} cannot be read: {type(error).__name__}") from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise ConfigurationError(f"credential file {str(path)!r} is open to others: run chmod 600 on it")
        if not value:
            raise ConfigurationError(f"credential file {str(path)!r} is empty: write the secret into it")
        return Secret(value)

    def operators(self) -> dict[str, Secret]:
        """Operator name -> token. `operator.token` belongs to the name `operator`."""
        tokens: dict[str, Secret] = {}
        for path in sorted(self._directory.glob("operator*.token")):
            name = path.name.removesuffix(".token").removeprefix("operator").removeprefix(".") or "operator"
            tokens[name] = self.require(path.name)
        return tokens


def credentials_directory(option: Path | None, configured: str | None) -> Path:
    """Where secrets are: the option, then systemd's own directory, then the configuration, else ./credentials."""
    if option is not None:
        return option
    if from_systemd := os.environ.get("CREDENTIALS_DIRECTORY"):
        return Path(from_systemd)
    return Path(configured or "credentials")

"""A credentials directory: flat files, one secret each, readable by their owner only (as systemd's credentials are).

`connection.<id>.api_key`, `connection.<id>.secret`, `provider.<id>.key`, `operator.token`. What is missing is drawn
from the seed: these secrets open a simulated venue and nothing else.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_letters, digits

from simulator.seeds import stream
from srm_agent.errors import ConfigurationError

_ALPHABET = ascii_letters + digits
_KEY_PREFIX = "whsec_"
_KEY_BYTES = 24


@dataclass(frozen=True, slots=True)
class VenueKeys:
    """API key pair of one account; the secret stays out of the repr."""

    api_key: str
    secret: str

    def __repr__(self) -> str:
        return f"VenueKeys(api_key={self.api_key!r}, secret=hidden)"


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """Everything in the directory: keys by account id, webhook keys (bytes) by provider id, the operator's token."""

    accounts: Mapping[str, VenueKeys]
    providers: Mapping[str, bytes]
    operator_token: str

    def __repr__(self) -> str:
        return f"Credentials({len(self.accounts)} accounts, {len(self.providers)} providers, secrets hidden)"


def ensure_credentials(directory: Path, seed: int, accounts: Sequence[str], providers: Sequence[str]) -> Credentials:
    """Read the directory, creating it (0700) and the files (0600) that are missing.

    Raises ConfigurationError naming the file that cannot be used, never its content.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = {
            account: VenueKeys(
                _secret(directory, f"connection.{account}.api_key", _token(seed, account, "api_key", 18)),
                _secret(directory, f"connection.{account}.secret", _token(seed, account, "secret", 36)),
            )
            for account in accounts
        }
        webhook = {
            provider: parse_webhook_key(
                _secret(directory, f"provider.{provider}.key", _webhook_key(seed, provider)),
                f"provider.{provider}.key",
            )
            for provider in providers
        }
        token = _secret(directory, "operator.token", _token(seed, "operator", "token", 40))
    except OSError as error:
        raise ConfigurationError(
            f"credentials directory {directory}: {error.strerror or error}; give a directory that you own"
        ) from error
    return Credentials(keys, webhook, token)


def parse_webhook_key(text: str, name: str) -> bytes:
    """Bytes of a Standard Webhooks key `whsec_<base64>`. Raises ConfigurationError naming `name`, not the key."""
    remedy = f"{name}: must be {_KEY_PREFIX} and the base64 of at least {_KEY_BYTES} bytes"
    if not text.startswith(_KEY_PREFIX):
        raise ConfigurationError(remedy)
    try:
        key = b64decode(text.removeprefix(_KEY_PREFIX), validate=True)
    except Base64Error as error:
        raise ConfigurationError(remedy) from error
    if len(key) < _KEY_BYTES:
        raise ConfigurationError(f"{remedy}, was {len(key)} bytes")
    return key


def _token(seed: int, *names: str | int) -> str:
    *path, length = names
    rng = stream(seed, "credentials", *map(str, path))
    return "".join(rng.choice(_ALPHABET) for _ in range(int(length)))


def _webhook_key(seed: int, provider: str) -> str:
    return _KEY_PREFIX + b64encode(stream(seed, "credentials", "provider", provider).randbytes(32)).decode()


def _secret(directory: Path, name: str, fresh: str) -> str:
    """Content of the file; created with `fresh`, owner-only from the first moment, when it is missing."""
    path = directory / name
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, 0o600)
        file.write(fresh)
    return fresh


def _read(path: Path) -> str:
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path}: readable by others; chmod 600 {path}")
    text = path.read_text().strip()
    if not text:
        raise ConfigurationError(f"{path}: is empty; remove the file to have a new one drawn")
    return text

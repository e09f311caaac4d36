"""Operators and what they may do: see, halt, resume. The daemon implements the port, HTTP is one shell around it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from srm_agent.domain.accounts import HaltScope

_MIN_TOKEN_CHARACTERS = 20
_BEARER = "Bearer "


class Control(Protocol):
    """What the daemon offers to its operators."""

    def health(self) -> tuple[bool, Mapping[str, str]]:
        """Ready or not, and what is missing: name -> reason. Never blocks."""
        ...

    def status(self) -> Mapping[str, object]:
        """The state of everything, JSON-able (text, numbers as text, lists, mappings). Never blocks."""
        ...

    async def halt(self, scope: HaltScope, key: str, reason: str, operator: str) -> None:
        """Latch in memory first, then persist (INV-8).

        `key` is empty for ALL. Raises UsageError naming a key that does not exist; StoreUnavailable or OutcomeUnknown
        if the halt holds in memory but could not be persisted.
        """
        ...

    async def resume(self, scope: HaltScope, key: str, operator: str) -> bool:
        """Clear a halt; False if there was none. Raises UsageError, StoreUnavailable, OutcomeUnknown."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A named person or script; only the SHA-256 of the token is kept, and the repr does not show it."""

    name: str
    token_sha256: bytes = field(repr=False)

    @classmethod
    def of_token(cls, name: str, token: str) -> Operator:
        """From the clear token. Raises ValueError (without the token) if it is short enough to be guessed."""
        clean = token.strip()
        if len(clean) < _MIN_TOKEN_CHARACTERS or not clean.isascii():
            raise ValueError(
                f"operator token of {name!r} must have at least {_MIN_TOKEN_CHARACTERS} ASCII characters, "
                f"had {len(clean)}; make one with: openssl rand -hex 32"
            )
        return cls(name=name, token_sha256=sha256(clean.encode()).digest())


def identify(operators: Sequence[Operator], authorization: str | None) -> Operator | None:
    """The operator whose bearer token this is, in time that does not depend on which, or on how much agrees."""
    given = authorization or ""
    token = given.removeprefix(_BEARER) if given.startswith(_BEARER) else ""
    digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
    found: Operator | None = None
    for operator in operators:
        if hmac.compare_digest(operator.token_sha256, digest):
            found = operator
    return found

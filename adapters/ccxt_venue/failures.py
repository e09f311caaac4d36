"""What went wrong in a library call, as plain data: the only view the pure modules have of ccxt's exceptions."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed call.

    `kind` is the class name of the exception, `lineage` its bases up to `BaseError`. `ret_code` is the venue's own
    code if a JSON body carried one. `has_body`: the text holds a reply of the venue (so the error is not local).
    `never_connected`: no connection was made, hence nothing was sent.
    """

    kind: str
    lineage: tuple[str, ...]
    ret_code: str | None
    text: str
    has_body: bool
    never_connected: bool

    def is_a(self, name: str) -> bool:
        """True if the exception is of that ccxt class or of one below it."""
        return name in self.lineage


class CallFailed(Exception):
    """A call of the library failed; `failure` says how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.text}")
        self.failure = failure


_NEVER_CONNECTED = frozenset({"ClientConnectorError", "gaierror", "ConnectionRefusedError"})
"""aiohttp raises ClientConnectorError (DNS errors are one) only before a byte of the request leaves."""


def describe(error: BaseException) -> Failure:
    """A ccxt (or any other) exception as data. Never raises; the text is cut to 300 characters."""
    lineage = tuple(
        cls.__name__ for cls in type(error).__mro__ if cls.__name__ not in ("Exception", "BaseException", "object")
    )
    text = str(error)
    body = _body(text)
    return Failure(
        kind=type(error).__name__,
        lineage=lineage,
        ret_code=_ret_code(body),
        text=text[:300],
        has_body="{" in text or "<" in text,
        never_connected=_never_connected(error),
    )


def _body(text: str) -> object:
    start = text.find("{")
    if start < 0:
        return None
    try:
        # The library may append words after the body, which raw_decode leaves alone.
        return json.JSONDecoder().raw_decode(text[start:])[0]
    except (ValueError, RecursionError):
        return None


def _ret_code(body: object) -> str | None:
    if not isinstance(body, dict):
        return None
    for key in ("retCode", "ret_code"):
        code = body.get(key)
        if isinstance(code, int | str) and not isinstance(code, bool):
            return str(code)
    return None


def _never_connected(error: BaseException) -> bool:
    cause = error.__cause__
    while cause is not None:
        if any(cls.__name__ in _NEVER_CONNECTED for cls in type(cause).__mro__):
            return True
        cause = cause.__cause__
    return False

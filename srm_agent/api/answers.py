"""What we say over HTTP: small JSON texts that repeat little of what was sent, and escape it."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache

from srm_agent.domain.decisions import canonical_json

_SHOWN = 40


def shown(value: str | Decimal | bool | None) -> str:
    """A value for an error message as JSON shows it, escaped to ASCII, at most about 160 characters of it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Decimal():
            return _cut(str(value), _SHOWN)
        case _:
            # An escaped character may take ten places, so the cut is made again after escaping.
            return _cut(ascii(_cut(value, _SHOWN)), 4 * _SHOWN)


def named(key: str) -> str:
    """A key of theirs as the name of a field: escaped and cut, without quotes."""
    return shown(key)[1:-1]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def error_body(code: str, message: str, field: str | None = None, *, retry_after_s: int | None = None) -> str:
    """`{"error":{"code","field","message"}}`, and `retry_after_s` where another try makes sense."""
    error: dict[str, object] = {"code": code, "field": field, "message": message}
    if retry_after_s is not None:
        error["retry_after_s"] = retry_after_s
    return canonical_json({"error": error})


def answer_headers(status: int, text: str) -> dict[str, str]:
    """What every answer carries besides its length and type."""
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if status in (408, 413, 415):
        # The rest of the body is not wanted: without this a slow sender would keep the connection.
        headers["connection"] = "close"
    if status in (429, 503) and (retry_after_s := _retry_after(text)):
        headers["retry-after"] = retry_after_s
    return headers


@lru_cache(maxsize=64)
def busy_body(code: str, message: str, retry_after_s: int) -> str:
    """`error_body` of a refusal that a flood gets thousands of times, written once."""
    return error_body(code, message, retry_after_s=retry_after_s)


@lru_cache(maxsize=64)
def _retry_after(text: str) -> str:
    return str(json.loads(text).get("error", {}).get("retry_after_s") or "")

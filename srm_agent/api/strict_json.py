"""JSON as strictly as money needs it: flat objects, no key twice, no float, no NaN, no Unicode digits.

Python's `json` lets the last of two equal keys win, reads NaN and Infinity, and turns numbers into floats; pydantic
and orjson let duplicate keys and Unicode digits pass too (reliability.md 4.4). Here all of that is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal

from srm_agent.api.answers import named, shown
from srm_agent.errors import SignalRejected

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 64
"""Far above what any message has; what is larger is refused before it is parsed."""
JsonScalar = str | Decimal | bool | None

# Possessive, and an unterminated string is a match too: linear in time whatever is sent.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_MAX_NUMBER_CHARACTERS = 40
_MAX_EXPONENT = 99


def flat_object(raw: bytes) -> dict[str, JsonScalar]:
    """The one flat JSON object in `raw`; every number is an exact Decimal of at most 40 characters.

    Raises SignalRejected: 413 above 64 KiB, 400 for what is not such an object, 422 for a number that cannot be meant;
    the field is the key at fault, or `body`.
    """
    if len(raw) > MAX_BODY_BYTES:
        raise SignalRejected(
            413,
            "BODY_TOO_LARGE",
            f"a body has at most {MAX_BODY_BYTES} bytes, was {len(raw)}; send one message",
            "body",
        )
    if not raw.isascii():
        raise _refused("BODY_NOT_ASCII", "the body must be ASCII; write other characters as \\uXXXX")
    # Strings taken out, a flat object has one '{' and no '['. Checked before parsing, so that a nesting bomb never
    # reaches the recursive parser: before its first error a malformed text is tokenised as a well-formed one.
    outside = _STRING.sub(b"", raw)
    if b"[" in outside or outside.count(b"{") > 1:
        raise _refused("BODY_NESTED", "the body must be one flat JSON object; lists and objects inside it are refused")
    if outside.count(b":") > MAX_FIELDS:
        raise _refused("TOO_MANY_FIELDS", f"the body must have at most {MAX_FIELDS} fields; send one message")
    try:
        value = json.loads(
            raw.decode("ascii"),
            parse_float=_number,
            parse_int=_number,
            parse_constant=_Unusable,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        raise _refused(
            "BODY_NOT_JSON", f"the body must be JSON: {error.msg.removesuffix(' at')} at character {error.pos}"
        ) from None
    if not isinstance(value, dict):
        raise _refused("BODY_NOT_JSON", "the body must be a JSON object, like {...}")
    return value


def exact_number(text: str) -> Decimal | None:
    """The Decimal that a JSON number stands for; None if it is too long or too large to be meant."""
    _, _, exponent = text.lower().partition("e")
    if len(text) > _MAX_NUMBER_CHARACTERS or (exponent and abs(int(exponent)) > _MAX_EXPONENT):
        return None
    return Decimal(text)


class _Unusable(str):
    """A number or constant that was refused while its key was not known yet."""

    __slots__ = ()


def _number(text: str) -> Decimal | _Unusable:
    number = exact_number(text)
    return _Unusable(text) if number is None else number


def _unique(pairs: Sequence[tuple[str, JsonScalar]]) -> dict[str, JsonScalar]:
    result: dict[str, JsonScalar] = {}
    for key, value in pairs:
        if key in result:
            raise SignalRejected(400, "DUPLICATE_KEY", f"key {shown(key)} is there twice; send it once", named(key))
        if isinstance(value, _Unusable):
            raise SignalRejected(
                422,
                "NUMBER_UNUSABLE",
                f"{named(key)} must be a finite number of at most {_MAX_NUMBER_CHARACTERS} characters, "
                f"was {shown(value)}; leave it out if it is unknown",
                named(key),
            )
        result[key] = value
    return result


def _refused(code: str, message: str) -> SignalRejected:
    return SignalRejected(400, code, message, "body")

"""Standard Webhooks signatures (standardwebhooks.com, symmetric scheme `v1`), with the time as an argument.

The signed content is `{webhook-id}.{webhook-timestamp}.{raw body}`, HMAC-SHA256, base64. The id of a delivery stays the
same over retries; the timestamp and with it the signature are new for each try.
"""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from srm_agent.errors import SignalRejected

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
MESSAGE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""What a delivery id and a signal id may look like; used with `fullmatch`."""
TOLERANCE_S = 30
MAX_KEYS = 2
"""Active keys of one provider: the one in use and its successor during a rotation."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_MAX_SIGNATURE_CHARACTERS = 1024
_KEY_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)


@dataclass(frozen=True, slots=True)
class WebhookKey:
    """One secret of one provider; its repr never shows it."""

    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> WebhookKey:
        """Read `whsec_<base64 of 24 to 64 bytes>`. Raises ValueError, which never repeats the text."""
        encoded = text.strip()
        if not encoded.startswith(_KEY_PREFIX):
            raise ValueError("webhook key must start with 'whsec_'")
        try:
            secret = b64decode(encoded.removeprefix(_KEY_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("webhook key must be 'whsec_' followed by base64") from None
        if len(secret) not in _KEY_BYTES:
            raise ValueError(f"webhook key must hold 24 to 64 bytes, held {len(secret)}")
        return cls(secret)


STRANGER = WebhookKey(b"the key of nobody, known to everybody")
"""Checked where a provider has no key, so that an unknown provider costs the same time as a known one."""


def sign(key: WebhookKey, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature` for one try, `v1,<base64>`."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.new(key.secret, content, sha256).digest()).decode()


def verify(
    keys: Sequence[WebhookKey],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """The delivery id of an authentic message. `headers` has lower-case names, `now` is in unix seconds.

    Constant time in the secrets: every key is tried against every signature given. Signatures of other versions count
    as not given. Raises SignalRejected (401) that never tells whether the provider, the key or the body is at fault.
    """
    message_id = headers.get(ID_HEADER, "")
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    given = headers.get(SIGNATURE_HEADER, "")
    if not (message_id and timestamp and given):
        raise _refused("SIGNATURE_MISSING", f"send the headers {ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER}")
    if not (
        MESSAGE_ID.fullmatch(message_id)
        and _TIMESTAMP.fullmatch(timestamp)
        and len(given) <= _MAX_SIGNATURE_CHARACTERS
        and given.isascii()
    ):
        raise _refused(
            "SIGNATURE_MALFORMED",
            f"{ID_HEADER} must match {MESSAGE_ID.pattern}, {TIMESTAMP_HEADER} must be unix seconds and "
            f"{SIGNATURE_HEADER} must be 'v1,<base64>', separated by spaces",
        )
    if abs(now - int(timestamp)) > tolerance_s:
        raise _refused(
            "SIGNATURE_EXPIRED",
            f"{TIMESTAMP_HEADER} must be within {tolerance_s:g} s of our clock, was {timestamp}; "
            f"sign each try again and check your clock (NTP)",
        )
    known = list(keys)
    # A stranger's key never counts, but its check costs what a real one costs.
    expected = [sign(key, message_id, int(timestamp), body).encode() for key in known or [STRANGER]]
    matches = 0
    for signature in given.split(" "):
        for one in expected:
            matches += hmac.compare_digest(one, signature.encode())
    if not matches or not known:
        raise _refused("SIGNATURE_INVALID", "the signature does not match this provider, delivery and body")
    return message_id


def _refused(code: str, message: str) -> SignalRejected:
    return SignalRejected(401, code, message)

"""Who is asking: HMAC signatures of REST requests and of the private stream, receive window, rate limit."""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping

from simulator.terms import SimAccount

FUTURE_MS = 1000
"""How far a request's timestamp may be ahead of the server."""
DEFAULT_WINDOW_MS = 5000


class ApiError(Exception):
    """A refusal of the API itself, before the venue is asked: retCode and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def sign(secret: str, payload: str) -> str:
    """HMAC-SHA256 as lower-case hex."""
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


class KeyRing:
    """API keys and whose they are."""

    def __init__(self, accounts: Iterable[SimAccount]) -> None:
        self._by_key = {account.api_key: account for account in accounts}

    def verify_request(self, headers: Mapping[str, str], payload: str, now_ms: int) -> SimAccount:
        """Whose REST request it is; `payload` is the raw query string or body.

        Raises ApiError: 10001 headers missing, 10003 unknown key, 10002 outside the receive window, 10004 wrong sign.
        The signed text is timestamp + key + recv_window + payload
        (https://bybit-exchange.github.io/docs/v5/guide#authentication).
        """
        key, stamp = headers.get("X-BAPI-API-KEY", ""), headers.get("X-BAPI-TIMESTAMP", "")
        window = headers.get("X-BAPI-RECV-WINDOW", str(DEFAULT_WINDOW_MS))
        if not key or not stamp.isdecimal() or not window.isdecimal():
            raise ApiError(10001, "Request parameter error: X-BAPI-API-KEY, X-BAPI-TIMESTAMP or X-BAPI-RECV-WINDOW")
        account = self._by_key.get(key)
        if account is None:
            raise ApiError(10003, "API key is invalid.")
        if not now_ms - int(window) <= int(stamp) < now_ms + FUTURE_MS:
            raise ApiError(
                10002,
                "invalid request, please check your server timestamp or recv_window param. "
                f"req_timestamp[{stamp}],server_timestamp[{now_ms}],recv_window[{window}]",
            )
        expected = sign(account.secret, stamp + key + window + payload)
        if not hmac.compare_digest(expected, headers.get("X-BAPI-SIGN", "").lower()):
            raise ApiError(10004, "error sign! please check your signature generation algorithm.")
        return account

    def verify_stream(self, arguments: object, now_ms: int) -> SimAccount | None:
        """Whose private stream it is, from `[key, expires, sign]`; None when anything is wrong or late."""
        if not isinstance(arguments, list) or len(arguments) != 3:
            return None
        key, expires, signature = (str(part) for part in arguments)
        account = self._by_key.get(key)
        if account is None or not expires.isdecimal() or int(expires) <= now_ms:
            return None
        expected = sign(account.secret, f"GET/realtime{expires}")
        return account if hmac.compare_digest(expected, signature.lower()) else None


class RateLimit:
    """At most `per_second` requests of one account to one path within any second (monotonic)."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._seen: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def check(self, account_id: str, path: str, now_s: float) -> None:
        """Count one request. Raises ApiError 10006 above the limit."""
        seen = self._seen[account_id, path]
        while seen and seen[0] <= now_s - 1:
            seen.popleft()
        if len(seen) >= self.per_second:
            raise ApiError(10006, "Too many visits. Exceeded the API Rate Limit.")
        seen.append(now_s)

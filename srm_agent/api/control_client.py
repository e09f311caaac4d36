"""The command line's side of the control endpoints: blocking, bounded in time, without proxies or redirects."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from srm_agent.domain.accounts import HaltScope
from srm_agent.errors import ConfigurationError, SrmError

TIMEOUT_S = 5.0
_MAX_ANSWER_BYTES = 8 * 1024 * 1024


class DaemonUnreachable(SrmError):
    """Nobody answered, so nothing is known to have been done."""


class ControlRefused(SrmError):
    """The daemon answered no. `status` is the HTTP status, `code` its stable word."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ControlClient:
    """Speaks to one daemon as one operator. `url` is where its intake listens, e.g. `http://127.0.0.1:8080`."""

    def __init__(self, url: str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ConfigurationError(f"the daemon's address must look like http://127.0.0.1:8080, was {url!r}")
        self._url = url
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host = parts.hostname
        self._port = parts.port
        self._token = token.strip()
        self._timeout_s = timeout_s

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Ready or not, and what is missing. Raises DaemonUnreachable, ControlRefused."""
        status, answer = self._call("GET", "/health", None)
        if "missing" not in answer:
            raise self._refusal(status, answer)
        missing = answer["missing"]
        return status == 200, missing if isinstance(missing, dict) else {}

    def status(self) -> Mapping[str, object]:
        """What the daemon is doing. Raises DaemonUnreachable, ControlRefused."""
        return self._done("GET", "/control/status", None)

    def halt(self, scope: HaltScope, key: str, reason: str) -> Mapping[str, object]:
        """Stop new risk; the answer names what was halted and by whom. Raises DaemonUnreachable, ControlRefused."""
        return self._done("POST", "/control/halt", {"scope": scope.value, "key": key, "reason": reason})

    def resume(self, scope: HaltScope, key: str) -> bool:
        """Clear a halt; False if there was none. Raises DaemonUnreachable, ControlRefused."""
        try:
            self._done("POST", "/control/resume", {"scope": scope.value, "key": key})
        except ControlRefused as refusal:
            if refusal.code == "NOT_HALTED":
                return False
            raise
        return True

    def _done(self, method: str, path: str, body: Mapping[str, str] | None) -> Mapping[str, object]:
        status, answer = self._call(method, path, body)
        if status != 200:
            raise self._refusal(status, answer)
        return answer

    def _call(self, method: str, path: str, body: Mapping[str, str] | None) -> tuple[int, Mapping[str, object]]:
        connection = self._connect(self._host, self._port, timeout=self._timeout_s)
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read(_MAX_ANSWER_BYTES)
        except TimeoutError as error:
            raise DaemonUnreachable(
                f"daemon at {self._url} did not answer within {self._timeout_s:g} s; it may have acted: ask for status"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise DaemonUnreachable(f"daemon not reachable at {self._url} ({error}): is it running?") from error
        finally:
            connection.close()
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise DaemonUnreachable(f"what answers at {self._url} is not the daemon: check the address")
        return response.status, answer

    def _refusal(self, status: int, answer: Mapping[str, object]) -> ControlRefused:
        error = answer.get("error")
        detail: Mapping[str, object] = error if isinstance(error, dict) else {}
        message = str(detail.get("message", f"the daemon at {self._url} answered {status}"))
        if status == 401:
            message = (
                f"the daemon at {self._url} does not know this operator token; check the credential operator.token"
            )
        return ControlRefused(status, str(detail.get("code", "HTTP_ERROR")), message)

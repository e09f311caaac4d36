"""A sink on the network: one POST of JSON a try, to the configured address and to nowhere else."""

from __future__ import annotations

import aiohttp

from srm_agent.alerts.addresses import GuardedResolver, Lookup, Target
from srm_agent.alerts.sink import SinkFailed
from srm_agent.clock import Clock

TIMEOUT_S = 2.0
CONNECTIONS = 16


class WebSink:
    """POSTs to one URL: no redirects, no proxies from the environment, no cookies; any 2xx is an acknowledgement."""

    def __init__(
        self,
        name: str,
        to: Target,
        clock: Clock,
        *,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        lookup: Lookup | None = None,
    ) -> None:
        self._name = f"{name} ({to.host})"
        self._target = to
        self._clock = clock
        self._lookup = lookup
        self._timeout_s = timeout_s
        self._headers = {"content-type": "application/json", "user-agent": "srm-agent"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """Its place in the settings and its host."""
        return self._name

    async def post(self, text: str) -> None:
        """See Sink."""
        if self._session is None:
            self._session = self._open()
        try:
            async with self._session.post(
                self._target.url, data=text.encode(), headers=self._headers, allow_redirects=False
            ) as reply:
                status = reply.status
        except TimeoutError:
            raise SinkFailed(f"no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Texts of these errors may hold the URL, and the URL may be a secret.
            raise SinkFailed(f"not reached: {type(error).__name__}{_reason(error)}") from None
        if not 200 <= status < 300:
            raise SinkFailed(f"answered {status}{' (redirects are not followed)' if 300 <= status < 400 else ''}")

    async def close(self) -> None:
        """See Sink."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(self._target, self._clock, self._lookup),
            use_dns_cache=False,
            limit=CONNECTIONS,
            ttl_dns_cache=None,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return (
        f" ({cause.strerror or cause})"
        if isinstance(cause, OSError) and not isinstance(cause, aiohttp.ClientError)
        else ""
    )

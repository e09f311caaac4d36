"""Which addresses an alert may be posted to: nothing inside the house unless the operator said so (SSRF)."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from srm_agent.clock import Clock
from srm_agent.errors import ConfigurationError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str], Awaitable[list[str]]]

FRESH_S = 60.0
"""How long a looked-up address is used before it is looked up again; an older one serves while the lookup fails."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = ipaddress.IPv6Address("fd00:ec2::254")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A checked URL and what its host may be."""

    url: str
    host: str
    loopback: bool
    allow_private: bool

    def permits(self, text: str) -> bool:
        """Whether this address may be connected to. Metadata services and other link-local addresses never may."""
        address = _inner(ipaddress.ip_address(text.partition("%")[0]))
        if address.is_link_local or address.is_multicast or address.is_unspecified or address == _METADATA:
            return False
        if self.loopback:
            return address.is_loopback
        return self.allow_private or address.is_global


def target(url: str, key: str, *, allow_private: bool) -> Target:
    """Check a sink's URL. `key` names where it stands, for the message; the URL may be a secret and is not repeated.

    Raises ConfigurationError: not https (http is for loopback), user or fragment in it, or an address that is refused.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError(f"{key}: is not a URL; write one like https://alerts.example.com/srm") from None
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{key}: must be a URL like https://alerts.example.com/srm")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ConfigurationError(
            f"{key}: must have no user, password or #fragment; put a token into the credentials directory"
        )
    literal = _literal(host)
    loopback = host == "localhost" or (literal is not None and literal.is_loopback)
    if parts.scheme == "http" and not loopback:
        raise ConfigurationError(f"{key}: must begin with https:// (http:// is for loopback); host was {host!r}")
    made = Target(url=url, host=host, loopback=loopback, allow_private=allow_private)
    if literal is not None and not made.permits(host):
        raise ConfigurationError(
            f"{key}: address {host} is private or reserved; set alerts.allow_private = true if it is meant "
            f"(link-local addresses such as 169.254.169.254 are never used)"
        )
    return made


class GuardedResolver(AbstractResolver):
    """Looks a sink's host up, one lookup at a time, and gives only addresses that the target permits.

    A name server that hangs costs one thread of the loop's pool, never more, and the addresses of before are used.
    """

    def __init__(self, of: Target, clock: Clock, lookup: Lookup | None = None) -> None:
        self._target = of
        self._clock = clock
        self._lookup = lookup or _system_lookup
        self._asking: asyncio.Task[list[str]] | None = None
        self._known: list[str] = []
        self._known_at = 0.0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See AbstractResolver. Raises OSError where there is no permitted address."""
        addresses = await self._addresses(host)
        permitted = [address for address in addresses if self._target.permits(address)]
        if len(permitted) < len(addresses) or not permitted:
            # One inner address among public ones is how names are rebound: none is used.
            raise OSError(f"{host} has an address that is private or reserved; see alerts.allow_private")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in permitted
        ]

    async def close(self) -> None:
        """Stop waiting for a lookup."""
        if self._asking is not None:
            self._asking.cancel()

    async def _addresses(self, host: str) -> list[str]:
        if self._known and self._clock.monotonic() - self._known_at < FRESH_S:
            return self._known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._lookup(host))
            # Whoever waits for it may be gone when it fails.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            found = await asyncio.wait_for(asyncio.shield(self._asking), 1.0 if self._known else None)
        except (TimeoutError, OSError):
            if self._known:
                return self._known
            raise
        self._known, self._known_at = found, self._clock.monotonic()
        return found


async def _system_lookup(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address

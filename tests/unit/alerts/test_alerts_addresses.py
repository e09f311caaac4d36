"""Where alerts may be posted: URLs and addresses that are refused, and names that turn inward."""

from __future__ import annotations

import asyncio
import re
import socket
from datetime import UTC, datetime

import pytest

from srm_agent.alerts.addresses import FRESH_S, GuardedResolver, target
from srm_agent.clock import ManualClock
from srm_agent.errors import ConfigurationError

START = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("http://alerts.example.com/x", "must begin with https://", id="plain http"),
        pytest.param("ftp://alerts.example.com", "must be a URL like", id="another scheme"),
        pytest.param("alerts.example.com", "must be a URL like", id="no scheme"),
        pytest.param("https://", "must be a URL like", id="no host"),
        pytest.param("https://u:CANARY@alerts.example.com", "no user, password", id="a password in it"),
        pytest.param("https://alerts.example.com/#x", "fragment", id="a fragment"),
        pytest.param("https://alerts.example.com:99999/", "is not a URL", id="a port that is none"),
        pytest.param("https://alerts.exa mple.com/", "must be a URL like", id="a blank in it"),
        pytest.param("https://10.0.0.7/CANARY", "private or reserved", id="a private address"),
        pytest.param("https://192.168.1.1/", "private or reserved", id="a router"),
        pytest.param("https://100.64.0.1/", "private or reserved", id="carrier-grade NAT"),
        pytest.param("https://169.254.169.254/latest", "private or reserved", id="the metadata service"),
        pytest.param("https://[::ffff:169.254.169.254]/", "private or reserved", id="the same, mapped into IPv6"),
        pytest.param("https://[64:ff9b::a9fe:a9fe]/", "private or reserved", id="the same, through NAT64"),
        pytest.param("https://[2002:a9fe:a9fe::1]/", "private or reserved", id="the same, through 6to4"),
        pytest.param("https://[fe80::1]/", "private or reserved", id="link-local IPv6"),
        pytest.param("https://[fd00:ec2::254]/", "private or reserved", id="the metadata service of IPv6"),
        pytest.param("https://0.0.0.0/", "private or reserved", id="this host"),
        pytest.param("https://224.0.0.1/", "private or reserved", id="multicast"),
    ],
)
def test_a_url_that_leads_inward_is_a_configuration_error(url: str, why: str) -> None:
    """The message names the key and the remedy and never repeats what may be a secret."""
    with pytest.raises(ConfigurationError, match=why) as caught:
        target(url, "alerts.url", allow_private=False)
    assert str(caught.value).startswith("alerts.url: ")
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://169.254.169.254/", "https://[fe80::1]/", "https://[fd00:ec2::254]/", "https://0.0.0.0/"]
)
def test_allow_private_never_means_link_local(url: str) -> None:
    """The metadata service of a cloud is no place for alerts, whatever the configuration says."""
    with pytest.raises(ConfigurationError, match="private or reserved"):
        target(url, "alerts.url", allow_private=True)


@pytest.mark.parametrize(
    ("url", "allow_private"),
    [
        ("https://alerts.example.com/srm?a=b", False),
        ("https://1.1.1.1/", False),
        ("http://127.0.0.1:9000/", False),
        ("http://localhost:9000/", False),
        ("http://[::1]:9000/", False),
        ("https://10.0.0.7/", True),
    ],
)
def test_what_is_meant_is_allowed(url: str, allow_private: bool) -> None:
    """Public https, loopback with http, and private addresses when told."""
    assert target(url, "alerts.url", allow_private=allow_private).url == url


@pytest.mark.parametrize(
    ("found", "allowed"),
    [
        (["93.184.216.34"], True),
        (["2606:2800:220:1::1"], True),
        (["127.0.0.1"], False),
        (["10.1.2.3"], False),
        (["169.254.169.254"], False),
        (["93.184.216.34", "10.1.2.3"], False),
        (["::ffff:127.0.0.1"], False),
        (["fe80::1%eth0"], False),
        ([], False),
    ],
)
async def test_a_name_is_used_only_if_all_its_addresses_are_public(found: list[str], allowed: bool) -> None:
    """A name that is rebound to an inner address is refused at the moment of connecting, not at start."""

    async def lookup(_host: str) -> list[str]:
        return found

    resolver = GuardedResolver(
        target("https://alerts.example.com/", "alerts.url", allow_private=False), ManualClock(START), lookup
    )
    if allowed:
        (answer,) = await resolver.resolve("alerts.example.com", 443)
        assert (answer["host"], answer["port"], answer["flags"]) == (found[0], 443, socket.AI_NUMERICHOST)
    else:
        with pytest.raises(OSError, match=re.escape("alerts.allow_private")):
            await resolver.resolve("alerts.example.com", 443)


async def test_localhost_that_resolves_elsewhere_is_refused() -> None:
    """The licence for plain http is for loopback only."""

    async def lookup(_host: str) -> list[str]:
        return ["93.184.216.34"]

    resolver = GuardedResolver(
        target("http://localhost:1/", "alerts.url", allow_private=True), ManualClock(START), lookup
    )
    with pytest.raises(OSError, match="private or reserved"):
        await resolver.resolve("localhost", 1)


async def test_a_name_server_that_hangs_is_asked_once_and_old_addresses_serve() -> None:
    """Many tries share one lookup; known addresses are used while it hangs or fails."""
    asked: list[str] = []
    hanging = asyncio.Event()

    async def lookup(host: str) -> list[str]:
        asked.append(host)
        if len(asked) > 1:
            await hanging.wait()
        return ["93.184.216.34"]

    clock = ManualClock(START)
    resolver = GuardedResolver(target("https://alerts.example.com/", "alerts.url", allow_private=False), clock, lookup)
    await resolver.resolve("alerts.example.com", 443)
    clock.advance(FRESH_S + 1)
    answers = await asyncio.gather(*(resolver.resolve("alerts.example.com", 443) for _ in range(5)))
    assert [answer[0]["host"] for answer in answers] == ["93.184.216.34"] * 5
    assert len(asked) == 2
    await resolver.close()

"""Settings and credentials: what cannot work is refused by name, secrets never show."""

from __future__ import annotations

import pytest

from adapters.ccxt_venue.admission import may_trade, refuse_withdrawal
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.settings import CcxtCredentials, CcxtVenueSettings, Environment
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import ConfigurationError


def test_credentials_never_show() -> None:
    """Neither key nor secret appear in repr, str or a formatted text."""
    credentials = CcxtCredentials(api_key="CANARY-KEY", secret="CANARY-SECRET")
    assert "CANARY" not in f"{credentials!r} {credentials!s} {credentials}"


def test_empty_credentials_are_refused_by_name() -> None:
    """A missing part is named."""
    with pytest.raises(ConfigurationError, match="secret"):
        CcxtCredentials(api_key="k", secret=" ")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"environment": "url"}, "base_url"),
        ({"environment": "live", "base_url": "http://x", "ws_url": "ws://x"}, "base_url"),
        ({"environment": "paper"}, "environment"),
        ({"stale_s": 0.0}, "stale_s"),
        ({"keep_alive_s": float("nan")}, "keep_alive_s"),
        ({"requests_per_s": float("inf")}, "requests_per_s"),
        ({"request_burst": 5, "reserved_for_exits": 5}, "reserved_for_exits"),
    ],
)
def test_settings_that_cannot_work_name_the_field(changes: dict[str, object], name: str) -> None:
    """The error says which field, which value and what would do."""
    with pytest.raises(ConfigurationError, match=name):
        CcxtVenueSettings(**{"environment": "live", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environment", "host", "stream"),
    [
        ("live", "api.bybit.com", "stream.bybit.com"),
        ("testnet", "api-testnet.bybit.com", "stream-testnet.bybit.com"),
        ("demo", "api-demo.bybit.com", "stream-demo.bybit.com"),
    ],
)
async def test_environment_points_at_its_hosts(environment: Environment, host: str, stream: str) -> None:
    """Orders go where the environment says, and nowhere else."""
    client = VenueClient(CcxtVenueSettings(environment=environment), None)
    urls = client._exchange.urls["api"]
    private = client._exchange.implode_hostname(urls["private"])
    sockets = client._exchange.implode_hostname(urls["ws"]["private"]["contract"])
    await client.close()
    assert private == f"https://{host}"
    assert sockets == f"wss://{stream}/v5/private"


async def test_library_is_set_up_for_safety() -> None:
    """No hidden retries, no hidden throttle, no broker tag, no filter on executions, no environment proxies."""
    client = VenueClient(CcxtVenueSettings(environment="live", keep_alive_s=2.0), None)
    exchange = client._exchange
    await client.close()
    assert exchange.enableRateLimit is False
    assert exchange.aiohttp_trust_env is False
    assert exchange.options["maxRetriesOnFailure"] == 0
    assert exchange.options["brokerId"] is None
    assert exchange.options["ws"]["keepAlive"] == 2000
    assert exchange.handle_option("watchMyTrades", "execType") is None
    assert exchange.handle_option("watchPositions", "fetchPositionsSnapshot") is False


def test_unknown_class_is_a_configuration_error() -> None:
    """A class that the library has not is named."""
    with pytest.raises(ConfigurationError, match="nosuch"):
        VenueClient(CcxtVenueSettings(environment="live", exchange="nosuch"), None)


def test_withdrawal_right_is_refused() -> None:
    """A key that could take money away is not used at all."""
    with pytest.raises(ConfigurationError, match="withdraw"):
        refuse_withdrawal({"permissions": {"Wallet": ["AccountTransfer", "Withdraw"]}}, ConnectionId("c1"))
    refuse_withdrawal({"permissions": {"Wallet": ["AccountTransfer"]}}, ConnectionId("c1"))
    refuse_withdrawal({}, ConnectionId("c1"))


@pytest.mark.parametrize(
    ("info", "trades"),
    [
        ({"readOnly": 0, "permissions": {"ContractTrade": ["Order", "Position"]}}, True),
        ({"readOnly": 1, "permissions": {"ContractTrade": ["Order", "Position"]}}, False),
        ({"readOnly": 0, "permissions": {"ContractTrade": [], "Spot": ["SpotTrade"]}}, False),
        ({}, True),
    ],
)
def test_read_only_keys_are_recognised(info: dict[str, object], trades: bool) -> None:
    """A key without the order right of contracts may only read."""
    assert may_trade(info) is trades

"""Whether an account may be used at all: what its key may do, its type, its position mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.ccxt_venue.budget import Priority, RequestBudget
from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.failures import CallFailed
from adapters.ccxt_venue.outcomes import read_error
from adapters.ccxt_venue.parse import position_ref
from adapters.ccxt_venue.reads import BybitReads
from adapters.ccxt_venue.rows import Row
from srm_agent.domain.ids import ConnectionId, Symbol
from srm_agent.errors import ConfigurationError


def granted(info: Row) -> list[str]:
    """All permission words of `v5/user/query-api`, e.g. `ContractTrade/Order`; empty where none are told."""
    permissions = info.get("permissions")
    if not isinstance(permissions, Mapping):
        return []
    return [f"{group}/{word}" for group, words in permissions.items() if isinstance(words, list) for word in words]


def refuse_withdrawal(info: Row, connection_id: ConnectionId) -> None:
    """Raises ConfigurationError for a key that could take money away."""
    found = [word for word in granted(info) if "withdraw" in word.lower()]
    if found:
        raise ConfigurationError(
            f"{connection_id}: the API key may withdraw ({', '.join(found)}): make a key without that permission"
        )


def may_trade(info: Row) -> bool:
    """False for a read-only key, or one whose told permissions hold no contract order right."""
    if str(info.get("readOnly", 0)) == "1":
        return False
    words = granted(info)
    return not words or any(word.startswith("ContractTrade/") for word in words)


async def admit(
    client: VenueClient,
    reads: BybitReads,
    budget: RequestBudget,
    connection_id: ConnectionId,
    symbols: Sequence[Symbol],
    *,
    key_is_told: bool,
) -> bool:
    """Verify a Bybit account; True if it may only be read. `symbols` are checked for one-way mode.

    `key_is_told` False skips the key's permissions (the demo service has no such endpoint).
    Raises ConfigurationError with the remedy, NotAuthorised, BrokerUnreachable.
    """
    read_only = False
    if key_is_told:
        info = await reads.key_info()
        refuse_withdrawal(info, connection_id)
        read_only = not may_trade(info)
    await _require_unified(client, budget, connection_id)
    for symbol in symbols:
        market_id = client.id_of_symbol(symbol)
        if market_id is None:
            continue  # nothing can be traded in it: the feed does not know it either, and its signals are refused
        if await reads.position_modes(market_id) - {0}:
            raise _hedge_mode(connection_id, symbol)
    for position in await reads.positions():
        if position.ref != position_ref(position.symbol, 0):
            raise _hedge_mode(connection_id, position.symbol)
    return read_only


async def _require_unified(client: VenueClient, budget: RequestBudget, connection_id: ConnectionId) -> None:
    await budget.take(Priority.READ)
    try:
        # ccxt needs and keeps this answer before its first order: asked here, no order waits for it.
        unified = await client.unified("is_unified_enabled")
    except CallFailed as failed:
        raise read_error(failed.failure, "account type") from failed
    if not (isinstance(unified, list) and len(unified) == 2 and unified[1] is True):
        raise ConfigurationError(f"{connection_id}: a unified trading account is required: upgrade it at the venue")


def _hedge_mode(connection_id: ConnectionId, symbol: Symbol) -> ConfigurationError:
    return ConfigurationError(
        f"{connection_id}: {symbol} is in hedge mode: switch the account to one-way mode at the venue"
    )

"""What an API key may do (pure): trading is wanted, withdrawing is refused."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.ccxt_venue.rows import Row
from srm_agent.domain.ids import ConnectionId
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

"""What a market feed and a broker account tell us while we listen."""

from __future__ import annotations

from dataclasses import dataclass

from srm_agent.domain.accounts import AccountSnapshot, CashFlow
from srm_agent.domain.market import Quote
from srm_agent.domain.orders import BrokerPosition, Fill, OrderReport


@dataclass(frozen=True, slots=True)
class StreamDown:
    """The stream broke; nothing that follows counts until a Resync (account) or a fresh Quote (feed)."""

    stream: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """A full picture read after connecting or reconnecting: history first, positions second."""

    fills: tuple[Fill, ...]
    open_orders: tuple[OrderReport, ...]
    positions: tuple[BrokerPosition, ...]
    account: AccountSnapshot
    cash_flows: tuple[CashFlow, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The account stream is alive: it answered at this monotonic second."""

    received: float


FeedEvent = Quote | StreamDown
AccountEvent = StreamDown | Resync | Heartbeat | Fill | OrderReport | BrokerPosition | AccountSnapshot
"""A BrokerPosition with lot 0 says that the position is gone."""

"""What the world says about itself, for machines: `GET /_sim/report` and the file at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypedDict

from simulator.providers import Provider
from simulator.story import Event
from simulator.webhook_client import Deliveries
from srm_agent.domain.units import plain


class EventRow(TypedDict):
    """One event; `at` is market time."""

    at: str
    kind: str
    symbol: str
    detail: str
    size: float


class ProviderRow(TypedDict):
    """A provider's true skill beside what he did."""

    id: str
    style: str
    symbols: list[str]
    true_skill: float
    true_expectancy_r: float | None
    closed: int
    signals: int
    messages: int
    accepted: int
    rejected: int
    rejected_by_status: dict[str, int]
    retries: int
    lost: int


class AccountRow(TypedDict):
    """Money at the venue, exact text."""

    id: str
    equity: str
    balance: str


class Report(TypedDict):
    """The whole report."""

    seed: int
    market_start: str
    market_now: str
    run_started: str | None
    events: list[EventRow]
    providers: list[ProviderRow]
    accounts: list[AccountRow]


def market_text(at_ms: int) -> str:
    """Market milliseconds as RFC 3339 UTC."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def event_rows(events: Sequence[Event], symbols: Mapping[str, str]) -> list[EventRow]:
    """Events in the order they were written, symbols as signals name them."""
    return [
        EventRow(
            at=market_text(event.at_ms),
            kind=event.kind,
            symbol=",".join(symbols.get(part, part) for part in event.symbol_id.split(",")),
            detail=event.detail,
            size=round(event.size, 6),
        )
        for event in events
    ]


def provider_row(provider: Provider, deliveries: Deliveries, symbols: Mapping[str, str]) -> ProviderRow:
    """True skill = accuracy; true expectancy = mean R of his own closed ideas on the true path, without costs."""
    expectancy = provider.book.expectancy_r
    return ProviderRow(
        id=provider.provider_id,
        style=provider.style,
        symbols=[symbols[symbol] for symbol in provider.symbols],
        true_skill=round(provider.accuracy, 4),
        true_expectancy_r=None if expectancy is None else round(expectancy, 4),
        closed=len(provider.book.results),
        signals=provider.book.opened,
        messages=deliveries.sent,
        accepted=deliveries.accepted,
        rejected=deliveries.rejected,
        rejected_by_status={str(status): count for status, count in sorted(deliveries.refused.items())},
        retries=deliveries.retries,
        lost=deliveries.lost,
    )


def account_row(account_id: str, equity: Decimal, balance: Decimal) -> AccountRow:
    """Money of one account."""
    return AccountRow(id=account_id, equity=plain(equity), balance=plain(balance))

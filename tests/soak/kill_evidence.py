"""Reads both sides for the judge of the kill -9 soak: the venue's truth page and the daemon's database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import cast

from srm_agent.clock import SystemClock
from srm_agent.domain.ids import ConnectionId, SignalId, client_order_id
from srm_agent.domain.orders import OrderPurpose, OrderState
from srm_agent.domain.trades import LegState
from srm_agent.store.store import Store
from tests.soak.kill_judge import Acked, BookedLeg, BookedOrder, Evidence, VenueOrder, VenuePosition

DENIED = (OrderState.REJECTED, OrderState.ABANDONED)
ATTEMPTS = 3
"""Entry ids that are derived for each signal, so that a duplicate is found without the database's help."""
Rows = Sequence[Mapping[str, object]]


async def evidence(truth: Mapping[str, object], database: Path, acked: Sequence[Acked]) -> Evidence:
    """Both sides as they are now; the database is opened for reading only."""
    store = await Store.open(f"sqlite:///{database}", SystemClock(), read_only=True)
    try:
        rows, legs = await store.book.orders(), await store.book.legs()
        decisions, messages = await store.book.decisions(), await store.book.messages()
    finally:
        await store.close()
    return Evidence(
        venue_orders=[_venue_order(row) for row in cast("Rows", truth["orders"])],
        positions=[_position(row) for row in cast("Rows", truth["positions"])],
        arrived={
            (str(a), str(link)): int(n) for a, link, n in cast("Iterable[tuple[str, str, int]]", truth["arrived"])
        },
        orders=[
            BookedOrder(
                account=row.intent.connection_id,
                client_id=row.intent.client_id,
                signal_id=row.intent.signal_id or "",
                entry=row.intent.purpose is OrderPurpose.ENTRY,
                settled=row.state.settled,
                denied=row.state in DENIED and not row.filled_lot,
                state=row.state.value,
            )
            for row in rows
        ],
        legs=[
            BookedLeg(
                account=leg.connection_id,
                signal_id=leg.signal_id,
                symbol=leg.symbol,
                lots=leg.open_lot * int(leg.side),
            )
            for leg in legs
            if leg.state in (LegState.OPEN, LegState.OPENING)
        ],
        decided={(one.connection_id, one.signal_id): one.accepted for one in decisions},
        finished={one.signal.receipt.message_id: one.finished_at is not None for one in messages},
        acked=acked,
        entries=_entries(acked),
    )


async def waiting(database: Path) -> int:
    """How much the daemon has still to do: messages not finished and orders not settled."""
    store = await Store.open(f"sqlite:///{database}", SystemClock(), read_only=True)
    try:
        messages = [one for one in await store.book.messages() if one.finished_at is None]
        orders = [row for row in await store.book.orders() if not row.state.settled]
        opening = [leg for leg in await store.book.legs() if leg.state is LegState.OPENING]
    finally:
        await store.close()
    return len(messages) + len(orders) + len(opening)


async def trades(database: Path) -> tuple[int, int, int]:
    """Orders journalled, legs that opened, trades closed."""
    store = await Store.open(f"sqlite:///{database}", SystemClock(), read_only=True)
    try:
        legs = [leg for leg in await store.book.legs() if leg.state in (LegState.OPEN, LegState.CLOSED)]
        return len(await store.book.orders()), len(legs), len(await store.book.trades())
    finally:
        await store.close()


def _entries(acked: Iterable[Acked]) -> dict[str, tuple[str, str]]:
    return {
        client_order_id(ConnectionId(account), SignalId(message.signal_id), "entry", attempt): (
            account,
            message.signal_id,
        )
        for message in acked
        if message.opens
        for account in message.followers
        for attempt in range(1, ATTEMPTS + 1)
    }


def _venue_order(row: Mapping[str, object]) -> VenueOrder:
    return VenueOrder(
        account=str(row["account"]),
        client_id=str(row["link"]),
        symbol=str(row["symbol"]),
        reduce_only=bool(row["reduce"]),
        filled=Decimal(str(row["filled"])),
        working=bool(row["working"]),
    )


def _position(row: Mapping[str, object]) -> VenuePosition:
    return VenuePosition(
        account=str(row["account"]),
        symbol=str(row["symbol"]),
        lots=Decimal(str(row["lots"])),
        stopped=bool(row["stopped"]),
    )

"""What the kill -9 soak compares: the venue, the database, and what was acknowledged to the providers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from srm_agent.domain.units import ZERO

OURS = "srm1"
"""How our client ids begin."""
Book = tuple[str, str]
"""Account and symbol."""


class Kind(StrEnum):
    """What must not be; each is counted."""

    DUPLICATE = "duplicates"
    """Two accepted entry orders of one account and signal, or one order sent twice (INV-1)."""
    ORPHAN = "orphans"
    """An order or position of ours that the database does not know, or the other way round (INV-6, INV-7)."""
    LOST = "lost"
    """A message that was answered 2xx and is not in the database, not finished, or without its effect (INV-3)."""
    UNRESOLVED = "unresolved"
    """An order whose fate the database does not know after the finality time (INV-5)."""
    NAKED = "naked"
    """A position without a stop at the venue (INV-4)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueOrder:
    """An order that the venue has accepted. `client_id` empty: the venue's own (a stop that fired)."""

    account: str
    client_id: str
    symbol: str
    reduce_only: bool
    filled: Decimal
    working: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VenuePosition:
    """A net position; `lots` signed, positive long."""

    account: str
    symbol: str
    lots: Decimal
    stopped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedOrder:
    """A row of the database's journal; `settled`: its fate is known; `denied`: it says that nothing was executed."""

    account: str
    client_id: str
    signal_id: str
    """Empty for closes outside any signal."""
    entry: bool
    settled: bool
    denied: bool
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedLeg:
    """A leg that the database holds open; `lots` signed, positive long."""

    account: str
    signal_id: str
    symbol: str
    lots: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked:
    """A message that was answered with 2xx. `closes`: it asked for all that is open of its signal."""

    message_id: str
    signal_id: str
    opens: bool
    closes: bool
    followers: tuple[str, ...]
    """Accounts that copy its provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Both sides at one quiet moment, and what the sender remembers.

    `arrived`: how often the venue was sent each (account, client id). `entries`: account and signal of client ids that
    are derived, not read from the database. `decided`: account and signal, True where an order was to follow.
    `finished`: whether each message of the database was worked off.
    """

    venue_orders: Sequence[VenueOrder]
    positions: Sequence[VenuePosition]
    arrived: Mapping[tuple[str, str], int]
    orders: Sequence[BookedOrder]
    legs: Sequence[BookedLeg]
    decided: Mapping[tuple[str, str], bool]
    finished: Mapping[str, bool]
    acked: Sequence[Acked]
    entries: Mapping[str, tuple[str, str]]


def judge(evidence: Evidence) -> list[Finding]:
    """Everything that must not be; empty when all is well."""
    return [
        *_duplicates(evidence),
        *_orphans(evidence),
        *_lost(evidence),
        *_unresolved(evidence),
        *(
            Finding(Kind.NAKED, f"{position.account} {position.symbol} {position.lots} has no stop")
            for position in evidence.positions
            if position.lots and not position.stopped
        ),
    ]


def count(findings: Iterable[Finding]) -> dict[Kind, int]:
    """How many of each kind, zero included."""
    counted = Counter(finding.kind for finding in findings)
    return {kind: counted[kind] for kind in Kind}


def _duplicates(evidence: Evidence) -> Iterator[Finding]:
    signals = {order.client_id: (order.account, order.signal_id) for order in evidence.orders if order.entry}
    signals.update(evidence.entries)
    accepted: dict[tuple[str, str], list[str]] = {}
    for order in evidence.venue_orders:
        if order.client_id in signals and not order.reduce_only:
            accepted.setdefault(signals[order.client_id], []).append(order.client_id)
    for (account, signal), ids in accepted.items():
        if len(ids) > 1:
            yield Finding(Kind.DUPLICATE, f"{account} entered {signal} {len(ids)} times: {', '.join(ids)}")
    for (account, client_id), times in evidence.arrived.items():
        if client_id.startswith(OURS) and times > 1:
            yield Finding(Kind.DUPLICATE, f"{account} sent {client_id} {times} times")


def _orphans(evidence: Evidence) -> Iterator[Finding]:
    booked = {order.client_id: order for order in evidence.orders}
    for order in evidence.venue_orders:
        row = booked.get(order.client_id)
        if order.client_id.startswith(OURS) and row is None:
            yield Finding(Kind.ORPHAN, f"{order.account} has order {order.client_id} ({order.symbol}), not booked")
        elif row is not None and row.denied and order.filled:
            yield Finding(Kind.ORPHAN, f"{order.account} executed {order.client_id}, booked as {row.state}")
        elif row is not None and row.settled and order.working:
            yield Finding(Kind.ORPHAN, f"{order.account} still has {order.client_id}, booked as {row.state}")
    known = {order.client_id for order in evidence.venue_orders}
    for row in evidence.orders:
        if row.settled and not row.denied and row.client_id not in known:
            yield Finding(Kind.ORPHAN, f"{row.account} is booked {row.client_id} {row.state}, unknown at the venue")
    held: dict[Book, Decimal] = {}
    for leg in evidence.legs:
        held[leg.account, leg.symbol] = held.get((leg.account, leg.symbol), ZERO) + leg.lots
    there = {(position.account, position.symbol): position.lots for position in evidence.positions}
    for book in sorted({*held, *there}):
        if held.get(book, ZERO) != there.get(book, ZERO):
            text = f"holds {there.get(book, ZERO)} at the venue, {held.get(book, ZERO)} in the database"
            yield Finding(Kind.ORPHAN, f"{book[0]} {book[1]} {text}")


def _lost(evidence: Evidence) -> Iterator[Finding]:
    ordered = {(order.account, order.signal_id) for order in evidence.orders if order.entry}
    alive = {leg.signal_id for leg in evidence.legs}
    for message in evidence.acked:
        name = f"{message.message_id} ({message.signal_id})"
        done = evidence.finished.get(message.message_id)
        if done is None:
            yield Finding(Kind.LOST, f"{name} was acknowledged and is not in the database")
            continue
        if not done:
            yield Finding(Kind.LOST, f"{name} was acknowledged and is not finished")
        for account in message.followers if message.opens else ():
            accepted = evidence.decided.get((account, message.signal_id))
            if accepted is None:
                yield Finding(Kind.LOST, f"{name} has no decision for {account}")
            elif accepted and (account, message.signal_id) not in ordered:
                yield Finding(Kind.LOST, f"{name} was accepted for {account} and has no order")
        if message.closes and message.signal_id in alive:
            yield Finding(Kind.LOST, f"{name} asked to close, and a leg of it is open")


def _unresolved(evidence: Evidence) -> Iterator[Finding]:
    for row in evidence.orders:
        if not row.settled:
            yield Finding(Kind.UNRESOLVED, f"{row.account} {row.client_id} is {row.state}")

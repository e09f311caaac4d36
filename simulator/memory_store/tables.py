"""The tables: dictionaries in the order of writing, with one undo log, so that a write is all or nothing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from srm_agent.domain.accounts import Halt, HaltScope, ProtectionMark
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ProviderScore
from srm_agent.domain.ids import ClientOrderId, ConnectionId, DecisionId, FillId, LegId, ProviderKey, SignalId
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.errors import StoreUnavailable
from srm_agent.ports import JournalRow
from srm_agent.store.metric_sums import Sums
from srm_agent.store.records import (
    AuditRow,
    EquityMark,
    FillRecord,
    FlowRecord,
    LeaseRecord,
    MeasureRecord,
    MessageRecord,
)

K = TypeVar("K")
V = TypeVar("V")
Undo = tuple[Callable[..., object], tuple[object, ...]]
"""A call that takes one change back."""
MessageKey = tuple[ProviderKey, str]
Period = tuple[ProviderKey, str, str]
"""Provider, kind, ISO start."""


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """An order with its place in the journal; `logged`: it has an execution log (entries of a signal have one)."""

    number: int
    row: JournalRow
    detail: str
    logged: bool


@dataclass(frozen=True, slots=True)
class LegEntry:
    """A leg with its place; `shown`: it has a row among the platform's positions."""

    number: int
    leg: Leg
    shown: bool


class Table(Generic[K, V]):
    """A dictionary whose changes can be taken back. A replaced row keeps its place, like an UPDATE."""

    def __init__(self, undo: list[Undo]) -> None:
        self._undo = undo
        self._rows: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: K) -> V | None:
        """The row of that key."""
        return self._rows.get(key)

    def put(self, key: K, row: V) -> None:
        """Insert or replace."""
        rows = self._rows
        if key in rows:
            self._undo.append((rows.__setitem__, (key, rows[key])))
        else:
            self._undo.append((rows.__delitem__, (key,)))
        rows[key] = row

    def drop(self, key: K) -> None:
        """Delete. Its place is lost if the deletion is taken back: tables with deletions are sorted when read."""
        self._undo.append((self._rows.__setitem__, (key, self._rows.pop(key))))

    def keys(self) -> list[K]:
        """All keys, oldest first: a list of the caller's own."""
        return list(self._rows)

    def values(self) -> list[V]:
        """All rows, oldest first: a list of the caller's own."""
        return list(self._rows.values())

    def items(self) -> list[tuple[K, V]]:
        """All keys with their rows, oldest first."""
        return list(self._rows.items())

    def newest_first(self) -> Iterator[V]:
        """All rows backwards, one by one; nothing may be written meanwhile."""
        return reversed(self._rows.values())


class Timeline(Generic[K]):
    """Keys by instant, to ask for those since one."""

    def __init__(self, undo: list[Undo]) -> None:
        self._undo = undo
        self._entries: list[tuple[datetime, int, K]] = []

    def add(self, at: datetime, number: int, key: K) -> None:
        """`number` is unique: it orders equal instants, and the answers."""
        entry = (at, number, key)
        insort(self._entries, entry)
        self._undo.append((self._entries.remove, (entry,)))

    def drop(self, at: datetime, number: int, key: K) -> None:
        """Take an entry out that `add` put in."""
        entry = (at, number, key)
        self._entries.remove(entry)
        self._undo.append((insort, (self._entries, entry)))

    def since(self, at: datetime) -> list[K]:
        """Keys not before that instant, in the order of their numbers."""
        start = bisect_left(self._entries, (at,))
        return [key for _, _, key in sorted(self._entries[start:], key=lambda entry: entry[1])]


class Tables:
    """Everything that survives the daemon."""

    def __init__(self) -> None:
        self._undo: list[Undo] = []
        undo = self._undo
        self.decisions = Table[DecisionId, Decision](undo)
        self.deciders = Table[SignalId, tuple[ConnectionId, ...]](undo)
        self.orders = Table[ClientOrderId, OrderEntry](undo)
        self.unsettled = Table[ClientOrderId, OrderEntry](undo)
        self._settled: dict[ConnectionId, Timeline[ClientOrderId]] = {}
        self.orders_by_leg = Table[LegId, tuple[ClientOrderId, ...]](undo)
        self.entry_logs = Table[LegId, ClientOrderId](undo)
        self.legs = Table[LegId, LegEntry](undo)
        self.open_legs = Table[LegId, LegEntry](undo)
        self.fills = Table[tuple[ConnectionId, FillId], FillRecord](undo)
        self._fill_times: dict[ConnectionId, Timeline[FillId]] = {}
        self.measures = Table[ClientOrderId, MeasureRecord](undo)
        self.entry_measures = Table[LegId, ClientOrderId](undo)
        self.trades = Table[LegId, ClosedTrade](undo)
        self.scores = Table[LegId, ProviderScore](undo)
        self.last_scores = Table[ProviderKey, LegId](undo)
        self.sums = Table[Period, Sums](undo)
        self.messages = Table[MessageKey, MessageRecord](undo)
        self.unfinished = Table[MessageKey, int](undo)
        self.openings = Table[SignalId, MessageKey](undo)
        self.tombstones = Table[SignalId, MessageKey](undo)
        self.marks = Table[ConnectionId, ProtectionMark](undo)
        self.halts = Table[tuple[HaltScope, str], Halt](undo)
        self.audit = Table[int, AuditRow](undo)
        self.equity = Table[tuple[ConnectionId, datetime], EquityMark](undo)
        self.flows = Table[tuple[ConnectionId, str], FlowRecord](undo)
        self.leases = Table[ConnectionId, LeaseRecord](undo)

    def fill_times(self, connection: ConnectionId) -> Timeline[FillId]:
        """The fills of a connection by market time."""
        return self._fill_times.setdefault(connection, Timeline(self._undo))

    def settled(self, connection: ConnectionId) -> Timeline[ClientOrderId]:
        """The settled orders of a connection by the instant they last changed."""
        return self._settled.setdefault(connection, Timeline(self._undo))

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        """Changes made inside stay only if the block ends well. Not nested; nothing is awaited inside."""
        self._undo.clear()
        try:
            yield self
        except BaseException:
            while self._undo:
                call, arguments = self._undo.pop()
                call(*arguments)
            raise


class Session:
    """One daemon's access to the tables, until it is closed."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._closed = False

    def writing(self) -> AbstractContextManager[Tables]:
        """A transaction. Raises StoreUnavailable once closed."""
        return self.reading().transaction()

    def reading(self) -> Tables:
        """The tables as they are. Raises StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        return self._tables

    def close(self) -> None:
        """No more access; idempotent."""
        self._closed = True

"""What an account's reads show: the truth, or for a while less of it (B26)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TypeVar

from simulator.records import Execution, LedgerRow, PositionView, SimOrder, Wallet
from simulator.spells import Spell, loop_time
from simulator.venue import Venue
from srm_agent.errors import BrokerUnreachable

Row = TypeVar("Row")


class Read(StrEnum):
    """What can be asked."""

    POSITIONS = "positions"
    OPEN_ORDERS = "open_orders"
    LOOKUP = "lookup"
    FILLS = "fills"
    CASH_FLOWS = "cash_flows"
    ACCOUNT = "account"


class Blindness(StrEnum):
    """How an endpoint fails to tell the truth."""

    ERROR = "error"
    """It answers with an error."""
    EMPTY = "empty"
    """It answers that there is nothing, as if all were well."""
    TRUNCATED = "truncated"
    """It shows the first half only."""
    STALE = "stale"
    """It shows what was true when the blindness began: a replica that lags behind."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """An account at one moment."""

    positions: list[PositionView]
    orders: dict[str, SimOrder]
    executions: list[Execution]
    ledger: list[LedgerRow]
    wallet: Wallet


class Sight:
    """Reads of one account. Each kind of read can be blind in one way at a time."""

    def __init__(self, venue: Venue, account_id: str) -> None:
        self._venue = venue
        self._account_id = account_id
        self._blind: dict[Read, tuple[Blindness, Spell, _Picture]] = {}
        self._lies_end = -inf

    def blind(self, read: Read, how: Blindness, seconds: float) -> None:
        """From now on, for so long. A wallet that is EMPTY or TRUNCATED is an error: it has no such form."""
        spell = Spell()
        spell.begin(seconds)
        self._blind[read] = (how, spell, self._picture())
        if how is not Blindness.ERROR:
            self._lies_end = max(self._lies_end, loop_time() + seconds)

    @property
    def truthful_s(self) -> float:
        """Seconds since the last answer that was less than the truth; negative while there are such answers."""
        return loop_time() - self._lies_end

    def clear(self) -> None:
        """The truth again."""
        self._blind.clear()

    @property
    def whole(self) -> bool:
        """Everything is shown as it is."""
        return not any(spell.on for _, spell, _ in self._blind.values())

    # ---- reads; all raise BrokerUnreachable where the endpoint fails

    def positions(self) -> list[PositionView]:
        """Open positions."""
        return self._seen(Read.POSITIONS, lambda: self._venue.positions(self._account_id), lambda old: old.positions)

    def open_orders(self) -> list[SimOrder]:
        """Working orders."""
        return self._seen(
            Read.OPEN_ORDERS,
            lambda: self._venue.orders(self._account_id, working=True),
            lambda old: [order for order in old.orders.values() if order.status.working],
        )

    def order(self, link_id: str) -> SimOrder | None:
        """One order by our id, None if it is not shown."""
        found = self._seen(
            Read.LOOKUP,
            lambda: [self._venue.order(self._account_id, link_id=link_id)],
            lambda old: [old.orders.get(link_id)],
        )
        return found[0] if found else None

    def fills(self, since_ms: int) -> list[Execution]:
        """Executions since a market time, oldest first."""
        return self._seen(
            Read.FILLS,
            lambda: self._venue.executions(self._account_id, since_ms=since_ms),
            lambda old: [item for item in old.executions if item.at_ms >= since_ms],
        )

    def fills_of(self, order: SimOrder) -> list[Execution]:
        """Executions of one order, as many as its look-up counts."""
        if not order.filled:
            return []
        found = self._venue.executions(self._account_id, order_id=order.order_id)
        # A lagging look-up shows an old state of the order: its fills are those of that state.
        return [item for item in found if item.order.filled <= order.filled]

    def ledger(self, since_ms: int) -> list[LedgerRow]:
        """The transaction log since a market time, oldest first."""
        return self._seen(
            Read.CASH_FLOWS,
            lambda: self._venue.ledger(self._account_id, since_ms=since_ms),
            lambda old: [row for row in old.ledger if row.at_ms >= since_ms],
        )

    def wallet(self) -> Wallet:
        """Money."""
        found = self._seen(Read.ACCOUNT, lambda: [self._venue.wallet(self._account_id)], lambda old: [old.wallet])
        if not found:
            raise BrokerUnreachable("wallet: exactly one account expected, were 0")
        return found[0]

    def _seen(self, read: Read, now: Callable[[], list[Row]], then: Callable[[_Picture], list[Row]]) -> list[Row]:
        how, spell, picture = self._blind.get(read, (None, None, None))
        if spell is None or picture is None or not spell.on:
            return now()
        match how:
            case Blindness.EMPTY:
                return []
            case Blindness.STALE:
                return then(picture)
            case Blindness.TRUNCATED:
                rows = now()
                return rows[: len(rows) // 2]
            case _:
                raise BrokerUnreachable(f"{read}: the endpoint answered with an error")

    def _picture(self) -> _Picture:
        orders = self._venue.orders(self._account_id)
        return _Picture(
            positions=self._venue.positions(self._account_id),
            orders={order.ticket.link_id or order.order_id: order for order in orders},
            executions=self._venue.executions(self._account_id),
            ledger=self._venue.ledger(self._account_id),
            wallet=self._venue.wallet(self._account_id),
        )

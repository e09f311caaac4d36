"""What all judges share: since when the agent could act, what each account holds and whose it is, what the legs say."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from simulator.records import ExecType, Execution, SimOrder, StopKind
from simulator.simulation.evidence import Evidence
from simulator.simulation.invariants.doors import Committed
from simulator.terms import SymbolState
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ClientOrderId, ConnectionId, SignalId, Symbol, client_order_id
from srm_agent.domain.orders import OrderPurpose
from srm_agent.domain.signals import OpenSignal
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ZERO

T = TypeVar("T")
PREFIX = "srm1"
"""Our client ids begin with it."""
TAKEOVER_S = 10.0
"""So long may a process that waited for the lease of a dead one take to begin."""
ATTEMPTS = 4
"""Attempts of an entry that are recognised by their derived id when the journal does not know it."""
LIVE = (LegState.OPENING, LegState.OPEN)


@dataclass(slots=True)
class Holding:
    """One net position, split by whose it is: signed lots.

    On a netting venue nobody can say whose lots a trade of others closes. As for the agent, volume against ours closes
    ours first; what is left is foreign. `meddled_at`: others traded the symbol since it was flat, last then.
    """

    ours: Decimal = ZERO
    foreign: Decimal = ZERO
    meddled_at: float | None = None

    @property
    def net(self) -> Decimal:
        """What the venue shows."""
        return self.ours + self.foreign

    def apply(self, signed: Decimal, *, entry: bool, exit_: bool, meddled_at: float | None) -> Decimal:
        """A trade of so many signed lots, an entry or exit of ours or of others; how many foreign lots an exit closed.

        `meddled_at`: the new value where it was not ours.
        """
        touched = ZERO
        if entry:
            self.ours += signed
        else:
            closing = min(abs(signed), abs(self.ours)) if signed * self.ours < 0 else ZERO
            own = closing if signed > 0 else -closing
            self.ours += own
            self.foreign += signed - own
            touched = abs(signed - own) if exit_ else ZERO
            if not exit_:
                self.meddled_at = meddled_at
        if not self.net:
            self.ours = self.foreign = ZERO
            self.meddled_at = None
        return touched


class Facts:
    """Kept up to date by the judge: `tick` before the checks' ticks, `executed` before their events."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.seen = evidence.seen
        terms = evidence.venue.instruments.values()
        self.symbol = {item.symbol_id: Symbol(item.symbol) for item in terms}
        self.symbol_id = {symbol: symbol_id for symbol_id, symbol in self.symbol.items()}
        self.touched = ZERO
        """Foreign lots that the execution told last has closed, if it was an exit of ours."""
        self.crossed: dict[tuple[ConnectionId, str], float] = {}
        """When others (or a position's own stop) last traded a symbol."""
        self._holdings: dict[tuple[str, str], Holding] = {}
        self.states: dict[ConnectionId, ConnectionState | None] = dict.fromkeys(evidence.connections)
        """What the living agent says of its accounts at this tick."""
        self._serving_since: float | None = None
        self._good_since: dict[ConnectionId, float | None] = dict.fromkeys(evidence.connections)
        self.database_since: float | None = evidence.now()
        """Since when the database works, None while it does not."""
        self.database_down_since: float | None = None
        self.legs_version = 0
        """Grows with each new reading of the legs."""
        self._legs: dict[ConnectionId, list[Leg]] = {}
        self._lots: dict[tuple[ConnectionId, Symbol], Decimal] = {}
        for connection in evidence.connections:
            for view in evidence.venue.positions(connection):
                lots = view.lots * (view.side or 0)
                self._holdings[connection, view.symbol_id] = Holding(foreign=lots, meddled_at=evidence.now())

    # ---- what the agent could do

    def tick(self, at: float) -> None:
        """Look at the world."""
        self._serving_since = self._served(at)
        for connection in self.evidence.connections:
            self.states[connection] = self.evidence.state_of(connection)
            if self._serving_since is None or not self.evidence.reachable(connection):
                self._good_since[connection] = None
            elif self._good_since[connection] is None:
                self._good_since[connection] = at
        if self.evidence.database_works():
            self.database_down_since = None
            self.database_since = at if self.database_since is None else self.database_since
        else:
            self.database_since = None
            self.database_down_since = at if self.database_down_since is None else self.database_down_since

    def good_since(self, connection: ConnectionId) -> float | None:
        """Since when that account was reachable and a process ready, without a break; None: it is not so now."""
        good, serving = self._good_since[connection], self._serving_since
        return None if good is None or serving is None else max(good, serving)

    def alone(self) -> int | None:
        """The number of the one living process, None when there are none or two."""
        living = [life.number for life in self.evidence.lives if life.died is None]
        return living[0] if len(living) == 1 else None

    def _served(self, at: float) -> float | None:
        """Since when a process is ready; one that waited for a dead one's lease has TAKEOVER_S after that death."""
        ready = [life for life in self.evidence.lives if life.died is None and life.ready is not None]
        if not ready:
            return None
        first = min(life.ready for life in ready if life.ready is not None)
        deaths = [life.died for life in self.evidence.lives if life.died is not None and life.died >= first]
        since = max([first, *(died + TAKEOVER_S for died in deaths)])
        return since if since <= at else None

    # ---- what accounts hold

    def executed(self, execution: Execution, at: float) -> None:
        """Book a fill."""
        order = execution.order
        ours = order.ticket.link_id.startswith(PREFIX)
        forced = order.stop_kind in (StopKind.STOP_LOSS, StopKind.TAKE_PROFIT) or execution.exec_type is ExecType.BUST
        key = (ConnectionId(execution.account_id), order.ticket.symbol_id)
        holding = self.holding(*key)
        # The stop of a position that is all ours is nobody's meddling.
        meddled = holding.meddled_at if forced and not holding.foreign else at
        self.touched = holding.apply(
            execution.side * execution.lots,
            entry=ours and not order.ticket.reduce_only,
            exit_=ours and order.ticket.reduce_only,
            meddled_at=meddled,
        )
        if not ours:
            self.crossed[key] = at

    def holding(self, connection: ConnectionId, symbol_id: str) -> Holding:
        """The position of a symbol, flat if there never was one."""
        found = self._holdings.get((connection, symbol_id))
        if found is None:
            found = self._holdings[connection, symbol_id] = Holding()
        return found

    def held(self, connection: ConnectionId) -> Iterable[tuple[str, Holding]]:
        """Positions that are not flat, by the venue's own name of the symbol."""
        for (account, symbol_id), holding in self._holdings.items():
            if account == connection and holding.net:
                yield symbol_id, holding

    def tradable(self, symbol_id: str) -> bool:
        """Orders of both kinds are taken on a symbol now (it has a price, is not closed, suspended or disabled)."""
        venue = self.evidence.venue
        return venue.priced(symbol_id) and venue.state_of(symbol_id) not in (SymbolState.CLOSED, SymbolState.DISABLED)

    # ---- what the database says

    def legs(self, connection: ConnectionId) -> list[Leg]:
        """All legs of an account as the database has them now, oldest first."""
        self._read_legs()
        return self._legs.get(connection, [])

    def _read_legs(self) -> None:
        if not self.seen.legs_changed:
            return
        self.seen.legs_changed = False
        self.legs_version += 1
        self._legs, self._lots = {}, {}
        for leg in at_once(self.evidence.book.legs()):
            self._legs.setdefault(leg.connection_id, []).append(leg)
            if leg.state is LegState.OPEN:
                key = (leg.connection_id, leg.symbol)
                self._lots[key] = self._lots.get(key, ZERO) + int(leg.side) * leg.open_lot

    def leg_lots(self, connection: ConnectionId, symbol: Symbol) -> Decimal:
        """Signed open lots of all legs on a symbol."""
        self._read_legs()
        return self._lots.get((connection, symbol), ZERO)

    def entry_of(self, leg: Leg) -> Committed | None:
        """The entry order of a leg, as the journal has it."""
        for entry in reversed(self.seen.orders.values()):
            if entry.intent.leg_id == leg.leg_id and entry.intent.purpose is OrderPurpose.ENTRY:
                return entry
        return None

    def signal_of(self, order: SimOrder) -> SignalId | None:
        """Whose entry an order of ours is: by the journal, else by the ids that derive from known signals."""
        link, connection = ClientOrderId(order.ticket.link_id), ConnectionId(order.account_id)
        entry = self.seen.orders.get(link)
        if entry is not None:
            return entry.intent.signal_id
        for taken in self.seen.messages.values():
            signal = taken.signal
            if isinstance(signal, OpenSignal) and any(
                client_order_id(connection, signal.signal_id, "entry", attempt) == link
                for attempt in range(1, ATTEMPTS + 1)
            ):
                return signal.signal_id
        return None


def at_once(work: Coroutine[object, object, T]) -> T:
    """The answer of a coroutine that waits for nothing. Raises RuntimeError for one that does."""
    try:
        work.send(None)
    except StopIteration as done:
        answer: T = done.value
        return answer
    work.close()
    raise RuntimeError("the book must answer at once: a store in memory, or an inline one")

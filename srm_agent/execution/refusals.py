"""What a broker's definitive refusal teaches: what not to try again for a while, and what people must hear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from srm_agent.clock import Clock
from srm_agent.domain.ids import Symbol
from srm_agent.domain.orders import OrderPurpose, OrderState
from srm_agent.domain.units import Side, plain
from srm_agent.execution.tickets import Ticket

SHUT_S = 60.0
"""How long a symbol that refuses entries is not asked again (B13)."""


class Shut(Enum):
    """Which entries a refusal makes pointless for a minute."""

    NOTHING = "nothing"
    SIDE = "side"
    SYMBOL = "symbol"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a refused entry means. `title` empty: nobody needs to hear; `terms`: they may be others than we know."""

    level: str = "warning"
    title: str = ""
    shut: Shut = Shut.NOTHING
    terms: bool = False


_CLOSED = Lesson(title="entry refused, the market is closed", level="notice", shut=Shut.SYMBOL, terms=True)
_OURS = Lesson(level="page", title="the broker calls an order of ours invalid", terms=True)
LESSONS: Mapping[str, Lesson] = MappingProxyType(
    {
        "MARKET_CLOSED": _CLOSED,
        "TRADE_DISABLED": _CLOSED,
        "SUSPENDED": _CLOSED,
        "REDUCE_ONLY": Lesson(title="entry refused, only closing is allowed", shut=Shut.SYMBOL, terms=True),
        "NOT_PERMITTED": Lesson(title="entry refused, that side is not allowed", shut=Shut.SIDE, terms=True),
        "INSUFFICIENT_MARGIN": Lesson(title="entry refused, no money"),
        "LIMITS": Lesson(title="entry refused, a limit of the broker is reached"),
        "INVALID_REQUEST": _OURS,
        "INVALID_VOLUME": _OURS,
        "INVALID_PRICE": _OURS,
        "INVALID_STOPS": Lesson(title="entry refused, its stop is invalid", terms=True),
    }
)
"""By the port's word (B9, B12-B14, B16, B17, B19). No lesson ends in another try: an order is sent once."""
CLOSED = frozenset({"MARKET_CLOSED", "TRADE_DISABLED", "SUSPENDED"})


class Refusals:
    """One connection's memory of refusals. `tell` gets level, title and text."""

    def __init__(self, clock: Clock, tell: Callable[[str, str, str], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._shut: dict[tuple[Symbol, Side | None], float] = {}

    def heard(self, ticket: Ticket) -> None:
        """An order ended; what is no refusal by the broker teaches nothing."""
        if ticket.state is not OrderState.REJECTED:
            return
        intent, text = ticket.intent, f"{ticket.code} {ticket.detail}".rstrip()
        if intent.purpose is not OrderPurpose.ENTRY:
            if ticket.code in CLOSED:
                self._tell("warning", "close waits until the market opens", f"{intent.symbol}: {text}")
            return
        lesson = LESSONS.get(ticket.code)
        if lesson is None:
            return
        if lesson.shut is not Shut.NOTHING:
            side = intent.side if lesson.shut is Shut.SIDE else None
            self._shut[intent.symbol, side] = self._clock.monotonic() + SHUT_S
        self._tell(lesson.level, lesson.title, f"{intent.symbol} {intent.side.word} {plain(intent.lot)} lots: {text}")

    def shut(self, symbol: Symbol, side: Side) -> bool:
        """The broker has refused such entries within the last minute, for a reason that does not pass at once."""
        now = self._clock.monotonic()
        return any(now < self._shut.get((symbol, which), now) for which in (None, side))

    def doubts_terms(self, ticket: Ticket) -> bool:
        """That refusal is a reason to read the contract's terms again (B29)."""
        lesson = LESSONS.get(ticket.code)
        return ticket.state is OrderState.REJECTED and lesson is not None and lesson.terms

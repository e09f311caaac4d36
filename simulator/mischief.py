"""What the broker itself does wrong on one account, beyond a lossy line: one method a kind of trouble.

Refusals by name, with the words that the port uses. Where Bybit has a retCode that means the same, it is that one and
the word is the ccxt adapter's; the rest carry MetaTrader's code (issue D gives them their wire).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from simulator.spells import ORDERS, Message, Spell, Waiting
from simulator.terms import VenueRefused
from srm_agent.errors import BrokerUnreachable, NotAuthorised, WrongAccount

Answer = TypeVar("Answer")

REFUSALS: dict[str, tuple[int, str, str]] = {
    "requote": (10004, "REQUOTE", "requote"),
    "price changed": (10020, "REQUOTE", "prices changed"),
    "reject": (10006, "REFUSED", "request rejected"),
    "invalid stops": (110057, "INVALID_STOPS", "the stop is invalid"),
    "frozen": (110058, "INVALID_STOPS", "too close to the market to be modified"),
    "market closed": (110066, "MARKET_CLOSED", "Trading is currently not allowed"),
    "trade disabled": (110063, "MARKET_CLOSED", "trade is disabled for this symbol"),
    "close only": (110023, "REDUCE_ONLY", "Currently you can only reduce positions."),
    "no money": (110007, "INSUFFICIENT_MARGIN", "ab not enough for new order"),
    "invalid fill": (10001, "INVALID_REQUEST", "unsupported filling mode"),
    "invalid volume": (10001, "INVALID_VOLUME", "Qty invalid"),
    "invalid price": (110003, "INVALID_PRICE", "Order price exceeds the allowable range."),
    "limits": (110020, "LIMITS", "Not allowed to have more than 500 active orders"),
    "position closed": (110017, "NO_POSITION", "current position is zero, cannot fix reduce-only order qty"),
    "close exists": (110017, "REDUCE_ONLY", "reduce-only rule not satisfied: a close order exists already"),
    "fifo": (10045, "FIFO", "positions can only be closed by FIFO"),
    "hedge prohibited": (10046, "POSITION_MODE", "opposite positions are prohibited"),
    "off quotes": (10021, "NO_LIQUIDITY", "there are no quotes to process the request"),
}
"""Name -> code, word of the port, text."""


class AnswerLost(Exception):
    """The call may have been carried out; what came back (if anything) proves nothing. `code` is the port's word."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@dataclass(frozen=True, slots=True)
class _Doubt:
    acted: bool
    code: str


class Mischief:
    """Trouble of one account. Counts are numbers of calls, spells are seconds of the running loop."""

    def __init__(self) -> None:
        self._refusals: Waiting[str] = Waiting()
        self._doubts: Waiting[_Doubt] = Waiting()
        self._skews = 0
        self._banned, self._no_trading, self._other_account = Spell(), Spell(), Spell()
        self.unstopped = 0
        """So many entries to come lose their stop and target without a word (B10)."""
        self.deaf_protects = 0
        """So many changes of stops to come are acknowledged and not made (B10)."""
        self.echoes = 0
        """So many pushed fills and reports to come are pushed twice (B7)."""

    # ---- to be called by who makes trouble

    def refuse(self, name: str, *only: Message, count: int = 1) -> None:
        """The next orders (or what `only` says) are refused, definitively. Raises KeyError for an unknown name."""
        REFUSALS[name]
        self._refusals.add(name, only or ORDERS, count)

    def doubt(self, *only: Message, acted: bool, code: str = "RET_10016", count: int = 1) -> None:
        """The next orders are answered by an error that proves nothing; `acted`: carried out all the same (B2, B3)."""
        self._doubts.add(_Doubt(acted, code), only or ORDERS, count)

    def ban(self, seconds: float) -> None:
        """Every call is refused by the gateway: too many requests (B15)."""
        self._banned.begin(seconds)

    def skew_clock(self, count: int = 1) -> None:
        """So many signed calls are refused because of their time stamp, before anything is done (B34)."""
        self._skews += count

    def disable_trading(self, seconds: float = inf) -> None:
        """The account may only be read (B18)."""
        self._no_trading.begin(seconds)

    def enable_trading(self) -> None:
        """It may trade again."""
        self._no_trading.end()

    def switch_account(self, seconds: float = inf) -> None:
        """Another account answers behind the same credentials (B33): the adapter sees it in every answer."""
        self._other_account.begin(seconds)

    def switch_back(self) -> None:
        """The right account answers again."""
        self._other_account.end()

    def calm(self) -> None:
        """No more trouble."""
        self._refusals.clear()
        self._doubts.clear()
        for spell in (self._banned, self._no_trading, self._other_account):
            spell.end()
        self._skews = self.unstopped = self.deaf_protects = self.echoes = 0

    @property
    def serving(self) -> bool:
        """Calls are answered by the right account, trading included."""
        return not (self._banned.on or self._no_trading.on or self._other_account.on)

    @property
    def other_account(self) -> bool:
        """Somebody else's account is behind the credentials now."""
        return self._other_account.on

    # ---- to be asked by the wire

    def through(self, message: Message, act: Callable[[], Answer]) -> Answer:
        """Carry out a request that has arrived, as far as the broker's mood lets it.

        Raises VenueRefused, AnswerLost, BrokerUnreachable, NotAuthorised.
        """
        if self._banned.on:
            raise BrokerUnreachable("RATE_LIMIT: too many requests, banned for a while")
        if self._other_account.on:
            raise WrongAccount("the account behind the credentials is another one than at the start")
        if self._skews:
            self._skews -= 1
            raise BrokerUnreachable("CLOCK: invalid request, please check your server timestamp")
        if self._no_trading.on and message is not Message.READ:
            raise NotAuthorised("trading is disabled for this account")
        name = self._refusals.take(message)
        if name is not None:
            raise VenueRefused(*REFUSALS[name])
        doubt = self._doubts.take(message)
        if doubt is None:
            return act()
        if doubt.acted:
            with suppress(VenueRefused):
                act()
        raise AnswerLost(doubt.code, "an error that proves nothing")

    def drops_stop(self) -> bool:
        """This entry's stop is lost; consumed."""
        self.unstopped, lost = max(self.unstopped - 1, 0), self.unstopped > 0
        return lost

    def ignores_protect(self) -> bool:
        """This change of a stop is only acknowledged; consumed."""
        self.deaf_protects, ignored = max(self.deaf_protects - 1, 0), self.deaf_protects > 0
        return ignored

    def echo(self) -> bool:
        """This message is pushed twice; consumed."""
        self.echoes, twice = max(self.echoes - 1, 0), self.echoes > 0
        return twice

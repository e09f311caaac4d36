"""The calls of an in-process account as packets: what the port's caller meets, and what the venue does without him."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from simulator.faults import Fault, Faults
from simulator.mischief import AnswerLost, Mischief
from simulator.network import Fate, Network
from simulator.spells import Message, loop_time
from simulator.terms import VenueRefused
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised

Answer = TypeVar("Answer")

NOTHING_HAPPENED = {10002: "CLOCK", 10006: "RATE_LIMIT", 10018: "RATE_LIMIT"}
NOT_AUTHORISED = frozenset({10003, 10004, 10005, 10007, 10008, 10009, 10010, 10024, 10027, 10028, 33004})
WORDS = {
    110003: "INVALID_PRICE",
    110007: "INSUFFICIENT_MARGIN",
    110017: "NO_POSITION",
    110020: "LIMITS",
    110023: "REDUCE_ONLY",
    110063: "MARKET_CLOSED",
    110066: "MARKET_CLOSED",
    110072: "DUPLICATE_ID",
    110074: "MARKET_CLOSED",
    110094: "INVALID_VOLUME",
}
"""Definitive codes with the port's word, as `adapters/ccxt_venue/outcomes.py` has them."""
UNCLEAR = {
    "hang_after": "TIMEOUT",
    "truncate_after": "UNCLEAR_ANSWER",
    "http502_json_after": "UNCLEAR_ANSWER",
    "garbage200_after": "NO_ORDER_ID",
}
"""The port's word for an answer that proves nothing; all other kinds are NO_ANSWER."""


@dataclass(frozen=True, slots=True)
class _Exchange(Generic[Answer]):
    """One request under way, with the place where its caller waits (if he lives)."""

    act: Callable[[], Answer]
    message: Message
    fate: Fate
    fault: Fault | None
    signed_at: float
    answer: asyncio.Future[Answer]


class Wire:
    """Calls of one account, by the REST path that a real client would use (faults are filed under it).

    `timeout_s`: how long a caller waits for an answer. `window_s`: the venue refuses requests that were signed longer
    ago (Bybit's recvWindow), None: it executes them however late (an MT bridge).
    """

    def __init__(
        self, network: Network, faults: Faults, mischief: Mischief, *, timeout_s: float, window_s: float | None
    ) -> None:
        self._network = network
        self._faults = faults
        self._mischief = mischief
        self._timeout_s = timeout_s
        self._window_s = window_s

    async def call(self, path: str, message: Message, act: Callable[[], Answer]) -> Answer:
        """One exchange. Raises VenueRefused, AnswerLost, BrokerUnreachable (nothing happened), NotAuthorised.

        A caller that is cancelled or gives up takes nothing back: the request arrives all the same.
        """
        if self._network.refusing:
            raise BrokerUnreachable("NO_CONNECTION: connection refused")
        loop = asyncio.get_running_loop()
        fault, fate = self._faults.take(path), self._network.fate(message)
        answer: asyncio.Future[Answer] = loop.create_future()
        exchange = _Exchange(act, message, fate, fault, loop.time(), answer)
        self._network.send(fate.request_s, partial(self._arrive, exchange))
        if fate.again_s is not None and fate.request_s is not None:
            self._network.send(fate.request_s + fate.again_s, partial(self._arrive, exchange))
        patience = loop.call_later(self._timeout_s, _give_up, answer, self._timeout_s)
        try:
            return await answer
        finally:
            patience.cancel()

    async def read(self, path: str, message: Message, act: Callable[[], Answer]) -> Answer:
        """A call that may be repeated: a lost answer is BrokerUnreachable."""
        try:
            return await self.call(path, message, act)
        except AnswerLost as lost:
            raise BrokerUnreachable(f"{path}: {lost}") from None

    def _arrive(self, exchange: _Exchange[Answer]) -> None:
        """The request is at the venue; its answer goes back as a packet of its own."""
        fault, answer, fate = exchange.fault, exchange.answer, exchange.fate
        try:
            result = self._carry_out(exchange)
        except (VenueRefused, BrokerError, AnswerLost) as refusal:
            deliver = partial(_refuse, answer, refusal)
        else:
            deliver = partial(_settle, answer, result)
        if fault is not None and fault.kind == "hang_after":
            return
        if fault is not None and fault.acted:
            deliver = partial(_refuse, answer, trouble(fault))
        self._network.send(fate.reply_s, deliver)
        if fate.echo_s is not None and fate.reply_s is not None:
            self._network.send(fate.reply_s + fate.echo_s, deliver)

    def _carry_out(self, exchange: _Exchange[Answer]) -> Answer:
        if exchange.fault is not None and not exchange.fault.acted:
            raise trouble(exchange.fault)
        if self._window_s is not None and loop_time() - exchange.signed_at > self._window_s:
            raise BrokerUnreachable("CLOCK: signed too long ago")
        return self._mischief.through(exchange.message, exchange.act)


def _settle(answer: asyncio.Future[Answer], result: Answer) -> None:
    if not answer.done():
        answer.set_result(result)


def _refuse(answer: asyncio.Future[Answer], refusal: Exception) -> None:
    if not answer.done():
        answer.set_exception(refusal)


def _give_up(answer: asyncio.Future[Answer], seconds: float) -> None:
    if not answer.done():
        answer.set_exception(AnswerLost("TIMEOUT", f"no answer within {seconds:g} s"))


def trouble(fault: Fault) -> Exception:
    """What a fault of the wire is to the caller of the port, in the words of the ccxt adapter."""
    told = f"{fault.kind} {fault.code or ''}".rstrip()
    if fault.kind == "http429":
        return BrokerUnreachable(f"RATE_LIMIT: {told}")
    if fault.code in NOTHING_HAPPENED:
        return BrokerUnreachable(f"{NOTHING_HAPPENED[fault.code]}: {told}")
    if fault.code in NOT_AUTHORISED:
        return NotAuthorised(f"{fault.code}: {fault.message}")
    if fault.code in WORDS:
        return VenueRefused(fault.code, WORDS[fault.code], fault.message)
    return AnswerLost(f"RET_{fault.code}" if fault.code else UNCLEAR.get(fault.kind, "NO_ANSWER"), told)

"""The wire that is not there: latency and faults of an in-process account, as the port's caller meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from simulator.faults import Fault, Faults
from simulator.latency import LatencyModel
from simulator.terms import VenueRefused
from srm_agent.errors import BrokerUnreachable, NotAuthorised

Answer = TypeVar("Answer")

WRITES = frozenset({"v5/order/create", "v5/order/cancel", "v5/position/trading-stop"})
NOTHING_HAPPENED = frozenset({10002, 10006, 10018})
NOT_AUTHORISED = frozenset({10003, 10004, 10005, 33004})
WORDS = {
    110007: "INSUFFICIENT_MARGIN",
    110017: "NO_POSITION",
    110072: "DUPLICATE_ID",
    110074: "MARKET_CLOSED",
    110094: "INVALID_VOLUME",
}


class AnswerLost(Exception):
    """The call may have been carried out; its answer never came."""


class Wire:
    """Calls of one account, by the REST path that a real client would use (faults are filed under it)."""

    def __init__(self, latency: LatencyModel, faults: Faults, *, read_only: bool) -> None:
        self._latency = latency
        self._faults = faults
        self._read_only = read_only

    async def call(self, path: str, act: Callable[[], Answer]) -> Answer:
        """One round trip. Raises VenueRefused, AnswerLost, BrokerUnreachable (nothing happened), NotAuthorised."""
        fault = self._faults.take(path)
        await asyncio.sleep(self._latency.request_s())
        if fault is not None and not fault.acted:
            raise trouble(fault)
        if self._read_only and path in WRITES:
            raise NotAuthorised("the account's key may only read")
        answer = act()
        await asyncio.sleep(self._latency.reply_s())
        if fault is not None:
            raise trouble(fault)
        return answer

    async def read(self, path: str, act: Callable[[], Answer]) -> Answer:
        """A call that may be repeated: a lost answer is BrokerUnreachable."""
        try:
            return await self.call(path, act)
        except AnswerLost as lost:
            raise BrokerUnreachable(f"{path}: {lost}") from None


def trouble(fault: Fault) -> Exception:
    """What a fault of the wire is to the caller of the port."""
    if fault.kind == "http429" or fault.code in NOTHING_HAPPENED:
        return BrokerUnreachable(f"refused for now: {fault.kind} {fault.code or ''}".rstrip())
    if fault.code in NOT_AUTHORISED:
        return NotAuthorised(f"{fault.code}: {fault.message}")
    if fault.code in WORDS:
        return VenueRefused(fault.code, WORDS[fault.code], fault.message)
    return AnswerLost(f"{fault.kind} {fault.code or ''}".rstrip())

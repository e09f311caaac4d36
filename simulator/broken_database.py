"""A database that is slow, locked, away, or that keeps its answer to itself, in front of any `ports.Storage`.

What lies beneath is not known here: every call is passed on by its name, so a port may grow without this module.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from math import inf
from typing import Any, cast

from simulator.latency import NO_LEG, Leg
from simulator.spells import Spell
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import OutcomeUnknown, StoreUnavailable
from srm_agent.ports import History, Journal, Leases, ProtectionStore, SignalLog, Storage

READS = frozenset(
    {
        *("unsettled", "open_legs", "known_fills", "decided", "settled_since", "legs", "orders_of"),
        *("mark", "halts", "unfinished", "opening", "closed_before_open", "closed_trades", "recent_measures"),
    }
)
"""Calls that change nothing: a lost answer to one is StoreUnavailable. All others are writes."""
RIVAL = "a rival of the simulation"


class DatabaseFaults:
    """What is wrong with the database. Seconds of the running loop; counts are numbers of calls."""

    def __init__(self) -> None:
        self._down, self._locked, self._slow = Spell(), Spell(), Spell()
        self._slow_s = 0.0
        self._ambiguous: list[bool] = []
        self._stolen: dict[ConnectionId, float] = {}
        self.calls = self.refused = self.unanswered = 0
        """Calls so far, those that were refused, those whose answer was lost."""

    def take_down(self, seconds: float = inf) -> None:
        """Nobody is there: calls are refused, those under way lose their answer (P9)."""
        self._down.begin(seconds)

    def lock(self, seconds: float = inf) -> None:
        """Somebody else holds the write lock: writes are refused, reads work (P10, P15)."""
        self._locked.begin(seconds)

    def slow_down(self, by_s: float, seconds: float = inf) -> None:
        """Every call takes so much longer before it is carried out (P10)."""
        self._slow_s = by_s
        self._slow.begin(seconds)

    def make_ambiguous(self, count: int = 1, *, committed: bool) -> None:
        """The next commits lose their answer, done or not (P12)."""
        self._ambiguous.extend([committed] * count)

    def steal_lease(self, connection: ConnectionId, seconds: float) -> None:
        """A rival takes the connection's lease at its next renewal, for so long (P22, P23)."""
        self._stolen[connection] = seconds

    def mend(self) -> None:
        """All is well again; a stolen lease ends by itself."""
        for spell in (self._down, self._locked, self._slow):
            spell.end()
        self._ambiguous.clear()
        self._stolen.clear()

    @property
    def works(self) -> bool:
        """The database answers, promptly and truly."""
        return not (self._down.on or self._locked.on or self._slow.on or self._ambiguous)

    def takes_writes(self) -> bool:
        """It is there, and nobody holds the write lock: slowly perhaps, but what it takes is committed."""
        return not (self._down.on or self._locked.on)

    # ---- to be asked by the storage

    def extra_s(self) -> float:
        """What a call takes longer now."""
        return self._slow_s if self._slow.on else 0.0

    def check(self, *, write: bool) -> None:
        """Raises StoreUnavailable where a call is refused now."""
        if self._down.on:
            raise StoreUnavailable("database unavailable: it is down")
        if write and self._locked.on:
            raise StoreUnavailable("database unavailable: another process holds the write lock")

    def check_answer(self, *, write: bool) -> None:
        """Raises where the answer of a call that was carried out cannot come back."""
        if self._down.on:
            self.unanswered += 1
            message = "the database connection was lost"
            raise OutcomeUnknown(message) if write else StoreUnavailable(message)

    def lost_commit(self) -> bool | None:
        """Whether this commit, whose answer is lost, is carried out; None: its answer comes. Consumed."""
        return self._ambiguous.pop(0) if self._ambiguous else None

    def stolen(self, connection: ConnectionId) -> float | None:
        """For how long a rival takes the lease now; consumed."""
        return self._stolen.pop(connection, None)


class FaultyStorage:
    """`ports.Storage` over another one. `before` and `after` are what a call takes until the commit and from there on.

    A transaction whose caller is cancelled or gives up is carried out all the same (73 of 94 were, reliability.md P12),
    unless the process dies with it. Closing is never disturbed.
    """

    def __init__(
        self,
        storage: Storage,
        faults: DatabaseFaults,
        rng: random.Random,
        *,
        before: Leg = NO_LEG,
        after: Leg = NO_LEG,
    ) -> None:
        self.faults = faults
        self._storage = storage
        self._rng = rng
        self._before, self._after = before, after
        self._journal = cast("Journal", _Part(self, storage.journal))
        self._protection = cast("ProtectionStore", _Part(self, storage.protection))
        self._signals = cast("SignalLog", _Part(self, storage.signals))
        self._history = cast("History", _Part(self, storage.history))
        self._leases = cast("Leases", _Part(self, _ContestedLeases(storage.leases, faults)))

    @property
    def journal(self) -> Journal:
        """See the port."""
        return self._journal

    @property
    def protection(self) -> ProtectionStore:
        """See the port."""
        return self._protection

    @property
    def signals(self) -> SignalLog:
        """See the port."""
        return self._signals

    @property
    def history(self) -> History:
        """See the port."""
        return self._history

    @property
    def leases(self) -> Leases:
        """See the port."""
        return self._leases

    async def close(self) -> None:
        """See the port."""
        await self._storage.close()

    async def call(self, name: str, carry_out: Callable[[], Awaitable[object]]) -> object:
        """One transaction. Raises what the port's method raises, StoreUnavailable, OutcomeUnknown."""
        self.faults.calls += 1
        task = asyncio.ensure_future(self._transaction(name not in READS, carry_out))
        task.add_done_callback(_noted)
        return await asyncio.shield(task)

    async def _transaction(self, write: bool, carry_out: Callable[[], Awaitable[object]]) -> object:
        faults = self.faults
        await _pass(self._before.draw(self._rng) + faults.extra_s())
        try:
            faults.check(write=write)
        except StoreUnavailable:
            faults.refused += 1
            raise
        committed = faults.lost_commit() if write else None
        if committed is None:
            result = await carry_out()
            await _pass(self._after.draw(self._rng))
            faults.check_answer(write=write)
            return result
        faults.unanswered += 1
        if committed:
            await carry_out()
        raise OutcomeUnknown("the commit's answer was lost")


class _Part:
    """One subject of the storage: its methods by name, each of them one transaction."""

    def __init__(self, storage: FaultyStorage, real: object) -> None:
        self._storage = storage
        self._real = real

    def __getattr__(self, name: str) -> object:
        method = getattr(self._real, name)
        if not callable(method):
            return method  # may change: asked again each time

        @wraps(method)
        async def call(*arguments: Any, **named: Any) -> object:
            return await self._storage.call(name, partial(method, *arguments, **named))

        self.__dict__[name] = call
        return call


class _ContestedLeases:
    """Leases that a rival may take: by the real ones, so that the fencing token moves on."""

    def __init__(self, real: Leases, faults: DatabaseFaults) -> None:
        self._real, self._faults = real, faults

    async def acquire(self, connection_id: ConnectionId, owner: str, ttl_s: float) -> int | None:
        """See the port."""
        return await self._real.acquire(connection_id, owner, ttl_s)

    async def renew(self, connection_id: ConnectionId, owner: str, fence: int, ttl_s: float) -> bool:
        """See the port."""
        seconds = self._faults.stolen(connection_id)
        if seconds is not None:
            await self._real.release(connection_id, owner, fence)
            await self._real.acquire(connection_id, RIVAL, seconds)
        return await self._real.renew(connection_id, owner, fence, ttl_s)

    async def release(self, connection_id: ConnectionId, owner: str, fence: int) -> bool:
        """See the port."""
        return await self._real.release(connection_id, owner, fence)


async def _pass(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _noted(task: asyncio.Future[object]) -> None:
    """The caller may be gone: what became of the transaction is then nobody's business."""
    if not task.cancelled():
        task.exception()

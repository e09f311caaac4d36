"""One writer per account (INV-17): leases are held, never believed in for longer than they last, never taken blindly.

Who gets a lease after somebody else had it does not know what that one has done: orders, stops, halts, marks. Then this
life is outdated, and a new one begins that reads everything anew (P22, P23).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from srm_agent.account import Account
from srm_agent.clock import Clock
from srm_agent.domain.ids import ConnectionId
from srm_agent.errors import OutcomeUnknown, StoreError
from srm_agent.ports import Leases

log = structlog.get_logger()

LEASE_S = 6.0
"""Short, so that a restart after a crash waits no longer than this for the lease of its dead predecessor."""
RENEWED_EVERY_S = LEASE_S / 4
PATIENCE_S = LEASE_S / 3
"""A database that hangs must not let us believe in a lease that has run out meanwhile."""
RELEASE_S = 0.5
PREDECESSOR_S = LEASE_S + 2 * RENEWED_EVERY_S
"""A lease that is not free so long after our birth was renewed since by somebody who lives."""


SHARED_AFTER_S = 3 * LEASE_S
"""So long one account of another daemon's keeps us from taking those behind it."""


class LeaseKeeper:
    """One per life. `hear` is told after each round whether the database answered."""

    def __init__(
        self,
        leases: Leases,
        accounts: Sequence[Account],
        owner: str,
        clock: Clock,
        *,
        hear: Callable[[bool], None],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        """Make it before anything is read from the journal. `catch_up` takes over halts that others have stored."""
        self._leases = leases
        self._accounts = accounts
        self._owner = owner
        self._clock = clock
        self._hear = hear
        self._catch_up = catch_up
        self._born = clock.monotonic()
        self._tokens: dict[ConnectionId, int] = {}
        """The last token of this life by account."""
        self._waited: dict[ConnectionId, None] = {}
        self._refused_since: float | None = None
        self._overtaken = False
        self.outdated = asyncio.Event()
        """Somebody else has traded one of our accounts since we read the journal."""

    async def run(self) -> None:
        """Hold the lease of every account; without it no entries, while watch and exits go on (P22, P23)."""
        while True:
            self._hear(await self._round())
            if self._overtaken:
                # Not within the round: a lease in the name of a life that is over would hold up the next one.
                self.outdated.set()
            await asyncio.sleep(RENEWED_EVERY_S)

    async def _round(self) -> bool:
        """Renew what is ours, take what is not. False: the database did not answer."""
        held = [account for account in self._accounts if account.desk.fence]
        answers = await asyncio.gather(self._hear_others(), *(self._renew(account) for account in held))
        missing = [account for account in self._accounts if not account.desk.fence]
        return all(answers) and await self._take_in_turn(missing)

    async def _take_in_turn(self, missing: Sequence[Account]) -> bool:
        """In one order for all daemons, and not beyond one that is another's: two that start together would share the
        accounts between them, and a provider's message reaches one of them only. For some time: that other one may be
        there to stay, with accounts of his own."""
        for index, account in enumerate(missing):
            taken = await self._answered(account, self._acquire(account))
            if taken is None:
                return False
            if taken:
                continue
            now = self._clock.monotonic()
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since < SHARED_AFTER_S:
                for other in missing[index:]:
                    self._is_anothers(other)
                return True
        if all(account.desk.fence for account in missing):
            self._refused_since = None
        return True

    def is_passive(self, account: Account) -> bool:
        """Another daemon, who lives, has held this account's lease ever since our start: what he did is not known."""
        connection = account.member.connection_id
        never_held = connection in self._waited and connection not in self._tokens
        return never_held and self._clock.monotonic() - self._born > PREDECESSOR_S

    async def release(self, account: Account) -> None:
        """Give it back at the end of the life; a database that does not answer lets it run out."""
        if not account.desk.fence:
            return
        connection = account.member.connection_id
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._leases.release(connection, self._owner, account.desk.fence)
        except (StoreError, OutcomeUnknown, TimeoutError) as error:
            log.info("lease runs out by itself", connection=connection, error=repr(error))

    async def _hear_others(self) -> bool:
        """Halts of other daemons hold here too (INV-8). False: the database did not answer."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._catch_up()
        except (StoreError, OutcomeUnknown, TimeoutError) as error:
            log.info("halts of others not read", error=repr(error))
            return False
        return True

    async def _answered(self, account: Account, asked: Awaitable[bool]) -> bool | None:
        """What the database says, and what it means for entries; None when it says nothing."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                held = await asked
        except (StoreError, OutcomeUnknown, TimeoutError) as error:
            account.leased = False
            log.warning("lease not renewed", connection=account.member.connection_id, error=repr(error))
            return None
        account.leased = held and not self._overtaken
        return held

    async def _renew(self, account: Account) -> bool:
        """False: the database did not answer."""
        connection, fence = account.member.connection_id, account.desk.fence
        held = await self._answered(account, self._leases.renew(connection, self._owner, fence, LEASE_S))
        if held is False:
            account.desk.fence = 0
        return held is not None

    async def _acquire(self, account: Account) -> bool:
        connection = account.member.connection_id
        fence = await self._leases.acquire(connection, self._owner, LEASE_S)
        if fence is None:
            self._is_anothers(account)
            return False
        if await self._others_wrote(account, fence):
            log.warning("lease taken over from another daemon: everything is read anew", connection=connection)
            self._overtaken = True
        else:
            account.rivalled = False
        account.desk.fence = self._tokens[connection] = fence
        return True

    def _is_anothers(self, account: Account) -> None:
        account.rivalled = True
        self._waited[account.member.connection_id] = None

    async def _others_wrote(self, account: Account, fence: int) -> bool:
        """Tokens grow by one with each holder: whether somebody stood between ours, or wrote while we waited."""
        connection = account.member.connection_id
        if (last := self._tokens.get(connection)) is not None:
            return fence > last + 1
        if connection not in self._waited:
            return False
        if self._clock.monotonic() - self._born > PREDECESSOR_S:
            return True
        return await account.desk.is_behind_journal()

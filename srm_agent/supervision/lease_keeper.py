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
        self._overtaken = False
        self.outdated = asyncio.Event()
        """Somebody else has traded one of our accounts since we read the journal."""

    async def run(self) -> None:
        """Hold the lease of every account; without it no entries, while watch and exits go on (P22, P23)."""
        while True:
            self._hear(all(await asyncio.gather(*(self._keep(account) for account in self._accounts))))
            if self._overtaken:
                # Not within the round: a lease in the name of a life that is over would hold up the next one.
                self.outdated.set()
            await asyncio.sleep(RENEWED_EVERY_S)

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

    async def _keep(self, account: Account) -> bool:
        """False: the database did not answer."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                account.leased = await self._hold(account) and not self._overtaken
        except (StoreError, OutcomeUnknown, TimeoutError) as error:
            account.leased = False
            log.warning("lease not renewed", connection=account.member.connection_id, error=repr(error))
            return False
        return True

    async def _hold(self, account: Account) -> bool:
        connection, desk = account.member.connection_id, account.desk
        if desk.fence and await self._leases.renew(connection, self._owner, desk.fence, LEASE_S):
            return True
        fence = await self._leases.acquire(connection, self._owner, LEASE_S)
        if fence is None:
            desk.fence = 0
            account.rivalled = True
            self._waited[connection] = None
            return False
        if await self._others_wrote(account, fence):
            log.warning("lease taken over from another daemon: everything is read anew", connection=connection)
            self._overtaken = True
        else:
            account.rivalled = False
        desk.fence = self._tokens[connection] = fence
        return True

    async def _others_wrote(self, account: Account, fence: int) -> bool:
        """Tokens grow by one with each holder: whether somebody stood between ours, or wrote while we waited."""
        connection = account.member.connection_id
        if (last := self._tokens.get(connection)) is not None:
            return fence > last + 1
        if connection not in self._waited:
            return False
        if self._clock.monotonic() - self._born > PREDECESSOR_S:
            return True
        await self._catch_up()
        return await account.desk.is_behind_journal()

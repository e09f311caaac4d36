"""What the invariant checks may look at: the world as it is, not as the agent believes it to be.

Times are seconds of the virtual loop (they start at 0 with the seed). The venue and the database are the truth; the
agent's memory is never asked, except for the state of its connections (`state_of`), which INV-8 and INV-14 are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from simulator.memory_store.book import StoreBook
from simulator.simulation.invariants.doors import Seen
from simulator.venue import Venue
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ConnectionId, ProviderKey, SignalId


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A message that the agent answered with 2xx: from then on it may not be lost (INV-3)."""

    at: float
    provider: str
    message_id: str
    action: str
    """open, modify, close or cancel."""
    signal_id: SignalId
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An alert of the agent. `level` is notice, warning or page."""

    at: float
    level: str
    title: str
    message: str
    connection: ConnectionId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process of the agent, from its start to its end (None: it lives)."""

    number: int
    born: float
    ready: float | None
    died: float | None
    how: str
    """"" while it lives; `kill`, `CP4` (killed at that crash point), `stop` (SIGTERM), `defect: ...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operated:
    """An operator's act through the control API. `at`: when it was answered, or given up."""

    at: float
    act: str
    """halt, resume or flatten."""
    scope: str
    key: str
    answered: bool = True
    """The agent said that it was done; False: no answer came, so it may have been done or not."""


class Evidence(Protocol):
    """The world, for those who judge."""

    venue: Venue
    """Account ids of the venue are the connection ids."""
    book: StoreBook
    seen: Seen
    """What passed the doors of the agent's processes: each life gets its storage, brokers and feeds through it."""
    connections: Sequence[ConnectionId]
    acknowledged: list[Acknowledged]
    told: list[Told]
    lives: list[Life]
    """Oldest first; two may live at once (a second daemon on the same accounts, P22)."""
    operated: list[Operated]
    log_lines: list[str]
    """Every line the agent logged (JSON), for the search for secrets."""
    secrets: Sequence[str]
    """Canaries: webhook keys and operator tokens in force."""
    scope_is_account: bool
    """emergency_scope = "account"."""
    max_risk: Decimal
    """Hard cap of risk per trade, a fraction of equity, of the settings in force."""
    max_open_risk: Decimal
    """The same for all open legs of an account together."""
    max_drawdown: Decimal
    """At which an account has to be closed, a fraction of its high-water mark."""

    def now(self) -> float:
        """Seconds of the loop."""
        ...

    def reachable(self, connection: ConnectionId) -> bool:
        """Network, venue and stream of that account work now (no partition, no ban, no stall)."""
        ...

    def feed_works(self) -> bool:
        """Quotes of all symbols arrive now, as they are."""
        ...

    def database_works(self) -> bool:
        """The database answers now."""
        ...

    def state_of(self, connection: ConnectionId) -> ConnectionState | None:
        """What the living agent says (None: nobody lives, or it has not assembled the account yet)."""
        ...

    def disk_works(self) -> bool:
        """The agent's state directory takes writes now."""
        ...

    def followers(self, provider: ProviderKey) -> Sequence[ConnectionId]:
        """Whose accounts copy that provider."""
        ...

    def spilt(self, client_id: str) -> bool:
        """That exit stands in the agent's local file."""
        ...

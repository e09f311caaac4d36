"""What the invariant checks may look at: the world as it is, not as the agent believes it to be.

Times are seconds of the virtual loop (they start at 0 with the seed). The venue and the database are the truth; the
agent's memory is never asked, except for the state of its connections (`state_of`), which INV-8 and INV-13 are about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from simulator.memory_store.book import StoreBook
from simulator.venue import Venue
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.ids import ConnectionId, SignalId


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
    """An operator's act through the control API."""

    at: float
    act: str
    """halt, resume or flatten."""
    scope: str
    key: str


class Evidence(Protocol):
    """The world, for those who judge."""

    venue: Venue
    """Account ids of the venue are the connection ids."""
    book: StoreBook
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
    foreign: Mapping[ConnectionId, Mapping[str, Decimal]]
    """Signed lots by symbol id that humans or others opened on the accounts (the world did it, so it knows)."""

    def now(self) -> float:
        """Seconds of the loop."""
        ...

    def reachable(self, connection: ConnectionId) -> bool:
        """Network, venue and stream of that account work now (no partition, no ban, no stall)."""
        ...

    def database_works(self) -> bool:
        """The database answers now."""
        ...

    def state_of(self, connection: ConnectionId) -> ConnectionState | None:
        """What the living agent says (None: nobody lives, or it has not assembled the account yet)."""
        ...

    def entries_allowed_since(self, connection: ConnectionId) -> float | None:
        """Since when the agent's own state of that account is ACTIVE; None when it is not."""
        ...

    def spilt(self, client_id: str) -> bool:
        """That exit stands in the agent's local file."""
        ...

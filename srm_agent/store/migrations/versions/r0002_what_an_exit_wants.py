"""Orders remember what an exit leaves of its leg and which requests it fulfils; settled orders are found by time."""

from __future__ import annotations

from alembic import context

from srm_agent.store.migrations.steps import bring_up
from srm_agent.store.names import Names
from srm_agent.store.schema import tables_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is missing."""
    names = context.config.attributes["names"]
    assert isinstance(names, Names)
    bring_up(tables_of(names))

"""All tables of the first release.

The step compares with `schema.Tables`, so on an empty database it creates the schema of this program at once; a later
revision then finds its own additions there already, and adds them only to databases that are older.
"""

from __future__ import annotations

from alembic import context

from srm_agent.store.migrations.steps import bring_up
from srm_agent.store.names import Names
from srm_agent.store.schema import tables_of

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is missing."""
    names = context.config.attributes["names"]
    assert isinstance(names, Names)
    bring_up(tables_of(names))

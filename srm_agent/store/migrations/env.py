"""Run by Alembic, on a connection and inside a transaction that `srm_agent.store.migrate` opened."""

from __future__ import annotations

from alembic import context

attributes = context.config.attributes
context.configure(connection=attributes["connection"], version_table=attributes["version_table"])
context.run_migrations()

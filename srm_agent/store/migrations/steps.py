"""Steps that may be run again: MySQL commits each DDL statement, so a migration can stop half way (CP11).

Nothing is ever dropped, renamed or narrowed.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Index, Inspector, Table, inspect

from srm_agent import failpoints
from srm_agent.store.schema import Tables


def missing(inspector: Inspector, tables: Tables) -> list[str]:
    """What `bring_up` would add, one sentence each."""
    found: list[str] = []
    for table in tables.metadata.sorted_tables:
        if not inspector.has_table(table.name):
            found.append(f"create table {table.name}")
            continue
        found += [f"add column {table.name}.{column.name}" for column in _columns(inspector, table)]
        found += [f"add index {index.name}" for index in _indexes(inspector, table)]
    return found


def bring_up(tables: Tables) -> None:
    """Create the tables, then the columns and indexes, that are missing; a new column on an old table is nullable."""
    bind = op.get_bind()
    inspector = inspect(bind)
    for table in tables.metadata.sorted_tables:
        if not inspector.has_table(table.name):
            table.create(bind)
            failpoints.reached("CP11")
            continue
        for column in _columns(inspector, table):
            op.add_column(table.name, Column(column.name, column.type, nullable=True))
            failpoints.reached("CP11")
        for index in _indexes(inspector, table):
            index.create(bind)
            failpoints.reached("CP11")


def _columns(inspector: Inspector, table: Table) -> list[Column[object]]:
    there = {column["name"] for column in inspector.get_columns(table.name)}
    return [column for column in table.columns if column.name not in there]


def _indexes(inspector: Inspector, table: Table) -> list[Index]:
    there = {index["name"] for index in inspector.get_indexes(table.name)}
    return sorted((index for index in table.indexes if index.name not in there), key=lambda index: str(index.name))

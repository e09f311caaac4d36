"""Small tools of the repositories: bulk inserts with their ids, and which keys are there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import BindParameter, Column, Connection, Select, Table, bindparam, insert, select

Values = Mapping[str, object]
"""One row to write, by column. Parameters of an UPDATE must not be called like its columns: they would be SET."""
_CHUNK = 500
"""Keys in one IN list."""


def many(name: str = "keys") -> BindParameter[Sequence[str]]:
    """A parameter for `column.in_(...)`, filled per execution."""
    return bindparam(name, expanding=True)


def known_statement(column: Column[str]) -> Select[str]:
    """Which of `keys` are there: build once, give to `known`."""
    return select(column).where(column.in_(many()))


def known(connection: Connection, statement: Select[str], keys: Iterable[str]) -> frozenset[str]:
    """The keys that are there already, in this transaction (which holds the write lock)."""
    found: list[str] = []
    for part in chunks(keys):
        found += connection.execute(statement, {"keys": part}).scalars()
    return frozenset(found)


def chunks(keys: Iterable[str]) -> list[list[str]]:
    """The distinct keys, in lists that fit one statement."""
    wanted = list(dict.fromkeys(keys))
    return [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]


def insert_all(connection: Connection, table: Table, rows: Sequence[Values]) -> None:
    """Insert all rows at once; none is fine."""
    if rows:
        connection.execute(insert(table), [dict(row) for row in rows])


def insert_with_ids(connection: Connection, table: Table, rows: Sequence[Values]) -> list[int]:
    """Insert and return the ids in the order of the rows (MySQL has no RETURNING: row by row there)."""
    if not rows:
        return []
    dialect = connection.dialect
    if dialect.insert_executemany_returning_sort_by_parameter_order:
        statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
        return list(connection.execute(statement, [dict(row) for row in rows]).scalars())
    return [_insert_one(connection, table, row) for row in rows]


def _insert_one(connection: Connection, table: Table, row: Values) -> int:
    key = connection.execute(insert(table), dict(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


class Keys:
    """Numbers for our textual keys: the platform's columns are bigint."""

    def __init__(self, table: Table, column: str) -> None:
        self._table, self._column = table, column
        self._find = select(table.c[column], table.c.id).where(table.c[column].in_(many()))

    def ids(self, connection: Connection, keys: Iterable[str]) -> dict[str, int]:
        """The number of each key, given out at first sight."""
        wanted = list(dict.fromkeys(keys))
        found = {str(key): int(number) for key, number in connection.execute(self._find, {"keys": wanted})}
        new = [key for key in wanted if key not in found]
        numbers = insert_with_ids(connection, self._table, [{self._column: key} for key in new])
        return found | dict(zip(new, numbers, strict=True))

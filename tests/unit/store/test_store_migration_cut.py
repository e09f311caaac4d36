"""A migration that is cut between two of its statements (CP11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from srm_agent import failpoints
from srm_agent.store.engine import open_engine
from srm_agent.store.migrate import migrate, pending
from srm_agent.store.names import STANDALONE
from srm_agent.store.schema import tables_of


class Cut(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """No failpoint outlives its test."""
    yield
    failpoints.arm(None)


def cut_at(arrival: int) -> None:
    """End the process at the n-th time it comes by CP11."""
    left = arrival

    def end(point: str) -> None:
        nonlocal left
        left -= point == "CP11"
        if not left:
            raise Cut

    failpoints.arm(end)


@pytest.mark.parametrize("arrival", [1, 2, len(tables_of(STANDALONE).metadata.tables)])
@pytest.mark.fault("P1")
def test_a_first_migration_that_is_cut_leaves_nothing(tmp_path: Path, arrival: int) -> None:
    """On SQLite, cut after any statement, no table is there, and the next run makes them all."""
    engine = open_engine(str(tmp_path / "srm.db"))
    cut_at(arrival)
    with pytest.raises(Cut):
        migrate(engine, STANDALONE)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []
    failpoints.arm(None)
    assert len(migrate(engine, STANDALONE)) == len(tables_of(STANDALONE).metadata.tables)
    assert pending(engine, STANDALONE) == []
    engine.dispose()


@pytest.mark.fault("P16")
def test_an_upgrade_that_is_cut_keeps_rows_and_version(tmp_path: Path) -> None:
    """Cut in the step from revision 0001, the database stays at 0001 with its rows; the next run finishes."""
    engine = open_engine(str(tmp_path / "srm.db"))
    migrate(engine, STANDALONE)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO srm_tombstones VALUES ('t', 'p', 'm', '2026-01-05 00:00:00.000000')"))
        connection.execute(text("ALTER TABLE srm_orders DROP COLUMN target"))
        connection.execute(text("ALTER TABLE srm_orders DROP COLUMN requests"))
        connection.execute(text("UPDATE srm_schema_version SET version_num = '0001'"))
    cut_at(1)
    with pytest.raises(Cut):
        migrate(engine, STANDALONE)
    failpoints.arm(None)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM srm_schema_version")).scalar() == "0001"
        columns = {column["name"] for column in inspect(connection).get_columns("srm_orders")}
        assert "target" not in columns
    assert set(migrate(engine, STANDALONE)) == {"add column srm_orders.target", "add column srm_orders.requests"}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM srm_tombstones")).scalar() == 1
    engine.dispose()

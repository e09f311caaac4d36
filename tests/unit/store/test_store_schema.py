"""Migrations, names and exact column types."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.schema import CreateTable
from structlog.testing import capture_logs

from srm_agent.clock import ManualClock
from srm_agent.domain.decisions import Decision, ReasonCode, Step
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.orders import OrderIntent
from srm_agent.domain.signals import Signal
from srm_agent.domain.trades import ClosedTrade, Leg
from srm_agent.errors import ConfigurationError, StoreBroken
from srm_agent.store.codec import decision_text, parse_decision, parse_signal, signal_text
from srm_agent.store.columns import ExactDecimal, MeasuredDecimal, NarrowDecimal, UtcDateTime
from srm_agent.store.engine import MEMORY, open_engine
from srm_agent.store.migrate import migrate, pending, version_table
from srm_agent.store.names import STANDALONE, Names
from srm_agent.store.rows import (
    intent_row,
    journal_row,
    leg_of,
    leg_row,
    measure_of,
    measure_row,
    score_of,
    score_row,
    trade_of,
    trade_row,
)
from srm_agent.store.schema import Tables
from srm_agent.store.store import Store, migrate_database

ATTACHED = Names(prefix="sp_", attached=True)
LITE = sqlite.dialect()
MYSQL = mysql.dialect()


@pytest.fixture
def engine() -> Any:
    """An empty database in memory."""
    created = open_engine(MEMORY)
    yield created
    created.dispose()


def differences(engine: Engine, names: Names) -> list[Any]:
    """What Alembic would still change."""
    tables = Tables(names)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": version_table(names),
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or name in tables.metadata.tables,
            },
        )
        return list(compare_metadata(context, tables.metadata))


@pytest.mark.parametrize("names", [STANDALONE, ATTACHED], ids=["standalone", "attached"])
def test_migration_gives_exactly_the_schema(engine: Engine, names: Names) -> None:
    """After migrating, nothing is pending, a second run adds nothing and Alembic finds no difference."""
    assert f"create table {names.own('orders')}" in pending(engine, names)
    added = migrate(engine, names)
    assert len(added) == len(Tables(names).metadata.tables)
    assert pending(engine, names) == []
    assert migrate(engine, names) == []
    assert differences(engine, names) == []


@pytest.mark.fault("P16")
def test_half_a_migration_is_finished(engine: Engine) -> None:
    """A run that stopped half way is completed by the next, table, column and index, without touching rows."""
    migrate(engine, STANDALONE)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO srm_tombstones VALUES ('t', 'p', 'm', '2026-01-05 00:00:00.000000')"))
        connection.execute(text("DROP TABLE srm_leases"))
        connection.execute(text("ALTER TABLE srm_orders DROP COLUMN detail"))
        connection.execute(text("DROP INDEX ix_srm_fills_client_id"))
        connection.execute(text("DELETE FROM srm_schema_version"))
    todo = ["create table srm_leases", "add column srm_orders.detail", "add index ix_srm_fills_client_id"]
    assert set(todo) < set(pending(engine, STANDALONE))
    assert sorted(migrate(engine, STANDALONE)) == sorted(todo)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM srm_tombstones")).scalar() == 1


def test_the_platforms_own_tables_stay(engine: Engine) -> None:
    """Attached, a table of the platform keeps its rows and columns and gains only the missing ones, nullable."""
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE sp_execution_logs (id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, own TEXT)")
        )
        connection.execute(text("INSERT INTO sp_execution_logs VALUES (7, 'EUR/USD', 'theirs')"))
    migrate(engine, ATTACHED)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM sp_execution_logs")).mappings().one()
        columns = {c["name"]: c for c in inspect(connection).get_columns("sp_execution_logs")}
    assert (row["id"], row["own"], row["market_atr"]) == (7, "theirs", None)
    assert columns["slippage"]["nullable"]
    assert columns["status"]["nullable"]


@pytest.mark.fault("P16")
async def test_a_newer_schema_is_refused(path: Path, clock: ManualClock) -> None:
    """A database written by a newer program is not touched, and the message says what to do (F22)."""
    await (await Store.open(str(path), clock)).close()
    engine = open_engine(str(path))
    with engine.begin() as connection:
        connection.execute(text("UPDATE srm_schema_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreBroken, match=r"schema 9999.*install the newer srm-agent"):
        await Store.open(str(path), clock)


@pytest.mark.fault("P16")
async def test_an_older_schema_is_not_used_unmigrated(path: Path, clock: ManualClock) -> None:
    """Told not to migrate, an unmigrated database is refused with the command that helps; a dry run lists the steps."""
    before = migrate_database(str(path), dry_run=True)
    assert os.listdir(os.path.dirname(path)) == []
    open_engine(str(path)).connect().close()
    with pytest.raises(StoreBroken, match="srm-agent migrate"):
        await Store.open(str(path), clock, migrating=False)
    steps = migrate_database(str(path), dry_run=True)
    assert steps == before
    revisions = [step for step in steps if step.startswith("revision")]
    assert [step.split(":")[0] for step in revisions] == ["revision 0001", "revision 0002"]
    assert migrate_database(str(path)) == steps[len(revisions) :]
    await (await Store.open(str(path), clock, migrating=False)).close()


def test_names() -> None:
    """Standalone and attached names follow platform.md, and own tables carry the infix."""
    assert (STANDALONE.platform("execution_logs"), STANDALONE.metrics()) == (
        "execution_logs",
        "signal_provider_metrics",
    )
    assert (ATTACHED.platform("execution_logs"), ATTACHED.metrics()) == (
        "sp_execution_logs",
        "sp_srm_signal_provider_metrics",
    )
    assert (STANDALONE.own("orders"), ATTACHED.own("orders")) == ("srm_orders", "sp_srm_orders")
    with pytest.raises(ConfigurationError, match="table_prefix"):
        Names(prefix="sp_; DROP")


@pytest.mark.parametrize("names", [STANDALONE, ATTACHED], ids=["standalone", "attached"])
def test_every_table_compiles_for_mysql(names: Names) -> None:
    """The same tables give MySQL's exact types: DECIMAL, DATETIME(6), BIGINT keys, byte-wise collation."""
    ddl = "\n".join(str(CreateTable(t).compile(dialect=MYSQL)) for t in Tables(names).metadata.sorted_tables)
    assert "NUMERIC(28, 10)" in ddl
    assert "DATETIME(6)" in ddl
    assert "BIGINT NOT NULL AUTO_INCREMENT" in ddl
    assert "COLLATE utf8mb4_bin" in ddl


def test_identifiers_fit_mysql() -> None:
    """No table, index or constraint name is longer than MySQL's 64 characters, with the longest prefix."""
    tables = Tables(Names(prefix="p" * 12, attached=True)).metadata.tables.values()
    named = [t.name for t in tables]
    named += [str(index.name) for t in tables for index in t.indexes]
    named += [str(constraint.name) for t in tables for constraint in t.constraints]
    assert [name for name in named if len(name) > 64] == []


exact = st.decimals(Decimal("-1e17"), Decimal("1e17"), places=10)
maybe = st.none() | exact


@given(exact)
def test_exact_decimal_is_exact(value: Decimal) -> None:
    """Any value of the stored scale comes back equal, whatever its digits, as text of fixed scale."""
    column = ExactDecimal()
    bound = column.process_bind_param(value, LITE)
    assert isinstance(bound, str)
    assert len(bound.partition(".")[2]) == 10
    assert column.process_result_value(bound, LITE) == value
    assert column.process_bind_param(value, MYSQL) == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(1.5, id="a float"),
        pytest.param(1, id="an int"),
        pytest.param(Decimal("NaN"), id="not a number"),
        pytest.param(Decimal("Infinity"), id="infinity"),
        pytest.param(Decimal("0.00000000001"), id="an eleventh digit"),
        pytest.param(Decimal("1e18"), id="too large"),
    ],
)
def test_exact_decimal_refuses(value: Any) -> None:
    """What is no exact amount of the stored scale is refused, never rounded."""
    with pytest.raises((TypeError, ArithmeticError)):
        ExactDecimal().process_bind_param(value, LITE)


def test_zero_has_one_text() -> None:
    """Minus zero is stored as zero."""
    assert ExactDecimal().process_bind_param(Decimal("-0.0"), LITE) == "0.0000000000"


@given(st.decimals(Decimal("-1e15"), Decimal("1e15"), allow_nan=False))
def test_measured_decimal_rounds_to_nearest(value: Decimal) -> None:
    """A measured value is at most half a stored step away from what was measured."""
    bound = MeasuredDecimal().process_bind_param(value, LITE)
    assert isinstance(bound, str)
    assert abs(Decimal(bound) - value) <= Decimal("5e-11")


def test_narrow_decimal_never_fails() -> None:
    """What does not fit a narrow column becomes NULL with a logged reason; what fits is rounded."""
    column = NarrowDecimal(8, 4, "slippage")
    with capture_logs() as logs:
        assert column.process_bind_param(Decimal("12345.6"), LITE) is None
    assert (logs[0]["event"], logs[0]["field"], logs[0]["value"]) == ("value_does_not_fit", "slippage", "12345.6")
    assert column.process_bind_param(Decimal("0.00085"), LITE) == "0.0008"


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_instants_are_utc_to_the_microsecond(naive: datetime, minutes: int) -> None:
    """An aware instant of any zone comes back as the same instant in UTC."""
    column = UtcDateTime()
    instant = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    back = column.process_result_value(column.process_bind_param(instant, LITE), LITE)
    assert back == instant
    assert back is not None
    assert back.tzinfo is UTC


def test_instants_without_zone_are_refused() -> None:
    """A naive time is an error, not a guess."""
    with pytest.raises(ValueError, match="without zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 5), LITE)


words = st.text(st.characters(categories=["L", "N", "P", "S", "Z"]), max_size=30)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
providers = st.builds(ProviderKey.parse, st.sampled_from(["alpha", "user:7", "channel_source:a:b"]))
floats = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(0, 2**31 - 1)


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotation of the domain: nothing registered globally, every field drawn."""
    if isinstance(hint, NewType):
        return words
    if get_origin(hint) in (Union, UnionType):
        return st.one_of([of_type(part) for part in get_args(hint)])
    if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
        return st.lists(of_type(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is tuple:
        return st.tuples(*(of_type(part) for part in get_args(hint)))
    plain_types: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(), Decimal: exact, datetime: instants, ProviderKey: providers, float: floats, str: words,
        int: whole, bool: st.booleans(),
    }  # fmt: skip
    if hint in plain_types:
        return plain_types[hint]
    return st.sampled_from(hint) if issubclass(hint, Enum) else any_of(hint)


def any_of(kind: type, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any value of a dataclass, fields of `given` drawn from there."""
    hints = get_type_hints(kind)
    return st.builds(kind, **({name: of_type(hint) for name, hint in hints.items() if name not in given} | given))


FLAT = [
    pytest.param(Leg, "legs", leg_row, leg_of, id="legs"),
    pytest.param(ClosedTrade, "closed_trades", trade_row, trade_of, id="closed trades"),
    pytest.param(ExecutionMeasure, "measures", measure_row, measure_of, id="measures"),
    pytest.param(ProviderScore, "provider_scores", score_row, score_of, id="scores"),
    pytest.param(OrderIntent, "orders", intent_row, lambda row: journal_row(row).intent, id="intents"),
]
_MORE: dict[str, Any] = {
    "legs": {"created_at": datetime(2026, 1, 5, tzinfo=UTC), "updated_at": datetime(2026, 1, 5, tzinfo=UTC)},
    "closed_trades": {"recorded_at": datetime(2026, 1, 5, tzinfo=UTC)},
    "measures": {"client_id": "x", "purpose": "entry", "recorded_at": datetime(2026, 1, 5, tzinfo=UTC)},
    "provider_scores": {
        "leg_id": "l",
        "market_at": datetime(2026, 1, 5, tzinfo=UTC),
        "recorded_at": datetime(2026, 1, 5, tzinfo=UTC),
    },
    "orders": {},
}


@pytest.mark.parametrize(("kind", "name", "to_row", "of_row"), FLAT)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_flat_values_survive_the_database(
    raw: tuple[Connection, Tables], kind: type, name: str, to_row: Any, of_row: Any, data: Any
) -> None:
    """Any value of the stored scale written to its table and read back is equal."""
    connection, tables = raw
    value = data.draw(any_of(kind))
    table = getattr(tables, name)
    begun = connection.begin()
    try:
        connection.execute(table.insert(), dict(to_row(value)) | _MORE[name])
        assert of_row(connection.execute(table.select()).mappings().one()) == value
    finally:
        begun.rollback()


texts = st.dictionaries(words, words, max_size=4)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_decisions_survive_their_text(data: Any) -> None:
    """Any decision written as canonical JSON and read again is equal, steps and inputs included."""
    step = st.builds(Step, rule=words, inputs=texts, lot_in=exact, lot_out=exact)
    decision = data.draw(
        any_of(
            Decision,
            numbers=texts,
            inputs=texts,
            model_versions=texts,
            steps=st.lists(step, max_size=3).map(tuple),
            reason=st.sampled_from(ReasonCode),
        )
    )
    text_ = decision_text(decision)
    assert text_.isascii()
    assert parse_decision(text_) == decision


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_signals_survive_their_text(data: Any) -> None:
    """Any signal of any action written as canonical JSON and read again is equal."""
    signal = data.draw(st.one_of([any_of(kind) for kind in get_args(Signal)]))
    assert parse_signal(signal_text(signal)) == signal


def test_an_unknown_action_is_told() -> None:
    """A stored message of an action this program does not know is a defect, not a guess."""
    body = (
        '{"action":"hedge","provider":"a","signal_id":"s","receipt":{"message_id":"m","received":1.0,'
        '"received_at":"2026-01-05T00:00:00+00:00","issued_at":"2026-01-05T00:00:00+00:00"}}'
    )
    with pytest.raises(StoreBroken, match="hedge"):
        parse_signal(body)

"""Bring a database to this program's schema: Alembic without an ini file, under any prefix.

A crash between two statements (CP11) is repaired by the next start. On SQLite all steps are one transaction, so nothing
of them is there. MySQL has committed each statement: the version table still names the revision before the step that
was cut, the step runs again, and `steps.bring_up` adds only what is missing.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, Table, exc, inspect, select

from srm_agent.errors import StoreBroken
from srm_agent.store.engine import transaction
from srm_agent.store.errors_map import mapped
from srm_agent.store.migrations.steps import missing
from srm_agent.store.names import Names
from srm_agent.store.schema import tables_of

_SCRIPTS = Path(__file__).with_name("migrations")


def version_table(names: Names) -> str:
    """Where Alembic keeps the schema's version."""
    return names.own("schema_version")


def migrate(engine: Engine, names: Names) -> list[str]:
    """Run the steps that are missing; returns what was added (empty the second time).

    Raises StoreBroken when the database is newer than this program, StoreUnavailable when it is locked.
    """
    with _connected(engine) as connection, transaction(connection):
        script, config = _script(names)
        version = _version(connection, names)
        _refuse_newer(version, script)
        if version == script.get_current_head():
            return []
        added = missing(inspect(connection), tables_of(names))
        config.attributes["connection"] = connection
        config.attributes["version_table"] = version_table(names)
        command.upgrade(config, "head")
        return added


def pending(engine: Engine, names: Names) -> list[str]:
    """What `migrate` would do, one sentence each: revisions, then tables, columns and indexes. Writes nothing.

    Raises StoreBroken when the database is newer than this program.
    """
    with _connected(engine) as connection, transaction(connection.execution_options(srm_read=True)):
        script, _ = _script(names)
        version = _version(connection, names)
        _refuse_newer(version, script)
        if version == script.get_current_head():
            return []
        steps = [
            f"revision {found.revision}: {found.doc}"
            for found in reversed(list(script.iterate_revisions("head", version or "base")))
        ]
        return steps + missing(inspect(connection), tables_of(names))


def _connected(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except (exc.SQLAlchemyError, OSError) as error:
        raise mapped(error, committing=False) from error


def _script(names: Names) -> tuple[ScriptDirectory, Config]:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["names"] = names
    return ScriptDirectory.from_config(config), config


def _version(connection: Connection, names: Names) -> str | None:
    """The schema's version, None before the first migration."""
    name = version_table(names)
    if not inspect(connection).has_table(name):
        return None
    found = connection.execute(select(Table(name, MetaData(), autoload_with=connection).c.version_num)).scalars().all()
    if len(found) > 1:
        raise StoreBroken(f"{name} must hold one version, held {', '.join(found)}; restore it from a backup")
    return str(found[0]) if found else None


def _refuse_newer(version: str | None, script: ScriptDirectory) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if version is not None and version not in known:
        raise StoreBroken(
            f"the database has schema {version}, this program knows up to {script.get_current_head()}; "
            "install the newer srm-agent that wrote it, or restore the backup made before its upgrade"
        )

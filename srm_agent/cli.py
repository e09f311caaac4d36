"""The commands. Exit codes: 0, 1 failure, 64 usage, 78 configuration."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from srm_agent import __version__
from srm_agent.api.control_client import ControlClient
from srm_agent.clock import SystemClock
from srm_agent.domain.accounts import EmergencyScope, HaltScope
from srm_agent.errors import UsageError
from srm_agent.settings import Credentials, Settings, load
from srm_agent.settings.credentials import credentials_directory

T = TypeVar("T")

app = typer.Typer(
    name="srm-agent",
    help="AI Smart Risk Management: stands between copy-trade signals and brokers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 140)

ConfigOption = Annotated[Path, typer.Option("--config", envvar="SRM_CONFIG", help="configuration file (TOML)")]
CredentialsOption = Annotated[
    Path | None, typer.Option("--credentials", help="directory of secret files; systemd's own is found by itself")
]
DEFAULT_CONFIG = Path("config/srm.toml")


def _version(value: bool) -> None:
    if value:
        console.print(f"srm-agent {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """AI Smart Risk Management: stands between copy-trade signals and brokers."""


def _read(config: Path, credentials: Path | None) -> tuple[Settings, Credentials]:
    settings = load(config)
    return settings, Credentials(credentials_directory(credentials, settings.agent.credentials_dir))


def _run(work: Coroutine[object, object, T]) -> T:
    return asyncio.run(work)


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: CredentialsOption = None,
    exits_only: Annotated[
        bool, typer.Option("--exits-only", help="guard mode: no entries until an operator resumes everything")
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reloads limits, policies and copy settings."""
    from srm_agent.run import serve

    settings, secrets = _read(config, credentials)
    _run(serve(settings, secrets, config, "asked for with --exits-only" if exits_only else ""))


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(help="how long it plays")] = 90.0,
    seed: Annotated[int, typer.Option(help="another seed tells another story")] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="also write the report for machines here")] = None,
) -> None:
    """See it work: the daemon against a simulated Bybit over real sockets, no account needed."""
    from srm_agent.demo.run import DemoOptions, run_demo

    if not 10 <= seconds <= 3600:
        raise UsageError(f"--seconds must be between 10 and 3600, was {seconds:g}")
    _run(run_demo(DemoOptions(seconds=seconds, seed=seed, json_path=json_path), SystemClock(), console))


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: CredentialsOption = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="send a test alert to each place of [alerts]")] = False,
    flatten: Annotated[
        bool, typer.Option("--flatten", help="rehearse an emergency close with the real keys, sending nothing")
    ] = False,
) -> None:
    """Say what is wrong with configuration, secrets, database, clock and brokers, and how to mend it."""
    from srm_agent.check import run_checks

    if not _run(run_checks(config, credentials, SystemClock(), console, alerts=alerts, flatten=flatten)):
        raise typer.Exit(1)


@app.command()
def migrate(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be added")] = False,
) -> None:
    """Bring the database's tables up to date; adds only what is missing."""
    from srm_agent.store.names import Names
    from srm_agent.store.store import migrate_database

    settings = load(config)
    steps = migrate_database(settings.store.url, Names(prefix=settings.store.table_prefix), dry_run=dry_run)
    for step in steps:
        console.print(("would " if dry_run else "") + step, highlight=False)
    if not steps:
        console.print("nothing to do: the database is up to date")


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: CredentialsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Show what the running daemon is doing."""
    from srm_agent.commands import print_status

    answer = _control(config, credentials).status()
    if as_json:
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        print_status(console, answer)


@app.command()
def halt(
    reason: Annotated[str, typer.Option(help="why; stands in the audit log")],
    connection: Annotated[str | None, typer.Option(help="only this connection")] = None,
    provider: Annotated[str | None, typer.Option(help="only this provider")] = None,
    symbol: Annotated[str | None, typer.Option(help="only this symbol")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: CredentialsOption = None,
) -> None:
    """Stop new risk, at once and until resumed: everything, or one connection, provider or symbol."""
    scope, key = _scope(config, connection, provider, symbol)
    _control(config, credentials).halt(scope, key, reason)
    console.print(f"halted: {scope.value} {key}".rstrip() + "; open positions keep their stops and may be closed")


@app.command()
def flatten(
    connection: Annotated[list[str] | None, typer.Option(help="this account; may be given more than once")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every account of the configuration")] = False,
    reason: Annotated[str, typer.Option(help="why; stands in the halt")] = "srm-agent flatten",
    scope: Annotated[str | None, typer.Option(help="account or own; the configured emergency_scope by default")] = None,
    timeout: Annotated[float, typer.Option(help="seconds after which it gives up (exit code 1)")] = 120.0,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: CredentialsOption = None,
) -> None:
    """Halt accounts and close their positions, with or without the daemon and the database; ends when flat."""
    from srm_agent.flatten_command import FlattenOptions, chosen, run_flatten, scope_of

    if not 1 <= timeout <= 86_400:
        raise UsageError(f"--timeout must be between 1 and 86400 seconds, was {timeout:g}")
    settings, secrets = _read(config, credentials)
    options = FlattenOptions(
        connections=connection or [], everything=everything, reason=reason, scope=scope, timeout_s=timeout
    )
    names, wide = [account.id for account in chosen(settings, options)], scope_of(settings, options)
    what = "every position" if wide is EmergencyScope.ACCOUNT else "every position of ours"
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to confirm: add --yes")
        typer.confirm(f"close {what} of {', '.join(names)} at the market, now?", abort=True)
    if not _run(run_flatten(settings, secrets, options, SystemClock(), console)):
        raise typer.Exit(1)


@app.command()
def resume(
    connection: Annotated[str | None, typer.Option(help="this connection")] = None,
    provider: Annotated[str | None, typer.Option(help="this provider")] = None,
    symbol: Annotated[str | None, typer.Option(help="this symbol")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    credentials: CredentialsOption = None,
) -> None:
    """Clear a halt, by name of the operator whose token is used."""
    scope, key = _scope(config, connection, provider, symbol)
    cleared = _control(config, credentials).resume(scope, key)
    console.print(
        f"resumed: {scope.value} {key}".rstrip() if cleared else f"nothing was halted: {scope.value} {key}".rstrip()
    )


@app.command()
def explain(
    decision: Annotated[str, typer.Argument(help="id of a decision, or its beginning")],
    language: Annotated[str, typer.Option(help="en or id")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Why this lot, this stop, or this refusal: one sentence, the waterfall, the inputs."""
    from srm_agent.commands import explain_decision

    settings = load(config)
    _run(explain_decision(settings, decision, language or settings.agent.language, SystemClock(), console))


def _control(config: Path, credentials: Path | None) -> ControlClient:
    settings, secrets = _read(config, credentials)
    operators = secrets.operators()
    if not operators:
        raise UsageError("no operator token: put one into operator.token of the credentials directory")
    token = operators.get("operator") or next(iter(operators.values()))
    return ControlClient(f"http://{settings.intake.host}:{settings.intake.port}", token.reveal())


def _scope(config: Path, connection: str | None, provider: str | None, symbol: str | None) -> tuple[HaltScope, str]:
    settings = load(config)
    if provider in settings.providers:
        provider = str(settings.provider_key(provider))  # with its kind, as the daemon knows it
    named = [
        (scope, key)
        for scope, key in (
            (HaltScope.CONNECTION, connection),
            (HaltScope.PROVIDER, provider),
            (HaltScope.SYMBOL, symbol),
        )
        if key is not None
    ]
    if any(not key for _, key in named):
        raise UsageError("--connection, --provider and --symbol need a name; leave the option out to mean everything")
    if len(named) > 1:
        raise UsageError("name one of --connection, --provider, --symbol, or none for everything")
    return named[0] if named else (HaltScope.ALL, "")

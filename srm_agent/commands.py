"""What commands show people: tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from srm_agent.bootstrap import open_store
from srm_agent.clock import Clock
from srm_agent.domain.decisions import Decision
from srm_agent.domain.units import plain
from srm_agent.errors import UsageError
from srm_agent.risk.explain import recompute, sentence, waterfall
from srm_agent.risk.texts import Language, texts
from srm_agent.settings import Settings

COLOURS = {"ACTIVE": "green", "REDUCING": "yellow", "FLATTENING": "red", "HALTED": "red"}


def print_status(console: Console, status: Mapping[str, object]) -> None:
    """Connections, venues, halts and the last alerts."""
    ready = "[green]ready[/]" if status.get("ready") else "[yellow]starting[/]"
    console.print(f"agent [bold]{status.get('agent')}[/] {ready} at {status.get('at')}")
    counters = status.get("counters")
    if isinstance(counters, dict):
        console.print(", ".join(f"{name} {count}" for name, count in counters.items()))
    console.print(_connections(_rows(status.get("connections"))))
    for halt in _rows(status.get("halts")):
        console.print(
            f"[red]{halt['state']}[/] "
            + escape(f"{halt['scope']} {halt['key']}".rstrip())
            + escape(f": {halt['reason']} (by {halt['set_by']} at {halt['set_at']})")
        )
    for alert in _rows(status.get("alerts"))[-5:]:
        console.print(f"[dim]{alert['at']}[/] " + escape(f"{alert['level']} {alert['title']}: {alert['message']}"))


def _connections(rows: list[Mapping[str, object]]) -> Table:
    table = Table()
    for column in ("connection", "follower", "state", "equity", "drawdown", "open", "in doubt", "why no entries"):
        table.add_column(column, justify="right" if column in ("equity", "drawdown", "open", "in doubt") else "left")
    for row in rows:
        state = str(row.get("state"))
        table.add_row(
            str(row.get("id")),
            str(row.get("follower")),
            Text(state, style=COLOURS.get(state, "")),
            f"{_number(row.get('equity')):,.2f} {row.get('currency') or ''}" if row.get("equity") else "unknown",
            f"{_number(row.get('drawdown')) * 100:.2f} %" if row.get("drawdown") is not None else "unknown",
            str(row.get("open_legs")),
            str(row.get("unsettled_orders")),
            str(row.get("why") or ""),
        )
    return table


def _rows(value: object) -> list[Mapping[str, object]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _number(value: object) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return Decimal("NaN")


async def explain_decision(settings: Settings, prefix: str, language: str, clock: Clock, console: Console) -> None:
    """Print one decision. Raises UsageError when none or several begin with `prefix`, or for another language."""
    if language not in list(Language):
        raise UsageError(f"--language must be one of {', '.join(Language)}, was {language!r}")
    store = await open_store(settings, clock, read_only=True)
    try:
        found = await store.reads.find_decisions(prefix)
        recent = [] if found else await store.reads.recent_decisions(5)
    finally:
        await store.close()
    if len(found) != 1:
        raise UsageError(_not_one(prefix, found, recent))
    _print_decision(console, found[0], Language(language))


def _not_one(prefix: str, found: list[Decision], recent: list[Decision]) -> str:
    if found:
        return f"{len(found)} decisions begin with {prefix!r}: {', '.join(one.decision_id for one in found)}"
    known = ", ".join(one.decision_id for one in recent) or "none yet"
    return f"no decision begins with {prefix!r}; the latest are: {known}"


def _print_decision(console: Console, decision: Decision, language: Language) -> None:
    console.print(sentence(decision, language), style="bold", markup=False)
    words = texts(language).heading
    record = words["record"].format(
        id=decision.decision_id,
        connection=decision.connection_id,
        signal=decision.signal_id,
        at=f"{decision.decided_at:%Y-%m-%d %H:%M:%S} UTC",
        policy=decision.policy_version,
        arm=decision.arm,
    )
    console.print(record, style="dim", markup=False)
    if decision.steps:
        console.print(_waterfall(decision, language))
    inputs = Table(title=words["known"], title_justify="left")
    inputs.add_column(words["input"])
    inputs.add_column(words["value"])
    for name, value in sorted(decision.inputs.items()):
        inputs.add_row(name, value)
    console.print(inputs)


def _waterfall(decision: Decision, language: Language) -> Table:
    words = texts(language).heading
    table = Table(title=words["steps"], title_justify="left")
    for column in ("rule", "lot_in", "lot_out", "recomputed", "from"):
        table.add_column(words[column], justify="left" if column in ("rule", "from") else "right")
    for bar, step in zip(waterfall(decision, language), decision.steps, strict=True):
        same = recompute(step) == step.lot_out
        table.add_row(
            bar.label,
            plain(bar.lot_in),
            plain(bar.lot_out),
            Text(words["equal"], "green") if same else Text(plain(recompute(step)), "red"),
            ", ".join(f"{name}={value}" for name, value in step.inputs.items()),
        )
    return table

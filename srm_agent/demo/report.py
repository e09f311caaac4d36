"""The closing report: the same facts as tables for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srm_agent.account import Account
from srm_agent.demo.story import Story, mean, quantile
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ProviderScore
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.units import plain
from srm_agent.risk.explain import sentence, waterfall


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything the report is made of."""

    seed: int
    duration_s: float
    story: Story
    accounts: Sequence[Account]
    scores: Mapping[ProviderKey, ProviderScore]
    counters: Mapping[str, int]
    venue: Mapping[str, object]
    """The simulator's own report."""
    names: Mapping[str, str]
    """Provider id -> name for people."""


def machine_report(run: Run) -> dict[str, object]:
    """JSON-able; numbers as floats, ratios as fractions, times with zone."""
    story = run.story
    latencies = story.latencies_ms()
    return {
        "seed": run.seed,
        "duration_s": round(run.duration_s, 3),
        "signals": story.opening_signals,
        "decisions": {"accepted": story.accepted, "refused": dict(sorted(story.refused.items()))},
        "orders": run.counters["orders"],
        "fills": run.counters["fills"],
        "trades": run.counters["trades"],
        "slippage_pips": {
            symbol: {"n": len(values), "mean": _number(mean(values)), "p90": _number(quantile(values, 0.9))}
            for symbol, values in sorted(story.slippage_pips().items())
        },
        "latency_ms": {"p50": _number(quantile(latencies, 0.5)), "p99": _number(quantile(latencies, 0.99))},
        "providers": [_provider(run, key) for key in sorted(run.scores)],
        "connections": [_connection(account) for account in run.accounts],
        "emergency_closes": [
            {"connection": emergency.connection, "reason": emergency.reason, "closing_orders": emergency.closing_orders}
            for emergency in story.emergencies
            if emergency.flat
        ],
        "explanation": None if story.explained is None else _explanation(story.explained),
        "events": run.venue.get("events", []),
    }


def _number(value: Decimal | None) -> float | None:
    return None if value is None else round(float(value), 4)


def _truth(run: Run, key: ProviderKey) -> Mapping[str, object]:
    rows = run.venue.get("providers", [])
    if isinstance(rows, list):
        for row in rows:
            if isinstance(row, dict) and row.get("id") == key.id:
                return row
    return {}


def _provider(run: Run, key: ProviderKey) -> dict[str, object]:
    score, truth = run.scores[key], _truth(run, key)
    return {
        "id": key.id,
        "score": _number(score.shown),
        "interval": [_number(score.interval[0]), _number(score.interval[1])],
        "trades": score.trades,
        "sufficient": score.sufficient,
        "true_skill": truth.get("true_skill"),
        "true_expectancy_r": truth.get("true_expectancy_r"),
        "style": truth.get("style"),
    }


def _connection(account: Account) -> dict[str, object]:
    equity, drawdown = account.equity(), account.drawdown()
    return {
        "id": account.member.connection_id,
        "equity": None if equity is None else _number(equity.value),
        "drawdown": _number(drawdown),
        "state": account.state().value,
        "open_legs": len(list(account.desk.open_legs())),
    }


def _explanation(decision: Decision) -> dict[str, object]:
    return {
        "decision_id": decision.decision_id,
        "lot": None if decision.lot is None else plain(decision.lot),
        "sentence": sentence(decision),
        "steps": [
            {"rule": step.rule, "lot_in": plain(step.lot_in), "lot_out": plain(step.lot_out)} for step in decision.steps
        ],
    }


# ---- for people


def print_report(console: Console, run: Run) -> None:
    """Tables in the order of the story: what was decided, what it cost, who is worth what, how accounts fared."""
    story = run.story
    console.rule(f"SRM agent, demonstration with seed {run.seed}, {run.duration_s:.0f} s")
    console.print(
        f"[bold]{story.opening_signals}[/] opening signals, [bold]{story.accepted}[/] decisions accepted, "
        f"[bold]{sum(story.refused.values())}[/] refused, {run.counters['fills']} fills, "
        f"{run.counters['trades']} trades closed"
    )
    console.print(_decisions_table(story), _slippage_table(story))
    console.print(_providers_table(run))
    console.print(accounts_table(run.accounts))
    for emergency in story.emergencies:
        done = f"[green]flat after {emergency.closing_orders} closing orders[/]"
        mark = done if emergency.flat else "[red]emergency close[/]"
        console.print(f"{mark} {emergency.connection}: {emergency.reason}")
    if story.explained is not None:
        console.print(f"why this lot? {sentence(story.explained)}", style="bold", markup=False, highlight=False)
        console.print(_waterfall_table(story.explained))
    console.print(_events_table(run.venue))


def _decisions_table(story: Story) -> Table:
    table = Table(title="decisions by reason", title_justify="left")
    table.add_column("reason")
    table.add_column("count", justify="right")
    table.add_row("[green]ACCEPTED[/]", str(story.accepted))
    for reason, count in story.refused.most_common():
        table.add_row(reason, str(count))
    return table


def _slippage_table(story: Story) -> Table:
    table = Table(title="entry slippage in pips, positive is worse", title_justify="left")
    for column, justify in (
        ("symbol", "left"),
        ("session", "left"),
        ("n", "right"),
        ("mean", "right"),
        ("p90", "right"),
    ):
        table.add_column(column, justify="right" if justify == "right" else "left")
    groups: dict[tuple[str, str], list[Decimal]] = {}
    for measure, session in story.measures:
        if measure.slippage_pips is not None:
            groups.setdefault((measure.symbol, session), []).append(measure.slippage_pips)
    for (symbol, session), values in sorted(groups.items()):
        table.add_row(symbol, session, str(len(values)), f"{mean(values):z.2f}", f"{quantile(values, 0.9):z.2f}")
    return table


def _providers_table(run: Run) -> Table:
    table = Table(title="provider score (P of being profitable, 90 % interval) beside the truth", title_justify="left")
    for column in ("provider", "style", "score", "interval", "trades", "true skill", "true R per trade"):
        table.add_column(column, justify="left" if column in ("provider", "style") else "right")
    for key in sorted(run.scores):
        score, truth = run.scores[key], _truth(run, key)
        expectancy = truth.get("true_expectancy_r")
        table.add_row(
            run.names.get(key.id) or key.id,
            str(truth.get("style", "")),
            f"{score.shown:.0f}" + ("" if score.sufficient else " [dim](insufficient data)[/]"),
            f"{score.interval[0]:.0f}-{score.interval[1]:.0f}",
            str(score.trades),
            f"{truth['true_skill']:+.2f}" if isinstance(truth.get("true_skill"), float) else "?",
            f"{expectancy:+.2f}" if isinstance(expectancy, float) else "-",
        )
    return table


def accounts_table(accounts: Iterable[Account]) -> Table:
    """Equity and drawdown bars; the bar is full at the connection's limit."""
    table = Table(title="accounts", title_justify="left")
    for column in ("connection", "follower", "state", "equity", "drawdown", "of the limit", "open"):
        table.add_column(column, justify="right" if column in ("equity", "drawdown", "open") else "left")
    colours = {"ACTIVE": "green", "REDUCING": "yellow", "FLATTENING": "red", "HALTED": "red"}
    for account in accounts:
        equity, drawdown, snapshot = account.equity(), account.drawdown(), account.watch.snapshot
        state = account.state().value
        currency = "" if snapshot is None else f" {snapshot.currency}"
        table.add_row(
            account.member.connection_id,
            account.member.follower,
            Text(state, style=colours[state]),
            "unknown" if equity is None else f"{equity.value:,.2f}{currency}",
            "unknown" if drawdown is None else f"{drawdown * 100:.2f} %",
            _bar(drawdown, account.member.max_drawdown),
            str(len(list(account.desk.open_legs()))),
        )
    return table


def _bar(drawdown: Decimal | None, limit: Decimal, width: int = 20) -> Text:
    share = min(Decimal(1), (drawdown or Decimal(0)) / limit) if limit else Decimal(0)
    full = int(share * width)
    style = "red" if share >= Decimal("0.75") else "yellow" if share >= Decimal("0.4") else "green"
    return Text("█" * full + "·" * (width - full), style=style)


def _waterfall_table(decision: Decision) -> Table:
    table = Table(title=f"decision {decision.decision_id}", title_justify="left")
    for column in ("rule", "lot in", "lot out", "change"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for bar in waterfall(decision):
        change = f"{bar.change / bar.lot_in * 100:+.1f} %" if bar.lot_in else ""
        table.add_row(bar.label, f"{bar.lot_in:.6g}", f"{bar.lot_out:.6g}", change)
    return table


def _events_table(venue: Mapping[str, object]) -> Table:
    table = Table(title="what the seed declared (market time, UTC)", title_justify="left")
    for column in ("at", "kind", "symbol", "size", "detail"):
        table.add_column(column)
    rows = venue.get("events", [])
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("kind") != "news":
            table.add_row(*(str(row.get(column) or "") for column in ("at", "kind", "symbol", "size", "detail")))
    return table

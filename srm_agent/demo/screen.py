"""The live screen of the demonstration, and its plain form where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from srm_agent.account import Account
from srm_agent.demo.report import accounts_table
from srm_agent.demo.story import Emergency, Story
from srm_agent.domain.decisions import Decision
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal
from srm_agent.domain.trades import ClosedTrade
from srm_agent.domain.units import plain
from srm_agent.market_watch import MarketWatch
from srm_agent.risk.explain import sentence

LINES = 16
PLAIN_EVERY_S = 10.0


def line_of(event: object, currency: str = "") -> Text:
    """One event in one line, coloured by what it is; `currency` is that of its money."""
    match event:
        case OpenSignal():
            return Text(
                f"signal   {event.provider.id}: {event.side.word} {event.symbol} at {plain(event.signal_price)}", "cyan"
            )
        case ModifySignal() | CloseSignal() | CancelSignal():
            kind = type(event).__name__.removesuffix("Signal").lower()
            return Text(f"signal   {event.provider.id}: {kind} {event.signal_id.rpartition('/')[2]}", "cyan")
        case Decision():
            style = "green" if event.accepted else "yellow"
            return Text(f"decision {event.connection_id}: {sentence(event)}", style)
        case ExecutionMeasure():
            return _execution_line(event)
        case ClosedTrade():
            style = "green" if event.net_pnl > 0 else "red"
            return Text(
                f"closed   {event.connection_id} {event.symbol} {event.close_reason.value}: "
                f"{event.net_pnl:+.2f} {currency}".rstrip()
                + f", {event.r_multiple:+.2f} R",
                style,
            )
        case Emergency():
            what = f"FLAT after {event.closing_orders} closing orders" if event.flat else "EMERGENCY CLOSE"
            return Text(f"{what} {event.connection}: {event.reason}", "bold white on red")
    return Text(str(event))


def _execution_line(measure: ExecutionMeasure) -> Text:
    if measure.fill_price is None:
        return Text(f"missed   {measure.connection_id} {measure.symbol}: {measure.censored}", "yellow")
    slippage = "" if measure.slippage_pips is None else f", slippage {measure.slippage_pips:+.2f} pips"
    latency = "" if measure.latency_ms is None else f", {measure.latency_ms:.0f} ms"
    return Text(
        f"fill     {measure.connection_id} {measure.side.word} {plain(measure.filled_lot)} {measure.symbol} "
        f"at {plain(measure.fill_price)}{slippage}{latency}",
        "white",
    )


class Screen:
    """Draws the story as it grows."""

    def __init__(self, console: Console, story: Story, market: MarketWatch, seconds: float, seed: int) -> None:
        self._console = console
        self._story = story
        self._market = market
        self._seconds = seconds
        self._seed = seed
        self._live: Live | None = None
        self._last_plain = 0.0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def draw(self, accounts: Sequence[Account], elapsed: float) -> None:
        """Refresh; without a terminal, one line every ten seconds and each emergency."""
        if self._live is not None:
            self._live.update(Group(self._header(elapsed), self._events(), accounts_table(accounts)))
        elif elapsed - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = elapsed
            self._console.print(self._line(elapsed))

    def _line(self, elapsed: float) -> str:
        story, now = self._story, self._market.market_now
        clock = "no quotes yet" if now is None else f"market {now:%a %H:%M} UTC"
        return (
            f"{elapsed:3.0f} s of {self._seconds:.0f}, {clock}: {story.opening_signals} signals, "
            f"{story.accepted} accepted, {sum(story.refused.values())} refused, {len(story.measures)} entries, "
            f"{len(story.trades)} closed"
        )

    def _header(self, elapsed: float) -> Panel:
        return Panel(f"{self._line(elapsed)}   seed {self._seed}   Ctrl-C ends it", title="SRM agent", style="bold")

    def _currency(self, event: object) -> str:
        terms = self._market.instruments.get(event.symbol) if isinstance(event, ClosedTrade) else None
        return "" if terms is None else terms.settle_currency

    def _events(self) -> Table:
        table = Table.grid()
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(40, self._console.width - 2))
        for event in list(self._story.recent)[-LINES:]:
            table.add_row(line_of(event, self._currency(event)))
        return table

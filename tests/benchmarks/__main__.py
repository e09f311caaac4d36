"""`make bench`: hot paths of the agent, each beside a reference measured in the same run, interleaved, medians.

Absolute times are not stable between machines; the ratio is what counts. Bars against other systems (P1-P11 of the
performance page) come with a bench environment of their own; here stands what the product itself can be compared to.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from srm_agent.domain.forecasts import ForecastRequest
from srm_agent.domain.ids import Symbol
from srm_agent.domain.market import Quote
from srm_agent.domain.units import ZERO, Side
from srm_agent.learning.slippage_prior import ScalePriorForecaster
from srm_agent.market.atr import WilderAtr
from srm_agent.market.context import SymbolMarket
from tests.benchmarks.decision import a_decision

ROUNDS = 7
START = datetime(2026, 1, 5, 11, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """One comparison, microseconds an operation."""

    path: str
    reference: str
    ours_us: float
    reference_us: float

    @property
    def ratio(self) -> float:
        """Ours over the reference."""
        return self.ours_us / self.reference_us


def timed(work: Callable[[], int]) -> float:
    """Microseconds an operation; `work` returns how many it did."""
    began = time.perf_counter()
    count = work()
    return (time.perf_counter() - began) / count * 1e6


def compare(path: str, reference: str, ours: Callable[[], int], theirs: Callable[[], int]) -> Row:
    """Interleaved rounds, so that both meet the same machine."""
    pairs = [(timed(ours), timed(theirs)) for _ in range(ROUNDS)]
    return Row(path, reference, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))


def quotes(count: int) -> list[Quote]:
    """A random walk of one symbol, three market seconds apart."""
    rng, mid, found = random.Random(1), 1.1, []
    for number in range(count):
        mid *= 1 + rng.gauss(0, 2e-5)
        bid = Decimal(f"{mid:.5f}")
        at = START + timedelta(seconds=3 * number)
        found.append(Quote(symbol=Symbol("EUR"), bid=bid, ask=bid + Decimal("0.00006"), at=at, received=float(number)))
    return found


def bench_quote() -> Row:
    """A believed quote through hygiene, bars, ATR, volatility and spread, beside Wilder's ATR alone on floats."""
    tape = quotes(20_000)

    def ours() -> int:
        market = SymbolMarket(Symbol("EUR"))
        for quote in tape:
            market.on_quote(quote)
        return len(tape)

    def theirs() -> int:
        atr = WilderAtr(14)
        for quote in tape:
            mid = (float(quote.bid) + float(quote.ask)) / 2
            atr.update(mid, mid, mid)
        return len(tape)

    return compare("quote -> context state", "Wilder ATR alone, pure Python", ours, theirs)


def bench_forecast() -> Row:
    """One slippage forecast beside one structured JSON line of the same numbers."""
    market = SymbolMarket(Symbol("EUR"))
    for quote in quotes(2_000):
        market.on_quote(quote)
    context = market.context()
    assert context is not None
    request = ForecastRequest(
        symbol=Symbol("EUR"), side=Side.BUY, venue="v", context=context, pip_size=Decimal("0.0001"),
        tick_size=Decimal("0.00001"), latency_s=0.1, queue_lot=ZERO,
    )  # fmt: skip
    forecaster = ScalePriorForecaster()

    def ours() -> int:
        for _ in range(3_000):
            forecaster.forecast(request)
        return 3_000

    def theirs() -> int:
        for _ in range(3_000):
            json.dumps({"spread": str(context.spread), "at": context.at.isoformat(), "latency": 0.1})
        return 3_000

    return compare("one slippage forecast", "one JSON line", ours, theirs)


def bench_decision() -> Row:
    """One whole decision with its exact record, beside the plain Decimal arithmetic of the same rules."""
    decide, plain_rules = a_decision()

    def ours() -> int:
        for _ in range(300):
            decide()
        return 300

    def theirs() -> int:
        for _ in range(300):
            plain_rules()
        return 300

    return compare("signal -> decision, one follower", "the same rules in plain Decimal, no record", ours, theirs)


def main(target: Path | None) -> None:
    """Measure, show, and write JSON where a path is given."""
    rows = [bench_quote(), bench_forecast(), bench_decision()]
    table = Table(title="hot paths (median of interleaved rounds)", title_justify="left")
    for column in ("path", "ours", "reference", "", "ratio"):
        table.add_column(column, justify="right" if column in ("ours", "reference", "ratio") else "left")
    for row in rows:
        table.add_row(
            row.path, f"{row.ours_us:.1f} µs", f"{row.reference_us:.1f} µs", row.reference, f"{row.ratio:.1f}"
        )
    Console().print(table)
    if target is not None:
        target.write_text(json.dumps([{**row.__dict__, "ratio": row.ratio} for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)

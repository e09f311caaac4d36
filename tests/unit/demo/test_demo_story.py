"""What the demonstration remembers and how it says it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from srm_agent.demo.report import Run, machine_report, print_report
from srm_agent.demo.screen import line_of
from srm_agent.demo.story import Story, mean, quantile
from srm_agent.domain.decisions import Decision, ReasonCode, Step
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import ConnectionId, DecisionId, LegId, ProviderKey, Symbol, signal_id
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Receipt
from srm_agent.domain.trades import ClosedTrade, CloseReason
from srm_agent.domain.units import Side

NOW = datetime(2026, 1, 5, 11, 0, tzinfo=UTC)
ALPHA = ProviderKey.parse("alpha")
BTC = Symbol("BTC/USDT:USDT")
C07 = ConnectionId("c07")
RECEIPT = Receipt(message_id="m-1", received_at=NOW, received=1.0, issued_at=NOW)
SIGNAL = signal_id(ALPHA, "s-1")
OPEN = OpenSignal(
    signal_id=SIGNAL,
    provider=ALPHA,
    symbol=BTC,
    side=Side.BUY,
    signal_price=Decimal(60_000),
    stop_loss=Decimal(59_400),
    take_profit=None,
    provider_lot=None,
    receipt=RECEIPT,
)
SCORE = ProviderScore(
    provider=ALPHA,
    mean=0.1,
    deviation=0.2,
    platform_mean=0.0,
    shown=Decimal("69.1"),
    interval=(Decimal(20), Decimal(95)),
    trades=3,
    effective_trades=3.0,
    prior_weight=0.8,
    sufficient=False,
    version="score@1",
)
TRADE = ClosedTrade(
    leg_id=LegId("l1"),
    connection_id=C07,
    signal_id=SIGNAL,
    provider=ALPHA,
    symbol=BTC,
    side=Side.BUY,
    lot=Decimal("0.1"),
    entry_price=Decimal(60_000),
    exit_price=Decimal(59_400),
    net_pnl=Decimal("-60.5"),
    r_multiple=Decimal("-1.01"),
    planned_risk=Decimal(60),
    reward_to_risk=None,
    stop_kept=True,
    stop_slippage=None,
    close_reason=CloseReason.STOP_LOSS,
    opened_at=NOW,
    closed_at=NOW,
)


def a_decision(
    name: str = "d1", *, reason: ReasonCode = ReasonCode.ACCEPTED, lots: tuple[str, ...] = ("1",)
) -> Decision:
    """A decision whose lot went through `lots`."""
    path = [Decimal(lot) for lot in ("0", *lots)]
    inputs = {"fixed_lot": lots[0]}
    steps = tuple(
        Step("base_fixed" if number == 0 else "lot_step", {**inputs, "lot_step": "0.1"}, before, after)
        for number, (before, after) in enumerate(pairwise(path))
    )
    return Decision(
        decision_id=DecisionId(name),
        signal_id=SIGNAL,
        connection_id=C07,
        provider=ALPHA,
        symbol=BTC,
        side=Side.BUY,
        accepted=reason is ReasonCode.ACCEPTED,
        reason=reason,
        numbers={},
        steps=steps,
        lot=path[-1],
        limit_price=Decimal(60_010),
        stop_loss=Decimal(59_400),
        planned_stop=Decimal(59_400),
        stop_buffer=Decimal(0),
        take_profit=None,
        planned_risk=Decimal(600),
        inputs={"conversion": "1", "currency": "USDT"},
        policy_version="crypto@1",
        arm="control",
        model_versions={},
        decided_at=NOW,
    )


def a_measure(*, fill: str | None = "60003", pips: str | None = "3") -> ExecutionMeasure:
    """An entry that filled, or (fill None) missed its price."""
    return ExecutionMeasure(
        connection_id=C07,
        venue="bybit",
        symbol=BTC,
        provider=ALPHA,
        side=Side.BUY,
        lot=Decimal("0.1"),
        filled_lot=Decimal("0.1") if fill else Decimal(0),
        signal_price=Decimal(60_000),
        touch_received=Decimal(60_000),
        touch_decided=Decimal(60_000),
        touch_sent=Decimal(60_000),
        fill_price=None if fill is None else Decimal(fill),
        slippage=None if fill is None else Decimal(3),
        slippage_pips=None if pips is None else Decimal(pips),
        slippage_bps=None,
        slippage_money=None,
        delay_cost=None,
        implementation_shortfall=None,
        fees=Decimal(0),
        latency_ms=None if fill is None else Decimal(80),
        censored="" if fill else "MISSED_PRICE",
    )


@pytest.fixture
def story() -> Story:
    """A little of everything."""
    told = Story()
    told.saw_signal(OPEN, None)
    told.saw_signal(CloseSignal(signal_id=SIGNAL, provider=ALPHA, fraction=Decimal(1), receipt=RECEIPT), None)
    told.saw_decision(a_decision("d1"))
    told.saw_decision(a_decision("d2", lots=("1.05", "1.0")))
    told.saw_decision(a_decision("d3", reason=ReasonCode.SYMBOL_BUSY))
    told.saw_execution(a_measure())
    told.saw_execution(a_measure(fill=None, pips=None))
    told.saw_trade(TRADE, SCORE)
    told.saw_emergency(C07, "drawdown 21 %", None)
    told.saw_emergency(C07, "drawdown 21 %", 3)
    return told


@pytest.fixture
def a_run(story: Story) -> Run:
    """A run without accounts."""
    truth = {
        "events": [{"at": "2026-01-05T11:00:00.000Z", "kind": "gap", "symbol": BTC, "size": -0.07, "detail": "[bold]"}],
        "providers": [{"id": "alpha", "true_skill": 0.41, "true_expectancy_r": None, "style": "scalper"}],
    }
    return Run(
        seed=5,
        duration_s=30.01,
        story=story,
        accounts=[],
        scores={ALPHA: SCORE},
        counters={"orders": 2, "fills": 1, "trades": 1},
        venue=truth,
        names={"alpha": "Alpha Scalping"},
    )


def test_the_story_counts_what_it_sees(story: Story) -> None:
    """Openings, verdicts by reason, filled entries; an entry that missed its price has no slippage, but is kept."""
    assert (story.opening_signals, story.accepted, dict(story.refused)) == (1, 2, {"SYMBOL_BUSY": 1})
    assert story.slippage_pips() == {BTC: [Decimal(3)]}
    assert story.latencies_ms() == [Decimal(80)]
    assert len(story.measures) == 2
    assert story.scores == {ALPHA: SCORE}


def test_the_decision_explained_is_the_one_most_rules_changed(story: Story) -> None:
    """A lot that only one rule made tells less than one that was rounded too."""
    assert story.explained is not None
    assert story.explained.decision_id == "d2"


def test_the_machine_report_is_json_of_the_same_facts(a_run: Run) -> None:
    """Skill and truth side by side, only finished closes, the steps as text, events as the venue declared them."""
    report = machine_report(a_run)
    assert report["decisions"] == {"accepted": 2, "refused": {"SYMBOL_BUSY": 1}}
    assert report["slippage_pips"] == {BTC: {"n": 1, "mean": 3.0, "p90": 3.0}}
    assert report["latency_ms"] == {"p50": 80.0, "p99": 80.0}
    assert report["emergency_closes"] == [{"connection": "c07", "reason": "drawdown 21 %", "closing_orders": 3}]
    providers = report["providers"]
    assert isinstance(providers, list)
    assert (providers[0]["score"], providers[0]["interval"], providers[0]["true_skill"]) == (69.1, [20.0, 95.0], 0.41)
    explanation = report["explanation"]
    assert isinstance(explanation, dict)
    assert explanation["lot"] == "1"
    assert explanation["steps"][-1] == {"rule": "lot_step", "lot_in": "1.05", "lot_out": "1"}


def test_a_run_that_saw_nothing_still_has_a_report() -> None:
    """Ended before the first signal: nulls and empty lists instead of a fault, on the screen too."""
    empty = Run(
        seed=1, duration_s=0.1, story=Story(), accounts=[], scores={}, counters={"orders": 0, "fills": 0, "trades": 0},
        venue={}, names={},
    )  # fmt: skip
    report = machine_report(empty)
    assert report["latency_ms"] == {"p50": None, "p99": None}
    assert report["explanation"] is None
    assert report["events"] == []
    assert "demonstration with seed 1" in _printed(empty)


def _printed(run: Run) -> str:
    out = StringIO()
    print_report(Console(width=140, file=out), run)
    return out.getvalue()


def test_the_report_for_people_says_the_same(a_run: Run) -> None:
    """The counts, the score with its interval beside the truth, the close, the lot explained."""
    text = _printed(a_run)
    for words in (
        "1 opening signals, 2 decisions accepted, 1 refused",
        "SYMBOL_BUSY",
        "20-95",
        "+0.41",
        "rounding down",
    ):
        assert words in text
    assert "flat after 3 closing orders c07: drawdown 21 %" in text
    assert "-0.07" in text


CASES: dict[str, tuple[object, str]] = {
    "an opening": (OPEN, "signal   alpha: buy BTC/USDT:USDT at 60000"),
    "a close": (
        CloseSignal(signal_id=SIGNAL, provider=ALPHA, fraction=Decimal(1), receipt=RECEIPT),
        "signal   alpha: close s-1",
    ),
    "a change": (
        ModifySignal(signal_id=SIGNAL, provider=ALPHA, stop_loss=None, take_profit=None, receipt=RECEIPT),
        "signal   alpha: modify s-1",
    ),
    "a withdrawal": (CancelSignal(signal_id=SIGNAL, provider=ALPHA, receipt=RECEIPT), "signal   alpha: cancel s-1"),
    "a fill": (a_measure(), "fill     c07 buy 0.1 BTC/USDT:USDT at 60003, slippage +3.00 pips, 80 ms"),
    "a missed price": (a_measure(fill=None, pips=None), "missed   c07 BTC/USDT:USDT: MISSED_PRICE"),
    "a trade": (TRADE, "closed   c07 BTC/USDT:USDT stop_loss: -60.50, -1.01 R"),
}


@pytest.mark.parametrize(("event", "words"), CASES.values(), ids=CASES.keys())
def test_each_event_is_one_line(event: object, words: str) -> None:
    """The live screen shows each event with its numbers and signs."""
    assert line_of(event).plain == words


def test_a_refusal_says_why_in_a_sentence() -> None:
    """The line of a decision is the follower's own sentence."""
    line = line_of(a_decision(reason=ReasonCode.SYMBOL_BUSY)).plain
    assert line.startswith("decision c07: Buy BTC/USDT:USDT was not copied: a position in this symbol is open already")


@given(st.lists(st.decimals(-1000, 1000, places=4), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_nearest_rank(values: list[Decimal], share: float) -> None:
    """It is one of the values; at least that share lies at or below it, and less than that share strictly below."""
    found = quantile(values, share)
    assert found in values
    assert found is not None
    assert len([value for value in values if value <= found]) >= share * len(values) - 1e-9
    assert len([value for value in values if value < found]) < share * len(values) + 1e-9


def test_statistics_of_nothing_are_unknown() -> None:
    """No value, no mean, no quantile."""
    assert quantile([], 0.5) is None
    assert mean([]) is None
    assert mean([Decimal(1), Decimal(2)]) == Decimal("1.5")

"""The order journal through its port, over both runners."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.orders import FillKind, OrderPurpose, OrderState
from srm_agent.domain.trades import CloseReason, LegState
from srm_agent.domain.units import Side
from srm_agent.store.store import Store


async def test_recording_twice_changes_nothing(store: Store, a: Any, rows: Any) -> None:
    """A repeated record leaves every table as it was, also after the order has moved on."""
    arguments = ([a.decision()], [a.intent()], [a.leg()])
    await store.journal.record(*arguments)
    await store.journal.update([a.filled()])
    before = [await rows(name) for name in ("srm_orders", "srm_legs", "execution_logs", "srm_predictions")]
    await store.journal.record(*arguments)
    assert [await rows(name) for name in ("srm_orders", "srm_legs", "execution_logs", "srm_predictions")] == before


async def test_entry_opens_a_pending_log_with_its_context(store: Store, a: Any, rows: Any) -> None:
    """An entry's execution log carries its decision's context, provider and prices under the brief's names."""
    exit_intent = a.intent(leg="close:1", purpose=OrderPurpose.EXIT, side=Side.SELL, limit_price=None)
    await store.journal.record([a.decision()], [a.intent(), exit_intent], [a.leg()])
    (log,) = await rows("execution_logs")
    assert log["status"] == "pending"
    assert (log["execution_type"], log["direction"], log["quantity"]) == ("limit", "buy", Decimal("0.05"))
    assert (log["market_atr"], log["volatility_index"]) == (Decimal("0.00085"), Decimal("62.5"))
    assert (log["trading_session"], log["day_of_week"]) == ("LONDON", 1)
    assert (log["signal_provider_id"], log["signal_provider_type"]) == ("alpha", "channel_source")
    assert log["sl_price"] == Decimal("1.0778")
    assert log["entry_price"] is None
    assert log["slippage"] is None
    (prediction,) = await rows("srm_predictions")
    assert prediction["execution_log_id"] == log["id"]
    assert (prediction["predicted_value"], prediction["model_type"]) == (Decimal("0.3"), "scale_prior:pips")
    assert prediction["actual_value"] is None
    assert prediction["accuracy"] is None


async def test_unknown_inputs_stay_unknown(store: Store, a: Any, rows: Any) -> None:
    """Absent inputs and the word unknown become NULL, and without a forecast there is no prediction."""
    await store.journal.record(
        [a.decision(inputs={"atr": "unknown", "volatility_index": "NaN"})], [a.intent()], [a.leg()]
    )
    (log,) = await rows("execution_logs")
    assert (log["market_atr"], log["volatility_index"], log["trading_session"]) == (None, None, None)
    assert await rows("srm_predictions") == []


async def test_rejected_decisions_leave_no_log(store: Store, a: Any, rows: Any) -> None:
    """A refusal is a decision only; reads count it by its reason."""
    refused = a.decision(accepted=False, reason=ReasonCode.QUOTE_STALE, lot=None, numbers={"age_s": "7"})
    await store.journal.record([refused], [], [])
    assert await rows("execution_logs") == []
    assert await store.reads.decisions_by_reason() == {"QUOTE_STALE": 1}


async def test_a_fill_reaches_every_table_once(store: Store, a: Any, rows: Any) -> None:
    """A fill settles the order, opens the leg and the position, measures the log; repeating it adds nothing."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    names = ("srm_orders", "srm_fills", "srm_legs", "srm_measures", "execution_logs", "execution_positions")
    await store.journal.update([a.filled()])
    once = [await rows(name) for name in (*names, "srm_predictions")]
    await store.journal.update([a.filled(), a.filled()])
    assert [await rows(name) for name in (*names, "srm_predictions")] == once
    assert await store.journal.unsettled(a.connection) == []
    assert list(await store.journal.open_legs(a.connection)) == [a.open_leg()]
    assert await store.journal.known_fills(a.connection, a.start) == {"f1": a.leg().leg_id}
    (log,) = await rows("execution_logs")
    assert (log["status"], log["entry_price"], log["order_id"]) == ("executed", Decimal("1.08005"), "b1")
    assert (log["slippage"], log["latency_ms"]) == (Decimal("0.2"), 85)
    assert log["executed_at"] == a.start + timedelta(seconds=1)
    assert log["response_data"]["unit"] == "pips"
    (position,) = await rows("execution_positions")
    assert (position["status"], position["quantity"]) == ("open", Decimal("0.05"))
    assert (position["srm_adjusted_lot"], position["srm_sl_buffer"]) == (Decimal("0.05"), Decimal(2))
    assert (position["predicted_slippage"], position["performance_score_at_entry"]) == (Decimal("0.3"), Decimal("71.5"))
    assert json.loads(position["srm_adjustment_reason"])[0]["rule"] == "base_risk"
    (prediction,) = await rows("srm_predictions")
    assert prediction["actual_value"] == Decimal("0.2")


@pytest.mark.parametrize(
    ("state", "filled", "status"),
    [
        pytest.param(OrderState.WORKING, "0", "pending", id="a working order is pending"),
        pytest.param(OrderState.WORKING, "0.02", "partial", id="a working order with fills is partial"),
        pytest.param(OrderState.UNKNOWN, "0", "pending", id="unknown stays pending"),
        pytest.param(OrderState.REJECTED, "0", "failed", id="only a definitive refusal is failed"),
        pytest.param(OrderState.ABANDONED, "0", "cancelled", id="what was never sent is cancelled"),
        pytest.param(OrderState.FILLED, "0.02", "partial", id="less than asked is partial"),
    ],
)
async def test_platform_status(store: Store, a: Any, rows: Any, state: OrderState, filled: str, status: str) -> None:
    """The platform's status word follows the journal's state."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await store.journal.update([a.update(state, filled_lot=Decimal(filled), code="TIMEOUT", detail="no answer")])
    (log,) = await rows("execution_logs")
    assert (log["status"], log["error_message"]) == (status, "TIMEOUT: no answer")


@pytest.mark.parametrize("settled", [OrderState.REJECTED, OrderState.ABANDONED])
async def test_a_late_fill_is_stored_and_flagged(store: Store, a: Any, rows: Any, settled: OrderState) -> None:
    """An order that executes after it was settled keeps its state, stores the fill and gets the code LATE_FILL."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await store.journal.update([a.update(settled, leg=a.leg(state=LegState.NEVER_OPENED))])
    await store.journal.update([a.filled()])
    await store.journal.update([a.filled()])
    (late,) = await store.reads.late_fills()
    assert (late.state, late.code, late.filled_lot) == (settled, "LATE_FILL", Decimal("0.05"))
    assert len(await rows("srm_fills")) == 1
    assert list(await store.journal.open_legs(a.connection)) == [a.open_leg()]


async def test_a_stop_fill_is_tied_to_the_leg_it_closes(store: Store, a: Any, rows: Any) -> None:
    """A fill nobody ordered belongs to the one leg that its side closes; repeated it is stored once."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await store.journal.update([a.filled()])
    stop = a.fill("f2", client_id=None, side=Side.SELL, kind=FillKind.STOP_LOSS, at=a.start + timedelta(minutes=5))
    closed = a.closed_leg(close_reason=CloseReason.STOP_LOSS)
    for _ in range(2):
        await store.journal.record_fills(a.connection, [stop], [closed])
    assert await store.journal.known_fills(a.connection, a.start + timedelta(minutes=1)) == {"f2": closed.leg_id}
    (position,) = await rows("execution_positions")
    assert (position["status"], position["closed_reason"], position["pnl"]) == ("closed", "sl", Decimal("9.3"))


async def test_a_liquidated_leg_is_liquidated(store: Store, a: Any, rows: Any) -> None:
    """A liquidation ends the position as the platform calls it."""
    await store.journal.record([a.decision()], [a.intent()], [a.leg()])
    await store.journal.update([a.filled(), a.update(leg=a.closed_leg(close_reason=CloseReason.LIQUIDATION))])
    (position,) = await rows("execution_positions")
    assert (position["status"], position["closed_reason"]) == ("liquidated", "liquidation")


async def test_without_a_pip_the_unit_is_basis_points(store: Store, a: Any, rows: Any) -> None:
    """An instrument without a pip is told in basis points, and the row says so."""
    inputs = {"signal_price": "60000", "forecast_entry_mean": "12", "forecast_provenance": "scale_prior"}
    await store.journal.record([a.decision(inputs=inputs)], [a.intent()], [a.leg()])
    await store.journal.update([replace(a.filled(), measure=a.measure(slippage_pips=None))])
    (prediction,), (log,) = await rows("srm_predictions"), await rows("execution_logs")
    assert (prediction["predicted_value"], prediction["actual_value"]) == (Decimal(2), Decimal("0.185"))
    assert prediction["model_type"] == "scale_prior:bps"
    assert (log["slippage"], log["response_data"]["unit"]) == (Decimal("0.185"), "bps")

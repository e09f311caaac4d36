"""Builders of domain values, and stores: a file through the writer thread, memory inline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from srm_agent.clock import ManualClock
from srm_agent.domain.decisions import Decision, ReasonCode, Step
from srm_agent.domain.forecasts import ExecutionMeasure, ProviderScore
from srm_agent.domain.ids import (
    ConnectionId,
    FillId,
    ProviderKey,
    ProviderKind,
    Symbol,
    client_order_id,
    decision_id,
    leg_id,
    signal_id,
)
from srm_agent.domain.orders import Fill, FillKind, OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.signals import CancelSignal, CloseSignal, OpenSignal, Receipt
from srm_agent.domain.trades import ClosedTrade, CloseReason, Leg, LegState
from srm_agent.domain.units import Side
from srm_agent.ports import OrderUpdate
from srm_agent.store.engine import MEMORY, open_engine
from srm_agent.store.migrate import migrate
from srm_agent.store.names import STANDALONE
from srm_agent.store.schema import Tables
from srm_agent.store.store import Store

START = datetime(2026, 1, 5, 11, 0, 0, 123456, tzinfo=UTC)


class Builders:
    """`a.decision(signal="s1")`: one plausible trade of provider alpha on connection c1, any field replaceable."""

    start = START
    alpha = ProviderKey(ProviderKind.CHANNEL_SOURCE, "alpha")
    connection = ConnectionId("c1")

    def receipt(self, message: str = "m1") -> Receipt:
        return Receipt(message_id=message, received_at=START, received=1000.25, issued_at=START - timedelta(seconds=1))

    def open(self, signal: str = "s1", message: str = "m1", **changes: Any) -> OpenSignal:
        value = OpenSignal(
            signal_id=signal_id(self.alpha, signal),
            provider=self.alpha,
            symbol=Symbol("EUR/USD"),
            side=Side.BUY,
            signal_price=Decimal("1.08"),
            stop_loss=Decimal("1.078"),
            take_profit=None,
            provider_lot=Decimal("0.5"),
            receipt=self.receipt(message),
        )
        return replace(value, **changes)

    def close(self, signal: str = "s1", message: str = "m2", fraction: str = "1") -> CloseSignal:
        return CloseSignal(
            signal_id=signal_id(self.alpha, signal),
            provider=self.alpha,
            fraction=Decimal(fraction),
            receipt=self.receipt(message),
        )

    def cancel(self, signal: str = "s1", message: str = "m3") -> CancelSignal:
        return CancelSignal(signal_id=signal_id(self.alpha, signal), provider=self.alpha, receipt=self.receipt(message))

    def decision(self, signal: str = "s1", connection: str = "c1", **changes: Any) -> Decision:
        whose, what = ConnectionId(connection), signal_id(self.alpha, signal)
        value = Decision(
            decision_id=decision_id(whose, what),
            signal_id=what,
            connection_id=whose,
            provider=self.alpha,
            symbol=Symbol("EUR/USD"),
            side=Side.BUY,
            accepted=True,
            reason=ReasonCode.ACCEPTED,
            numbers={},
            steps=(Step("base_risk", {"equity": "10000"}, Decimal(0), Decimal("0.05")),),
            lot=Decimal("0.05"),
            limit_price=Decimal("1.0801"),
            stop_loss=Decimal("1.0778"),
            planned_stop=Decimal("1.078"),
            stop_buffer=Decimal("0.0002"),
            take_profit=None,
            planned_risk=Decimal("11.5"),
            inputs={
                "atr": "0.00085",
                "session": "LONDON",
                "iso_weekday": "1",
                "volatility_index": "62.5",
                "spread": "0.0001",
                "forecast_entry_mean": "0.00003",
                "forecast_provenance": "scale_prior",
                "score_shown": "71.5",
                "pip_size": "0.0001",
                "signal_price": "1.08",
                "market_at": START.isoformat(),
            },
            policy_version="default@abc",
            arm="control",
            model_versions={"forecast": "scale_prior@1"},
            decided_at=START,
        )
        return replace(value, **changes)

    def intent(self, signal: str = "s1", connection: str = "c1", leg: str = "entry", **changes: Any) -> OrderIntent:
        whose, what = ConnectionId(connection), signal_id(self.alpha, signal)
        value = OrderIntent(
            client_id=client_order_id(whose, what, leg),
            connection_id=whose,
            leg_id=leg_id(whose, what),
            signal_id=what,
            decision_id=decision_id(whose, what),
            purpose=OrderPurpose.ENTRY,
            symbol=Symbol("EUR/USD"),
            side=Side.BUY,
            lot=Decimal("0.05"),
            limit_price=Decimal("1.0801"),
            stop_loss=Decimal("1.0778"),
            take_profit=None,
            reduce=None,
            reason="signal",
            created_at=START,
            deadline=1002.5,
        )
        return replace(value, **changes)

    def leg(self, signal: str = "s1", connection: str = "c1", **changes: Any) -> Leg:
        whose, what = ConnectionId(connection), signal_id(self.alpha, signal)
        value = Leg(
            leg_id=leg_id(whose, what),
            connection_id=whose,
            signal_id=what,
            decision_id=decision_id(whose, what),
            provider=self.alpha,
            symbol=Symbol("EUR/USD"),
            side=Side.BUY,
            state=LegState.OPENING,
            lot=Decimal("0.05"),
            closed_lot=Decimal(0),
            entry_price=None,
            exit_value=Decimal(0),
            fees=Decimal(0),
            realised_pnl=Decimal(0),
            planned_stop=Decimal("1.078"),
            stop_loss=Decimal("1.0778"),
            take_profit=None,
            planned_risk=Decimal("11.5"),
            opened_at=None,
            closed_at=None,
            close_reason=None,
        )
        return replace(value, **changes)

    def open_leg(self, **changes: Any) -> Leg:
        base = self.leg(signal=changes.pop("signal", "s1"), connection=changes.pop("connection", "c1"))
        values: dict[str, Any] = {"state": LegState.OPEN, "entry_price": Decimal("1.08005"), "opened_at": START}
        return replace(base, **(values | changes))

    def closed_leg(self, **changes: Any) -> Leg:
        values = {
            "state": LegState.CLOSED,
            "closed_lot": Decimal("0.05"),
            "exit_value": Decimal("0.0541"),
            "realised_pnl": Decimal(10),
            "fees": Decimal("0.7"),
            "closed_at": START + timedelta(hours=1),
            "close_reason": CloseReason.PROVIDER,
        }
        return self.open_leg(**(values | changes))

    def fill(self, fill: str = "f1", **changes: Any) -> Fill:
        value = Fill(
            fill_id=FillId(fill),
            client_id=self.intent().client_id,
            broker_order_id="b1",
            symbol=Symbol("EUR/USD"),
            side=Side.BUY,
            lot=Decimal("0.05"),
            price=Decimal("1.08005"),
            fee=Decimal("0.35"),
            fee_currency="USD",
            kind=FillKind.ORDER,
            at=START,
            received=1000.5,
        )
        return replace(value, **changes)

    def measure(self, **changes: Any) -> ExecutionMeasure:
        value = ExecutionMeasure(
            connection_id=self.connection,
            venue="sim",
            symbol=Symbol("EUR/USD"),
            provider=self.alpha,
            side=Side.BUY,
            lot=Decimal("0.05"),
            filled_lot=Decimal("0.05"),
            signal_price=Decimal("1.08"),
            touch_received=None,
            touch_decided=Decimal("1.08002"),
            touch_sent=Decimal("1.08003"),
            fill_price=Decimal("1.08005"),
            slippage=Decimal("0.00002"),
            slippage_pips=Decimal("0.2"),
            slippage_bps=Decimal("0.185"),
            slippage_money=Decimal("0.1"),
            delay_cost=Decimal("0.00003"),
            implementation_shortfall=Decimal("0.6"),
            fees=Decimal("0.35"),
            latency_ms=Decimal("84.5"),
            censored="",
        )
        return replace(value, **changes)

    def update(self, state: OrderState = OrderState.FILLED, **changes: Any) -> OrderUpdate:
        filled = state is OrderState.FILLED
        value = OrderUpdate(
            client_id=self.intent().client_id,
            state=state,
            filled_lot=Decimal("0.05") if filled else Decimal(0),
            average_price=Decimal("1.08005") if filled else None,
            broker_order_id="b1",
            code="",
            detail="",
            absences=0,
            at=START + timedelta(seconds=1),
        )
        return replace(value, **changes)

    def filled(self) -> OrderUpdate:
        return self.update(fills=(self.fill(),), leg=self.open_leg(), measure=self.measure())

    def trade(self, signal: str = "s1", connection: str = "c1", **changes: Any) -> ClosedTrade:
        whose = ConnectionId(connection)
        value = ClosedTrade(
            leg_id=leg_id(whose, signal_id(self.alpha, signal)),
            connection_id=whose,
            signal_id=signal_id(self.alpha, signal),
            provider=self.alpha,
            symbol=Symbol("EUR/USD"),
            side=Side.BUY,
            lot=Decimal("0.05"),
            entry_price=Decimal("1.08005"),
            exit_price=Decimal("1.08205"),
            net_pnl=Decimal("9.3"),
            r_multiple=Decimal("0.8086956522"),
            planned_risk=Decimal("11.5"),
            reward_to_risk=Decimal("1.5"),
            stop_kept=True,
            stop_slippage=None,
            close_reason=CloseReason.PROVIDER,
            opened_at=START,
            closed_at=START + timedelta(hours=1),
        )
        return replace(value, **changes)

    def score(self, shown: str = "63.25", **changes: Any) -> ProviderScore:
        value = ProviderScore(
            provider=self.alpha,
            mean=0.0123,
            deviation=0.1,
            platform_mean=-0.01,
            shown=Decimal(shown),
            interval=(Decimal("40.5"), Decimal("80.25")),
            trades=12,
            effective_trades=11.75,
            prior_weight=0.71,
            sufficient=True,
            version="posterior@1",
        )
        return replace(value, **changes)


@pytest.fixture(scope="session")
def a() -> Builders:
    """Builders of domain values."""
    return Builders()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands."""
    return ManualClock(START)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file store keeps its database."""
    return tmp_path / "srm.db"


@pytest.fixture(params=["file through the writer thread", "memory inline"])
async def store(request: pytest.FixtureRequest, clock: ManualClock, path: Path) -> AsyncIterator[Store]:
    """The same suite over both ways to run."""
    if request.param == "memory inline":
        opened = await Store.memory(clock)
    else:
        opened = await Store.open(f"sqlite:///{path}", clock)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[Connection, Tables]]:
    """A migrated database in memory without a runner, for properties of plain functions."""
    engine = open_engine(MEMORY)
    migrate(engine, STANDALONE)
    with engine.connect() as connection:
        yield connection, Tables(STANDALONE)
    engine.dispose()


Rows = Callable[..., Any]


@pytest.fixture
def rows(store: Store) -> Rows:
    """`await rows("execution_logs")`: all rows of a table as dicts."""
    tables = Tables(STANDALONE)

    async def read(name: str) -> list[dict[str, Any]]:
        table = tables.metadata.tables[name]
        return await store.runner.read(
            lambda connection: [dict(r) for r in connection.execute(table.select()).mappings()]
        )

    return read

"""What a refused order teaches, and how an undelivered one comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from srm_agent.clock import ManualClock
from srm_agent.domain.ids import ClientOrderId, ConnectionId, Symbol
from srm_agent.domain.orders import OrderIntent, OrderPurpose, OrderState
from srm_agent.domain.units import Side
from srm_agent.execution.refusals import CLOSED, LESSONS, SHUT_S, Refusals, Shut
from srm_agent.execution.sender import LONGEST_PAUSE_S, _pause
from srm_agent.execution.tickets import Ticket

BTC = Symbol("BTC/USDT:USDT")


def refused(code: str, *, side: Side = Side.BUY, purpose: OrderPurpose = OrderPurpose.ENTRY) -> Ticket:
    """An order that the broker has refused."""
    intent = OrderIntent(
        client_id=ClientOrderId("srm1a"),
        connection_id=ConnectionId("c01"),
        leg_id=None,
        signal_id=None,
        decision_id=None,
        purpose=purpose,
        symbol=BTC,
        side=side,
        lot=Decimal(1),
        limit_price=None,
        stop_loss=None,
        take_profit=None,
        reduce=None,
        reason="signal",
        created_at=datetime(2026, 3, 4, tzinfo=UTC),
        deadline=2.0,
    )
    return Ticket(intent=intent, state=OrderState.REJECTED, code=code, detail="said the broker")


class Told:
    """Alerts."""

    def __init__(self) -> None:
        self.alerts: list[tuple[str, str, str]] = []

    def __call__(self, level: str, title: str, text: str) -> None:
        self.alerts.append((level, title, text))


@pytest.mark.parametrize("code", LESSONS)
def test_each_lesson_is_told_and_shuts_what_it_says_for_a_minute(code: str) -> None:
    """One alert with the broker's words; the symbol, that side of it or nothing is shut for 60 s."""
    clock, told = ManualClock(datetime(2026, 3, 4, tzinfo=UTC)), Told()
    memory, lesson = Refusals(clock, told), LESSONS[code]
    memory.heard(refused(code))
    assert [(level, title) for level, title, _ in told.alerts] == [(lesson.level, lesson.title)]
    assert "BTC/USDT:USDT buy 1 lots" in told.alerts[0][2]
    assert memory.shut(BTC, Side.BUY) is (lesson.shut is not Shut.NOTHING)
    assert memory.shut(BTC, Side.SELL) is (lesson.shut is Shut.SYMBOL)
    assert not memory.shut(Symbol("ETH/USDT:USDT"), Side.BUY)
    clock.advance(SHUT_S)
    assert not memory.shut(BTC, Side.BUY)


@pytest.mark.parametrize("code", ["REQUOTE", "MISSED_PRICE", "HALTED_BEFORE_SEND", "NO_LIQUIDITY"])
def test_what_is_no_verdict_on_the_symbol_teaches_nothing(code: str) -> None:
    """Nothing is told, nothing is shut, no terms are doubted."""
    told = Told()
    memory = Refusals(ManualClock(datetime(2026, 3, 4, tzinfo=UTC)), told)
    memory.heard(refused(code))
    assert told.alerts == []
    assert not memory.shut(BTC, Side.BUY)
    assert not memory.doubts_terms(refused(code))


def test_a_fill_teaches_nothing() -> None:
    """Only a refusal is a refusal, whatever code is left from before."""
    told = Told()
    memory = Refusals(ManualClock(datetime(2026, 3, 4, tzinfo=UTC)), told)
    memory.heard(replace(refused("MARKET_CLOSED"), state=OrderState.FILLED))
    assert told.alerts == []


@pytest.mark.parametrize("code", LESSONS)
def test_a_refused_exit_never_shuts_anything(code: str) -> None:
    """Exits are always tried again (INV-10); of a closed market people hear."""
    told = Told()
    memory = Refusals(ManualClock(datetime(2026, 3, 4, tzinfo=UTC)), told)
    memory.heard(refused(code, side=Side.SELL, purpose=OrderPurpose.EXIT))
    assert [level for level, _, _ in told.alerts] == (["warning"] if code in CLOSED else [])
    assert not memory.shut(BTC, Side.BUY)
    assert not memory.shut(BTC, Side.SELL)


def test_pauses_grow_and_differ_between_orders() -> None:
    """Doubled up to a second, a quarter more or less; the same order waits the same again, another one otherwise."""
    intent = refused("").intent
    pauses = [_pause(intent, number) for number in range(6)]
    assert pauses == [_pause(intent, number) for number in range(6)]
    for number, pause in enumerate(pauses):
        usual = min(0.2 * 2**number, LONGEST_PAUSE_S)
        assert 0.75 * usual <= pause < 1.25 * usual
    other = replace(intent, client_id=ClientOrderId("srm1b"))
    assert all(_pause(other, number) != pause for number, pause in enumerate(pauses))

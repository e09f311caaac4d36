"""What fills and reports make of orders and legs, in whatever order they are heard."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from srm_agent.domain.ids import ClientOrderId, FillId
from srm_agent.domain.orders import FillKind, OrderPurpose, OrderReport, OrderState, Outcome
from srm_agent.domain.trades import CloseReason, Leg, LegState
from srm_agent.domain.units import Side
from srm_agent.execution.ledger import Ledger
from srm_agent.execution.tickets import Finality, Ticket
from tests.unit.execution.conftest import BTC, START, a_fill, a_leg, an_entry

D = Decimal
ENTRY = an_entry(a_leg()).client_id
LATER = START + timedelta(minutes=5)


def a_ledger() -> Ledger:
    """Empty, contract size 1."""
    return Ledger(lambda: Finality(seconds=7, absences=3), lambda symbol: D(1))


def planned() -> Ledger:
    """With one entry of 0.3 under way."""
    ledger = a_ledger()
    ledger.plan(a_leg(), an_entry(a_leg()))
    return ledger


def opened() -> Ledger:
    """With one leg of 0.3 open."""
    ledger = planned()
    ledger.take_fill(a_fill(1, "0.3", client_id=ENTRY))
    return ledger


def the_leg(ledger: Ledger) -> Leg:
    """The leg, open or ended."""
    name = a_leg().leg_id
    return ledger.legs.get(name) or ledger.ended[name]


def exit_of(ledger: Ledger, number: int = 1, lot: str = "0.3") -> ClientOrderId:
    """Plan an exit of ours; its client id."""
    client_id = ClientOrderId(f"srm1exit{number}")
    leg = the_leg(ledger)
    intent = replace(
        an_entry(leg), client_id=client_id, purpose=OrderPurpose.EXIT, side=Side.SELL, lot=D(lot), limit_price=None
    )
    ledger.plan_exit(intent, CloseReason.PROVIDER)
    return client_id


def a_report(outcome: Outcome, client_id: ClientOrderId = ENTRY, **changes: object) -> OrderReport:
    """What the broker says of an order."""
    return OrderReport(client_id=client_id, outcome=outcome, received=1001.0, **changes)  # type: ignore[arg-type]


def test_a_fill_heard_by_stream_and_look_up_counts_once() -> None:
    """The stream's fill and the same one inside a report open the leg once, and the report settles the order (B7)."""
    ledger = planned()
    fill = a_fill(1, "0.3", client_id=ENTRY)
    assert ledger.take_fill(fill)[0].opened
    changes = ledger.take_report(a_report(Outcome.FILLED, filled_lot=D("0.3"), fills=(fill,)), 1001.0)
    assert not any(change.fill for change in changes)
    assert the_leg(ledger).lot == D("0.3")
    assert not ledger.unsettled()


def test_an_exit_heard_before_its_entry_is_counted_when_the_entry_is() -> None:
    """The entry's reply is lost, its close answers first: entry and close count, and the leg ends."""
    ledger = planned()
    ledger.take_report(a_report(Outcome.UNKNOWN, code="TIMEOUT"), 1001.0)
    client_id = exit_of(ledger)
    ledger.take_fill(a_fill(2, "0.3", "60100", client_id=client_id, side=Side.SELL, at=LATER))
    assert the_leg(ledger).state is LegState.OPENING
    changes = ledger.take_fill(a_fill(1, "0.3", client_id=ENTRY))
    assert [change.opened for change in changes] == [True, False]
    assert changes[-1].ended
    assert changes[-1].fill is not None
    leg = the_leg(ledger)
    assert (leg.state, leg.close_reason, leg.realised_pnl) == (LegState.CLOSED, CloseReason.PROVIDER, D(30))


def test_a_stop_heard_before_the_entry_is_counted_when_the_entry_is() -> None:
    """The stop's execution has no order of ours; it waits for the leg that it closes."""
    ledger = planned()
    stop = a_fill(2, "0.3", "58990", side=Side.SELL, kind=FillKind.STOP_LOSS, at=LATER)
    assert not ledger.take_fill(stop)
    ledger.take_fill(a_fill(1, "0.3", client_id=ENTRY))
    assert the_leg(ledger).close_reason is CloseReason.STOP_LOSS


def test_a_fill_first_heard_without_its_client_id_still_opens_the_leg() -> None:
    """A stream that leaves our id out does not make the look-up's fill a repeat."""
    ledger = planned()
    ledger.take_fill(a_fill(1, "0.3"))
    fill = a_fill(1, "0.3", client_id=ENTRY)
    ledger.take_report(a_report(Outcome.FILLED, filled_lot=D("0.3"), fills=(fill,)), 1001.0)
    assert the_leg(ledger).state is LegState.OPEN


def test_old_fills_never_touch_a_younger_leg() -> None:
    """After a restart the broker's history holds yesterday's closes: they do not close today's leg."""
    ledger = opened()
    old = START - timedelta(hours=20)
    for number, client in enumerate((None, ClientOrderId("srm1forgotten")), 10):
        assert not ledger.take_fill(a_fill(number, "0.3", side=Side.SELL, client_id=client, at=old))
    assert the_leg(ledger).open_lot == D("0.3")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param(FillKind.STOP_LOSS, CloseReason.STOP_LOSS, id="stop"),
        pytest.param(FillKind.TAKE_PROFIT, CloseReason.TAKE_PROFIT, id="target"),
        pytest.param(FillKind.LIQUIDATION, CloseReason.LIQUIDATION, id="liquidation"),
        pytest.param(FillKind.ORDER, CloseReason.FOREIGN, id="by hand"),
    ],
)
def test_closes_that_no_order_of_ours_asked_for(kind: FillKind, reason: CloseReason) -> None:
    """On a netting venue they shrink our leg, and the leg says why it ended."""
    ledger = opened()
    changes = ledger.take_fill(a_fill(2, "0.5", "59000", side=Side.SELL, kind=kind, at=LATER))
    assert changes[0].ended
    leg = the_leg(ledger)
    assert (leg.close_reason, leg.closed_lot, leg.realised_pnl) == (reason, D("0.3"), D(-300))


def test_a_stranger_who_adds_volume_is_not_ours() -> None:
    """A fill on the leg's own side without our id changes nothing."""
    ledger = opened()
    assert not ledger.take_fill(a_fill(2, "1", at=LATER))
    assert the_leg(ledger).lot == D("0.3")


def test_part_closes_add_up_to_the_whole() -> None:
    """Two exits of ours close the leg; result and fees are the sum."""
    ledger = opened()
    for number, (lot, price) in enumerate((("0.1", "60100"), ("0.2", "60200")), 2):
        client_id = exit_of(ledger, number, lot)
        ledger.take_fill(a_fill(number, lot, price, side=Side.SELL, client_id=client_id, at=LATER))
    leg = the_leg(ledger)
    assert (leg.state, leg.realised_pnl, leg.fees) == (LegState.CLOSED, D(50), D(3))


def test_a_late_fill_reopens_a_leg_and_is_called_late() -> None:
    """An entry taken as refused that executes all the same comes back to life (INV-6)."""
    ledger = planned()
    ledger.take_report(a_report(Outcome.REJECTED, code="NOT_SENT_IN_TIME"), 1001.0)
    assert the_leg(ledger).state is LegState.NEVER_OPENED
    (change,) = ledger.take_fill(a_fill(1, "0.1", client_id=ENTRY))
    assert change.late
    assert change.opened
    assert (the_leg(ledger).state, the_leg(ledger).lot) == (LegState.OPEN, D("0.1"))


def test_a_restored_ticket_settles_by_fills_that_were_counted_before() -> None:
    """After a restart the look-up tells known fills again: the order ends, the leg does not grow."""
    before = opened()
    ledger = a_ledger()
    ledger.restore([the_leg(before)], [Ticket(intent=an_entry(a_leg()), state=OrderState.UNKNOWN)], [FillId("f1")])
    fill = a_fill(1, "0.3", client_id=ENTRY)
    changes = ledger.take_report(a_report(Outcome.FILLED, filled_lot=D("0.3"), fills=(fill,)), 1001.0)
    assert any(change.settled for change in changes)
    assert the_leg(ledger).lot == D("0.3")
    assert not ledger.unsettled()


def test_an_entry_that_filled_in_part_risks_its_part() -> None:
    """Planned risk follows the filled volume: 0.1 of 0.3 lots plans a third of the money."""
    ledger = planned()
    ledger.take_fill(a_fill(1, "0.1", client_id=ENTRY))
    assert the_leg(ledger).planned_risk == D(101)
    ledger.take_fill(a_fill(2, "0.2", client_id=ENTRY))
    assert the_leg(ledger).planned_risk == D(303)


def test_memory_is_bounded() -> None:
    """Settled orders, ended legs and old fills are forgotten; what may still be told again is kept."""
    ledger = a_ledger()
    for number in range(1000):
        leg = a_leg(f"s{number}")
        entry = an_entry(leg, deadline=1000.0 + number)
        at = START + timedelta(hours=number)
        ledger.plan(leg, entry)
        ledger.take_fill(a_fill(f"in{number}", "0.3", client_id=entry.client_id, at=at))
        ledger.take_fill(a_fill(f"out{number}", "0.3", side=Side.SELL, kind=FillKind.STOP_LOSS, at=at))
        ledger.take_fill(a_fill(f"strange{number}", "0.3", side=Side.SELL, at=at))
    ledger.forget_settled(older_than=1e6)
    assert (len(ledger.tickets), len(ledger.ended), len(ledger.legs)) == (0, 500, 0)
    assert ledger.remembered_fills() <= 400
    assert not ledger.take_fill(a_fill("out999", "0.3", side=Side.SELL, kind=FillKind.STOP_LOSS, at=at))


def test_a_leg_ends_once() -> None:
    """An exit that fills after the leg has closed (on volume that is not ours) does not end it again."""
    ledger = opened()
    client_id = exit_of(ledger)
    ledger.take_fill(a_fill(2, "0.3", side=Side.SELL, kind=FillKind.STOP_LOSS, at=LATER))
    (change,) = ledger.take_fill(a_fill(3, "0.3", side=Side.SELL, client_id=client_id, at=LATER))
    assert not change.ended
    assert the_leg(ledger).closed_lot == D("0.3")


def test_strangers_orders_are_ignored() -> None:
    """A report about an order that we never planned changes nothing."""
    assert opened().take_report(a_report(Outcome.FILLED, ClientOrderId("stranger"), filled_lot=D(1)), 1001.0) == ()


def test_a_leg_the_broker_lost_is_closed_without_a_result() -> None:
    """Nobody knows how it ended, so no result is invented; losing it twice changes nothing."""
    ledger = opened()
    lost = ledger.lose(a_leg().leg_id)
    assert lost is not None
    assert (lost.state, lost.close_reason, lost.closed_at) == (LegState.CLOSED, CloseReason.FOREIGN, None)
    assert ledger.lose(a_leg().leg_id) is None
    assert ledger.open_leg(BTC) is None

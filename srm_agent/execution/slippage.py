"""What an execution really cost, against three touches (design.md section 4). Nothing is clipped or dropped."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.forecasts import ExecutionMeasure
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.units import stored
from srm_agent.execution.tickets import Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What was known when the signal came and when it was decided. `received` is our monotonic second."""

    provider: ProviderKey
    venue: str
    signal_price: Decimal
    received: float
    touch_received: Decimal | None
    touch_decided: Decimal


def measured(ticket: Ticket, arrival: Arrival, instrument: Instrument) -> ExecutionMeasure:
    """The cost of a settled entry.

    slippage = side x (fill - sent touch); delay cost = side x (sent touch - signal price); implementation shortfall =
    both x lot x contract size + fees, in settle currency. An entry that filled nothing is kept, censored MISSED_PRICE.
    """
    intent = ticket.intent
    side, fill, lot = int(intent.side), ticket.average_price, ticket.filled_lot
    touch_sent = ticket.touch_sent if ticket.touch_sent is not None else arrival.touch_decided
    delay = stored(side * (touch_sent - arrival.signal_price))
    slippage = None if fill is None else stored(side * (fill - touch_sent))
    pips = None if slippage is None else instrument.pips(slippage)
    money = None if slippage is None else stored(slippage * lot * instrument.contract_size)
    return ExecutionMeasure(
        connection_id=intent.connection_id,
        venue=arrival.venue,
        symbol=intent.symbol,
        provider=arrival.provider,
        side=intent.side,
        lot=intent.lot,
        filled_lot=lot,
        signal_price=arrival.signal_price,
        touch_received=arrival.touch_received,
        touch_decided=arrival.touch_decided,
        touch_sent=touch_sent,
        fill_price=fill,
        slippage=slippage,
        slippage_pips=None if pips is None else stored(pips),
        slippage_bps=None if slippage is None else stored(slippage / touch_sent * 10_000),
        slippage_money=money,
        delay_cost=delay,
        implementation_shortfall=None
        if money is None
        else stored(money + delay * lot * instrument.contract_size + ticket.fees),
        fees=stored(ticket.fees),
        latency_ms=_after_ms(ticket.filled, arrival.received),
        sent_ms=_after_ms(ticket.sent, arrival.received),
        acknowledged_ms=_after_ms(ticket.acknowledged, arrival.received),
        censored="" if fill is not None else ticket.code or ReasonCode.MISSED_PRICE.value,
    )


def _after_ms(moment: float | None, received: float) -> Decimal | None:
    """Milliseconds between two monotonic seconds."""
    return None if moment is None else stored(Decimal(repr(round((moment - received) * 1000, 6))))

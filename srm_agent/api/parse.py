"""From the raw bytes of an authentic message to a domain signal; pure, and total over all bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import assert_never

from srm_agent.api.answers import shown
from srm_agent.api.bodies import Body, CancelBody, CloseBody, ModifyBody, OpenBody, read_body
from srm_agent.api.strict_json import flat_object
from srm_agent.domain.ids import ProviderKey, Symbol, signal_id
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Receipt, Signal
from srm_agent.domain.units import Side, plain
from srm_agent.errors import SignalRejected

FUTURE_TOLERANCE = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How a message came: the provider's delivery id, our wall clock and our monotonic second."""

    message_id: str
    received_at: datetime
    received: float


def parse_signal(raw: bytes, provider: ProviderKey, delivery: Delivery) -> Signal:
    """The signal in `raw`. Raises SignalRejected with a 4xx status and the field at fault; nothing else.

    Geometry is checked where the message alone shows it: a stop on the losing side of its entry, a target on the
    winning one. Whether the symbol exists and the signal is fresh is the filter's question.
    """
    body = read_body(flat_object(raw))
    if body.issued_at > delivery.received_at + FUTURE_TOLERANCE:
        raise SignalRejected(
            422,
            "ISSUED_IN_FUTURE",
            f"issued_at must not be later than now + 2 s, was {body.issued_at.isoformat()} at "
            f"{delivery.received_at.isoformat()}; check your clock (NTP)",
            "issued_at",
        )
    receipt = Receipt(
        message_id=delivery.message_id,
        received_at=delivery.received_at,
        received=delivery.received,
        issued_at=body.issued_at,
    )
    return _signal(body, provider, receipt)


def _signal(body: Body, provider: ProviderKey, receipt: Receipt) -> Signal:
    identity = signal_id(provider, body.signal_id)
    match body:
        case OpenBody():
            side = Side.BUY if body.side == "buy" else Side.SELL
            _check_sides(side, body.entry, body.stop_loss, body.take_profit)
            return OpenSignal(
                signal_id=identity,
                provider=provider,
                symbol=Symbol(body.symbol),
                side=side,
                signal_price=body.entry,
                stop_loss=body.stop_loss,
                take_profit=body.take_profit,
                provider_lot=body.lot,
                receipt=receipt,
            )
        case ModifyBody():
            _check_change(body.stop_loss, body.take_profit)
            return ModifySignal(
                signal_id=identity,
                provider=provider,
                stop_loss=body.stop_loss,
                take_profit=body.take_profit,
                receipt=receipt,
            )
        case CloseBody():
            return CloseSignal(signal_id=identity, provider=provider, fraction=body.fraction, receipt=receipt)
        case CancelBody():
            return CancelSignal(signal_id=identity, provider=provider, receipt=receipt)
    assert_never(body)


def _check_sides(side: Side, entry: Decimal, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
    below, above = ("below", "above") if side is Side.BUY else ("above", "below")
    if stop_loss is not None and side * (entry - stop_loss) <= 0:
        raise SignalRejected(
            422,
            "STOP_WRONG_SIDE",
            f"stop_loss must be {below} entry {plain(entry)} for a {side.word}, was {plain(stop_loss)}; "
            f"send the price at which the trade is lost",
            "stop_loss",
        )
    if take_profit is not None and side * (take_profit - entry) <= 0:
        raise SignalRejected(
            422,
            "TARGET_WRONG_SIDE",
            f"take_profit must be {above} entry {plain(entry)} for a {side.word}, was {plain(take_profit)}; "
            f"send the price at which the trade is won, or leave it out",
            "take_profit",
        )


def _check_change(stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
    if stop_loss is None and take_profit is None:
        raise SignalRejected(
            422, "FIELD_MISSING", "stop_loss or take_profit must be given to modify a signal; send one", "stop_loss"
        )
    if stop_loss == take_profit:
        raise SignalRejected(
            422, "STOP_WRONG_SIDE", f"stop_loss must differ from take_profit, was {shown(stop_loss)} too", "stop_loss"
        )

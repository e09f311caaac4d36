"""Decisions and signals as canonical JSON text and back, exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast

from srm_agent.domain.decisions import Decision, ReasonCode, Step, canonical_json
from srm_agent.domain.ids import ConnectionId, DecisionId, ProviderKey, SignalId, Symbol
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Receipt, Signal
from srm_agent.domain.units import Side, plain
from srm_agent.errors import StoreBroken


def text(value: Decimal | None) -> str | None:
    """Exact decimal text, None stays None."""
    return None if value is None else plain(value)


def number(value: object) -> Decimal | None:
    """The inverse of `text`."""
    return None if value is None else Decimal(str(value))


def stamp(value: datetime) -> str:
    """Aware instant as UTC ISO text."""
    return value.astimezone(UTC).isoformat()


def decision_record(decision: Decision) -> dict[str, object]:
    """The whole decision as plain JSON values."""
    return {
        "decision_id": decision.decision_id,
        "signal_id": decision.signal_id,
        "connection_id": decision.connection_id,
        "provider": str(decision.provider),
        "symbol": decision.symbol,
        "side": decision.side.word,
        "accepted": decision.accepted,
        "reason": decision.reason.value,
        "numbers": dict(decision.numbers),
        "steps": [
            {"rule": step.rule, "inputs": dict(step.inputs), "lot_in": text(step.lot_in), "lot_out": text(step.lot_out)}
            for step in decision.steps
        ],
        "lot": text(decision.lot),
        "limit_price": text(decision.limit_price),
        "stop_loss": text(decision.stop_loss),
        "planned_stop": text(decision.planned_stop),
        "stop_buffer": text(decision.stop_buffer),
        "take_profit": text(decision.take_profit),
        "planned_risk": text(decision.planned_risk),
        "inputs": dict(decision.inputs),
        "policy_version": decision.policy_version,
        "arm": decision.arm,
        "model_versions": dict(decision.model_versions),
        "decided_at": stamp(decision.decided_at),
    }


def decision_text(decision: Decision) -> str:
    """Canonical JSON of the record."""
    return canonical_json(decision_record(decision))


def parse_decision(record: str) -> Decision:
    """The inverse of `decision_text`."""
    body: dict[str, object] = json.loads(record)
    return Decision(
        decision_id=DecisionId(str(body["decision_id"])),
        signal_id=SignalId(str(body["signal_id"])),
        connection_id=ConnectionId(str(body["connection_id"])),
        provider=ProviderKey.parse(str(body["provider"])),
        symbol=Symbol(str(body["symbol"])),
        side=side(body["side"]),
        accepted=bool(body["accepted"]),
        reason=ReasonCode(str(body["reason"])),
        numbers=_mapping(body["numbers"]),
        steps=tuple(_step(step) for step in cast("list[Mapping[str, object]]", body["steps"])),
        lot=number(body["lot"]),
        limit_price=number(body["limit_price"]),
        stop_loss=number(body["stop_loss"]),
        planned_stop=number(body["planned_stop"]),
        stop_buffer=number(body["stop_buffer"]),
        take_profit=number(body["take_profit"]),
        planned_risk=number(body["planned_risk"]),
        inputs=_mapping(body["inputs"]),
        policy_version=str(body["policy_version"]),
        arm=str(body["arm"]),
        model_versions=_mapping(body["model_versions"]),
        decided_at=datetime.fromisoformat(str(body["decided_at"])),
    )


def _step(body: Mapping[str, object]) -> Step:
    return Step(
        str(body["rule"]), _mapping(body["inputs"]), Decimal(str(body["lot_in"])), Decimal(str(body["lot_out"]))
    )


def _mapping(body: object) -> dict[str, str]:
    return cast("dict[str, str]", body)


def side(word: object) -> Side:
    """`buy` or `sell`."""
    return Side.BUY if word == "buy" else Side.SELL


def action(signal: Signal) -> str:
    """`open`, `modify`, `close` or `cancel`."""
    match signal:
        case OpenSignal():
            return "open"
        case ModifySignal():
            return "modify"
        case CloseSignal():
            return "close"
        case CancelSignal():
            return "cancel"


def signal_text(signal: Signal) -> str:
    """Canonical JSON of a typed signal."""
    body: dict[str, object] = {
        "action": action(signal),
        "signal_id": signal.signal_id,
        "provider": str(signal.provider),
        "receipt": {
            "message_id": signal.receipt.message_id,
            "received_at": stamp(signal.receipt.received_at),
            "received": signal.receipt.received,
            "issued_at": stamp(signal.receipt.issued_at),
        },
    }
    match signal:
        case OpenSignal():
            body |= {
                "symbol": signal.symbol,
                "side": signal.side.word,
                "signal_price": text(signal.signal_price),
                "stop_loss": text(signal.stop_loss),
                "take_profit": text(signal.take_profit),
                "provider_lot": text(signal.provider_lot),
            }
        case ModifySignal():
            body |= {"stop_loss": text(signal.stop_loss), "take_profit": text(signal.take_profit)}
        case CloseSignal():
            body["fraction"] = text(signal.fraction)
        case CancelSignal():
            pass
    return canonical_json(body)


def parse_signal(record: str) -> Signal:
    """The inverse of `signal_text`. Raises StoreBroken for an action that this program does not know."""
    body: dict[str, object] = json.loads(record)
    receipt_body = cast("dict[str, object]", body["receipt"])
    receipt = Receipt(
        message_id=str(receipt_body["message_id"]),
        received_at=datetime.fromisoformat(str(receipt_body["received_at"])),
        received=cast("float", receipt_body["received"]),
        issued_at=datetime.fromisoformat(str(receipt_body["issued_at"])),
    )
    signal_id, provider = SignalId(str(body["signal_id"])), ProviderKey.parse(str(body["provider"]))
    match body["action"]:
        case "open":
            return OpenSignal(
                signal_id=signal_id,
                provider=provider,
                symbol=Symbol(str(body["symbol"])),
                side=side(body["side"]),
                signal_price=Decimal(str(body["signal_price"])),
                stop_loss=number(body["stop_loss"]),
                take_profit=number(body["take_profit"]),
                provider_lot=number(body["provider_lot"]),
                receipt=receipt,
            )
        case "modify":
            return ModifySignal(
                signal_id=signal_id,
                provider=provider,
                stop_loss=number(body["stop_loss"]),
                take_profit=number(body["take_profit"]),
                receipt=receipt,
            )
        case "close":
            return CloseSignal(
                signal_id=signal_id, provider=provider, fraction=Decimal(str(body["fraction"])), receipt=receipt
            )
        case "cancel":
            return CancelSignal(signal_id=signal_id, provider=provider, receipt=receipt)
        case other:
            raise StoreBroken(f"a stored message has the action {other!r}, which this program does not know")

"""The last resort of INV-2: an exit whose intent the database does not take is written to a local append-only file.

The next start reads it back: what may have been sent is asked about, like any order of the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation

import structlog

from srm_agent.domain.ids import ClientOrderId, ConnectionId, DecisionId, LegId, PositionRef, SignalId, Symbol
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.units import Side, plain
from srm_agent.files import Files

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Spilt:
    """What the file held. `damaged`: lines that are no exits; a torn last one is normal after a crash."""

    intents: tuple[OrderIntent, ...] = ()
    damaged: tuple[str, ...] = ()


class SpillFile:
    """One JSON line per exit, flushed to disk before the order leaves."""

    def __init__(self, files: Files, connection: ConnectionId) -> None:
        self._files = files
        self._connection = connection
        self._name = f"exits.{connection}.jsonl"
        self._torn = False
        """The last line may be incomplete: the next one must not be glued to it."""

    def write(self, intent: OrderIntent) -> None:
        """Append and fsync. Raises OSError; the caller sends the exit all the same (INV-10)."""
        line = json.dumps(_record(intent))
        try:
            self._files.append(self._name, "\n" + line if self._torn else line)
        except OSError:
            self._torn = True
            raise
        self._torn = False

    def read(self) -> Spilt:
        """The exits of the file, in the order of their writing, each once. Raises OSError, UnicodeDecodeError."""
        text = self._files.read(self._name)
        if not text:
            return Spilt()
        self._torn = not text.endswith("\n")
        intents: dict[ClientOrderId, OrderIntent] = {}
        damaged = []
        for line in text.splitlines():
            if not line.strip():
                continue
            try:
                intent = _parsed(json.loads(line))
            except (ValueError, KeyError, TypeError, InvalidOperation) as error:
                log.error("damaged line in the spill file", file=self.where(), line=line[:200], error=repr(error))
                damaged.append(line)
                continue
            if intent.connection_id == self._connection:
                intents.setdefault(intent.client_id, intent)
        return Spilt(tuple(intents.values()), tuple(damaged))

    def forget(self) -> None:
        """Remove the file: the journal has what it held. Raises OSError."""
        self._files.remove(self._name)
        self._torn = False

    def where(self) -> str:
        """How a person finds it."""
        return self._files.where(self._name)


def _record(intent: OrderIntent) -> dict[str, object]:
    prices = {name: getattr(intent, name) for name in ("limit_price", "stop_loss", "take_profit", "target")}
    return {
        "at": intent.created_at.isoformat(),
        "client_id": intent.client_id,
        "connection": intent.connection_id,
        "leg": intent.leg_id,
        "signal": intent.signal_id,
        "decision": intent.decision_id,
        "purpose": intent.purpose.value,
        "symbol": intent.symbol,
        "side": intent.side.word,
        "lot": plain(intent.lot),
        **{name: None if price is None else plain(price) for name, price in prices.items()},
        "reduce": intent.reduce,
        "reason": intent.reason,
        "deadline": intent.deadline,
        "fence": intent.fence,
        "requests": list(intent.requests),
    }


def _parsed(body: Mapping[str, object]) -> OrderIntent:
    """Raises KeyError, TypeError, ValueError or InvalidOperation for what is no exit."""

    def text(name: str) -> str:
        value = body[name]
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a text, was {value!r}")
        return value

    def number(name: str) -> Decimal | None:
        return None if body[name] is None else Decimal(text(name))

    deadline, fence, requests = body["deadline"], body["fence"], body["requests"]
    if not isinstance(deadline, float | int) or not isinstance(fence, int) or not isinstance(requests, list):
        raise TypeError("deadline and fence must be numbers, requests a list")
    if text("side") not in ("buy", "sell"):
        raise ValueError(f"side must be buy or sell, was {body['side']!r}")
    return OrderIntent(
        client_id=ClientOrderId(text("client_id")),
        connection_id=ConnectionId(text("connection")),
        leg_id=None if body["leg"] is None else LegId(text("leg")),
        signal_id=None if body["signal"] is None else SignalId(text("signal")),
        decision_id=None if body["decision"] is None else DecisionId(text("decision")),
        purpose=OrderPurpose(text("purpose")),
        symbol=Symbol(text("symbol")),
        side=Side.BUY if text("side") == "buy" else Side.SELL,
        lot=Decimal(text("lot")),
        limit_price=number("limit_price"),
        stop_loss=number("stop_loss"),
        take_profit=number("take_profit"),
        reduce=None if body["reduce"] is None else PositionRef(text("reduce")),
        reason=text("reason"),
        created_at=datetime.fromisoformat(text("at")),
        deadline=float(deadline),
        fence=fence,
        target=number("target"),
        requests=tuple(str(request) for request in requests),
    )

"""Keys: who owns, who follows, where it trades, who signals; and the ids we derive from them.

Derived ids are hashes of what they identify, so a restart derives the same id and adds no row (INV-1, INV-8).
"""

from __future__ import annotations

from base64 import b32encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import NewType

OwnerId = NewType("OwnerId", str)
FollowerId = NewType("FollowerId", str)
ConnectionId = NewType("ConnectionId", str)
Symbol = NewType("Symbol", str)
"""The broker's name of an instrument (ccxt: `BTC/USDT:USDT`)."""
SignalId = NewType("SignalId", str)
DecisionId = NewType("DecisionId", str)
LegId = NewType("LegId", str)
ClientOrderId = NewType("ClientOrderId", str)
PositionRef = NewType("PositionRef", str)
"""The broker's stable name of a position, opaque to us."""
FillId = NewType("FillId", str)


class ProviderKind(StrEnum):
    """As in the platform's columns."""

    CHANNEL_SOURCE = "channel_source"
    USER = "user"


@dataclass(frozen=True, slots=True, order=True)
class ProviderKey:
    """Who emits signals."""

    kind: ProviderKind
    id: str

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> ProviderKey:
        """`channel_source:alpha` or plain `alpha` (a channel). Raises ValueError naming the text."""
        kind, separator, identifier = text.partition(":")
        if not separator:
            kind, identifier = ProviderKind.CHANNEL_SOURCE.value, text
        if not identifier or kind not in list(ProviderKind):
            raise ValueError(f"provider must be 'id', 'channel_source:id' or 'user:id', was {text!r}")
        return cls(ProviderKind(kind), identifier)


def signal_id(provider: ProviderKey, external_id: str) -> SignalId:
    """Our id of a provider's signal: unique over providers."""
    return SignalId(f"{provider}/{external_id}")


def _digest(*parts: str, length: int = 20) -> str:
    # Each part is length-prefixed so that no two different lists give the same text.
    text = "|".join(f"{len(part)}:{part}" for part in parts)
    return b32encode(sha256(text.encode()).digest()).decode().rstrip("=").lower()[:length]


def decision_id(connection: ConnectionId, signal: SignalId) -> DecisionId:
    """One decision per connection and signal."""
    return DecisionId(f"d{_digest('decision', connection, signal, length=16)}")


def leg_id(connection: ConnectionId, signal: SignalId) -> LegId:
    """One leg (our share of a position) per connection and signal."""
    return LegId(f"l{_digest('leg', connection, signal, length=16)}")


def client_order_id(connection: ConnectionId, signal: SignalId, leg: str, attempt: int = 1) -> ClientOrderId:
    """The id we give an order before it is sent: `srm1` and 20 characters of hash(account, signal, leg, attempt).

    `leg` says which order of the signal it is (`entry`, `close:<message>`, `flatten:<epoch>`). The fencing token of the
    writer is never part of it (INV-17).
    """
    return ClientOrderId(f"srm1{_digest('order', connection, signal, leg, str(attempt))}")

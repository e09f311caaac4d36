"""Errors, named by what to do next.

SrmError
├── ConfigurationError    stop; exit 78; the message names the key, the value and the remedy
├── UsageError            stop; exit 64
├── BrokerError
│   ├── BrokerUnreachable a read failed or nothing was sent: retry with back-off; says nothing about any order
│   ├── NotAuthorised     halt the connection; only an operator helps
│   │   └── WrongAccount  halt everything: credentials and accounts do not belong together
│   └── OrderRefused      definitive: the broker (or its local validation) said no
├── OutcomeUnknown        something may have happened: reconcile by asking, never re-send (INV-5)
├── StoreError
│   ├── StoreUnavailable  nothing was written; may be tried again
│   ├── Duplicate         a unique key is already there
│   └── StoreBroken       a defect or a schema mismatch: do not retry
│       └── LeaseLost     another process writes for this connection: stop entries; exits go on (INV-17)
├── ModelUnusable         learning has nothing to say: the formula speaks, and the record says so
├── SignalRejected        a provider's message cannot be accepted; carries status, code and field
└── Unknown*              a truth that is missing; entries fail closed on it
    └── UnknownInstrument
"""

from __future__ import annotations


class SrmError(Exception):
    """Root of every error this program raises on purpose."""


class ConfigurationError(SrmError):
    """The configuration cannot be used: exit 78. The message names the key, the value and the remedy."""


class UsageError(SrmError):
    """The command was called wrongly: exit 64."""


class BrokerError(SrmError):
    """A broker said no, or did not say anything."""


class BrokerUnreachable(BrokerError):
    """Provably nothing happened at the broker; the same call may be repeated after a pause."""


class NotAuthorised(BrokerError):
    """The broker refuses our credentials or permissions: halt the connection."""


class WrongAccount(NotAuthorised):
    """Another account than at the start answers behind the credentials (a terminal was logged in anew): halt all."""


class OrderRefused(BrokerError):
    """A definitive refusal; repeating unchanged is pointless."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class UnknownInstrument(BrokerError):
    """The broker does not know the symbol; entries fail closed (INV-14)."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"unknown instrument, was {symbol!r}")
        self.symbol = symbol


class OutcomeUnknown(SrmError):
    """The request left (or may have left) and its answer is lost: read before writing again."""


class StoreError(SrmError):
    """The database failed."""


class StoreUnavailable(StoreError):
    """Nothing was written; the caller may try again."""


class Duplicate(StoreError):
    """A unique key is already there."""


class StoreBroken(StoreError):
    """A defect or a schema mismatch: do not retry."""


class LeaseLost(StoreBroken):
    """Another process writes for this connection now: stop entries; exits go on (INV-17)."""


class ModelUnusable(SrmError):
    """A model is absent, damaged or of another version: the formula answers in its place (P19)."""


class SignalRejected(SrmError):
    """A provider's message that cannot be accepted.

    `status` is the HTTP status, `code` a stable word for machines, `field` the offending field (or None).
    """

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field

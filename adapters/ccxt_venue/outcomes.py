"""What a failed call proves (pure). White lists: only what is listed is definitive, all else is UNKNOWN (INV-5).

The exception's class alone never decides about an order: a truncated reply is a plain ExchangeError with the order
live, and a 502 looks the same before and after the engine acted (brokers.md A.3-11).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from adapters.ccxt_venue.failures import Failure
from srm_agent.errors import BrokerError, BrokerUnreachable, NotAuthorised, OrderRefused


class Verdict(StrEnum):
    """What is proved about the request."""

    REJECTED = "rejected"
    UNKNOWN = "unknown"
    NOTHING_HAPPENED = "nothing_happened"
    AUTH = "auth"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its stable code word."""

    verdict: Verdict
    code: str


CLASS_VERDICTS: dict[str, Judgement] = {
    name: Judgement(verdict, code)
    for verdict, code, names in (
        # Raised before anything is sent, or by a gateway instead of forwarding (HTTP 429, 418, 403 without a body).
        (Verdict.NOTHING_HAPPENED, "RATE_LIMIT", "RateLimitExceeded DDoSProtection"),
        (Verdict.NOTHING_HAPPENED, "LOCAL", "InvalidProxySettings ExchangeClosedByUser"),
        # Raised by the library's own checks; with a reply's body in the text they fall through to UNKNOWN.
        (Verdict.REJECTED, "INVALID_REQUEST", "ArgumentsRequired NotSupported BadSymbol InvalidOrder"),
        (Verdict.UNKNOWN, "TIMEOUT", "RequestTimeout"),
        (
            Verdict.UNKNOWN,
            "NO_ANSWER",
            "NetworkError ExchangeNotAvailable OnMaintenance OperationFailed BadResponse NullResponse CancelPending",
        ),
        (
            Verdict.UNKNOWN,
            "UNCLEAR_ANSWER",
            "BaseError ExchangeError AuthenticationError PermissionDenied AccountNotEnabled AccountSuspended "
            "BadRequest OperationRejected NoChange MarginModeAlreadySet MarketClosed ManualInteractionNeeded "
            "RestrictedLocation InsufficientFunds InvalidAddress AddressPending OrderNotFound OrderNotCached "
            "OrderImmediatelyFillable OrderNotFillable DuplicateOrderId ContractUnavailable InvalidNonce "
            "ChecksumError UnsubscribeError",
        ),
    )
    for name in names.split()
}
"""One row per ccxt exception class, for failures without a venue code (a test walks the class tree)."""

_LOCAL_CHECKS = frozenset({"ArgumentsRequired", "NotSupported", "BadSymbol", "InvalidOrder"})

RET_CODES: dict[str, Judgement] = {
    code: Judgement(verdict, word)
    for verdict, word, codes in (
        (Verdict.NOTHING_HAPPENED, "CLOCK", "10002"),
        (Verdict.NOTHING_HAPPENED, "RATE_LIMIT", "10006 10018"),
        (Verdict.AUTH, "AUTH", "10003 10004 10005 10007 10008 10009 10010 10024 10027 10028 33004"),
        (Verdict.REJECTED, "INVALID_REQUEST", "10001 10017 110018 110019 110032"),
        (Verdict.REJECTED, "NOT_PERMITTED", "10029 110068 110069 110070"),
        (Verdict.REJECTED, "INVALID_PRICE", "110003"),
        (
            Verdict.REJECTED,
            "INSUFFICIENT_MARGIN",
            "110004 110006 110007 110012 110014 110044 110045 110051 110052 110053",
        ),
        (Verdict.REJECTED, "LIMITS", "110009 110011 110013 110016 110020 110021 110022 110040"),
        (Verdict.REJECTED, "POSITION_STATUS", "110005"),
        (Verdict.REJECTED, "REDUCE_ONLY", "110017 110023 110042"),
        (Verdict.REJECTED, "DUPLICATE_ID", "110030 110072"),
        (Verdict.REJECTED, "INVALID_STOPS", "110057 110058 110059 110060 110061 110092 110093"),
        (Verdict.REJECTED, "MARKET_CLOSED", "110063 110066 110074"),
        (Verdict.REJECTED, "INVALID_VOLUME", "110094"),
    )
    for code in codes.split()
}
"""Bybit V5 codes of order and position requests that prove something (bybit-exchange.github.io/docs/v5/error)."""

ALREADY_GONE = frozenset({"110001", "110008", "110010"})
"""Cancelling found the order finished."""
NOT_MODIFIED = frozenset({"34040"})
"""Stop and target were what was asked for already."""

_HINTS: tuple[tuple[str, str], ...] = (
    # Order matters: 'StopLoss:... should lower than base_price' is about the stop, not the price.
    ("zero position", "NO_POSITION"),
    ("position is zero", "NO_POSITION"),
    ("position idx", "POSITION_MODE"),
    ("stoploss", "INVALID_STOPS"),
    ("stop loss", "INVALID_STOPS"),
    ("takeprofit", "INVALID_STOPS"),
    ("take profit", "INVALID_STOPS"),
    ("sl price", "INVALID_STOPS"),
    ("tp price", "INVALID_STOPS"),
    ("tp/sl", "INVALID_STOPS"),
    ("not supported symbol", "UNKNOWN_SYMBOL"),
    ("symbol invalid", "UNKNOWN_SYMBOL"),
    ("symbol params", "UNKNOWN_SYMBOL"),
    ("qty", "INVALID_VOLUME"),
    ("quantity", "INVALID_VOLUME"),
    ("number of contracts", "INVALID_VOLUME"),
    ("price", "INVALID_PRICE"),
)
_HINTED = frozenset({"10001", "110017"})
"""Codes that say little: the message tells which field."""


def judge_submit(failure: Failure) -> Judgement:
    """What a failed order request proves. Everything not listed is UNKNOWN."""
    if failure.never_connected:
        return Judgement(Verdict.NOTHING_HAPPENED, "NO_CONNECTION")
    if failure.ret_code is not None:
        found = RET_CODES.get(failure.ret_code)
        if found is None:
            return Judgement(Verdict.UNKNOWN, f"RET_{failure.ret_code}")
        # The library may file a listed code under an unexpected class when the text matches a phrase of its own
        # (10001 'openapi sign params error!'): the code decides.
        if failure.ret_code in _HINTED:
            return Judgement(found.verdict, _hint(failure.text) or found.code)
        return found
    found = CLASS_VERDICTS.get(failure.kind, Judgement(Verdict.UNKNOWN, "UNCLEAR_ANSWER"))
    if failure.kind in _LOCAL_CHECKS and failure.has_body:
        return Judgement(Verdict.UNKNOWN, "UNCLEAR_ANSWER")
    return found


def read_error(failure: Failure, what: str) -> BrokerError:
    """The error a failed read raises: NotAuthorised or BrokerUnreachable, never an empty answer (INV-7)."""
    found = RET_CODES.get(failure.ret_code or "")
    # A read repeats safely, so here the class is enough: HTTP 401 without a body is a refusal of the key.
    if (found is not None and found.verdict is Verdict.AUTH) or failure.is_a("AuthenticationError"):
        return NotAuthorised(f"{what}: {failure.text}")
    return BrokerUnreachable(f"{what}: {failure.kind} {failure.text}")


def change_error(failure: Failure, what: str) -> BrokerError | None:
    """The error a failed set-to-value request raises; None where the value was in force already.

    Unclear answers are BrokerUnreachable as well: setting the same value again is harmless.
    """
    if failure.ret_code in NOT_MODIFIED:
        return None
    judgement = judge_submit(failure)
    match judgement.verdict:
        case Verdict.REJECTED:
            return OrderRefused(judgement.code, failure.text)
        case Verdict.AUTH:
            return NotAuthorised(f"{what}: {failure.text}")
        case _:
            return BrokerUnreachable(f"{what}: {failure.kind} {failure.text}")


def _hint(text: str) -> str | None:
    lowered = text.lower()
    return next((word for phrase, word in _HINTS if phrase in lowered), None)

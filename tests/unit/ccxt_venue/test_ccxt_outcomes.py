"""What a failed call proves: white lists, walked over the library's own lists of errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.ccxt_venue.client import error_classes
from adapters.ccxt_venue.failures import Failure, describe
from adapters.ccxt_venue.outcomes import (
    CLASS_VERDICTS,
    RET_CODES,
    Verdict,
    change_error,
    judge_submit,
    read_error,
)
from srm_agent.errors import BrokerUnreachable, NotAuthorised, OrderRefused


def a_failure(kind: str, text: str, *, cause: BaseException | None = None) -> Failure:
    """A failure as the library would raise it."""
    error = error_classes()[kind](text)
    error.__cause__ = cause
    return describe(error)


def replied(code: str, kind: str = "ExchangeError", message: str = "x") -> Failure:
    """A failure that carries a reply of the venue."""
    return a_failure(kind, f'bybit {{"retCode":{code},"retMsg":"{message}","result":{{}},"retExtInfo":{{}},"time":1}}')


def venue_codes() -> dict[str, type[Exception]]:
    """Every retCode that the library maps for Bybit."""
    from ccxt.pro import bybit

    exact: dict[str, type[Exception]] = bybit().exceptions["exact"]
    return exact


def test_every_exception_class_has_a_row() -> None:
    """Each class of the library's error tree is judged on purpose, so a new one fails here first."""
    assert sorted(set(error_classes()) - set(CLASS_VERDICTS)) == []
    assert sorted(set(CLASS_VERDICTS) - set(error_classes())) == []


def test_class_alone_is_definitive_only_for_the_white_list() -> None:
    """Without a venue code, only local checks and throttling gateways prove anything."""
    proved = {name for name in CLASS_VERDICTS if judge_submit(a_failure(name, "bybit x")).verdict != Verdict.UNKNOWN}
    assert proved == {
        "RateLimitExceeded", "DDoSProtection", "InvalidProxySettings", "ExchangeClosedByUser",
        "ArgumentsRequired", "NotSupported", "BadSymbol", "InvalidOrder",
    }  # fmt: skip


def test_every_ret_code_ends_in_a_verdict_and_the_unlisted_ones_are_unknown() -> None:
    """Each code that ccxt knows for Bybit gives one of the four verdicts; a code not listed proves nothing."""
    codes = venue_codes()
    assert len(codes) > 300
    for code, cls in codes.items():
        judged = judge_submit(replied(code, cls.__name__))
        expected = RET_CODES[code].verdict if code in RET_CODES else Verdict.UNKNOWN
        assert judged.verdict is expected, code
        assert judged.code, code


def test_code_never_means_nothing_for_internal_errors() -> None:
    """Codes of a venue that lost its way are never definitive: the order may live."""
    for code in ("10000", "10014", "10016", "170007", "5004", "110001", "110008", "110079"):
        assert judge_submit(replied(code)).verdict is Verdict.UNKNOWN, code


class Disconnected(Exception):
    """Stands for a cause that says nothing."""


class ClientConnectorError(Exception):
    """By its name, aiohttp's error before a connection exists."""


def matrix() -> Iterator[tuple[str, Failure, Verdict]]:
    """brokers.md A.3-11, one row per fault."""
    yield "reset", a_failure("ExchangeNotAvailable", "bybit POST http://x", cause=Disconnected()), Verdict.UNKNOWN
    yield "no reply in time", a_failure("RequestTimeout", "bybit POST http://x"), Verdict.UNKNOWN
    yield "truncated reply", a_failure("ExchangeError", "bybit POST http://x", cause=Disconnected()), Verdict.UNKNOWN
    yield "502 html", a_failure("ExchangeNotAvailable", "bybit POST x 502 Bad <html></html>"), Verdict.UNKNOWN
    yield "502 json", a_failure("ExchangeError", 'bybit {"error":"upstream"}'), Verdict.UNKNOWN
    yield "internal error", replied("10016"), Verdict.UNKNOWN
    yield "not enough money", replied("110007", "InsufficientFunds"), Verdict.REJECTED
    yield "rate limit", replied("10006", "RateLimitExceeded"), Verdict.NOTHING_HAPPENED
    yield "http 429", a_failure("RateLimitExceeded", "bybit POST x 429 Too Many"), Verdict.NOTHING_HAPPENED
    yield "timestamp", replied("10002", "InvalidNonce"), Verdict.NOTHING_HAPPENED
    refused = a_failure("ExchangeNotAvailable", "bybit POST x", cause=ClientConnectorError())
    yield "connection refused", refused, Verdict.NOTHING_HAPPENED
    yield "bad signature", replied("10004", "AuthenticationError"), Verdict.AUTH
    yield "refusal by class with a body", a_failure("InvalidOrder", 'bybit {"odd":1}'), Verdict.UNKNOWN


@pytest.mark.parametrize(("failure", "verdict"), [row[1:] for row in matrix()], ids=[row[0] for row in matrix()])
def test_failure_matrix(failure: Failure, verdict: Verdict) -> None:
    """Each fault of the wire proves exactly what was found by experiment."""
    assert judge_submit(failure).verdict is verdict


@pytest.mark.parametrize(
    ("code", "message", "word"),
    [
        ("10001", "StopLoss:61000 set for Buy position should lower than base_price:60000", "INVALID_STOPS"),
        ("10001", "Qty invalid", "INVALID_VOLUME"),
        ("10001", "The number of contracts exceeds maximum limit allowed: too large", "INVALID_VOLUME"),
        ("10001", "price invalid", "INVALID_PRICE"),
        ("10001", "can not set tp/sl/ts for zero position", "NO_POSITION"),
        ("10001", "position idx not match position mode", "POSITION_MODE"),
        ("10001", "params error: symbol invalid XXX", "UNKNOWN_SYMBOL"),
        ("10001", "something else", "INVALID_REQUEST"),
        ("110017", "current position is zero, cannot fix reduce-only order qty", "NO_POSITION"),
        ("110017", "Reduce-only rule not satisfied", "REDUCE_ONLY"),
        ("110007", "ab not enough for new order", "INSUFFICIENT_MARGIN"),
        ("110094", "Order notional value below the lower limit", "INVALID_VOLUME"),
        ("110072", "OrderLinkedID is duplicate", "DUPLICATE_ID"),
        ("110066", "No trading is allowed at the current time", "MARKET_CLOSED"),
        ("110020", "You can't have more than 500 active orders", "LIMITS"),
    ],
)
def test_refusals_carry_stable_words(code: str, message: str, word: str) -> None:
    """A definitive refusal has one word that the rest of the program may rely on."""
    assert judge_submit(replied(code, message=message)).code == word


def test_failed_reads_are_errors_of_two_kinds() -> None:
    """A read that failed is either a matter of the key or worth repeating."""
    for name in CLASS_VERDICTS:
        error = read_error(a_failure(name, "bybit x"), "positions")
        by_key = name in ("AuthenticationError", "PermissionDenied", "AccountNotEnabled", "AccountSuspended")
        assert type(error) is (NotAuthorised if by_key else BrokerUnreachable), name


def test_setting_what_is_set_already_is_success() -> None:
    """`not modified` is no error; a refusal has its word; an unclear answer may be repeated."""
    assert change_error(replied("34040", message="not modified"), "protect") is None
    refused = change_error(replied("10001", message="StopLoss:1 should higher than"), "protect")
    assert isinstance(refused, OrderRefused)
    assert refused.code == "INVALID_STOPS"
    assert isinstance(change_error(replied("10016"), "protect"), BrokerUnreachable)
    assert isinstance(change_error(replied("10003"), "protect"), NotAuthorised)


@pytest.mark.parametrize(
    "text",
    ["", "{", "bybit {", 'bybit {"retCode":true}', 'bybit {"retCode":null}', "bybit [1]", "x" * 5000, 'b {"a":' * 2000],
)
def test_odd_texts_give_no_code(text: str) -> None:
    """Whatever the text, describing a failure never fails and never invents a code."""
    failure = a_failure("ExchangeError", text)
    assert failure.ret_code is None
    assert len(failure.text) <= 300


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        # What was measured against the wire (an order may be live behind the first three), independent of our table.
        ("10000", Verdict.UNKNOWN),
        ("10016", Verdict.UNKNOWN),
        ("99999", Verdict.UNKNOWN),
        ("10002", Verdict.NOTHING_HAPPENED),
        ("10006", Verdict.NOTHING_HAPPENED),
        ("10018", Verdict.NOTHING_HAPPENED),
        ("10003", Verdict.AUTH),
        ("10004", Verdict.AUTH),
        ("10005", Verdict.AUTH),
        ("110004", Verdict.REJECTED),
        ("110007", Verdict.REJECTED),
        ("110012", Verdict.REJECTED),
        ("110017", Verdict.REJECTED),
    ],
)
def test_the_dangerous_codes_mean_what_was_measured(code: str, verdict: Verdict) -> None:
    """A doubt taken as a refusal loses an order, a refusal taken as a doubt blocks a symbol."""
    assert judge_submit(replied(code, "ExchangeError")).verdict is verdict

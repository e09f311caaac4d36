"""What a message means: strict bodies, exact numbers, words that help."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from srm_agent.api.parse import Delivery, parse_signal
from srm_agent.api.strict_json import MAX_BODY_BYTES
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Signal
from srm_agent.domain.units import Side
from srm_agent.errors import SignalRejected

ALPHA = ProviderKey.parse("alpha")
NOW = datetime(2026, 1, 5, 11, 0, 4, tzinfo=UTC)
DELIVERY = Delivery(message_id="msg_1", received_at=NOW, received=1000.0)
OPEN: dict[str, object] = {
    "action": "open",
    "signal_id": "a-17",
    "symbol": "BTC/USDT:USDT",
    "side": "buy",
    "entry": "60123.4",
    "stop_loss": "59800.0",
    "take_profit": "60700.0",
    "lot": "0.05",
    "issued_at": "2026-01-05T11:00:03.123456Z",
}
MODIFY: dict[str, object] = {
    "action": "modify",
    "signal_id": "a-17",
    "stop_loss": "60000",
    "issued_at": "2026-01-05T11:00:03Z",
}
CLOSE: dict[str, object] = {"action": "close", "signal_id": "a-17", "issued_at": "2026-01-05T11:00:03Z"}
CANCEL: dict[str, object] = {"action": "cancel", "signal_id": "a-17", "issued_at": "2026-01-05T11:00:03Z"}


def parsed(body: dict[str, object], **changes: object) -> Signal:
    """The signal in a body with some fields changed."""
    return parse_signal(json.dumps({**body, **changes}).encode(), ALPHA, DELIVERY)


def refusal(raw: bytes) -> SignalRejected:
    """How these bytes are refused."""
    with pytest.raises(SignalRejected) as caught:
        parse_signal(raw, ALPHA, DELIVERY)
    return caught.value


def refused(body: dict[str, object], **changes: object) -> SignalRejected:
    """How a body with some fields changed is refused."""
    return refusal(json.dumps({**body, **changes}).encode())


def test_an_open_is_read_exactly() -> None:
    """Every field of an opening message arrives in the signal, numbers digit for digit."""
    signal = parsed(OPEN)
    assert isinstance(signal, OpenSignal)
    assert (signal.signal_id, signal.provider, signal.symbol) == ("channel_source:alpha/a-17", ALPHA, "BTC/USDT:USDT")
    assert (signal.side, signal.signal_price, signal.stop_loss) == (Side.BUY, Decimal("60123.4"), Decimal(59800))
    assert (signal.take_profit, signal.provider_lot) == (Decimal(60700), Decimal("0.05"))
    assert signal.receipt.issued_at == datetime(2026, 1, 5, 11, 0, 3, 123456, tzinfo=UTC)
    assert (signal.receipt.message_id, signal.receipt.received_at, signal.receipt.received) == ("msg_1", NOW, 1000.0)


@pytest.mark.parametrize("absent", ["left out", "null"])
def test_stop_target_and_lot_of_an_open_are_optional(absent: str) -> None:
    """What a provider does not know it leaves out or sends as null; nothing is made up for it."""
    optional = ("stop_loss", "take_profit", "lot")
    body = {key: value for key, value in OPEN.items() if key not in optional}
    signal = parsed({**body, **(dict.fromkeys(optional) if absent == "null" else {})})
    assert isinstance(signal, OpenSignal)
    assert (signal.stop_loss, signal.take_profit, signal.provider_lot) == (None, None, None)


def test_a_modify_keeps_what_it_does_not_name() -> None:
    """A modify with a stop alone says nothing about the target."""
    signal = parsed(MODIFY)
    assert isinstance(signal, ModifySignal)
    assert (signal.stop_loss, signal.take_profit) == (Decimal(60000), None)


@pytest.mark.parametrize(
    ("changes", "fraction"),
    [({}, Decimal(1)), ({"fraction": "0.5"}, Decimal("0.5")), ({"fraction": 1}, Decimal(1))],
    ids=["whole by default", "half", "a JSON number"],
)
def test_a_close_takes_its_fraction_or_all(changes: dict[str, object], fraction: Decimal) -> None:
    """A close without a fraction closes everything."""
    signal = parsed(CLOSE, **changes)
    assert isinstance(signal, CloseSignal)
    assert signal.fraction == fraction


def test_a_cancel_names_its_signal() -> None:
    """A cancel carries nothing but the id it withdraws."""
    signal = parsed(CANCEL)
    assert isinstance(signal, CancelSignal)
    assert signal.signal_id == "channel_source:alpha/a-17"


def test_json_numbers_do_not_pass_through_floats() -> None:
    """A JSON number that no float can hold arrives digit for digit."""
    raw = json.dumps(OPEN).replace('"60123.4"', "60123.0000000001").encode()
    signal = parse_signal(raw, ALPHA, DELIVERY)
    assert isinstance(signal, OpenSignal)
    assert str(signal.signal_price) == "60123.0000000001"


def test_an_exponent_is_written_out() -> None:
    """A price sent as 6.01234e4 is stored as 60123.4, so that later texts are plain."""
    signal = parsed(OPEN, entry="6.01234e4")
    assert isinstance(signal, OpenSignal)
    assert str(signal.signal_price) == "60123.4"


@pytest.mark.parametrize(
    ("raw", "status", "code", "field"),
    [
        pytest.param(b"", 400, "BODY_NOT_JSON", "body", id="nothing"),
        pytest.param(b"{", 400, "BODY_NOT_JSON", "body", id="half an object"),
        pytest.param(b'"open"', 400, "BODY_NOT_JSON", "body", id="a string"),
        pytest.param(b"7", 400, "BODY_NOT_JSON", "body", id="a number"),
        pytest.param(b"null", 400, "BODY_NOT_JSON", "body", id="null"),
        pytest.param(b"NaN", 400, "BODY_NOT_JSON", "body", id="a bare NaN"),
        pytest.param(b"[" * 60_000, 400, "BODY_NESTED", "body", id="60,000 lists in each other"),
        pytest.param(b'{"a":' * 10_000, 400, "BODY_NESTED", "body", id="10,000 objects in each other"),
        pytest.param(b'{"a":[]}', 400, "BODY_NESTED", "body", id="a list inside"),
        pytest.param(b'{"a":1}{"b":2}', 400, "BODY_NESTED", "body", id="two objects"),
        pytest.param(b'"' + b'\\"' * 30_000, 400, "BODY_NOT_JSON", "body", id="30,000 quotes and no end"),
        pytest.param(b'{"lot":' + b"9" * 5_000 + b"}", 422, "NUMBER_UNUSABLE", "lot", id="5,000 digits"),
        pytest.param(b'{"lot":1e400}', 422, "NUMBER_UNUSABLE", "lot", id="1e400"),
        pytest.param(b'{"lot":1e-400}', 422, "NUMBER_UNUSABLE", "lot", id="1e-400"),
        pytest.param(b'{"lot":NaN}', 422, "NUMBER_UNUSABLE", "lot", id="NaN"),
        pytest.param(b'{"lot":-Infinity}', 422, "NUMBER_UNUSABLE", "lot", id="-Infinity"),
        pytest.param(b'{"lot":1,"lot":2}', 400, "DUPLICATE_KEY", "lot", id="a key twice"),
        pytest.param(b'{"lot":1,"l\\u006ft":2}', 400, "DUPLICATE_KEY", "lot", id="a key twice, once escaped"),
        pytest.param('{"lot":"１"}'.encode(), 400, "BODY_NOT_ASCII", "body", id="a Unicode digit"),
        pytest.param(b'\xef\xbb\xbf{"lot":1}', 400, "BODY_NOT_ASCII", "body", id="a byte order mark"),
        pytest.param('{"lot":1}'.encode("utf-16"), 400, "BODY_NOT_ASCII", "body", id="UTF-16"),
        pytest.param(b" " * (MAX_BODY_BYTES + 1), 413, "BODY_TOO_LARGE", "body", id="64 KiB and a byte"),
        pytest.param(b" " * MAX_BODY_BYTES, 400, "BODY_NOT_JSON", "body", id="64 KiB of nothing"),
    ],
)
def test_malformed_json_is_refused(raw: bytes, status: int, code: str, field: str) -> None:
    """S1: whatever is not one flat, unambiguous, finite JSON object is refused with a code, in few words."""
    caught = refusal(raw)
    assert (caught.status, caught.code, caught.field) == (status, code, field)
    assert len(str(caught)) < 300


@pytest.mark.parametrize("field", ["action", "signal_id", "symbol", "side", "entry", "issued_at"])
def test_a_missing_field_is_named(field: str) -> None:
    """S1: an open without a required field is refused with 422 and the field's name."""
    caught = refusal(json.dumps({key: value for key, value in OPEN.items() if key != field}).encode())
    assert (caught.status, caught.code, caught.field) == (422, "FIELD_MISSING", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("action", "OPEN", id="action in capitals"),
        pytest.param("action", "flatten", id="an action that does not exist"),
        pytest.param("action", 1, id="action as a number"),
        pytest.param("action", None, id="action null"),
        pytest.param("side", "long", id="a side that does not exist"),
        pytest.param("side", 1, id="side as a number"),
        pytest.param("entry", True, id="a boolean as price"),
        pytest.param("entry", None, id="a price of null"),
        pytest.param("entry", "", id="an empty price"),
        pytest.param("entry", "nan", id="nan as text"),
        pytest.param("entry", "Infinity", id="Infinity as text"),
        pytest.param("entry", "1e400", id="1e400 as text"),
        pytest.param("entry", "１", id="a Unicode digit, escaped"),
        pytest.param("entry", " 60123.4", id="a space before"),
        pytest.param("entry", "60123.4\n", id="a line end behind"),
        pytest.param("entry", "60_123.4", id="an underscore"),
        pytest.param("entry", "60,123.4", id="a thousands separator"),
        pytest.param("entry", "0x10", id="hexadecimal"),
        pytest.param("entry", ".5", id="no digit before the point"),
        pytest.param("entry", "+5", id="a plus sign"),
        pytest.param("entry", "0", id="a price of zero"),
        pytest.param("entry", "-1", id="a negative price"),
        pytest.param("entry", "1000000000.01", id="a price above 1e9"),
        pytest.param("entry", "1.00000000001", id="11 decimals"),
        pytest.param("entry", "9" * 5000, id="5,000 digits as text"),
        pytest.param("lot", "0", id="a lot of 0"),
        pytest.param("lot", "-1", id="a lot of -1"),
        pytest.param("lot", "1e9", id="a lot of 1e9"),
        pytest.param("symbol", "", id="no symbol"),
        pytest.param("symbol", "BTC USDT", id="a space in the symbol"),
        pytest.param("symbol", "BTC\x00", id="a zero byte in the symbol"),
        pytest.param("symbol", "X" * 65, id="a symbol of 65 characters"),
        pytest.param("symbol", "'; DROP TABLE", id="SQL in the symbol"),
        pytest.param("symbol", "ВTC", id="a Cyrillic letter in the symbol"),
        pytest.param("symbol", 7, id="a number as symbol"),
        pytest.param("signal_id", "", id="no signal id"),
        pytest.param("signal_id", "a" * 65, id="a signal id of 65 characters"),
        pytest.param("signal_id", "a/b", id="a slash in the signal id"),
        pytest.param("signal_id", "a\n", id="a line end in the signal id"),
        pytest.param("issued_at", "2026-01-05T11:00:03", id="no zone"),
        pytest.param("issued_at", "2026-01-05", id="no time"),
        pytest.param("issued_at", "2026-02-30T11:00:03Z", id="30 February"),
        pytest.param("issued_at", "2026-01-05T25:00:00Z", id="25 o'clock"),
        pytest.param("issued_at", "0001-01-01T00:00:00+23:00", id="before the first year"),
        pytest.param("issued_at", "1767610803", id="unix seconds as text"),
        pytest.param("issued_at", 1767610803, id="unix seconds"),
        pytest.param("issued_at", "２026-01-05T11:00:03Z", id="a Unicode digit in the time"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(field: str, value: object) -> None:
    """S1 and S7: a field of the wrong type or out of its bounds is refused with 422, its name and a short value."""
    caught = refused(OPEN, **{field: value})
    assert (caught.status, caught.code, caught.field) == (422, "FIELD_INVALID", field)
    assert str(caught).startswith(f"{field} ")
    assert "was" in str(caught)
    assert str(caught).isascii()
    assert str(caught).isprintable()
    assert len(str(caught)) < 400


@pytest.mark.parametrize("value", ["0", "1.0001", "-0.5", None, "half"])
def test_a_fraction_is_above_zero_and_at_most_one(value: object) -> None:
    """A close of nothing, of more than all, or of an unknown share is refused."""
    assert (refused(CLOSE, fraction=value).code, refused(CLOSE, fraction=value).field) == ("FIELD_INVALID", "fraction")


@pytest.mark.parametrize(
    ("side", "stop", "target", "code", "field"),
    [
        pytest.param("buy", "60123.4", None, "STOP_WRONG_SIDE", "stop_loss", id="a stop at the entry"),
        pytest.param("buy", "60123.40", None, "STOP_WRONG_SIDE", "stop_loss", id="a stop at the entry, written longer"),
        pytest.param("buy", "60200", None, "STOP_WRONG_SIDE", "stop_loss", id="a buy's stop above"),
        pytest.param("sell", "60000", None, "STOP_WRONG_SIDE", "stop_loss", id="a sell's stop below"),
        pytest.param("buy", None, "60000", "TARGET_WRONG_SIDE", "take_profit", id="a buy's target below"),
        pytest.param("sell", None, "60200", "TARGET_WRONG_SIDE", "take_profit", id="a sell's target above"),
        pytest.param("sell", None, "60123.4", "TARGET_WRONG_SIDE", "take_profit", id="a target at the entry"),
    ],
)
def test_a_stop_or_target_on_the_wrong_side_is_refused(
    side: str, stop: str | None, target: str | None, code: str, field: str
) -> None:
    """S6: a stop that would win or a target that would lose is refused with 422 and both numbers."""
    caught = refused(OPEN, side=side, stop_loss=stop, take_profit=target)
    assert (caught.status, caught.code, caught.field) == (422, code, field)
    assert "60123.4" in str(caught)


def test_an_unknown_field_is_refused() -> None:
    """S1: a misspelt field is not ignored, because it may be the stop."""
    caught = refused(OPEN, stoploss="59800")
    assert (caught.status, caught.code, caught.field) == (422, "FIELD_UNKNOWN", "stoploss")


def test_a_field_of_another_action_is_refused() -> None:
    """A close with a stop is a provider's mistake, not a close."""
    assert refused(CLOSE, stop_loss="59800").code == "FIELD_UNKNOWN"


def test_an_attackers_key_is_shown_short_and_escaped() -> None:
    """A huge key outside ASCII makes a short ASCII message."""
    caught = refused(OPEN, **{"\u202e" * 6_000: 1})
    assert caught.field is not None
    assert len(caught.field) < 200
    assert caught.field.isascii()


@pytest.mark.parametrize("changes", [{"stop_loss": None}, {"stop_loss": "5", "take_profit": "5"}])
def test_a_modify_must_change_something_that_can_be(changes: dict[str, object]) -> None:
    """A modify without stop and target, or with both at one price, is refused."""
    assert refused(MODIFY, **changes).field == "stop_loss"


@pytest.mark.parametrize(
    ("ahead", "accepted"), [(2.0, True), (2.000001, False), (3600.0, False), (-86400.0 * 30, True)]
)
@pytest.mark.parametrize("body", [OPEN, MODIFY, CLOSE, CANCEL], ids=["open", "modify", "close", "cancel"])
def test_two_seconds_of_future_are_tolerated_and_any_past(
    body: dict[str, object], ahead: float, accepted: bool
) -> None:
    """S5: a message from the future is refused, an old one is for the filter to judge; closes never expire."""
    issued = (NOW + timedelta(seconds=ahead)).isoformat(timespec="microseconds")
    if accepted:
        assert parsed(body, issued_at=issued).receipt.issued_at == NOW + timedelta(seconds=ahead)
    else:
        caught = refused(body, issued_at=issued)
        assert (caught.status, caught.code, caught.field) == (422, "ISSUED_IN_FUTURE", "issued_at")


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    """An offset other than Z is converted, nanoseconds are cut to microseconds."""
    signal = parsed(OPEN, issued_at="2026-01-05T18:00:03.123456789+07:00")
    assert signal.receipt.issued_at == datetime(2026, 1, 5, 11, 0, 3, 123456, tzinfo=UTC)

"""For all bytes: a message becomes a signal or a refusal that names its field; nothing else happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from srm_agent.api.answers import error_body
from srm_agent.api.limits import TokenBucket
from srm_agent.api.parse import Delivery, parse_signal
from srm_agent.api.signatures import WebhookKey, sign, verify
from srm_agent.api.strict_json import flat_object
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.signals import CancelSignal, CloseSignal, ModifySignal, OpenSignal, Signal
from srm_agent.domain.units import Side, plain
from srm_agent.errors import SignalRejected

ALPHA = ProviderKey.parse("alpha")
DELIVERY = Delivery(message_id="m", received_at=datetime(2026, 1, 5, 11, 0, 4, tzinfo=UTC), received=1.0)
ISSUED = "2026-01-05T11:00:03Z"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(["open", "close", "buy", "1", "0.5", "1e5", "nan", "BTC/USDT:USDT", ISSUED, "１"])
)
keys = st.sampled_from(
    [
        "action",
        "signal_id",
        "symbol",
        "side",
        "entry",
        "stop_loss",
        "take_profit",
        "lot",
        "fraction",
        "issued_at",
        "decimal",
    ]
) | st.text(max_size=10)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6), max_leaves=10
)
nearly_right = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["open", "modify", "close", "cancel", "zzz"]),
        "signal_id": st.just("a-17") | scalars,
        "issued_at": st.just(ISSUED) | scalars,
    },
    optional={
        "symbol": st.just("EURUSD") | scalars,
        "side": st.sampled_from(["buy", "sell"]) | scalars,
        "entry": st.just("1.1") | scalars,
        "stop_loss": st.just("1.0") | scalars,
        "take_profit": st.just("1.2") | scalars,
        "lot": st.just("0.1") | scalars,
        "fraction": st.just("0.5") | scalars,
    },
)
bodies = (
    st.binary(max_size=200)
    | st.text(alphabet='{}[]":,\\.eE+-0123456789 truefalsnNaIiy\n', max_size=120).map(str.encode)
    | anything.map(lambda value: json.dumps(value).encode())
    | nearly_right.map(lambda value: json.dumps(value).encode())
    | nearly_right.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
)


def ending(raw: bytes) -> Signal | SignalRejected:
    """The signal, or the refusal; any other exception fails the test."""
    try:
        return parse_signal(raw, ALPHA, DELIVERY)
    except SignalRejected as refusal:
        return refusal


@given(bodies)
@example(b'{"action":"open","action":"close"}')
@example(b'{"action":"close","signal_id":"a","fraction":' + b"9" * 5000 + b"}")
@settings(max_examples=600, deadline=None)
def test_every_body_has_one_of_two_endings(raw: bytes) -> None:
    """Whatever is sent: a signal, or a 4xx with a field and a short plain message."""
    result = ending(raw)
    if isinstance(result, SignalRejected):
        assert 400 <= result.status < 500
        assert result.field
        text = error_body(result.code, str(result), result.field)
        assert json.loads(text)["error"]["message"] == str(result)
        assert len(text) < 3_000
        assert str(result).isascii()
        assert str(result).isprintable()
    else:
        assert isinstance(result, OpenSignal | ModifySignal | CloseSignal | CancelSignal)
        assert result.signal_id.startswith("channel_source:alpha/")


@given(nearly_right)
@settings(max_examples=300, deadline=None)
def test_no_signal_leaves_with_a_number_out_of_bounds(body: dict[str, object]) -> None:
    """Every number in an accepted signal is finite, positive, storable without loss, and on its right side."""
    result = ending(json.dumps(body).encode())
    if isinstance(result, OpenSignal):
        for number in (result.signal_price, result.stop_loss, result.take_profit, result.provider_lot):
            assert number is None or (0 < number <= 10**9 and number == number.quantize(Decimal("1e-10")))
        if result.stop_loss is not None:
            assert result.side * (result.signal_price - result.stop_loss) > 0
        if result.take_profit is not None:
            assert result.side * (result.take_profit - result.signal_price) > 0
    if isinstance(result, CloseSignal):
        assert 0 < result.fraction <= 1


prices = st.decimals(min_value="0.0000000001", max_value="1000000000", places=10, allow_nan=False)


@given(prices, prices, st.sampled_from(["buy", "sell"]), st.booleans())
@settings(deadline=None)
def test_right_prices_arrive_digit_for_digit(one: Decimal, other: Decimal, side: str, as_number: bool) -> None:
    """A well-formed open is accepted exactly if its stop is on the losing side, with the very numbers sent."""
    entry, stop = (f'"{plain(one)}"', f'"{plain(other)}"') if not as_number else (plain(one), plain(other))
    raw = (
        f'{{"action":"open","signal_id":"a","symbol":"EURUSD","side":"{side}","entry":{entry},"stop_loss":{stop},'
        f'"issued_at":"{ISSUED}"}}'
    )
    result = ending(raw.encode())
    losing = other < one if side == "buy" else other > one
    if losing:
        assert isinstance(result, OpenSignal)
        assert (result.signal_price, result.stop_loss) == (one, other)
        assert result.side is (Side.BUY if side == "buy" else Side.SELL)
    else:
        assert isinstance(result, SignalRejected)
        assert result.code == "STOP_WRONG_SIDE"


flat_values = st.none() | st.booleans() | st.text(max_size=20) | st.integers(-(10**15), 10**15)


@given(st.dictionaries(st.text(max_size=10), flat_values, max_size=8))
@settings(deadline=None)
def test_the_strict_reader_agrees_with_json_on_flat_objects(value: dict[str, object]) -> None:
    """Strictness refuses, it never changes: what passes reads as the json module reads it."""
    assert flat_object(json.dumps(value).encode()) == value


@given(
    st.binary(max_size=200),
    st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True),
    st.integers(0, 10**11),
    st.integers(-60, 60),
)
@settings(deadline=None)
def test_a_signature_opens_only_within_its_window(body: bytes, message_id: str, at: int, drift: int) -> None:
    """Own signatures verify within 30 s and never outside; another body never verifies."""
    key = WebhookKey(b"k" * 32)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(key, message_id, at, body),
    }
    for given_body, good in ((body, abs(drift) <= 30), (body + b"x", False)):
        try:
            verified = verify([key], headers, given_body, float(at + drift)) == message_id
        except SignalRejected:
            verified = False
        assert verified is good


@given(
    st.floats(0.05, 20),
    st.integers(1, 100),
    st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=60),
)
@example(0.3, 1, [0.0])
@example(0.5, 1, [0.3])
@settings(deadline=None)
def test_a_bucket_never_gives_more_than_its_burst_and_rate(per_s: float, burst: int, pauses: list[float]) -> None:
    """Over any time, tokens given <= burst + rate x time; a promised wait is kept."""
    now, given_out = 0.0, 0
    bucket = TokenBucket(per_s, burst, now)
    for pause in pauses:
        now += pause
        wait_s = bucket.take(now)
        given_out += wait_s == 0
        assert given_out <= burst + per_s * now + 1e-6
    wait_s = bucket.take(now)
    if wait_s:
        assert bucket.take(now + wait_s) == 0

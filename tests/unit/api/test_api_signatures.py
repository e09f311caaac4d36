"""Who may speak: Standard Webhooks signatures."""

from __future__ import annotations

from base64 import b64encode

import pytest

from srm_agent.api.signatures import STRANGER, WebhookKey, sign, verify
from srm_agent.errors import SignalRejected

NOW = 1_767_610_800
BODY = b'{"action":"cancel"}'
KEY = WebhookKey(b"0123456789abcdef0123456789abcdef")
NEXT = WebhookKey(b"fedcba9876543210fedcba9876543210")


def headers(key: WebhookKey = KEY, at: int = NOW, message_id: str = "msg_1", body: bytes = BODY) -> dict[str, str]:
    """The three headers of an authentic message."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(key, message_id, at, body),
    }


def code_of(given: dict[str, str], keys: list[WebhookKey] | None = None, body: bytes = BODY) -> str:
    """The code with which these headers are refused."""
    with pytest.raises(SignalRejected) as caught:
        verify([KEY] if keys is None else keys, given, body, NOW)
    assert caught.value.status == 401
    assert caught.value.field is None
    return caught.value.code


def test_the_published_vector_of_standard_webhooks_is_reproduced() -> None:
    """The signature equals the example of the Standard Webhooks libraries."""
    key = WebhookKey.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected


def test_an_authentic_message_gives_its_delivery_id() -> None:
    """The delivery id of a message signed with the provider's key comes back."""
    assert verify([KEY], headers(), BODY, NOW) == "msg_1"


@pytest.mark.parametrize("active", [[KEY, NEXT], [NEXT, KEY]], ids=["old key first", "new key first"])
@pytest.mark.parametrize("used", [KEY, NEXT], ids=["signed with the old", "signed with the new"])
def test_during_a_rotation_both_keys_are_good(active: list[WebhookKey], used: WebhookKey) -> None:
    """Either of two active keys signs, in whatever order they are configured."""
    assert verify(active, headers(used), BODY, NOW) == "msg_1"


def test_one_good_signature_among_several_is_enough() -> None:
    """A provider that signs with both keys is accepted by a receiver that knows one of them."""
    given = headers()
    given["webhook-signature"] = f"v1a,other v1,AAAA {sign(NEXT, 'msg_1', NOW, BODY)} {given['webhook-signature']}"
    assert verify([KEY], given, BODY, NOW) == "msg_1"


def test_a_revoked_key_is_no_longer_good() -> None:
    """After the rotation the old key's signature is refused."""
    assert code_of(headers(KEY), [NEXT]) == "SIGNATURE_INVALID"


@pytest.mark.parametrize("drift", [-30, 30], ids=["30 s old", "30 s ahead"])
def test_thirty_seconds_of_drift_are_tolerated(drift: int) -> None:
    """A timestamp exactly at the tolerance is accepted."""
    assert verify([KEY], headers(at=NOW + drift), BODY, NOW) == "msg_1"


@pytest.mark.parametrize("drift", [-31, 31, -3600, 10**9], ids=["31 s old", "31 s ahead", "an hour old", "far ahead"])
@pytest.mark.fault("S10")
def test_a_timestamp_outside_the_tolerance_is_refused(drift: int) -> None:
    """A captured message is useless after 30 seconds, even with its good signature."""
    assert code_of(headers(at=NOW + drift)) == "SIGNATURE_EXPIRED"


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.fault("S10")
def test_each_header_is_required(missing: str) -> None:
    """A message without one of the three headers is refused."""
    given = headers()
    del given[missing]
    assert code_of(given) == "SIGNATURE_MISSING"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        pytest.param("webhook-id", "a" * 65, id="an id of 65 characters"),
        pytest.param("webhook-id", "msg 1", id="a space in the id"),
        pytest.param("webhook-id", "msg_1\n", id="a line end after the id"),
        pytest.param("webhook-id", "msg_１", id="a Unicode digit in the id"),
        pytest.param("webhook-timestamp", "１７６７６１０８００", id="Unicode digits as time"),
        pytest.param("webhook-timestamp", "1_767_610_800", id="underscores in the time"),
        pytest.param("webhook-timestamp", "1767610800.0", id="a fraction in the time"),
        pytest.param("webhook-timestamp", "-1", id="a negative time"),
        pytest.param("webhook-timestamp", "1" * 5000, id="a time of 5,000 digits"),
        pytest.param("webhook-signature", "v1," + "A" * 5000, id="a signature of 5,000 characters"),
        pytest.param("webhook-signature", "v1,é", id="a signature outside ASCII"),
    ],
)
def test_malformed_headers_are_refused(header: str, value: str) -> None:
    """What cannot be a header of the standard is refused before anything is computed from it."""
    assert code_of({**headers(), header: value}) == "SIGNATURE_MALFORMED"


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(headers()["webhook-signature"].replace("v1,", "v0,"), id="version 0"),
        pytest.param(headers()["webhook-signature"].replace("v1,", "v1a,"), id="the asymmetric version"),
        pytest.param(headers()["webhook-signature"].removeprefix("v1,"), id="no version"),
        pytest.param(headers()["webhook-signature"].replace("v1,", "V1,"), id="upper-case version"),
        pytest.param("v1,", id="empty signature"),
        pytest.param(headers()["webhook-signature"][:-4], id="truncated signature"),
        pytest.param(headers()["webhook-signature"] + "=", id="padded signature"),
        pytest.param(headers()["webhook-signature"].replace(",", ", "), id="a space inside"),
    ],
)
@pytest.mark.fault("S10")
def test_other_versions_and_damaged_signatures_are_refused(signature: str) -> None:
    """Only `v1,` with exactly the expected base64 counts: no downgrade, no near miss."""
    assert code_of({**headers(), "webhook-signature": signature}) == "SIGNATURE_INVALID"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({**headers(), "webhook-id": "msg_2"}, id="another id"),
        pytest.param({**headers(), "webhook-timestamp": str(NOW + 1)}, id="another time"),
        pytest.param(headers(body=BODY + b" "), id="another body"),
        pytest.param(headers(NEXT), id="another provider's key"),
    ],
)
@pytest.mark.fault("S10")
def test_the_signature_binds_id_time_body_and_key(given: dict[str, str]) -> None:
    """Changing any signed part makes the signature wrong."""
    assert code_of(given) == "SIGNATURE_INVALID"


@pytest.mark.fault("S10")
def test_an_unknown_provider_is_told_the_same_as_a_wrong_key() -> None:
    """Without keys every signature is refused in the same words as a wrong one, even a self-made one."""
    with pytest.raises(SignalRejected) as stranger:
        verify([], headers(), BODY, NOW)
    with pytest.raises(SignalRejected) as forger:
        verify([NEXT], headers(), BODY, NOW)
    assert (stranger.value.code, str(stranger.value)) == (forger.value.code, str(forger.value))


@pytest.mark.fault("S10")
def test_the_key_that_stands_in_for_strangers_opens_nothing() -> None:
    """Whoever reads our source and signs with the stand-in key is still refused."""
    assert code_of(headers(STRANGER), []) == "SIGNATURE_INVALID"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("c2VjcmV0" * 4, id="no prefix"),
        pytest.param("whsec_" + "!" * 32, id="not base64"),
        pytest.param("whsec_" + b64encode(b"CANARY-SECRET").decode(), id="too short"),
        pytest.param("whsec_" + b64encode(b"x" * 65).decode(), id="too long"),
    ],
)
def test_a_bad_key_is_refused_without_being_shown(text: str) -> None:
    """The error of a malformed key does not repeat it."""
    with pytest.raises(ValueError, match="webhook key must") as caught:
        WebhookKey.parse(text)
    assert text.removeprefix("whsec_") not in str(caught.value)


def test_a_key_does_not_show_itself() -> None:
    """The repr of a key, which ends up in logs and tracebacks, holds no secret."""
    assert "0123456789abcdef" not in repr(KEY)

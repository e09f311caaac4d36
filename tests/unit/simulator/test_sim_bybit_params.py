"""Whatever a client sends, the API answers with a result or a retCode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.bybit_auth import ApiError
from simulator.bybit_rest import BybitRest, parse_ticket
from simulator.venue import Venue, VenueRefused

texts = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "1",
            "-1",
            "100.5",
            "99.9",
            "0.01",
            "1e5",
            "1e999999",
            "1e-99",
            "NaN",
            "sNaN",
            "Infinity",
            "٣",
            "true",
        ]
    ),
    st.sampled_from(["linear", "BTCUSDT", "Buy", "Sell", "Market", "Limit", "IOC", "GTC", "FOK", "PostOnly", "USDT"]),
    st.sampled_from(["true", "false"]),
    st.text(max_size=8),
)
NAMES = [
    "category", "symbol", "settleCoin", "side", "orderType", "qty", "price", "timeInForce", "orderLinkId", "orderId",
    "reduceOnly", "stopLoss", "takeProfit", "triggerPrice", "triggerDirection", "positionIdx", "limit", "cursor",
    "startTime", "endTime", "start", "end", "interval", "openOnly", "execType", "type", "buyLeverage", "sellLeverage",
]  # fmt: skip
likely = {
    "category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "1", "interval": "1",
    "settleCoin": "USDT", "buyLeverage": "5", "sellLeverage": "5", "stopLoss": "99",
}  # fmt: skip
params = st.builds(
    lambda changes, dropped: {name: value for name, value in (likely | changes).items() if name not in dropped},
    st.dictionaries(st.sampled_from(NAMES), texts, max_size=6),
    st.sets(st.sampled_from(NAMES), max_size=2),
)


def refusal_code(route: Callable[[dict[str, str]], object], body: dict[str, str]) -> int:
    """0 for a result, the retCode of a documented refusal; anything else is raised."""
    try:
        return 0 if isinstance(route(body), dict) else -1
    except (ApiError, VenueRefused) as refusal:
        return refusal.code


@settings(max_examples=150, deadline=None)
@given(changed=params, first=params)
def test_every_route_answers_or_refuses(
    make_venue: Callable[..., Venue], changed: dict[str, str], first: dict[str, str]
) -> None:
    """No parameter makes a route fail otherwise than by a documented refusal."""
    venue = make_venue()
    rest = BybitRest(venue)
    account = venue.accounts["c01"]
    routes: list[Callable[[dict[str, str]], object]] = [partial(handler, account) for handler in rest.private.values()]
    routes += rest.public.values()
    for body in (first, changed):
        for route in routes:
            assert refusal_code(route, body) >= 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param({"side": "buy"}, "Side", id="sides are capitalised"),
        pytest.param({"orderType": "Stop"}, "orderType", id="order types are two"),
        pytest.param({"category": "spot"}, "category", id="only linear"),
        pytest.param({"positionIdx": "1"}, "position idx", id="one-way mode only"),
        pytest.param({"orderType": "Limit"}, "price", id="a limit needs its price"),
        pytest.param({"orderLinkId": "x" * 37}, "orderLinkId", id="ids have 36 characters at most"),
        pytest.param({"qty": "1e999999"}, "qty", id="numbers are bounded"),
    ],
)
def test_a_bad_order_names_its_field(changes: dict[str, str], word: str) -> None:
    """The refusal says which parameter is wrong."""
    with pytest.raises(ApiError, match=word) as refusal:
        parse_ticket(likely | changes)
    assert refusal.value.code == 10001


def test_cancel_all_withdraws_working_orders_only(venue: Venue) -> None:
    """Finished orders stay as they are; both are told by their ids."""
    rest = BybitRest(venue)
    account = venue.accounts["c01"]
    create = rest.private["POST", "v5/order/create"]
    for link, price in (("a", "99"), ("b", "98"), ("done", "101")):
        create(account, likely | {"orderType": "Limit", "price": price, "orderLinkId": link, "stopLoss": ""})
    answer = rest.private["POST", "v5/order/cancel-all"](account, {"category": "linear", "symbol": "BTCUSDT"})
    assert [row["orderLinkId"] for row in answer["list"]] == ["a", "b"]  # type: ignore[union-attr, index, call-overload]
    assert venue.orders("c01", working=True) == []

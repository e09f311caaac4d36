"""An intent as it goes on the wire: on the grid, within the cap, never more than asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from adapters.ccxt_venue.orders import Refusal, WireOrder, wire_order
from srm_agent.domain.ids import ClientOrderId, ConnectionId, PositionRef, Symbol
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.units import Side

SYMBOL = Symbol("BTC/USDT:USDT")
BTC = Instrument(
    symbol=SYMBOL, asset_class=AssetClass.CRYPTO, base_currency="BTC", quote_currency="USDT", settle_currency="USDT",
    tick_size=Decimal("0.1"), pip_size=None, lot_min=Decimal("0.001"), lot_max=Decimal(5), lot_step=Decimal("0.001"),
    contract_size=Decimal(1),
)  # fmt: skip
ENTRY = OrderIntent(
    client_id=ClientOrderId("srm1a"), connection_id=ConnectionId("c"), leg_id=None, signal_id=None, decision_id=None,
    purpose=OrderPurpose.ENTRY, symbol=SYMBOL, side=Side.BUY, lot=Decimal("0.0105"), limit_price=Decimal("60000.17"),
    stop_loss=Decimal(59000), take_profit=Decimal(61000), reduce=None, reason="", deadline=0.0,
    created_at=datetime(2024, 1, 1, tzinfo=UTC),
)  # fmt: skip
EXIT = replace(
    ENTRY, purpose=OrderPurpose.EXIT, side=Side.SELL, limit_price=None, stop_loss=None, take_profit=None,
    reduce=PositionRef(f"{SYMBOL}|0"),
)  # fmt: skip


def test_entry_is_one_immediate_order_with_its_stop() -> None:
    """The stop travels with the entry, numbers are texts, lots and cap are rounded down."""
    order = wire_order(ENTRY, BTC)
    assert order == WireOrder(
        kind="limit",
        side="buy",
        amount="0.01",
        price="60000.1",
        params={
            "clientOrderId": "srm1a",
            "positionIdx": 0,
            "timeInForce": "IOC",
            "stopLoss": {"triggerPrice": "59000"},
            "takeProfit": {"triggerPrice": "61000"},
            "tpslMode": "Full",
        },
    )


def test_exit_is_a_reduce_only_market_order() -> None:
    """An exit meets the market and can only shrink the position."""
    order = wire_order(EXIT, BTC)
    assert isinstance(order, WireOrder)
    assert (order.kind, order.price, order.params["reduceOnly"]) == ("market", None, True)
    assert "timeInForce" not in order.params


def test_large_exit_is_cut_and_large_entry_refused() -> None:
    """Closing too much at once closes as much as one order may; opening too much is refused."""
    order = wire_order(replace(EXIT, lot=Decimal(12)), BTC)
    assert isinstance(order, WireOrder)
    assert order.amount == "5"
    refusal = wire_order(replace(ENTRY, lot=Decimal(12)), BTC)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "INVALID_VOLUME"


def test_dust_leaves_exactly_as_it_is_and_only_as_an_exit() -> None:
    """Below the smallest order the venue is asked, not guessed; off the grid the part on it goes first."""
    terms = replace(BTC, lot_min=Decimal("0.01"))
    for lot, amount in (("0.005", "0.005"), ("0.0005", "0.0005"), ("0.0105", "0.01"), ("0.01", "0.01")):
        order = wire_order(replace(EXIT, lot=Decimal(lot)), terms)
        assert isinstance(order, WireOrder)
        assert order.amount == amount
    for intent in (replace(ENTRY, lot=Decimal("0.005")), replace(EXIT, lot=Decimal(0))):
        refusal = wire_order(intent, terms)
        assert isinstance(refusal, Refusal)
        assert refusal.code == "INVALID_VOLUME"


@given(
    lot=st.decimals(min_value="0.0001", max_value="10", places=5),
    cap=st.decimals(min_value="100", max_value="100000", places=3),
    distance=st.decimals(min_value="-50", max_value="50", places=1),
    side=st.sampled_from(Side),
)
def test_wire_order_never_asks_more_than_the_intent(lot: Decimal, cap: Decimal, distance: Decimal, side: Side) -> None:
    """Whatever the intent: refused with a word, or a lot not above it on the grid and a cap not beyond it."""
    stop = (cap - distance).quantize(Decimal("0.1"))
    intent = replace(ENTRY, lot=lot, side=side, limit_price=cap, stop_loss=stop, take_profit=None)
    order = wire_order(intent, BTC)
    if isinstance(order, Refusal):
        assert order.code in ("INVALID_VOLUME", "INVALID_STOPS")
        assert lot < BTC.lot_min or lot > BTC.lot_max or (cap - stop) * side <= 0
        return
    assert Decimal(order.amount) <= lot
    assert Decimal(order.amount) % BTC.lot_step == 0
    assert order.price is not None
    assert (Decimal(order.price) - cap) * side <= 0
    assert Decimal(order.price) % BTC.tick_size == 0


def test_stop_on_the_wrong_side_is_refused_before_sending() -> None:
    """A buy whose stop is above its cap never leaves."""
    refusal = wire_order(replace(ENTRY, stop_loss=Decimal(60500)), BTC)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "INVALID_STOPS"

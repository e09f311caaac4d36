"""The stop buffer by the rule of learning.md 4.2."""

from dataclasses import replace
from decimal import Decimal

import pytest

from srm_agent.domain.policies import BufferPolicy
from srm_agent.domain.units import InAtr, InPips, Side
from srm_agent.risk.inputs import DecisionInputs
from srm_agent.risk.stop_buffer import Adjustment, buffer_stop


def buffered(
    inputs: DecisionInputs, policy: BufferPolicy, *, stop: str = "1.0981", side: Side = Side.BUY
) -> tuple[Decimal, Adjustment | None]:
    """The buffered stop of the ordinary signal."""
    assert inputs.instrument is not None
    assert inputs.quote is not None
    touch = inputs.quote.touch(side)
    return buffer_stop(
        side=side,
        stop=Decimal(stop),
        distance=abs(touch - Decimal(stop)),
        price=touch,
        instrument=inputs.instrument,
        context=inputs.context,
        forecast=inputs.forecast,
        policy=policy,
    )


def slipping(inputs: DecisionInputs, upper: str) -> DecisionInputs:
    """The same with another 90 % bound of stop slippage."""
    assert inputs.forecast is not None
    return replace(inputs, forecast=replace(inputs.forecast, stop_upper=Decimal(upper)))


@pytest.mark.parametrize(
    ("upper", "buffer", "why"),
    [
        pytest.param("0.00001", "0.0001", "minimum", id="little to fear: the minimum"),
        pytest.param("0.00023", "0.00023", "needed", id="what is needed"),
        pytest.param("0.000234", "0.00024", "needed", id="rounded up to the tick"),
        pytest.param("0.0040", "0.0003", "maximum", id="the maximum"),
    ],
)
def test_the_buffer_is_the_need_within_its_bounds(inputs: DecisionInputs, upper: str, buffer: str, why: str) -> None:
    """The larger of forecast and 0.8 median spread, clipped to 1-3 pips, away from entry."""
    stop, adjustment = buffered(slipping(inputs, upper), inputs.policy.policy.buffer)
    assert adjustment == Adjustment(buffer=Decimal(buffer), why=why)
    assert stop == Decimal("1.0981") - Decimal(buffer)


def test_a_sells_stop_moves_up(inputs: DecisionInputs) -> None:
    """Away from entry is upwards for a sell."""
    stop, adjustment = buffered(inputs, inputs.policy.policy.buffer, stop="1.1020", side=Side.SELL)
    assert adjustment is not None
    assert stop == Decimal("1.1020") + adjustment.buffer == Decimal("1.1022")


def test_a_wide_median_spread_counts(inputs: DecisionInputs) -> None:
    """0.8 x 3 pips of median spread is more than the forecast's bound."""
    assert inputs.context is not None
    wide = replace(inputs, context=replace(inputs.context, spread_median=Decimal("0.0003")))
    assert buffered(wide, inputs.policy.policy.buffer)[1] == Adjustment(buffer=Decimal("0.00024"), why="needed")


def test_a_scalpers_stop_gets_no_buffer(inputs: DecisionInputs) -> None:
    """More than 15 % of the stop distance is no buffer at all, and the reason is kept."""
    stop, adjustment = buffered(inputs, inputs.policy.policy.buffer, stop="1.0993")
    assert (stop, adjustment) == (Decimal("1.0993"), Adjustment(buffer=Decimal(0), why="stop_too_near"))


def test_calm_is_zero_only_when_the_policy_says_so_and_calm_is_known(inputs: DecisionInputs) -> None:
    """A need below the minimum in a usual market may go without a buffer; unknown volatility is not calm."""
    assert inputs.context is not None
    policy = replace(inputs.policy.policy.buffer, calm_is_zero=True)
    low = slipping(inputs, "0.00001")
    for index, why in ((Decimal(50), "calm"), (Decimal(51), "minimum"), (None, "minimum")):
        changed = replace(low, context=replace(inputs.context, volatility_index=index))
        adjustment = buffered(changed, policy)[1]
        assert adjustment is not None
        assert adjustment.why == why


def test_no_forecast_takes_the_maximum(inputs: DecisionInputs) -> None:
    """What is unknown is met with the cautious end of the bounds."""
    adjustment = buffered(replace(inputs, forecast=None), inputs.policy.policy.buffer)[1]
    assert adjustment == Adjustment(buffer=Decimal("0.0003"), why="need_unknown")


def test_bounds_in_atr_without_an_atr_fall_back_to_the_share_of_the_stop(inputs: DecisionInputs) -> None:
    """Without any bound in price the buffer is the need, at most 15 % of the stop distance, rounded down."""
    policy = replace(inputs.policy.policy.buffer, minimum=InAtr(Decimal("0.1")), maximum=InAtr(Decimal("0.3")))
    adjustment = buffered(replace(slipping(inputs, "0.01"), context=None), policy)[1]
    assert adjustment == Adjustment(buffer=Decimal("0.0003"), why="bounds_unknown")


def test_a_maximum_of_zero_switches_the_buffer_off(inputs: DecisionInputs) -> None:
    """No reason, no change."""
    policy = replace(inputs.policy.policy.buffer, minimum=InPips(Decimal(0)), maximum=InPips(Decimal(0)))
    assert buffered(inputs, policy) == (Decimal("1.0981"), None)


def test_a_stop_off_the_grid_is_rounded_away_from_entry(inputs: DecisionInputs) -> None:
    """The tick grid never brings a stop nearer."""
    policy = replace(inputs.policy.policy.buffer, minimum=InPips(Decimal(0)), maximum=InPips(Decimal(0)))
    assert buffered(inputs, policy, stop="1.098107")[0] == Decimal("1.09810")
    assert buffered(inputs, policy, stop="1.102003", side=Side.SELL)[0] == Decimal("1.10201")


def test_a_buffer_never_takes_a_stop_below_zero(inputs: DecisionInputs) -> None:
    """A stop near zero keeps its place: zero would clear it at many brokers."""
    policy = replace(inputs.policy.policy.buffer, minimum=InPips(Decimal(100)), maximum=InPips(Decimal(100)))
    assert buffered(inputs, policy, stop="0.01") == (Decimal("0.01"), Adjustment(buffer=Decimal(0), why="no_room"))

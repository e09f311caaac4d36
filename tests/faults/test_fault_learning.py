"""P19, P20: what a model says that cannot be meant, or that it is not there. Scenes in virtual time.

Model files come with issue E. What can be broken today is the learning part behind its port: it stands behind the fuse
(`srm_agent/supervision/learning_fuse.py`), as the loaded model will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from simulator.simulation.scene import C01, C02, Scene, act
from srm_agent.domain.accounts import ConnectionState
from srm_agent.domain.forecasts import ExecutionMeasure, ForecastRequest, SlippageForecast
from srm_agent.errors import ModelUnusable
from srm_agent.learning.slippage_prior import ScalePriorForecaster
from srm_agent.supervision.learning_fuse import BELIEVED, BUDGET_S, FusedForecaster
from tests.faults.conftest import Measured
from tests.faults.helpers import state, told
from tests.faults.letters import metric

SLOW_S = 2.0
REPLACED = "srm_forecasts_replaced_total"


class Model:
    """A model of which somebody decides what it says."""

    version = "model@test"

    def __init__(self, say: Callable[[SlippageForecast], Any]) -> None:
        self._say = say
        self._formula = ScalePriorForecaster()
        self.asked = self.taught = 0

    def forecast(self, request: ForecastRequest) -> SlippageForecast:
        """What it was told to say, from what a good one would."""
        self.asked += 1
        good = self._formula.forecast(request)
        said: SlippageForecast = self._say(replace(good, provenance="model", version=self.version))
        return said

    def observe(self, measure: ExecutionMeasure) -> None:
        """Nothing is learnt."""
        self.taught += 1


def fused(scene: Scene) -> FusedForecaster:
    """The agent's forecaster."""
    forecaster = scene.agent.flow._parts.forecaster
    assert isinstance(forecaster, FusedForecaster)
    return forecaster


def put(scene: Scene, say: Callable[[SlippageForecast], Any]) -> Model:
    """In the place of the learning part."""
    model = Model(say)
    fused(scene)._real = model
    return model


def record(scene: Scene, connection: str = C01) -> dict[str, str]:
    """What the last decision says that it was decided on."""
    decision = [one for one in scene.world.seen.decisions.values() if one.connection_id == connection][-1]
    return dict(decision.inputs)


def _raises(error: Exception) -> Callable[[SlippageForecast], Any]:
    def say(_: SlippageForecast) -> Any:
        raise error

    return say


def _entry(value: object) -> Callable[[SlippageForecast], Any]:
    return lambda good: replace(good, entry_mean=value)  # type: ignore[arg-type]


# ---- P19


@pytest.mark.fault("P19")
@pytest.mark.parametrize(
    "why",
    [
        "the file is truncated",
        "the checksum is wrong",
        "schema 7, this program reads 3",
        "NaN weights",
        "made by a later version",
        "made for other symbols",
        "there is no file",
    ],
)
def test_without_a_model_the_formula_speaks(why: str) -> None:
    """Whatever its loader says of the file (issue E): entries go on by the formula, the record of the decision says
    `fallback`, it is counted, and closes are as fast as ever."""

    async def play(scene: Scene) -> None:
        put(scene, _raises(ModelUnusable(why)))
        await scene.opened("s1")
        assert record(scene)["forecast_provenance"].startswith("fallback:scale_prior")
        assert await metric(scene, REPLACED) >= 1
        assert (await scene.send("close", "s1"))[0] == 202
        assert await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5) < 1

    act(play, peace_s=5)


@pytest.mark.fault("P19")
def test_a_learning_part_that_raises_costs_entries_only() -> None:
    """A defect nobody foresaw, in every method: no entries, one page, closes and emergency as ever, and the process
    lives."""

    async def play(scene: Scene) -> None:
        await scene.opened("s1")
        await scene.opened("s2", symbol_id="ETHUSDT")
        model: Any = put(scene, _raises(ZeroDivisionError("model")))
        model.observe = _raises(ZeroDivisionError("learning"))
        await scene.open("s3", symbol_id="EURUSDT")
        await scene.until(lambda: bool(told(scene, "learning is left out", None)), 5)
        assert state(scene) is ConnectionState.REDUCING
        assert (await scene.send("close", "s1"))[0] == 202
        assert await scene.until(lambda: not scene.lots(C01), 5) < 1
        scene.world.flatten(C01)
        assert await scene.until(lambda: not scene.venue.positions(C01), 5) < 2
        assert scene.process.alive
        assert told(scene, "learning is left out", None) == ["page"]

    act(play, peace_s=5)


# ---- P20


@pytest.mark.fault("P20", bound_s=0.05)
@pytest.mark.parametrize(
    ("say", "provenance"),
    [
        pytest.param(_entry(Decimal("NaN")), "fallback:scale_prior", id="NaN"),
        pytest.param(_entry(Decimal("sNaN")), "fallback:scale_prior", id="signalling NaN"),
        pytest.param(_entry(Decimal("Infinity")), "fallback:scale_prior", id="infinite"),
        pytest.param(_entry(Decimal("-Infinity")), "fallback:scale_prior", id="minus infinite"),
        pytest.param(_entry(0.1), "fallback:scale_prior", id="a float"),
        pytest.param(_entry(None), "fallback:scale_prior", id="nothing"),
        pytest.param(_entry(Decimal(-50)), "clipped:model", id="negative"),
        pytest.param(lambda good: replace(good, stop_upper=Decimal(10_000)), "clipped:model", id="10,000 pips"),
        pytest.param(lambda good: replace(good, entry_upper=Decimal(0)), "clipped:model", id="bound below mean"),
        pytest.param(lambda good: good, "model", id="what can be meant is taken as it is"),
    ],
)
def test_what_a_model_says_is_held_against_the_formula(
    say: Callable[[SlippageForecast], Any], provenance: str, measured: Measured
) -> None:
    """No number: the formula. Negative or beyond belief: cut. The decision is recorded with what was used, its lot is
    of the same order, the trade comes within the budget, and it is counted."""

    async def play(scene: Scene) -> float:
        model = put(scene, say)
        status, _ = await scene.open("s1")
        assert status == 202
        began = scene.now
        while not scene.reasons(C01):
            await asyncio.sleep(0.001)
            assert scene.now - began < 1
        took = scene.now - began
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 5)
        used = record(scene)
        assert used["forecast_provenance"].startswith(provenance)
        numbers = [
            Decimal(used[f"forecast_{name}"]) for name in ("entry_mean", "entry_upper", "stop_mean", "stop_upper")
        ]
        assert all(number.is_finite() and 0 <= number < 200 * BELIEVED for number in numbers)
        assert numbers[1] >= numbers[0]
        assert numbers[3] >= numbers[2]
        assert (await metric(scene, REPLACED)) == (0 if provenance == "model" else 1)
        assert model.asked == 1
        assert (await scene.send("close", "s1"))[0] == 202
        await scene.until(lambda: not scene.lots(C01) and not scene.lots(C02), 5)
        return took

    measured(act(play, peace_s=5))


@pytest.mark.fault("P20", bound_s=0.05)
def test_a_model_that_thinks_for_two_seconds_is_not_asked_again(measured: Measured) -> None:
    """Once: the loop stood for as long, the formula spoke in its place. From then on for five minutes signals are
    decided within the budget without it; then it is asked again."""

    async def play(scene: Scene) -> float:
        def think(good: SlippageForecast) -> SlippageForecast:
            scene.world.loop.stall(SLOW_S)
            return good

        model = put(scene, think)
        await scene.open("s1")
        await scene.until(lambda: bool(scene.lots(C01) and scene.lots(C02)), 10)
        assert record(scene)["forecast_provenance"].startswith("fallback:")
        assert await metric(scene, REPLACED) == 1
        await asyncio.sleep(1)
        asked = model.asked
        status, _ = await scene.open("s2", symbol_id="ETHUSDT")
        assert status == 202
        began = scene.now
        while not scene.reasons(C01)[1:]:
            await asyncio.sleep(0.001)
            assert scene.now - began < 1
        took = scene.now - began
        assert model.asked == asked == 1
        assert record(scene)["forecast_provenance"].startswith("fallback:")
        await asyncio.sleep(301)
        fused(scene)._real = again = Model(lambda good: good)
        await scene.open("s3", symbol_id="EURUSDT")
        await scene.until(lambda: bool(scene.lots(C01, "EURUSDT")), 5)
        assert again.asked == 1
        assert record(scene)["forecast_provenance"].startswith("model")
        return took

    assert SLOW_S > BUDGET_S
    measured(act(play, peace_s=5))

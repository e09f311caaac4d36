"""Learning behind a fuse: what fails there costs entries, never an exit or the process (INV-10, INV-14, P20).

The fuse blows by a defect, and guard mode starts with it blown. Nothing is then asked of learning or taught to it:
`reason` says why, and the daemon takes no entries while it stands. A forecast that cannot be meant, or that was late,
is no defect: the formula speaks in its place, the record of the decision says so, and it is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from math import isfinite

import structlog
from prometheus_client import CollectorRegistry, Counter

from srm_agent.clock import Clock
from srm_agent.domain.forecasts import ExecutionMeasure, ForecastRequest, ProviderScore, SlippageForecast
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.trades import ClosedTrade
from srm_agent.domain.units import ZERO
from srm_agent.errors import ModelUnusable
from srm_agent.ports import Forecaster, Scorer

log = structlog.get_logger()

BUDGET_S = 0.05
"""A forecaster that takes longer holds the event loop up: it is not asked again for REST_S seconds."""
REST_S = 300.0
BELIEVED = 20
"""Times the formula's upper bound: no slippage beyond is believed. A latency that is not known makes a factor of 11."""


class Fuse:
    """Shared by what learns."""

    def __init__(self) -> None:
        self.reason = ""
        """Why learning is left out; empty while it works."""

    def blow(self, reason: str) -> None:
        """Leave learning out from now on; the first reason stands."""
        if not self.reason:
            log.error("learning is left out: no entries", reason=reason)
            self.reason = reason

    def mend(self) -> None:
        """Learning has been rebuilt."""
        self.reason = ""


class FusedScorer:
    """`ports.Scorer`. `spare` has learnt nothing: it answers, with the prior, what a blown fuse keeps from `real`."""

    def __init__(self, real: Scorer, spare: Scorer, fuse: Fuse) -> None:
        self._real = real
        self._spare = spare
        self._fuse = fuse

    def score(self, provider: ProviderKey) -> ProviderScore:
        """See the port."""
        return self._guarded(lambda: self._real.score(provider), provider)

    def observe(self, trade: ClosedTrade) -> ProviderScore:
        """See the port. A trade that was not learnt is learnt when the journal is read again."""
        return self._guarded(lambda: self._real.observe(trade), trade.provider)

    def _guarded(self, ask: Callable[[], ProviderScore], provider: ProviderKey) -> ProviderScore:
        if not self._fuse.reason:
            try:
                score = ask()
                if not _is_meant(score):
                    raise ValueError(f"no score that can be meant: {score}")
            except Exception as error:
                log.exception("the scorer failed", provider=str(provider))
                self._fuse.blow(f"the scorer failed: {error!r}"[:200])
            else:
                return score
        return self._spare.score(provider)


class FusedForecaster:
    """`ports.Forecaster`, likewise. What `real` says is held against the formula of `spare`, which knows no learning.

    No number, or late: the formula's forecast, `fallback:` before its provenance. Below zero or beyond belief: cut,
    `clipped:` before it.
    """

    def __init__(
        self, real: Forecaster, spare: Forecaster, fuse: Fuse, clock: Clock, registry: CollectorRegistry | None = None
    ) -> None:
        """`registry` gets `srm_forecasts_replaced_total` by `why`: defect, no model, unusable, slow, clipped."""
        self._real = real
        self._spare = spare
        self._fuse = fuse
        self._clock = clock
        self._rests_until: float | None = None
        self._replaced = Counter(
            "srm_forecasts_replaced", "Forecasts that were not taken as given.", ["why"], registry=registry
        )

    def forecast(self, request: ForecastRequest) -> SlippageForecast:
        """See the port."""
        formula = self._spare.forecast(request)
        fallback = replace(formula, provenance=f"fallback:{formula.provenance}")
        began = self._clock.monotonic()
        if self._fuse.reason or (self._rests_until is not None and began < self._rests_until):
            return fallback
        self._rests_until = None
        try:
            given = self._real.forecast(request)
            usable = _is_usable(given)
        except ModelUnusable as error:
            return self._instead(fallback, "no model", request, error=str(error)[:200])
        except Exception as error:
            log.exception("the forecaster failed", symbol=request.symbol)
            self._fuse.blow(f"the forecaster failed: {error!r}"[:200])
            return self._instead(fallback, "defect", request)
        took_s = self._clock.monotonic() - began
        if took_s > BUDGET_S:
            self._rests_until = self._clock.monotonic() + REST_S
            return self._instead(fallback, "slow", request, seconds=round(took_s, 3))
        if not usable:
            return self._instead(fallback, "unusable", request, entry_mean=str(given.entry_mean))
        clipped = _clipped(given, BELIEVED * max(formula.entry_upper, formula.stop_upper))
        return given if clipped == given else self._instead(clipped, "clipped", request)

    def observe(self, measure: ExecutionMeasure) -> None:
        """See the port."""
        if self._fuse.reason:
            return
        try:
            self._real.observe(measure)
        except Exception as error:
            log.exception("the forecaster failed to learn")
            self._fuse.blow(f"the forecaster failed to learn: {error!r}"[:200])

    def _instead(
        self, forecast: SlippageForecast, why: str, request: ForecastRequest, **more: object
    ) -> SlippageForecast:
        self._replaced.labels(why).inc()
        log.warning("forecast not taken as given", why=why, symbol=request.symbol, **more)
        return forecast


def _is_usable(forecast: SlippageForecast) -> bool:
    numbers: tuple[object, ...] = (
        forecast.entry_mean, forecast.entry_upper, forecast.stop_mean, forecast.stop_upper,
    )  # fmt: skip
    return all(isinstance(number, Decimal) and number.is_finite() for number in numbers)


def _clipped(forecast: SlippageForecast, most: Decimal) -> SlippageForecast:
    """Every number within 0 and `most`, price units, and no bound below its mean."""

    def cut(number: Decimal, least: Decimal = ZERO) -> Decimal:
        return min(max(number, least), most)

    entry, stop = cut(forecast.entry_mean), cut(forecast.stop_mean)
    within = replace(
        forecast,
        entry_mean=entry,
        entry_upper=cut(forecast.entry_upper, entry),
        stop_mean=stop,
        stop_upper=cut(forecast.stop_upper, stop),
    )
    return forecast if within == forecast else replace(within, provenance=f"clipped:{forecast.provenance}")


def _is_meant(score: ProviderScore) -> bool:
    floats = (score.mean, score.deviation, score.platform_mean)
    return all(isfinite(number) for number in floats) and score.shown.is_finite() and 0 <= score.shown <= 100

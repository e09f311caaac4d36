"""Learning behind a fuse: what fails there costs entries, never an exit or the process (INV-10, INV-14, P20).

The fuse blows by a defect, and guard mode starts with it blown. Nothing is then asked of learning or taught to it:
`reason` says why, and the daemon takes no entries while it stands.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from srm_agent.domain.forecasts import ExecutionMeasure, ForecastRequest, ProviderScore, SlippageForecast
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.trades import ClosedTrade
from srm_agent.ports import Forecaster, Scorer

log = structlog.get_logger()


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
                return ask()
            except Exception as error:
                log.exception("the scorer failed", provider=str(provider))
                self._fuse.blow(f"the scorer failed: {error!r}"[:200])
        return self._spare.score(provider)


class FusedForecaster:
    """`ports.Forecaster`, likewise."""

    def __init__(self, real: Forecaster, spare: Forecaster, fuse: Fuse) -> None:
        self._real = real
        self._spare = spare
        self._fuse = fuse

    def forecast(self, request: ForecastRequest) -> SlippageForecast:
        """See the port."""
        if not self._fuse.reason:
            try:
                return self._real.forecast(request)
            except Exception as error:
                log.exception("the forecaster failed", symbol=request.symbol)
                self._fuse.blow(f"the forecaster failed: {error!r}"[:200])
        return self._spare.forecast(request)

    def observe(self, measure: ExecutionMeasure) -> None:
        """See the port."""
        if self._fuse.reason:
            return
        try:
            self._real.observe(measure)
        except Exception as error:
            log.exception("the forecaster failed to learn")
            self._fuse.blow(f"the forecaster failed to learn: {error!r}"[:200])

"""The first rung of the slippage ladder: before there are fills to learn from, a scale (learning.md 1.1, 1.4).

scale = spread / 2 + pace x sqrt(latency) + floor, in price units, where pace is the realised volatility of the last
300 s per root second and the floor 0.05 pip (half a tick where there is no pip). Mean 0.6 x scale, 90 % bound
2.5 x scale, for entries and stop exits alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from math import isfinite, sqrt

from srm_agent.domain.forecasts import ExecutionMeasure, ForecastRequest, SlippageForecast
from srm_agent.domain.policies import content
from srm_agent.domain.units import from_float

PROVENANCE = "scale_prior"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePriorSettings:
    """Constants of the prior; the shares are measured in learning.md 1.4, the others are cautious choices."""

    entry_mean_share: float = 0.6
    entry_upper_share: float = 2.5
    stop_mean_share: float = 0.6
    stop_upper_share: float = 2.5
    floor_pips: float = 0.05
    floor_ticks: float = 0.5
    unknown_pace_factor: float = 3.0
    """While the pace is unknown the half spread is taken this many times instead."""
    unknown_latency_s: float = 0.5
    """Before a venue's first fill."""
    latency_weight: float = 0.1
    """Weight of the newest fill in the smoothed latency."""
    latency_max_s: float = 60.0
    """Longer ones are stalls, not latency: counted as this long."""


class ScalePriorForecaster:
    """Implements `ports.Forecaster`. Learns one thing, the smoothed latency of each venue."""

    def __init__(self, settings: ScalePriorSettings | None = None) -> None:
        self._settings = settings or ScalePriorSettings()
        self._latency_s: dict[str, float] = {}
        digest = sha256(repr(content(self._settings)).encode()).hexdigest()[:12]
        self.version = f"{PROVENANCE}@{digest}"

    def latency_s(self, venue: str) -> float | None:
        """Smoothed received-to-filled latency, None before the first fill."""
        return self._latency_s.get(venue)

    def forecast(self, request: ForecastRequest) -> SlippageForecast:
        """Price units, positive = worse. Never raises; what was unknown is named in the provenance."""
        settings = self._settings
        scale, doubts = self._scale(request)
        return SlippageForecast(
            entry_mean=from_float(settings.entry_mean_share * scale),
            entry_upper=from_float(settings.entry_upper_share * scale),
            stop_mean=from_float(settings.stop_mean_share * scale),
            stop_upper=from_float(settings.stop_upper_share * scale),
            provenance=":".join((PROVENANCE, *doubts)),
            version=self.version,
        )

    def observe(self, measure: ExecutionMeasure) -> None:
        """Smooth the venue's latency; a measure without one teaches nothing here."""
        if measure.latency_ms is None:
            return
        seconds = float(measure.latency_ms) / 1000.0
        if not isfinite(seconds) or seconds < 0.0:
            return
        seconds = min(seconds, self._settings.latency_max_s)
        known = self._latency_s.get(measure.venue)
        new = seconds if known is None else known + self._settings.latency_weight * (seconds - known)
        self._latency_s[measure.venue] = new

    def _scale(self, request: ForecastRequest) -> tuple[float, list[str]]:
        settings, doubts = self._settings, []
        half_spread = _usable(float(request.context.spread)) / 2.0
        if request.pip_size is not None:
            floor = settings.floor_pips * float(request.pip_size)
        else:
            floor = settings.floor_ticks * float(request.tick_size)
        pace = request.context.volatility_per_root_second
        if pace is None or not pace.is_finite():
            return settings.unknown_pace_factor * half_spread + _usable(floor), ["volatility_unknown"]
        latency = request.latency_s if request.latency_s is not None else self.latency_s(request.venue)
        if latency is None or not isfinite(latency) or latency < 0.0:
            latency = settings.unknown_latency_s
            doubts.append("latency_unknown")
        moved = _usable(float(pace)) * sqrt(min(latency, settings.latency_max_s))
        return half_spread + moved + _usable(floor), doubts


def _usable(value: float) -> float:
    """0 for what is no positive finite number: a quote like that never passed hygiene."""
    return value if isfinite(value) and value > 0.0 else 0.0

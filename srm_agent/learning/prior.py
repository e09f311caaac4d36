"""What peers say about a provider before his own trades do: pooled mean, spread between providers, noise within.

Model (learning.md 2.4): provider i has expectancy theta_i ~ N(mu, tau^2); his decayed mean m_i ~ N(theta_i, v_i / n_i).
mu ~ N(0, mean_deviation^2), so the common mean itself is shrunk towards 0; tau^2 by marginal likelihood on a grid with
a log-normal hyper-prior around 0.008; within-variance pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorSettings:
    """Constants of learning.md 2.4; R units, variances R squared."""

    variance: float = 1.44
    """Variance of one trade's R where nobody has traded yet (sd 1.2, learning.md 2.2)."""
    pseudo_trades: float = 20.0
    """The pooled variance counts as this many trades of each provider."""
    mean_deviation: float = 0.1
    tau2_centre: float = 0.008
    tau2_log_deviation: float = 1.2
    tau2_grid: tuple[float, ...] = (0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.011, 0.016, 0.0225, 0.03, 0.045, 0.07)
    minimum_trades: float = 3.0
    """Providers with fewer (decayed) trades say nothing about the spread between providers."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One provider's trades: decayed number, mean R, and squared deviations around that mean."""

    trades: float
    mean: float
    squares: float


@dataclass(frozen=True, slots=True)
class PriorFit:
    """What a fit found. `weights` and `weighted_sum` allow to leave one provider out of his own prior in O(1)."""

    tau2: float
    variance: float
    mean_precision: float
    weight_sum: float = 0.0
    weighted_sum: float = 0.0
    parts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Provider -> (weight, weight x mean) as they entered the sums."""

    @property
    def platform_mean(self) -> float:
        """Pooled mean of all providers, shrunk towards 0."""
        return self.weighted_sum / (self.weight_sum + self.mean_precision)

    def peers(self, provider: str) -> tuple[float, float]:
        """Mean and variance of the prior for this provider from his peers alone."""
        weight, weighted = self.parts.get(provider, (0.0, 0.0))
        precision = max(self.weight_sum - weight, 0.0) + self.mean_precision
        return (self.weighted_sum - weighted) / precision, self.tau2 + 1.0 / precision


def empty_fit(settings: PriorSettings) -> PriorFit:
    """Before anybody has traded."""
    return PriorFit(settings.tau2_centre, settings.variance, 1.0 / settings.mean_deviation**2)


def within_variance(summary: Summary, pooled: float, settings: PriorSettings) -> float:
    """Variance of one trade's R, the provider's own pooled with `pseudo_trades` of everybody's."""
    return (summary.squares + settings.pseudo_trades * pooled) / (summary.trades + settings.pseudo_trades)


def fit_prior(summaries: Mapping[str, Summary], settings: PriorSettings) -> PriorFit:
    """Fit from every provider's summary, in the order given; equal input gives equal floats."""
    pooled = _pooled_variance(summaries, settings)
    noise = {
        provider: (summary.mean, within_variance(summary, pooled, settings) / summary.trades)
        for provider, summary in summaries.items()
        if summary.trades >= settings.minimum_trades
    }
    precision = 1.0 / settings.mean_deviation**2
    best = settings.tau2_centre
    if len(noise) >= 2:
        scores = [(_log_likelihood(tau2, noise, precision, settings), -tau2) for tau2 in settings.tau2_grid]
        best = -max(scores)[1]
    parts = {provider: (1.0 / (best + error), mean / (best + error)) for provider, (mean, error) in noise.items()}
    return PriorFit(
        best,
        pooled,
        precision,
        sum(weight for weight, _ in parts.values()),
        sum(weighted for _, weighted in parts.values()),
        parts,
    )


def _pooled_variance(summaries: Mapping[str, Summary], settings: PriorSettings) -> float:
    squares = settings.pseudo_trades * settings.variance
    degrees = settings.pseudo_trades
    for summary in summaries.values():
        if summary.trades > 1.0:
            squares += summary.squares
            degrees += summary.trades - 1.0
    return squares / degrees


def _log_likelihood(
    tau2: float, noise: Mapping[str, tuple[float, float]], mean_precision: float, settings: PriorSettings
) -> float:
    """Log marginal likelihood of tau^2, the common mean integrated out, plus its hyper-prior; constants dropped."""
    weight_sum = mean_precision
    weighted = quadratic = logs = 0.0
    for mean, error in noise.values():
        weight = 1.0 / (tau2 + error)
        weight_sum += weight
        weighted += weight * mean
        quadratic += weight * mean * mean
        logs -= log(weight)
    hyper = log(tau2 / settings.tau2_centre) / settings.tau2_log_deviation
    return -0.5 * (logs + log(weight_sum) + quadratic - weighted * weighted / weight_sum + hyper * hyper)

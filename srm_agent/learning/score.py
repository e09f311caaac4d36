"""A provider's score: the posterior of his expectancy in R per trade, net of copying costs (learning.md 2.4).

Each trade's R is winsorised and enters decayed sufficient statistics (calendar decay in market time), so a trade costs
O(1). Followers' copies of one signal are one trade, not many: their mean counts once. The posterior is closed form:
precision = 1 / prior variance + n / within-variance, with peers as the prior. Equal trades in equal order give equal
floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from math import erf, isfinite, sqrt

from srm_agent.domain.forecasts import ProviderScore
from srm_agent.domain.ids import ProviderKey, SignalId
from srm_agent.domain.policies import content
from srm_agent.domain.trades import ClosedTrade
from srm_agent.learning.prior import PriorFit, PriorSettings, Summary, empty_fit, fit_prior, within_variance

WEEK_S = 7 * 86400.0
NINETY_PERCENT = 1.6448536269514722
"""Normal quantile of 0.95: a two-sided 90 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSettings:
    """Constants of learning.md 2.4."""

    worst_r: float = -4.0
    best_r: float = 5.0
    half_life_weeks: float = 26.0
    refit_every: int = 20
    """Trades observed between two fits of the peers' prior."""
    sufficient_trades: float = 10.0
    remembered_signals: int = 500
    """Signals per provider whose late copies still join them."""
    prior: PriorSettings = field(default_factory=PriorSettings)


@dataclass(slots=True)
class _Signal:
    """The copies of one signal: their number, mean R, and the market close since which that mean fades."""

    closed: float
    copies: int
    mean: float


@dataclass(slots=True)
class _Statistics:
    """Decayed sums of one provider, all as of market second `at`."""

    at: float
    trades: int = 0
    weight: float = 0.0
    weight_squares: float = 0.0
    total: float = 0.0
    squares: float = 0.0
    signals: dict[SignalId, _Signal] = field(default_factory=dict)

    def decayed(self, factor: float) -> Summary:
        """The summary after a further decay by `factor`."""
        if self.weight <= 0.0:
            return Summary(0.0, 0.0, 0.0)
        mean = self.total / self.weight
        return Summary(self.weight * factor, mean, max(self.squares - self.weight * mean * mean, 0.0) * factor)

    @property
    def effective(self) -> float:
        """(sum w)^2 / sum w^2: how many equal trades the weights are worth, before fading away as a whole."""
        return self.weight * self.weight / self.weight_squares if self.weight_squares > 0.0 else 0.0


class PosteriorScorer:
    """Implements `ports.Scorer`. `tau2` and `refits` are there to be looked at."""

    def __init__(self, settings: ScoreSettings | None = None) -> None:
        self._settings = settings or ScoreSettings()
        self._fit: PriorFit = empty_fit(self._settings.prior)
        self._statistics: dict[str, _Statistics] = {}
        self._now = float("-inf")
        """Latest market close seen, POSIX seconds: the present of all decay."""
        self._observed = 0
        digest = sha256(repr(content(self._settings)).encode()).hexdigest()[:12]
        self.version = f"posterior@{digest}"

    @property
    def tau2(self) -> float:
        """Variance of expectancy between providers, as last fitted."""
        return self._fit.tau2

    @property
    def refits(self) -> int:
        """How often the prior was fitted."""
        return self._observed // self._settings.refit_every

    def score(self, provider: ProviderKey) -> ProviderScore:
        """The posterior in force; a provider never seen has his peers' prior."""
        key = str(provider)
        statistics = self._statistics.get(key)
        summary = Summary(0.0, 0.0, 0.0)
        if statistics is not None:
            summary = statistics.decayed(self._decay(self._now - statistics.at))
        prior_mean, prior_variance = self._fit.peers(key)
        prior_precision = 1.0 / prior_variance
        own_precision = summary.trades / within_variance(summary, self._fit.variance, self._settings.prior)
        precision = prior_precision + own_precision
        mean = (prior_precision * prior_mean + own_precision * summary.mean) / precision
        deviation = 1.0 / sqrt(precision)
        # A provider who stopped trading fades with the plain sum of his weights, whatever their ratio says.
        effective = 0.0 if statistics is None else min(statistics.effective, summary.trades)
        return ProviderScore(
            provider=provider,
            mean=mean,
            deviation=deviation,
            platform_mean=self._fit.platform_mean,
            shown=_shown(mean / deviation),
            interval=(_shown(mean / deviation - NINETY_PERCENT), _shown(mean / deviation + NINETY_PERCENT)),
            trades=0 if statistics is None else statistics.trades,
            effective_trades=effective,
            prior_weight=prior_precision / precision,
            sufficient=effective >= self._settings.sufficient_trades,
            version=self.version,
        )

    def observe(self, trade: ClosedTrade) -> ProviderScore:
        """Learn from one closed trade; the provider's new score."""
        closed = _seconds(trade.closed_at)
        key = str(trade.provider)
        value = min(max(float(trade.r_multiple), self._settings.worst_r), self._settings.best_r)
        if isfinite(value):
            statistics = self._statistics.get(key)
            if statistics is None:
                statistics = self._statistics[key] = _Statistics(closed)
            self._now = max(self._now, closed)
            self._add(statistics, trade, value, closed)
            self._observed += 1
            if self._observed % self._settings.refit_every == 0:
                self._refit()
        return self.score(trade.provider)

    def _add(self, statistics: _Statistics, trade: ClosedTrade, value: float, closed: float) -> None:
        if closed > statistics.at:
            _fade(statistics, self._decay(closed - statistics.at))
            statistics.at = closed
        signal = statistics.signals.get(trade.signal_id)
        if signal is not None:
            mean = signal.mean + (value - signal.mean) / (signal.copies + 1)
            weight = self._decay(statistics.at - signal.closed)
            statistics.total += weight * (mean - signal.mean)
            statistics.squares += weight * (mean * mean - signal.mean * signal.mean)
            signal.copies += 1
            signal.mean = mean
            return
        # A trade that closed before the latest one seen (its report was late) comes already faded.
        weight = self._decay(statistics.at - closed)
        statistics.trades += 1
        statistics.weight += weight
        statistics.weight_squares += weight * weight
        statistics.total += weight * value
        statistics.squares += weight * value * value
        statistics.signals[trade.signal_id] = _Signal(closed, 1, value)
        if len(statistics.signals) > self._settings.remembered_signals:
            del statistics.signals[next(iter(statistics.signals))]

    def _refit(self) -> None:
        summaries = {
            key: self._statistics[key].decayed(self._decay(self._now - self._statistics[key].at))
            for key in sorted(self._statistics)
        }
        self._fit = fit_prior(summaries, self._settings.prior)

    def _decay(self, seconds: float) -> float:
        return float(0.5 ** (max(seconds, 0.0) / (self._settings.half_life_weeks * WEEK_S)))


def _fade(statistics: _Statistics, factor: float) -> None:
    statistics.weight *= factor
    statistics.weight_squares *= factor * factor
    statistics.total *= factor
    statistics.squares *= factor


def _seconds(moment: datetime) -> float:
    return moment.timestamp()


def _shown(standardised: float) -> Decimal:
    """100 x Phi, two decimals, within 0.01-99.99: certainty does not exist."""
    share = 50.0 * (1.0 + erf(standardised / sqrt(2.0)))
    return Decimal(repr(round(min(max(share, 0.01), 99.99), 2)))

"""A score in people's words."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from srm_agent.domain.forecasts import ProviderScore
from srm_agent.learning.texts import Language, texts


def explain_score(score: ProviderScore, language: Language = Language.EN) -> str:
    """One sentence: the score shown, its interval, how many trades, and how much of it is the peers' prior."""
    words = texts(language)
    template = words["none"] if score.trades == 0 else words["enough"] if score.sufficient else words["few"]
    low, high = score.interval
    return template.format(
        shown=_whole(score.shown),
        low=_whole(low),
        high=_whole(high),
        trades=score.trades,
        weight=_whole(Decimal(repr(score.prior_weight * 100))),
    )


def _whole(value: Decimal) -> str:
    return str(value.quantize(Decimal(1), ROUND_HALF_EVEN))

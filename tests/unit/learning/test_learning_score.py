"""The posterior score and its peers' prior."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from srm_agent.domain.ids import ConnectionId, LegId, ProviderKey, ProviderKind, Symbol, signal_id
from srm_agent.domain.trades import ClosedTrade, CloseReason
from srm_agent.domain.units import Side
from srm_agent.learning.prior import PriorSettings, Summary, empty_fit, fit_prior
from srm_agent.learning.score import PosteriorScorer, ScoreSettings
from srm_agent.learning.texts import Language
from srm_agent.learning.words import explain_score
from srm_agent.ports import Scorer

START = datetime(2026, 1, 5, tzinfo=UTC)


def a_provider(name: str) -> ProviderKey:
    """A channel."""
    return ProviderKey(ProviderKind.CHANNEL_SOURCE, name)


def a_trade(provider: str, r: float, hours: float, *, connection: str = "c1", held_h: float = 0.5) -> ClosedTrade:
    """A trade closed `hours` after START with that R."""
    closed = START + timedelta(hours=hours)
    return ClosedTrade(
        leg_id=LegId(f"{provider}-{hours}-{connection}"),
        connection_id=ConnectionId(connection),
        signal_id=signal_id(a_provider(provider), str(hours)),
        provider=a_provider(provider),
        symbol=Symbol("EURUSD"),
        side=Side.BUY,
        lot=Decimal("0.1"),
        entry_price=Decimal("1.1"),
        exit_price=Decimal("1.1"),
        net_pnl=Decimal(repr(r)) * 10,
        r_multiple=Decimal(repr(r)),
        planned_risk=Decimal(10),
        reward_to_risk=None,
        stop_kept=True,
        stop_slippage=None,
        close_reason=CloseReason.PROVIDER,
        opened_at=closed - timedelta(hours=held_h),
        closed_at=closed,
    )


def platform(expectancies: list[float], trades: int, seed: int = 1) -> list[ClosedTrade]:
    """Providers p0, p1, ... of known expectancy, trading in turns, R with deviation 1.2."""
    rng = random.Random(seed)
    return [
        a_trade(f"p{number}", round(mean + rng.gauss(0.0, 1.2), 6), hours=turn + number / 100)
        for turn in range(trades)
        for number, mean in enumerate(expectancies)
    ]


def trained(trades: list[ClosedTrade], settings: ScoreSettings | None = None) -> PosteriorScorer:
    """A scorer that has seen these trades."""
    scorer = PosteriorScorer(settings)
    for trade in trades:
        scorer.observe(trade)
    return scorer


def test_a_provider_never_seen_has_the_prior() -> None:
    """Without any trade the score is 50 with the widest interval, all of it prior, and not sufficient."""
    scorer: Scorer = PosteriorScorer()
    score = scorer.score(a_provider("new"))
    assert (score.mean, score.shown, score.trades, score.prior_weight) == (0.0, Decimal("50.0"), 0, 1.0)
    assert score.deviation == pytest.approx(math.sqrt(0.008 + 0.01))
    assert score.interval == (Decimal("5.0"), Decimal("95.0"))
    assert not score.sufficient


def test_the_posterior_by_hand() -> None:
    """Three trades of R 1, 0, 2 against the empty platform's prior, computed with pencil and paper."""
    scorer = trained([a_trade("a", r, hours) for r, hours in ((1.0, 0.0), (0.0, 1.0), (2.0, 2.0))])
    score = scorer.score(a_provider("a"))
    variance = (2.0 + 20 * 1.44) / 23  # squares around the mean 1, pooled with 20 pseudo-trades
    prior, own = 1 / 0.018, 3 / variance
    assert score.mean == pytest.approx(own * 1.0 / (prior + own), rel=1e-3)
    assert score.deviation == pytest.approx(1 / math.sqrt(prior + own), rel=1e-3)
    assert score.prior_weight == pytest.approx(prior / (prior + own), rel=1e-3)
    expected = 50 * (1 + math.erf(score.mean / score.deviation / math.sqrt(2)))
    assert float(score.shown) == pytest.approx(expected, abs=0.005)


def test_replaying_the_same_trades_gives_the_identical_score() -> None:
    """Two scorers fed the same trades agree to the last bit, through several refits."""
    trades = platform([-0.2, 0.0, 0.1, 0.3], 50)
    first, second = trained(trades), trained(trades)
    assert first.refits == 10
    for number in range(4):
        assert first.score(a_provider(f"p{number}")) == second.score(a_provider(f"p{number}"))


def test_scores_order_providers_by_their_true_skill() -> None:
    """With 400 trades each, the order of the scores is the order of the true expectancies."""
    skills = [-0.3, -0.1, 0.1, 0.3]
    scorer = trained(platform(skills, 400))
    scores = [scorer.score(a_provider(f"p{number}")) for number in range(4)]
    assert sorted(scores, key=lambda score: score.mean) == scores
    assert all(score.sufficient for score in scores)
    for score, skill in zip(scores, skills, strict=True):
        assert abs(score.mean - skill) < 3 * score.deviation


def test_few_trades_are_shrunk_towards_the_peers() -> None:
    """Two lucky trades do not beat a long record: most of the weight is what the peers do."""
    scorer = trained(platform([-0.1, -0.1, -0.1, -0.1], 100))
    for hours in (200.0, 201.0):
        scorer.observe(a_trade("lucky", 4.0, hours))
    lucky = scorer.score(a_provider("lucky"))
    assert lucky.prior_weight > 0.9
    assert lucky.mean < 0.35
    assert not lucky.sufficient


def test_peers_leave_the_provider_himself_out() -> None:
    """A provider's prior is his peers' pooled mean: his own record does not vouch for itself."""
    settings = PriorSettings()
    summaries = {name: Summary(50.0, mean, 70.0) for name, mean in (("a", 1.0), ("b", -0.1), ("c", -0.1))}
    fit = fit_prior(summaries, settings)
    assert fit.peers("a")[0] < 0.0 < fit.peers("b")[0]
    assert fit.peers("a")[0] < fit.platform_mean
    assert fit.peers("stranger")[0] == pytest.approx(fit.platform_mean)


def test_the_spread_between_providers_is_found() -> None:
    """Equal providers leave tau^2 at its centre or below, unequal ones raise it; without peers it is the centre."""
    settings = PriorSettings()
    assert empty_fit(settings).tau2 == fit_prior({}, settings).tau2 == 0.008
    same = trained(platform([0.0] * 8, 200))
    apart = trained(platform([-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.5, 0.6], 200))
    assert same.tau2 <= 0.008
    assert apart.tau2 >= 0.045


def test_extreme_results_are_winsorised() -> None:
    """A loss of 50 R counts as 4, a win of 50 R as 5, because one accident is not a habit."""
    assert trained([a_trade("a", -50.0, 1.0)]).score(a_provider("a")) == trained([a_trade("a", -4.0, 1.0)]).score(
        a_provider("a")
    )
    assert trained([a_trade("a", 50.0, 1.0)]).score(a_provider("a")) == trained([a_trade("a", 5.0, 1.0)]).score(
        a_provider("a")
    )


def test_copies_of_one_signal_are_one_trade() -> None:
    """Ten followers of one signal prove no more than one: the mean of their results counts once."""
    copies = [a_trade("a", r, 1.0, connection=f"c{i}") for i, r in enumerate((1.0, 2.0, 3.0))]
    many = trained(copies).score(a_provider("a"))
    one = trained([a_trade("a", 2.0, 1.0)]).score(a_provider("a"))
    assert many.trades == one.trades == 1
    assert many.mean == pytest.approx(one.mean)
    assert many.deviation == pytest.approx(one.deviation)


def test_the_next_signal_in_the_same_symbol_is_a_trade_of_its_own() -> None:
    """Another signal id is another trade, however soon it comes."""
    scorer = trained([a_trade("a", 1.0, 1.0), a_trade("a", 1.0, 1.2)])
    assert scorer.score(a_provider("a")).trades == 2


def test_evidence_fades_with_market_time() -> None:
    """After 26 silent weeks (others trade on) a provider's trades weigh half, and the peers' share grows."""
    trades = [a_trade("a", 1.0, float(hours)) for hours in range(30)]
    scorer = trained(trades, ScoreSettings(refit_every=10_000))
    before = scorer.score(a_provider("a"))
    scorer.observe(a_trade("b", 0.0, 29.0 + 26 * 7 * 24))
    after = scorer.score(a_provider("a"))
    assert after.effective_trades == pytest.approx(before.effective_trades / 2, rel=0.01)
    assert after.prior_weight > before.prior_weight
    assert 0.0 < after.mean < before.mean


def test_a_late_report_counts_as_if_it_had_come_in_time() -> None:
    """The order in which two closes are reported changes nothing but rounding (before a refit)."""
    first, second = a_trade("a", 1.0, 1.0), a_trade("a", -0.5, 2000.0)
    in_time = trained([first, second]).score(a_provider("a"))
    late = trained([second, first]).score(a_provider("a"))
    assert late.mean == pytest.approx(in_time.mean, rel=1e-12)
    assert late.effective_trades == pytest.approx(in_time.effective_trades, rel=1e-12)


def test_between_refits_the_prior_stands_still() -> None:
    """Other providers' trades do not move a score until the twentieth trade, when the prior is fitted anew."""
    scorer = trained([a_trade("a", 0.5, 1.0)])
    platform_mean = scorer.score(a_provider("a")).platform_mean
    for number in range(18):
        scorer.observe(a_trade("b", -1.0, 2.0 + number))
    assert scorer.refits == 0
    assert scorer.score(a_provider("a")).platform_mean == platform_mean == 0.0
    scorer.observe(a_trade("b", -1.0, 30.0))
    assert scorer.refits == 1
    assert scorer.score(a_provider("a")).platform_mean < 0.0


def test_a_result_that_is_no_number_teaches_nothing() -> None:
    """A trade whose R is NaN leaves the score as it was."""
    scorer = trained([a_trade("a", 1.0, 1.0)])
    before = scorer.score(a_provider("a"))
    assert scorer.observe(replace(a_trade("a", 1.0, 2.0), r_multiple=Decimal("NaN"))) == before


@pytest.mark.parametrize(
    ("language", "new", "few", "enough"),
    [
        (Language.EN, "No copied trade", "too few to judge", "after 30 trades; "),
        (Language.ID, "Belum ada transaksi", "terlalu sedikit", "setelah 30 transaksi; "),
    ],
)
def test_a_score_in_words(language: Language, new: str, few: str, enough: str) -> None:
    """The sentence says how many trades there are and how much of the weight is what the peers do."""
    assert new in explain_score(PosteriorScorer().score(a_provider("a")), language)
    scorer = trained([a_trade("a", 1.0, float(hours)) for hours in range(12)])
    scarce = replace(scorer.score(a_provider("a")), sufficient=False)
    assert few in explain_score(scarce, language)
    share = f"{round(scarce.prior_weight * 100)} %"
    assert share in explain_score(scarce, language)
    many = trained([a_trade("a", 1.0, float(hours)) for hours in range(30)])
    assert enough in explain_score(many.score(a_provider("a")), language)

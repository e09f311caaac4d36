"""Providers and the story: what they say, how good they are, and who stands in the way of the gap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from random import Random
from statistics import fmean

import pytest

from simulator.calendar import to_ms
from simulator.prices import DRIFT_STRENGTH
from simulator.provider_styles import LossHolder
from simulator.providers import GO_FLAT, STOP_OPENING, STYLES, Action, Message, Provider, Run, Seat
from simulator.records import ExecType, OrderTicket
from simulator.scenario import Scenario
from simulator.story import Story
from simulator.terms import SimAccount
from simulator.venue import Venue
from srm_agent.domain.units import Side, floor_to_step

RUN_MS = 10_800_000
StoryMaker = Callable[..., Story]


def play(story: Story, length_ms: int = RUN_MS) -> list[Message]:
    """Begin the run and go to its end."""
    story.begin(length_ms, ends=True)
    return story.step(story.market.at_ms + length_ms)


def test_the_same_seed_tells_the_same_story_however_it_is_stepped(a_story: StoryMaker) -> None:
    """One long step and a thousand ragged ones give the same messages and events."""
    whole, ragged = a_story(6), a_story(6)
    said = play(whole)
    ragged.begin(RUN_MS, ends=True)
    start, rng, pieces = ragged.market.at_ms, Random(1), []
    at_ms = start
    while at_ms < start + RUN_MS:
        at_ms = min(start + RUN_MS, at_ms + rng.choice((7, 350, 999, 6_000, 44_321)))
        pieces += ragged.step(at_ms)
    assert pieces == said
    assert ragged.events == whole.events


def test_another_seed_tells_another_story(a_story: StoryMaker) -> None:
    """Messages, skills and gaps differ between seeds."""
    stories = [a_story(seed) for seed in range(6)]
    first = [play(story, 1_800_000)[0] for story in stories]
    assert len({(message.at_ms, message.symbol_id, message.entry) for message in first}) == 6
    assert len({story.gap.size for story in stories if story.gap}) == 6
    assert len({story.gap.symbol_id for story in stories if story.gap}) > 1


@pytest.mark.parametrize("length_ms", [3_600_000, RUN_MS])
def test_a_run_is_lively_and_ends_quietly(a_story: StoryMaker, length_ms: int) -> None:
    """60 to 130 openings, most of them closed within the run, and silence before its end."""
    story = a_story(2)
    said = play(story, length_ms)
    run = story.run
    assert run is not None
    counts = Counter(message.action for message in said)
    assert 60 <= counts[Action.OPEN] <= 130
    opened = {message.signal_id for message in said if message.action is Action.OPEN}
    closed = {message.signal_id for message in said if message.action is Action.CLOSE and message.fraction == 1}
    assert len(closed) > 0.9 * len(opened)
    assert max(message.at_ms for message in said) < run.at(0.97)
    assert max(message.at_ms for message in said if message.action is Action.OPEN) < run.at(STOP_OPENING)
    assert STOP_OPENING < GO_FLAT
    assert len({message.provider_id for message in said}) == 6


def test_messages_make_sense(a_story: StoryMaker, demo: Scenario) -> None:
    """Prices are on the grid and on the right side, nothing is said of a signal before its opening or after its end."""
    ticks = {spec.symbol_id: spec.tick_size for spec in demo.specs()}
    state: dict[str, str] = {}
    for seed in range(3):
        state.clear()
        for message in play(a_story(seed)):
            if message.action is Action.OPEN:
                assert message.signal_id not in state
                state[message.signal_id] = "open"
                assert message.entry is not None
                assert message.take_profit is not None
                assert message.side * (message.take_profit - message.entry) > 0
                assert message.stop_loss is None or message.side * (message.entry - message.stop_loss) > 0
                assert message.entry % ticks[message.symbol_id] == 0
            elif message.action is not Action.CANCEL:
                assert state[message.signal_id] == "open"
            if message.action is Action.CLOSE:
                assert message.fraction is not None
                assert 0 < message.fraction <= 1
                if message.fraction == 1:
                    state[message.signal_id] = "closed"


def test_providers_make_the_mistakes_of_real_ones(a_story: StoryMaker) -> None:
    """Over a few runs some entries lack a stop, some are stamped late, some are cancelled, halved or trailed."""
    said = [message for seed in range(6) for message in play(a_story(seed, step_ms=5_000))]
    opens = [message for message in said if message.action is Action.OPEN]
    bare = [message for message in opens if message.stop_loss is None]
    stale = [message for message in opens if message.stale_s > 30]
    assert 0 < len(bare) < 0.1 * len(opens)
    assert 0 < len(stale) < 0.1 * len(opens)
    assert {message.action for message in said} == set(Action)
    assert any(message.fraction == Decimal("0.5") for message in said)


def mean_r(story: Story, accuracy: float, style: str) -> list[float]:
    """Results of a provider of this accuracy in the story's market, which must not have begun."""
    run = Run(begin_ms=story.market.at_ms, length_ms=RUN_MS, ends=True)
    seat = Seat(
        provider_id="p",
        style=style,
        accuracy=accuracy,
        paths=story.market.paths,
        symbols=("BTCUSDT", "EURUSDT", "GBPUSDT", "XAUUSDT"),
        run=run,
        rng=Random(story.seed),
    )
    provider = Provider(seat)
    for _ in range(RUN_MS // story.market.step_ms):
        story.market.advance()
        provider.act(story.market.at_ms)
    return provider.book.results


def test_skill_pays_in_the_long_run_and_its_lack_does_not(a_story: StoryMaker) -> None:
    """Without costs an accurate provider earns, an inaccurate one loses, over hundreds of trades of one style."""
    good = [r for seed in range(15) for r in mean_r(a_story(seed, step_ms=10_000), 0.8, "intraday")]
    bad = [r for seed in range(15) for r in mean_r(a_story(seed, step_ms=10_000), -0.8, "intraday")]
    assert len(good) > 150
    assert fmean(good) > 0.1 > -0.1 > fmean(bad)
    assert DRIFT_STRENGTH < 0.05


def test_the_book_counts_partial_closes_and_stops(a_story: StoryMaker) -> None:
    """A finished run's expectancy is the mean of its closed ideas, and openings are closed ideas plus open ones."""
    story = a_story(3)
    play(story)
    for provider in story.providers:
        assert provider.book.opened == len(provider.book.results) + len(provider.ideas)
        assert provider.book.expectancy_r == pytest.approx(fmean(provider.book.results))
        assert -0.92 <= provider.accuracy <= 0.92
        assert abs(provider.accuracy - STYLES[provider.style].accuracy) < 0.5


@pytest.mark.parametrize("seed", range(20))
def test_the_loss_holder_stands_against_the_gap(a_story: StoryMaker, seed: int) -> None:
    """Whatever the seed: at the gap he and whoever copies one leg of him hold the symbol the wrong way for a while."""
    story = a_story(seed)
    story.step(story.market.at_ms + 900_000)
    story.begin(RUN_MS, ends=True)
    gap = story.gap
    assert gap is not None
    said = story.step(gap.at_ms - 1_000)
    victim = next(provider for provider in story.providers if isinstance(provider, LossHolder))
    held = [idea for idea in victim.ideas if idea.symbol_id == gap.symbol_id]
    assert held
    assert all(idea.side == -gap.direction for idea in held)
    leg: Message | None = None
    for message in said:
        if message.symbol_id == gap.symbol_id:
            assert message.provider_id == victim.provider_id, "nobody else may occupy the symbol"
            if message.action is Action.OPEN and leg is None:
                leg = message
            elif message.action is Action.CLOSE and leg and message.signal_id == leg.signal_id:
                leg = None
    assert leg is not None
    assert leg.stop_loss is not None
    five_seconds_of_the_demo = 600_000 * 0.9
    assert gap.at_ms - leg.at_ms >= five_seconds_of_the_demo
    price = story.market.paths[gap.symbol_id].mid
    beyond = price * (1 + gap.size)
    assert leg.side * (float(leg.stop_loss) - beyond) > 2 * abs(price - float(leg.stop_loss))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_stop_at_the_venue_fills_far_beyond_itself_at_the_gap(a_story: StoryMaker, demo: Scenario, seed: int) -> None:
    """A copier of the loss holder on the real venue core loses several times his planned risk in one fill."""
    story = a_story(seed)
    account = SimAccount(account_id="c07", api_key="k", secret="s", balance=Decimal(3000), leverage=Decimal(100))
    venue = Venue(demo.terms(), [account], Random(seed))
    story.begin(RUN_MS, ends=True)
    gap = story.gap
    assert gap is not None
    planned, copied = None, ""
    while story.market.at_ms < gap.at_ms + 10_000:
        messages = story.step(story.market.at_ms + 6_000)
        touch = story.market.touch(gap.symbol_id, story.market.at_ms)
        venue.set_book(gap.symbol_id, touch.bid, touch.ask, story.market.at_ms, touch.depth)
        for message in [message for message in messages if message.symbol_id == gap.symbol_id]:
            view = venue.positions("c07", gap.symbol_id)[0]
            if message.action is Action.OPEN and view.side is None and message.stop_loss and message.entry:
                distance = abs(message.entry - message.stop_loss)
                lots = floor_to_step(Decimal(90) / distance, venue.instruments[gap.symbol_id].lot_step)
                planned, copied = distance * lots, message.signal_id
                ticket = OrderTicket(
                    symbol_id=gap.symbol_id, side=Side(message.side), lots=lots, stop_loss=message.stop_loss
                )
                venue.place("c07", ticket)
            elif message.action is Action.CLOSE and view.side and message.signal_id == copied:
                ticket = OrderTicket(symbol_id=gap.symbol_id, side=view.side.opposite, lots=view.lots, reduce_only=True)
                venue.place("c07", ticket)
    assert planned is not None
    stop_fills = [item for item in venue.executions("c07", since_ms=gap.at_ms) if item.closed]
    assert stop_fills
    assert all(item.exec_type is ExecType.TRADE for item in stop_fills)
    assert -sum(item.realised for item in stop_fills) > 3 * planned


def test_scheduled_news_and_the_gap_are_written_down_before_they_happen(a_story: StoryMaker, demo: Scenario) -> None:
    """The events begin with what is declared; the gap and the news follow as they happen, at their time."""
    story = a_story(4)
    story.declare(4 * RUN_MS)
    declared = {event.kind for event in story.events}
    assert {"gap_declared", "news_declared"} <= declared
    assert not declared & {"gap_scheduled", "gap"}
    play(story, RUN_MS)
    gap = next(event for event in story.events if event.kind == "gap")
    assert story.gap is not None
    assert gap.at_ms == story.gap.at_ms
    assert gap.symbol_id == story.gap.symbol_id
    assert gap.size == pytest.approx(story.gap.size)
    assert 0.5 <= (gap.at_ms - to_ms(demo.start)) / RUN_MS <= 0.651
    assert 0.065 <= abs(gap.size) <= 0.09
    assert [event for event in story.events if event.kind == "news"]


def test_a_run_begins_once(a_story: StoryMaker) -> None:
    """A second beginning is a mistake and is refused."""
    story = a_story(1)
    story.begin(RUN_MS, ends=True)
    with pytest.raises(ValueError, match="begun already"):
        story.begin(RUN_MS, ends=True)

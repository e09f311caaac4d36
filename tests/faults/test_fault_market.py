"""Markets that are shut, prices that lie, contracts that change: B12, B13, B23, B24, B25, B29, B30."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.feed_mischief import BadQuote
from simulator.simulation.scene import C01, C02, LOOK_S, Scene, act
from simulator.terms import SymbolState
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.orders import OrderState
from tests.faults.conftest import Measured
from tests.faults.helpers import (
    BTC,
    desk,
    entry_calls,
    entry_ticket,
    exit_calls,
    halted,
    leg,
    leg_lots,
    market,
    state,
    stop,
    told,
)


async def refused(scene: Scene, name: str, reason: str, **how: str) -> None:
    """An opening signal that c01 refuses for that reason, sending nothing."""
    calls = len(entry_calls(scene))
    before = len(scene.reasons())
    status, answer = await scene.open(name, **how)  # type: ignore[arg-type]
    assert status == 202, answer
    await scene.until(lambda: len(scene.reasons()) > before, 3)
    assert scene.reasons()[-1] == reason
    assert len(entry_calls(scene)) == calls


# ---- B12, B13


@pytest.mark.fault("B12", bound_s=5)
@pytest.mark.parametrize("shut", [SymbolState.CLOSED, SymbolState.DISABLED])
def test_a_close_waits_for_the_open_and_goes_out_then(measured: Measured, shut: SymbolState) -> None:
    """The close is refused while the market is shut, people are told, and within 5 s of the open it is done."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(3)
        scene.venue.set_state("BTCUSDT", shut)
        await scene.send("close", "s1")
        await asyncio.sleep(60)
        assert scene.lots() > 0
        assert told(scene, "close waits until the market opens")[0] == "warning"
        scene.venue.set_state("BTCUSDT", SymbolState.TRADING)
        opens = scene.now
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        return scene.now - opens

    measured(act(play, peace_s=10))


@pytest.mark.fault("B12", bound_s=5)
def test_an_emergency_close_waits_for_the_open_as_well(measured: Measured) -> None:
    """FLATTENING stands through the closed session, people are told, and within 5 s of the open it is flat."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(3)
        scene.venue.set_state("BTCUSDT", SymbolState.CLOSED)
        scene.agent.flow.accounts[C01].flatten("the operator wants out", "olga")
        await asyncio.sleep(40)
        assert scene.lots() > 0
        assert told(scene, "emergency close is stuck")[0] == "page"
        scene.venue.set_state("BTCUSDT", SymbolState.TRADING)
        opens = scene.now
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        return scene.now - opens

    measured(act(play, peace_s=10))


@pytest.mark.fault("B12")
@pytest.mark.parametrize("shut", [SymbolState.CLOSED, SymbolState.DISABLED])
def test_entries_are_refused_while_the_market_is_shut(shut: SymbolState) -> None:
    """The first learns it from the broker and is not repeated; the others are refused without an order, until the
    market is seen open again."""

    async def play(scene: Scene) -> None:
        scene.venue.set_state("BTCUSDT", shut)
        await scene.open("s1")
        await scene.until(lambda: bool(entry_calls(scene)) and entry_ticket(scene).state.settled, 3)
        assert entry_ticket(scene).code == "MARKET_CLOSED"
        await refused(scene, "s2", "INSTRUMENT_NOT_TRADABLE", take_profit="61000")
        await asyncio.sleep(65)
        await refused(scene, "s3", "INSTRUMENT_NOT_TRADABLE", take_profit="61500")
        scene.venue.set_state("BTCUSDT", SymbolState.TRADING)
        await scene.until(lambda: market(scene).instruments[BTC].tradable, 61)
        await scene.open("s4", take_profit="62000")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, peace_s=5)


@pytest.mark.fault("B12")
def test_a_market_that_is_shut_at_the_start_opens_without_a_restart() -> None:
    """Its terms are read again every minute: entries are refused at first and taken after the open."""

    async def play(scene: Scene) -> None:
        scene.venue.set_state("BTCUSDT", SymbolState.CLOSED)
        await scene.begin()
        await refused(scene, "s1", "INSTRUMENT_NOT_TRADABLE")
        scene.venue.set_state("BTCUSDT", SymbolState.TRADING)
        await scene.until(lambda: market(scene).instruments[BTC].tradable, 61)
        await scene.open("s2", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, begun=False, peace_s=5)


@pytest.mark.fault("B13")
@pytest.mark.parametrize(
    ("only", "wrong", "right", "code"),
    [
        (SymbolState.CLOSE_ONLY, "buy", None, "REDUCE_ONLY"),
        (SymbolState.LONG_ONLY, "sell", "buy", "NOT_PERMITTED"),
        (SymbolState.SHORT_ONLY, "buy", "sell", "NOT_PERMITTED"),
    ],
)
def test_a_refused_side_is_remembered_for_a_minute(only: SymbolState, wrong: str, right: str | None, code: str) -> None:
    """One order learns it; for 60 s entries of that side are refused without an order; the other side is free."""

    async def play(scene: Scene) -> None:
        scene.venue.set_state("BTCUSDT", only)
        await scene.open("s1", side=wrong)
        await scene.until(lambda: bool(entry_calls(scene)) and entry_ticket(scene).state.settled, 3)
        learnt = scene.now
        assert entry_ticket(scene).code == code
        await refused(scene, "s2", "INSTRUMENT_NOT_TRADABLE", side=wrong)
        if right is not None:
            await scene.open("s3", side=right)
            await scene.until(lambda: scene.lots() != 0, 5)
            await scene.send("close", "s3")
            await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)
        await asyncio.sleep(learnt + 55 - scene.now)
        await refused(scene, "s4", "INSTRUMENT_NOT_TRADABLE", side=wrong)
        scene.venue.set_state("BTCUSDT", SymbolState.TRADING)
        await asyncio.sleep(learnt + 61 - scene.now)
        await scene.until(lambda: market(scene).instruments[BTC].tradable, 61)
        await scene.open("s5", side=wrong)
        await scene.until(lambda: scene.lots() != 0, 5)

    act(play, peace_s=5)


@pytest.mark.fault("B13")
def test_what_is_open_can_be_closed_while_only_closing_is_allowed() -> None:
    """Close-only concerns entries: the provider's close goes out at once."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        scene.venue.set_state("BTCUSDT", SymbolState.CLOSE_ONLY)
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and leg(scene) is None, 5)

    act(play, peace_s=5)


# ---- B23


@pytest.mark.fault("B23", bound_s=5)
@pytest.mark.parametrize("how", ["silent", "frozen"])
def test_a_symbol_without_fresh_quotes_is_stale(measured: Measured, how: str) -> None:
    """No frames, or frames whose stamp stands still: no entries on it after 5 s, and again when quotes come back."""

    async def play(scene: Scene) -> float:
        mischief = scene.world.feed.mischief
        if how == "silent":
            mischief.mute(25)
        else:
            mischief.freeze(BTC, 25)
        began = scene.now
        await scene.until(lambda: market(scene).fresh_quote(BTC) is None, 11)
        last = market(scene).quote(BTC)
        assert last is not None
        # From the last quote that was fresh, to the twentieth of a second in which the scene looks.
        seconds = scene.now - last.received - LOOK_S
        await refused(scene, "s1", "QUOTE_MISSING")
        await asyncio.sleep(began + 30 - scene.now)
        await scene.open("s2", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)
        return seconds

    measured(act(play, peace_s=5))


@pytest.mark.fault("B23", bound_s=5)
def test_a_silent_feed_under_an_open_position_is_read_around(measured: Measured) -> None:
    """While something held has no quotes its equity is no longer ours to compute: what the broker says is read anew, or
    the account is REDUCING; nothing is closed for it."""

    async def play(scene: Scene) -> float:
        await scene.opened()
        await asyncio.sleep(5)
        scene.world.feed.mischief.mute(40)
        account = scene.agent.flow.accounts[C01]
        began, worst = scene.now, 0.0
        while scene.now - began < 40:
            equity = account.equity()
            if state(scene) == "ACTIVE":
                assert equity is not None
                assert equity.complete
                worst = max(worst, equity.age_s)
            await asyncio.sleep(0.1)
        assert scene.lots() > 0
        assert exit_calls(scene) == []
        return worst

    measured(act(play, peace_s=10))


# ---- B24, B25


WORDS = {
    BadQuote.CROSSED: "crossed",
    BadQuote.LOCKED: "locked",
    BadQuote.ZERO: "not_positive",
    BadQuote.NEGATIVE: "not_positive",
    BadQuote.NAN: "not_finite",
    BadQuote.INFINITE: "not_finite",
    BadQuote.HUGE: "absurd",
    BadQuote.SWAPPED: "crossed",
    BadQuote.SHIFTED: "absurd",
}


@pytest.mark.fault("B24")
@pytest.mark.parametrize("how", list(WORDS))
def test_a_nonsensical_quote_is_dropped_and_counted(how: BadQuote) -> None:
    """Three of them: counted by reason, neither price nor ATR nor equity has moved, nothing is traded on them."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        await asyncio.sleep(5)
        watch, account = market(scene), scene.agent.flow.accounts[C01]
        quote, context, equity = watch.quote(BTC), watch.context(BTC), account.equity()
        assert quote is not None
        assert context is not None
        assert equity is not None
        scene.world.feed.mischief.spoil(how, BTC, 3)
        reason = WORDS[how]
        await scene.until(lambda: watch.dropped()[reason] == 3, 5)
        after, later, worth = watch.quote(BTC), watch.context(BTC), account.equity()
        assert after is not None
        assert later is not None
        assert worth is not None
        assert (after.bid, after.ask) == (quote.bid, quote.ask)
        assert later.atr == context.atr
        assert worth.value == equity.value
        assert state(scene) == "ACTIVE"
        assert exit_calls(scene) == []

    act(play, peace_s=5)


@pytest.mark.fault("B24")
def test_too_many_nonsensical_quotes_make_the_symbol_stale() -> None:
    """The sixth in a row: no entries on that symbol, the others are free; one good quote and it is believed again."""

    async def play(scene: Scene) -> None:
        scene.world.feed.mischief.spoil(BadQuote.NAN, BTC, 12)
        watch = market(scene)
        await scene.until(lambda: watch.dropped()["not_finite"] >= 6, 5)
        assert watch.fresh_quote(BTC) is None
        await refused(scene, "s1", "QUOTE_MISSING")
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") > 0, 5)
        await scene.until(lambda: watch.fresh_quote(BTC) is not None, 6)
        await scene.open("s3", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, peace_s=5)


@pytest.mark.fault("B25")
@pytest.mark.parametrize(
    ("how", "reason"), [(BadQuote.DUPLICATE, "duplicate"), (BadQuote.OUT_OF_ORDER, "out_of_order")]
)
def test_quotes_twice_or_out_of_order_change_nothing(how: BadQuote, reason: str) -> None:
    """Counted; the market's time never goes back, and the symbol can be traded."""

    async def play(scene: Scene) -> None:
        watch = market(scene)
        before = watch.market_now
        assert before is not None
        scene.world.feed.mischief.spoil(how, BTC, 5)
        newest = before
        for _ in range(30):
            await asyncio.sleep(0.1)
            assert watch.market_now is not None
            assert watch.market_now >= newest
            newest = watch.market_now
        assert watch.dropped()[reason] >= 5
        await scene.open("s1")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, peace_s=5)


@pytest.mark.fault("B25")
@pytest.mark.parametrize("offset_s", [3600.0, -3600.0])
def test_a_server_clock_that_jumps_an_hour_does_no_harm(offset_s: float) -> None:
    """The day of the daily loss and the exits go on as before; when the clock is right again, so are the quotes."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        await asyncio.sleep(3)
        account = scene.agent.flow.accounts[C01]
        mark = account.guard.mark
        assert mark is not None
        scene.world.feed.mischief.jump_time(offset_s, 20)
        await asyncio.sleep(10)
        assert account.guard.mark is not None
        assert account.guard.mark.day == mark.day
        assert scene.lots() > 0
        assert exit_calls(scene) == []
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0, 5)
        # Quotes that seem to go back are believed after the venue has kept to it for a hundred of them.
        await scene.until(lambda: market(scene).fresh_quote(BTC) is not None, 90)
        await scene.open("s2", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, peace_s=5)


# ---- B29, B30


@pytest.mark.fault("B29")
@pytest.mark.parametrize("name", ["tick_size", "lot_step"])
def test_a_large_change_of_the_contract_halts_the_symbol(name: str) -> None:
    """Noticed within a minute and told: no entries there until an operator resumes; what is open keeps its stop and can
    be closed."""

    async def play(scene: Scene) -> None:
        await scene.opened()
        terms = scene.venue.instruments["BTCUSDT"]
        others = {
            "tick_size": replace(terms, tick_size=Decimal("0.2")),
            "lot_step": replace(terms, lot_step=Decimal("0.002")),
        }
        scene.venue.mischief.set_terms(others[name])
        await scene.until(lambda: halted(scene, HaltScope.SYMBOL, BTC), 65)
        assert told(scene, "contract terms changed, symbol halted", None) == ["page"]
        assert getattr(market(scene).instruments[BTC], name) > getattr(terms, name)
        assert stop(scene) is not None
        await scene.send("close", "s1")
        await scene.until(lambda: scene.lots() == 0 and scene.lots(C02) == 0, 10)
        await refused(scene, "s2", "SYMBOL_HALTED", take_profit="61000")
        await scene.open("s3", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") > 0, 5)
        assert await scene.world.operate("resume", "symbol", BTC) == 200
        await asyncio.sleep(4)
        await scene.open("s4", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)

    act(play, peace_s=5)


@pytest.mark.fault("B29")
def test_a_new_smallest_lot_is_learnt_from_the_refusal() -> None:
    """One order is refused, the terms are read again at once, and the next lot is one that the venue takes."""

    async def play(scene: Scene) -> None:
        terms = scene.venue.instruments["BTCUSDT"]
        scene.venue.mischief.set_terms(replace(terms, max_market_lot=Decimal("0.1"), lot_max=Decimal("0.1")))
        await scene.open("s1")
        await scene.until(lambda: bool(entry_calls(scene)) and entry_ticket(scene).state is OrderState.REJECTED, 3)
        await scene.until(lambda: market(scene).instruments[BTC].lot_max == Decimal("0.1"), 3)
        assert not halted(scene, HaltScope.SYMBOL, BTC)
        await scene.open("s2", take_profit="61000")
        await scene.until(lambda: scene.lots() == leg_lots(scene) == Decimal("0.1"), 5)

    act(play, peace_s=5)


@pytest.mark.fault("B30")
def test_without_a_conversion_rate_nothing_is_risked() -> None:
    """The symbol settles in money that nobody can convert: CONVERSION_UNKNOWN, nothing is sent, others are free."""

    async def play(scene: Scene) -> None:
        scene.world.feed.mischief.hide_conversion(BTC, "XTS", 60)
        await scene.begin()
        await refused(scene, "s1", "CONVERSION_UNKNOWN")
        await scene.open("s2", symbol_id="ETHUSDT")
        await scene.until(lambda: scene.lots(C01, "ETHUSDT") > 0, 5)
        await scene.until(lambda: market(scene).instruments[BTC].settle_currency == "USDT", 125)
        await scene.open("s3", take_profit="61000")
        await scene.until(lambda: scene.lots() > 0, 5)
        assert desk(scene).ledger.unsettled() == []

    act(play, begun=False, peace_s=5)

"""Contract terms that change while they are traded (B29): what counts as large, and what is done with the rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from simulator.simulation.clock import VirtualClock
from simulator.simulation.loop import VirtualLoop, run_virtual
from srm_agent.domain.ids import Symbol
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.errors import BrokerUnreachable, UnknownInstrument
from srm_agent.ports import MarketFeed
from srm_agent.terms_watch import EVERY_S, TermsChange, TermsWatch, difference

D = Decimal
BTC = Symbol("BTC/USDT:USDT")
TERMS = Instrument(
    symbol=BTC,
    asset_class=AssetClass.CRYPTO,
    base_currency="BTC",
    quote_currency="USDT",
    settle_currency="USDT",
    tick_size=D("0.1"),
    pip_size=D(1),
    lot_min=D("0.001"),
    lot_max=D(100),
    lot_step=D("0.001"),
    contract_size=D(1),
)


@pytest.mark.parametrize(
    ("now", "large"),
    [
        (replace(TERMS, contract_size=D("1.2")), False),
        (replace(TERMS, contract_size=D("1.21")), True),
        (replace(TERMS, contract_size=D("0.79")), True),
        (replace(TERMS, tick_size=D("0.01")), True),
        (replace(TERMS, lot_step=D("0.002")), True),
        (replace(TERMS, pip_size=None), True),
        (replace(TERMS, quote_currency="USDC"), True),
        (replace(TERMS, settle_currency="XTS"), False),
        (replace(TERMS, lot_min=D(1), lot_max=D(2), min_notional=D(500), stops_distance=D(9)), False),
        (replace(TERMS, tradable=False), False),
    ],
)
def test_units_are_large_and_limits_are_not(now: Instrument, large: bool) -> None:
    """More than 20 % of a unit, or another thing that is traded; limits and unknown settle money block alone."""
    change = difference(TERMS, now)
    assert change is not None
    assert change.large is large
    assert " -> " in change.text
    assert difference(now, now) is None


class Terms:
    """A feed that tells these terms, or raises this."""

    def __init__(self) -> None:
        self.says: Instrument | Exception = TERMS
        self.reads = 0

    async def instrument(self, symbol: Symbol) -> Instrument:
        """Count and tell."""
        self.reads += 1
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Scenes(Terms):
    """The watch at work in virtual time."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.known = {BTC: TERMS}
        self.changes: list[TermsChange] = []
        feed: MarketFeed = self  # type: ignore[assignment]
        self.watch = TermsWatch(feed, self.known, VirtualClock(loop))
        self.task = loop.create_task(self.watch.run(self.changes.append))


def test_terms_are_read_each_minute_and_after_a_refusal_but_not_faster_than_once_a_second() -> None:
    """A storm of refusals is one reading a second."""

    async def play(loop: VirtualLoop) -> None:
        scene = Scenes(loop)
        await asyncio.sleep(3 * EVERY_S + 1)
        assert scene.reads == 3
        for _ in range(100):
            scene.watch.look_soon()
            await asyncio.sleep(0.05)
        assert 4 <= scene.reads - 3 <= 6
        assert scene.changes == []

    run_virtual(play)


def test_what_changed_is_in_force_before_it_is_told() -> None:
    """The shared terms are the new ones; a symbol that disappears is not tradable; a failed read changes nothing."""

    async def play(loop: VirtualLoop) -> None:
        scene = Scenes(loop)
        scene.says = BrokerUnreachable("no answer")
        await asyncio.sleep(EVERY_S + 1)
        assert scene.known == {BTC: TERMS}
        scene.says = replace(TERMS, lot_min=D("0.01"))
        await asyncio.sleep(EVERY_S)
        assert scene.known[BTC].lot_min == D("0.01")
        assert [(change.large, change.text) for change in scene.changes] == [(False, "lot_min 0.001 -> 0.01")]
        scene.says = UnknownInstrument(BTC)
        await asyncio.sleep(EVERY_S)
        assert not scene.known[BTC].tradable

    run_virtual(play)


def test_a_forbidden_symbol_stays_so() -> None:
    """What is held and no longer configured takes no entries, whatever the venue says."""

    async def play(loop: VirtualLoop) -> None:
        scene = Scenes(loop)
        scene.watch.forbid(BTC)
        scene.says = replace(TERMS, lot_min=D("0.01"))
        await asyncio.sleep(EVERY_S + 1)
        assert (scene.known[BTC].tradable, scene.known[BTC].lot_min) == (False, D("0.01"))

    run_virtual(play)

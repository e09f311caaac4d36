"""How long an emergency close takes on a bad line: the bars of INV-9, measured over 200 seeds in virtual time.

`pytest -s tests/simulation/test_simulation_emergency.py` prints the table.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from simulator.faults import Fault, Faults
from simulator.inprocess import InProcessBroker
from simulator.latency import NO_LEG, LatencyModel
from simulator.records import OrderTicket, PositionChanged, VenueEvent
from simulator.venue import SimAccount, SimInstrument, Venue
from srm_agent.domain.accounts import EmergencyScope
from srm_agent.domain.orders import BrokerPosition, OrderIntent, OrderReport, Outcome
from srm_agent.domain.units import Side
from srm_agent.protection.emergency_close import EmergencyClose, EmergencyParts
from tests.unit.execution.conftest import C01, START_MS, LoopClock, Twisted, simulate

D = Decimal
SEEDS = 200
CLIENT_TIMEOUT_S = 2.0
REQUESTS_PER_S = 10.0
"""A venue's usual budget; closes get the share that the agent gives them (80 %)."""


class BadLine(Faults):
    """5 % of closes are refused, 5 % are carried out and their reply is lost, 5 % of reads fail."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self.met = {"refused": 0, "lost": 0, "reads": 0}

    def take(self, path: str) -> Fault | None:
        """A draw for each call."""
        luck = self._rng.random()
        if path == "v5/order/create":
            if luck < 0.05:
                self.met["refused"] += 1
                return Fault("ret_before", 110094, "off quotes")
            if luck < 0.10:
                self.met["lost"] += 1
                return Fault("hang_after")
        elif luck < 0.05:
            self.met["reads"] += 1
            return Fault("http502_before")
        return super().take(path)


class Line(LatencyModel):
    """30 to 300 ms for each call."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng, request=NO_LEG, reply=NO_LEG)
        self._draws = rng

    def request_s(self) -> float:
        """Half of it."""
        return self._draws.uniform(0.015, 0.15)

    def reply_s(self) -> float:
        """The other half."""
        return self._draws.uniform(0.015, 0.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One episode: when the venue was empty, when the close said so, what it met on the way."""

    empty_s: float
    said_s: float
    orders: int
    met: dict[str, int]


def a_venue(positions: int) -> Venue:
    """That many instruments, of each of which c01 holds one to three lots, some bought and some sold."""
    terms = [
        SimInstrument(
            symbol_id=f"S{number}USDT", base=f"S{number}", tick_size=D("0.1"), lot_step=D("0.1"), lot_min=D("0.1"),
            lot_max=D(1000), max_market_lot=D(1000), level_lots=D(1000),
        )
        for number in range(positions)
    ]  # fmt: skip
    account = SimAccount(account_id="c01", api_key="k", secret="s", balance=D(1_000_000))
    venue = Venue(terms, [account], random.Random(1))
    for number, item in enumerate(terms):
        venue.set_book(item.symbol_id, D(100), D("100.1"), START_MS)
        side = Side.BUY if number % 3 else Side.SELL
        venue.place("c01", OrderTicket(symbol_id=item.symbol_id, side=side, lots=D(1 + number % 3)))
    return venue


def a_close(broker: Any) -> EmergencyClose:
    """As the daemon makes it, but for the listeners."""

    def ignore(_: object) -> None: ...

    return EmergencyClose(
        EmergencyParts(
            broker=broker,
            clock=LoopClock(),
            scope=EmergencyScope.ACCOUNT,
            interval_s=0.5,
            closes_per_s=0.8 * REQUESTS_PER_S,
            ours=lambda symbol: D(0),
            notional=lambda position: position.lot * position.entry_price,
            wide_limit=lambda symbol, side: D(105) if side is Side.BUY else D(95),
            announce=ignore,
            heard=ignore,
            unresolved=lambda: False,
            page=ignore,
            seen=ignore,
        ),
        "e1",
    )


def patient(broker: InProcessBroker) -> Twisted:
    """The client's time-out: a lost reply is known to be lost after two seconds, however the wire says it."""
    twisted = Twisted(broker)

    async def submit(intent: OrderIntent) -> OrderReport:
        loop = asyncio.get_running_loop()
        began = loop.time()
        report = await broker.submit(intent)
        if report.outcome is Outcome.UNKNOWN:
            await asyncio.sleep(max(0.0, began + CLIENT_TIMEOUT_S - loop.time()))
        return report

    twisted.twists["submit"] = submit
    return twisted


async def one_story(seed: int, positions: int) -> Story:
    """An account of that many positions is closed over a bad line."""
    venue, rng = a_venue(positions), random.Random(f"{seed}/{positions}")
    faults = BadLine(rng)
    broker = InProcessBroker(venue, "c01", C01, LoopClock(), Line(rng), faults=faults)
    loop = asyncio.get_running_loop()
    began, empty = loop.time(), list[float]()

    held = {view.symbol_id for view in venue.positions("c01")}

    def hear(event: VenueEvent) -> None:
        if isinstance(event, PositionChanged) and not event.position.lots:
            held.discard(event.position.symbol_id)
            if not held:
                empty.append(loop.time() - began)

    venue.subscribe(hear)
    close = a_close(patient(broker))
    await close.until_flat()
    said = loop.time() - began
    assert not venue.positions("c01")
    return Story(empty_s=empty[0], said_s=said, orders=close.sent, met=faults.met)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


@pytest.mark.parametrize(("positions", "bar_s"), [(5, 5.0), (10, 5.0), (20, 10.0), (100, 20.0)])
def test_flat_within_the_bar_in_every_seed(positions: int, bar_s: float) -> None:
    """With 5 % refusals, 5 % lost replies and 5 % failed reads: empty, and known to be, within the bar in all seeds.

    The larger ones take 60 seeds, and all 200 with `SRM_TEST_PROFILE=soak`.
    """
    seeds = SEEDS if positions < 20 or os.environ.get("SRM_TEST_PROFILE") == "soak" else 60
    stories = [simulate(lambda seed=seed: one_story(seed, positions)) for seed in range(seeds)]  # type: ignore[misc]
    for name in ("empty_s", "said_s"):
        taken = [getattr(story, name) for story in stories]
        what = "venue empty" if name == "empty_s" else "known flat"
        usual, rare, worst = percentile(taken, 0.5), percentile(taken, 0.99), max(taken)
        print(
            f"\n{positions:4d} positions  {what:11s} p50 {usual:5.1f}  p99 {rare:5.1f}  worst {worst:5.1f}"
            f"  bar {bar_s:4.0f} s  seeds {seeds}",
            end="",
        )
        assert max(taken) <= bar_s
    met = {kind: sum(story.met[kind] for story in stories) for kind in ("refused", "lost", "reads")}
    assert all(met.values()), f"the line was not bad: {met}"
    assert all(story.said_s >= story.empty_s and story.orders >= positions for story in stories)


def test_largest_goes_first_and_nothing_is_reversed() -> None:
    """The first eight closes are of the largest positions; no attempt leaves an opposite position behind."""

    async def story() -> tuple[list[Decimal], list[BrokerPosition]]:
        venue = a_venue(30)
        broker = InProcessBroker(venue, "c01", C01, LoopClock(), LatencyModel.none())
        twisted, lots = Twisted(broker), list[Decimal]()

        async def submit(intent: OrderIntent) -> OrderReport:
            lots.append(intent.lot)
            return await broker.submit(intent)

        twisted.twists["submit"] = submit
        await a_close(twisted).until_flat()
        return lots, list(await broker.positions())

    lots, left = simulate(story)
    assert lots[:8] == [D(3)] * 8
    assert lots == sorted(lots, reverse=True)
    assert not left

"""The venue of the kill -9 soak: the simulated Bybit as a process of its own, never killed, that knows the truth.

Beside the protocol it has three pages: `/soak/truth` (orders, positions, and how often each client id arrived),
`/soak/market` (mid prices) and `/soak/act` (a move of one market, a fault on the wire, calm).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import cast

from aiohttp import web

from simulator.bybit_rows import Json
from simulator.bybit_server import BybitServer
from simulator.faults import Faults
from simulator.latency import LatencyModel, Leg
from simulator.records import OrderTicket, SimOrder
from simulator.terms import insufficient_margin
from simulator.venue import SimAccount, SimInstrument, Venue, VenueRefused
from srm_agent.clock import SystemClock

TICK = Decimal("0.01")
PRICE = 1000.0
STEP_S = 0.1
WANDER = 0.004
"""Standard deviation of a price around its base, as a share: stops at 0.8 % are hit now and then."""
RETURN_S = 4.0
FAULT_EVERY_S = 2.5
BALANCE = Decimal(100_000)
CREATE = "v5/order/create"
LOST = ("reset_before", "reset_after", "truncate_after")


class WatchedVenue(Venue):
    """Counts how often each client id arrives, also when the venue refuses it for having been used.

    `refusing`: how many of an account's next closes are refused (what makes an emergency close cancel first).
    """

    def __init__(
        self, instruments: Sequence[SimInstrument], accounts: Sequence[SimAccount], rng: random.Random
    ) -> None:
        super().__init__(instruments, accounts, rng)
        self.arrived: Counter[tuple[str, str]] = Counter()
        self.refusing: Counter[str] = Counter()

    def place(self, account_id: str, ticket: OrderTicket) -> SimOrder:
        """See Venue."""
        self.arrived[account_id, ticket.link_id] += 1
        if ticket.reduce_only and self.refusing[account_id] > 0:
            self.refusing[account_id] -= 1
            raise insufficient_margin()
        return super().place(account_id, ticket)


class Market:
    """Prices that wander around a base and come back to it; market time is wall time."""

    def __init__(self, venue: Venue, rng: random.Random, quiet: frozenset[str]) -> None:
        """`quiet` symbols move only when told to."""
        self._venue, self._rng, self.quiet = venue, rng, quiet
        self._away = dict.fromkeys(venue.instruments, 0.0)
        self._shift: dict[str, tuple[float, float]] = {}
        self._wink = 0
        self.calm = False

    def seed(self) -> None:
        """Bars of the last 1,000 minutes, then the first prices."""
        first = int(time.time() // 60 * 60_000) - 1_000 * 60_000
        for symbol in self._venue.instruments:
            mid = Decimal(int(PRICE))
            self._venue.seed_bars(symbol, [(first + i * 60_000, mid, mid + 1, mid - 1, mid) for i in range(1_000)])
        self.step()

    def shift(self, symbol: str, share: float, seconds: float) -> None:
        """Move one market at once, and back after so many seconds."""
        self._shift[symbol] = (share, time.monotonic() + seconds)
        self._set(symbol)

    def mids(self) -> dict[str, float]:
        """By symbol, as of the last step."""
        return {symbol: self._mid(symbol) for symbol in self._venue.instruments}

    def step(self) -> None:
        """A step of time in all markets; while it is calm prices stand still (but are told)."""
        self._wink = 1 - self._wink
        for symbol in self._venue.instruments:
            if not self.calm and symbol not in self.quiet:
                noise = self._rng.gauss(0.0, WANDER * math.sqrt(2 * STEP_S / RETURN_S))
                self._away[symbol] += noise - self._away[symbol] * STEP_S / RETURN_S
            self._set(symbol)

    async def run(self) -> None:
        """For ever."""
        while True:
            self.step()
            await asyncio.sleep(STEP_S)

    def _mid(self, symbol: str) -> float:
        share, until = self._shift.get(symbol, (0.0, 0.0))
        if until and time.monotonic() > until:
            del self._shift[symbol]
            share = 0.0
        return PRICE * (1 + self._away[symbol] + share)

    def _set(self, symbol: str) -> None:
        bid = Decimal(round(self._mid(symbol) / float(TICK))) * TICK
        at = max(int(time.time() * 1000), self._venue.market_ms)
        self._venue.set_book(symbol, bid, bid + TICK * (1 + self._wink), at)


def truth(venue: WatchedVenue) -> dict[str, object]:
    """Everything the venue knows about orders and positions, as plain values; lots of positions are signed."""
    accounts = list(venue.accounts)
    return {
        "orders": [
            {
                "account": account,
                "link": order.ticket.link_id,
                "symbol": venue.instruments[order.ticket.symbol_id].symbol,
                "reduce": order.ticket.reduce_only,
                "filled": str(order.filled),
                "working": order.status.working,
            }
            for account in accounts
            for order in venue.orders(account)
        ],
        "positions": [
            {
                "account": account,
                "symbol": venue.instruments[position.symbol_id].symbol,
                "lots": str(position.lots * int(position.side or 1)),
                "stopped": position.stop_loss is not None,
            }
            for account in accounts
            for position in venue.positions(account)
        ],
        "arrived": [[account, link, times] for (account, link), times in venue.arrived.items()],
    }


def tighten(venue: Venue, quiet: frozenset[str]) -> None:
    """Somebody moves every stop half way to the market, by hand; not in the quiet markets."""
    for account in venue.accounts:
        for position in venue.positions(account):
            if position.stop_loss is not None and position.symbol_id not in quiet:
                nearer = ((position.stop_loss + position.mark) / 2).quantize(TICK)
                with suppress(VenueRefused):
                    venue.set_trading_stop(account, position.symbol_id, stop_loss=nearer)


def act(request: web.Request, venue: WatchedVenue, market: Market, faults: Faults) -> None:
    """`what=shift&symbol=&share=&seconds=`, `what=refuse&account=&times=`, `what=tighten`, `what=calm&on=1`."""
    asked = request.query
    match asked["what"]:
        case "shift":
            market.shift(asked["symbol"], float(asked["share"]), float(asked["seconds"]))
        case "refuse":
            venue.refusing[asked["account"]] = int(asked["times"])
        case "tighten":
            tighten(venue, market.quiet)
        case "calm":
            market.calm = asked["on"] == "1"
            faults.clear()


async def lose_replies(faults: Faults, market: Market, rng: random.Random) -> None:
    """Now and then a request or its reply is lost, so that restarts meet orders in doubt that no crash made."""
    while True:
        await asyncio.sleep(rng.expovariate(1 / FAULT_EVERY_S))
        if not market.calm and not any(faults.active(CREATE, kind) for kind in LOST):
            faults.add(CREATE, rng.choice(LOST))


def make_venue(accounts: Sequence[str], symbols: Sequence[str], rng: random.Random) -> WatchedVenue:
    """Deep books, accounts `c01`... whose secrets follow from their names."""
    terms = [
        SimInstrument(
            symbol_id=symbol,
            base=symbol.removesuffix("USDT"),
            tick_size=TICK,
            lot_step=Decimal("0.001"),
            lot_min=Decimal("0.001"),
            lot_max=Decimal(100_000),
            max_market_lot=Decimal(100_000),
            level_lots=Decimal(50_000),
        )
        for symbol in symbols
    ]
    people = [
        SimAccount(account_id=name, api_key=f"key-{name}", secret=f"secret-{name}-xyz", balance=BALANCE)
        for name in accounts
    ]
    venue = WatchedVenue(terms, people, rng)
    for name in accounts:
        for symbol in symbols:
            venue.set_leverage(name, symbol, Decimal(50))
    return venue


async def serve(accounts: Sequence[str], symbols: Sequence[str], quiet: frozenset[str], seed: int) -> None:
    """Until SIGTERM; the first line of output names the port."""
    rng, faults = random.Random(seed), Faults()
    venue = make_venue(accounts, symbols, random.Random(seed + 1))
    market = Market(venue, rng, quiet)
    market.seed()
    leg = Leg(median_s=0.004)
    server = BybitServer(
        venue,
        clock=SystemClock(),
        rng=random.Random(seed + 2),
        latency=LatencyModel(random.Random(seed + 3), request=leg, reply=leg),
        faults=faults,
        rate_limit_per_s=200,
    )

    async def truth_page(_: web.Request) -> Json:
        return cast("Json", truth(venue))

    async def market_page(_: web.Request) -> Json:
        return cast("Json", market.mids())

    async def act_page(request: web.Request) -> Json:
        act(request, venue, market, faults)
        return cast("Json", {"done": True})

    server.add_json_route("/soak/truth", truth_page)
    server.add_json_route("/soak/market", market_page)
    server.add_json_route("/soak/act", act_page)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    sys.stdout.write(json.dumps({"port": server.port}) + "\n")
    sys.stdout.flush()
    work = [asyncio.create_task(market.run()), asyncio.create_task(lose_replies(faults, market, rng))]
    await stop.wait()
    for task in work:
        task.cancel()
    await server.stop()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.kill_venue")
    for name in ("accounts", "symbols", "quiet"):
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), required=True)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    asyncio.run(serve(asked.accounts, asked.symbols, frozenset(asked.quiet), asked.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The private streams of one account: orders, executions, positions and wallet on one socket."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

from adapters.ccxt_venue.client import VenueClient
from adapters.ccxt_venue.parse import SymbolOf, is_protective, parse_fill, parse_order, parse_position, parse_wallet
from adapters.ccxt_venue.rows import BadRow, Row, as_row, as_rows, optional_number
from adapters.ccxt_venue.settings import CcxtVenueSettings
from adapters.ccxt_venue.streams import Hooks, StreamSupervisor, Watch
from srm_agent.clock import Clock
from srm_agent.domain.events import AccountEvent, Heartbeat, Resync, StreamDown
from srm_agent.domain.ids import Symbol

_HASHES = ("orders", "myTrades", "positions", "balances:unified")
"""ccxt's names of the four subscriptions."""


class AccountStream:
    """Turns the watch loops of one account into events.

    What arrives before the Resync of a generation is kept back and told after it, so that a reader who discards
    everything between StreamDown and Resync loses nothing. The queue is unbounded: a fill is never dropped.
    """

    def __init__(
        self,
        *,
        name: str,
        client: VenueClient,
        resync: Callable[[], Awaitable[Resync]],
        settings: CcxtVenueSettings,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._resync = resync
        self._symbol_of: SymbolOf = lambda market_id: Symbol(client.symbol_of_id(market_id))
        self._settings = settings
        self._clock = clock
        self._queue: asyncio.Queue[AccountEvent | BaseException | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._held: list[AccountEvent] = []
        self._synchronised = False
        self._positions: dict[str, Row] = {}
        self._name = name
        self._supervisor = StreamSupervisor(
            name=name,
            client=client,
            watches=self._watches(),
            hooks=Hooks(
                subscribed=lambda: client.subscribed(_HASHES),
                synchronise=self._synchronise,
                down=self._down,
                alive=self._alive,
                silent=lambda _: None,
            ),
            settings=settings,
            clock=clock,
            rng=rng,
        )

    async def events(self) -> AsyncGenerator[AccountEvent, None]:
        """Until `stop`. Raises only for defects of this program."""
        self._task = asyncio.create_task(self._supervisor.run(), name=self._name)
        self._task.add_done_callback(self._ended)
        try:
            while True:
                event = await self._queue.get()
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Close the sockets and end the reader's loop; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _watches(self) -> list[Watch]:
        client = self._client
        return [
            Watch(name="executions", wait=lambda: client.watch("watch_my_trades"), deliver=self._on_fills),
            Watch(name="orders", wait=lambda: client.watch("watch_orders"), deliver=self._on_orders),
            Watch(name="positions", wait=lambda: client.watch("watch_positions"), deliver=self._on_positions),
            Watch(name="wallet", wait=lambda: client.watch("watch_balance"), deliver=self._on_wallet),
        ]

    # ---- life of a generation ------------------------------------------------------------------------------------

    async def _synchronise(self) -> None:
        picture = await self._resync()
        self._queue.put_nowait(picture)
        for event in self._held:
            self._queue.put_nowait(event)
        self._held.clear()
        self._synchronised = True

    def _down(self, reason: str) -> None:
        self._synchronised = False
        self._held.clear()
        self._positions.clear()
        self._queue.put_nowait(StreamDown(self._name, reason))

    def _alive(self, at: float) -> None:
        if self._synchronised:
            self._queue.put_nowait(Heartbeat(at))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._queue.put_nowait(None if task.cancelled() else task.exception())

    def _put(self, event: AccountEvent) -> None:
        if self._synchronised:
            self._queue.put_nowait(event)
        else:
            self._held.append(event)

    # ---- deliveries: never suspend -------------------------------------------------------------------------------

    def _on_fills(self, result: object) -> None:
        received = self._clock.monotonic()
        for row in _infos(result):
            fill = parse_fill(row, self._symbol_of, self._settings.settle_currency, received)
            if fill is not None:
                self._put(fill)

    def _on_orders(self, result: object) -> None:
        received = self._clock.monotonic()
        for row in _infos(result):
            if not is_protective(row):
                self._put(parse_order(row, self._symbol_of, received))

    def _on_positions(self, _: object) -> None:
        # ccxt returns the rows of one message only; its cache holds the latest of all (A.3-1).
        for symbol, row in self._newest_positions().items():
            known = self._positions.get(symbol)
            if known is None or known != row:
                self._positions[symbol] = row
                self._put(parse_position(row, self._symbol_of))

    def _newest_positions(self) -> dict[str, Row]:
        newest: dict[str, Row] = {}
        for row in _infos(self._client.cached("positions")):
            key = f"{row.get('symbol')}|{row.get('positionIdx', 0)}"
            # A closing row is cached under both sides: the sequence tells which row is the last.
            if key not in newest or _order_of(row) >= _order_of(newest[key]):
                newest[key] = row
        return newest

    def _on_wallet(self, _: object) -> None:
        balance = self._client.cached("balance")
        unified = balance.get("unified") if isinstance(balance, Mapping) else None
        rows = as_rows(as_row(unified, "balance").get("info"), "wallet")
        for row in rows[:1]:
            self._put(parse_wallet(row, self._settings.settle_currency, self._clock.wall(), self._clock.monotonic()))


def _infos(result: object) -> Iterator[Row]:
    """The venue's own rows behind unified structures. Raises BadRow."""
    # ccxt's caches are lists of its own make, not subclasses of list.
    if isinstance(result, str | bytes) or not hasattr(result, "__iter__"):
        raise BadRow(f"a stream gave no list, was {result!r:.80}")
    for item in result:
        yield as_row(as_row(item, "row").get("info"), "info")


def _order_of(row: Row) -> tuple[object, object]:
    return optional_number(row, "updatedTime") or 0, optional_number(row, "seq") or 0

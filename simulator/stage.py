"""The stage: the story played in real time behind the venue's server, with providers who post their signals.

Market time = start + speed x elapsed monotonic time, from the moment the server listens. The planned run (the clock of
signals and of the gap) begins when the agent's webhook is healthy, or at once when there is no webhook.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiohttp
import structlog
from aiohttp import web

from simulator.bybit_rows import Json
from simulator.bybit_server import BybitServer
from simulator.calendar import to_ms
from simulator.credentials import ensure_credentials
from simulator.followers import CashFlows, Flow, open_accounts
from simulator.latency import LatencyModel
from simulator.providers import Run
from simulator.report import Report, account_row, event_rows, market_text, provider_row
from simulator.scenario import Scenario
from simulator.seeds import stream
from simulator.story import Event, Story
from simulator.venue import Venue
from simulator.webhook_client import Deliveries, WebhookClient
from srm_agent.clock import Clock

log = structlog.get_logger()

PRICE_STEP_S = 0.05
HEALTH_POLL_S = 0.25
NOMINAL_RUN_S = 10_800
"""Market seconds that rates and the gap are planned for when the run has no end."""
_ANSWER_TIMEOUT_S = 5.0
_DRAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """What the command line decides. `seconds` of wall time after the run's beginning, 0 = without an end."""

    credentials: Path
    seed: int
    speed: float
    seconds: float
    host: str = "127.0.0.1"
    port: int = 0
    webhook: str | None = None


class Stage:
    """Venue, server, price loop and providers. `open`, then `play` until it ends or `end` is called, then `close`."""

    def __init__(self, scenario: Scenario, options: StageOptions, clock: Clock) -> None:
        seed = options.seed
        self._options, self._clock = options, clock
        self._followers = scenario.followers()
        plans, terms = scenario.plans(), scenario.terms()
        self._credentials = ensure_credentials(
            options.credentials,
            seed,
            [follower.account_id for follower in self._followers],
            [plan.provider_id for plan in plans],
        )
        self.symbols = {item.symbol_id: item.symbol for item in terms}
        self.story = Story(
            seed=seed,
            start_ms=to_ms(scenario.start),
            specs=scenario.specs(),
            providers=plans,
            gap=scenario.gap_terms(),
            history_days=scenario.market.history_days,
        )
        self.story.declare(self._length_ms)
        accounts = open_accounts(self._followers, self._credentials.accounts)
        self.venue = Venue(terms, accounts, stream(seed, "venue"))
        self.server = BybitServer(
            self.venue,
            clock=clock,
            rng=stream(seed, "server"),
            latency=LatencyModel.typical(stream(seed, "latency")),
        )
        self.server.add_json_route("/_sim/report", self._report_route)
        self._clients: dict[str, WebhookClient] = {}
        self._workers: tuple[asyncio.Task[None], ...] = ()
        self._flows: CashFlows | None = None
        self._opened = 0.0
        self._over = asyncio.Event()

    @property
    def _length_ms(self) -> int:
        options = self._options
        return round((options.seconds * options.speed or NOMINAL_RUN_S) * 1000)

    @property
    def market_ms(self) -> int:
        """Market time now."""
        return self.story.start_ms + round((self._clock.monotonic() - self._opened) * 1000 * self._options.speed)

    async def open(self) -> None:
        """Seed the history, set the first prices and listen. Raises OSError when the port is taken."""
        for symbol_id in self.symbols:
            self.venue.seed_bars(symbol_id, self.story.market.history(symbol_id))
        self._opened = self._clock.monotonic()
        self._move_books(self.story.start_ms)
        await self.server.start(self._options.host, self._options.port)

    async def play(self) -> None:
        """Move the market, and let the providers speak once the webhook is healthy, until the end."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._price_loop()), group.create_task(self._conduct(group, session))]
            await self._over.wait()
            await asyncio.gather(*(client.drain(_DRAIN_S) for client in self._clients.values()))
            for task in [*tasks, *self._workers]:
                task.cancel()

    def end(self) -> None:
        """Ask `play` to finish; may be called from a signal handler."""
        self._over.set()

    async def close(self) -> None:
        """Stop listening; idempotent."""
        await self.server.stop()

    def report(self) -> Report:
        """What happened so far, exact to this moment."""
        run, symbols = self.story.run, self.symbols
        wallets = [self.venue.wallet(follower.account_id) for follower in self._followers]
        return Report(
            seed=self._options.seed,
            market_start=market_text(self.story.start_ms),
            market_now=market_text(self.story.market.at_ms),
            run_started=market_text(run.begin_ms) if run else None,
            events=event_rows(self.story.events, symbols),
            providers=[
                provider_row(provider, self._deliveries(provider.provider_id), symbols)
                for provider in self.story.providers
            ],
            accounts=[account_row(wallet.account_id, wallet.equity, wallet.balance) for wallet in wallets],
        )

    async def _report_route(self, _: web.Request) -> Json:
        # Text and numbers only: through JSON it becomes what the server's type wants.
        return cast("Json", json.loads(json.dumps(self.report())))

    def _deliveries(self, provider_id: str) -> Deliveries:
        client = self._clients.get(provider_id)
        return client.deliveries if client else Deliveries()

    async def _price_loop(self) -> None:
        while True:
            await asyncio.sleep(PRICE_STEP_S)
            now_ms = self.market_ms
            messages = self.story.step(now_ms)
            self._move_books(now_ms)
            for flow in self._flows.due(now_ms) if self._flows else ():
                self._transfer(flow, now_ms)
            for message in messages:
                client = self._clients.get(message.provider_id)
                if client is not None:
                    client.post(message)

    def _move_books(self, now_ms: int) -> None:
        market = self.story.market
        for symbol_id in self.symbols:
            shut = not market.is_open(symbol_id)
            if shut != self.venue.suspended(symbol_id):
                self.venue.suspend(symbol_id, shut)
            if not shut:
                touch = market.touch(symbol_id, now_ms)
                self.venue.set_book(symbol_id, touch.bid, touch.ask, now_ms, touch.depth)

    def _transfer(self, flow: Flow, now_ms: int) -> None:
        kind = "deposit" if flow.amount > 0 else "withdrawal"
        try:
            if flow.amount > 0:
                self.venue.deposit(flow.account_id, flow.amount, now_ms)
            else:
                self.venue.withdraw(flow.account_id, -flow.amount, now_ms)
        except ValueError as error:
            kind = "withdrawal_refused"
            log.info("withdrawal refused", account=flow.account_id, reason=str(error))
        event = Event(at_ms=now_ms, kind=kind, symbol_id="", detail=flow.account_id, size=float(flow.amount))
        self.story.events.append(event)

    async def _conduct(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession) -> None:
        """Wait for the agent, begin the run, and end it in time."""
        webhook, options = self._options.webhook, self._options
        if webhook is not None:
            await self._wait_for_health(session, webhook)
            self._clients = {
                provider_id: WebhookClient(
                    webhook=webhook,
                    provider_id=provider_id,
                    key=key,
                    session=session,
                    clock=self._clock,
                    rng=stream(options.seed, "webhook", provider_id),
                    symbols=self.symbols,
                )
                for provider_id, key in self._credentials.providers.items()
            }
            self._workers = tuple(group.create_task(client.run()) for client in self._clients.values())
        self._begin()
        if options.seconds:
            await asyncio.sleep(options.seconds)
            self.end()

    def _begin(self) -> None:
        self.story.begin(self._length_ms, ends=self._options.seconds > 0)
        run: Run | None = self.story.run
        if run is not None:
            self._flows = CashFlows(self._followers, run)
            log.info("run begins", market=market_text(run.begin_ms), gap=self.story.gap and self.story.gap.symbol_id)

    async def _wait_for_health(self, session: aiohttp.ClientSession, webhook: str) -> None:
        log.info("waiting for the webhook", url=f"{webhook.rstrip('/')}/health")
        while True:
            try:
                async with session.get(f"{webhook.rstrip('/')}/health", allow_redirects=False) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            await asyncio.sleep(HEALTH_POLL_S)

"""A world in virtual time: venue, market, providers, an operator, the agent's processes, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import replace
from decimal import Decimal

from simulator.broken_database import DatabaseFaults, FaultyStorage
from simulator.broken_disk import FilesFaults, MemoryFiles
from simulator.inprocess import InProcessBroker, InProcessFeed
from simulator.latency import LatencyModel, Leg
from simulator.memory_store.book import StoreBook
from simulator.records import BookMoved, OrderTicket, VenueEvent, WalletChanged
from simulator.seeds import stream
from simulator.simulation import cast
from simulator.simulation.clock import VirtualClock
from simulator.simulation.evidence import Acknowledged, Life, Operated, Told
from simulator.simulation.invariants.doors import Seen
from simulator.simulation.log_sink import SINK
from simulator.simulation.loop import LIFE, VirtualLoop
from simulator.simulation.mail import Letters, Sender
from simulator.simulation.market import Prices, three_instruments, three_walks
from simulator.simulation.pager import Pager
from simulator.simulation.plan import Plan
from simulator.simulation.process import Process
from simulator.simulation.server import ConnectionRefused, Request, VirtualServer
from simulator.simulation.trace import Trace
from simulator.venue import Venue, VenueRefused
from srm_agent.api.signatures import WebhookKey
from srm_agent.domain.accounts import ConnectionState, HaltScope
from srm_agent.domain.ids import ConnectionId, ProviderKey, Symbol
from srm_agent.domain.instrument import AssetClass
from srm_agent.notifier import Alert
from srm_agent.ports import Storage

START_MS = 1_772_631_000_000
"""Market time at the beginning: Wednesday 2026-03-04 13:30 UTC."""


WINDOW_S = 5.0
"""What was signed longer ago is refused by a venue with a receive window."""


class World:
    """One seed. `play` it once; then look at what it left (it is the evidence for the judges)."""

    def __init__(self, plan: Plan, loop: VirtualLoop, storage: Storage, book: StoreBook, trace: Trace) -> None:
        self.plan, self.loop, self.book, self.trace = plan, loop, book, trace
        self.clock = VirtualClock(loop)
        self.rng = stream(plan.seed, "world")
        profile = plan.profile
        self.settings = cast.settings_of(plan.scope, profile.max_open_risk, profile.max_drawdown)
        self.connections: Sequence[ConnectionId] = cast.CONNECTIONS
        self.venue = Venue(three_instruments(), cast.accounts(), stream(plan.seed, "venue"))
        self.prices = Prices(
            self.venue, three_walks(), stream(plan.seed, "prices"), start_ms=START_MS, speed=plan.speed
        )
        self.letters = Letters()
        self.acknowledged: list[Acknowledged] = []
        self.told: list[Told] = []
        self.lives: list[Life] = []
        self.operated: list[Operated] = []
        self.log_lines = SINK.reset()
        self.pager = Pager(loop.time)
        self.secrets: Sequence[str] = cast.secrets()
        self.scope_is_account = plan.scope == "account"
        self.max_risk = Decimal("0.2")
        self.max_open_risk = profile.max_open_risk
        self.max_drawdown = profile.max_drawdown
        self.database = DatabaseFaults()
        self.disk = FilesFaults()
        self.files = MemoryFiles(self.disk)
        self._guests_files = MemoryFiles(self.disk)
        """Of a second daemon, on another machine."""
        self.seen = Seen(loop.time, self.database.takes_writes)
        self._storage, self._database_rng = storage, stream(plan.seed, "database")
        self.peace = False
        self.processes: list[Process] = []
        self.on_life_ended: list[Callable[[Process, str], None]] = []
        self._last_alert: dict[int, Alert] = {}
        classes = {
            Symbol("BTC/USDT:USDT"): AssetClass.CRYPTO,
            Symbol("ETH/USDT:USDT"): AssetClass.CRYPTO,
            Symbol("EUR/USDT:USDT"): AssetClass.FX,
        }
        pips = {Symbol(name): terms.pip_size for name, terms in self.settings.instruments.items() if terms.pip_size}
        self.feed = InProcessFeed(self.venue, self.clock, asset_classes=classes, pip_sizes=pips)
        self.brokers = {
            name: InProcessBroker(
                self.venue,
                name,
                name,
                self.clock,
                LatencyModel.typical(stream(plan.seed, "latency", name)),
                receive_window_s=None if plan.late else WINDOW_S,
            )
            for name in self.connections
        }
        self.senders = [
            Sender(
                provider,
                cast.provider_secret(provider),
                venue=self.venue,
                clock=self.clock,
                rng=stream(plan.seed, "provider", provider.id),
                server=self.server,
                now=loop.time,
                on_acknowledged=self._acknowledge,
                letters=self.letters,
            )
            for provider in cast.PROVIDERS
        ]
        self.venue.subscribe(self._trace_event)

    # ---- processes

    def give_birth(self, *, guest: bool = False) -> Process:
        """Start one more process of the agent; a `guest` runs on another machine: same database, other files."""
        number = len(self.processes) + 1
        process = Process(
            number,
            self.loop,
            settings=self.settings,
            clock=self.clock,
            rng=stream(self.plan.seed, "process", str(number)),
            feeds={cast.VENUE: self.seen.feed(number, self.feed)},
            brokers={name: self.seen.broker(number, broker) for name, broker in self.brokers.items()},
            # The door stands between the faults and the database: it notes what is committed, whatever the agent hears.
            storage=FaultyStorage(
                self.seen.storage(number, self._storage),
                self.database,
                self._database_rng,
                before=Leg(median_s=0.002),
                after=Leg(median_s=0.001),
            ),
            files=self._guests_files if guest else self.files,
            keys={provider: [WebhookKey(cast.provider_secret(provider))] for provider in cast.PROVIDERS},
            operators=cast.operators(),
            sinks=[self.pager],
            ended=self._life_ended,
        )
        self.processes.append(process)
        self.lives.append(Life(number=number, born=self.now(), ready=None, died=None, how=""))
        self.trace.add(self.now(), f"life {number} begins")
        process.start()
        return process

    def living(self) -> list[Process]:
        """Processes that have not ended, oldest first."""
        return [process for process in self.processes if process.alive]

    def server(self) -> VirtualServer | None:
        """Who listens on the agent's port; the port is the first one's who took it."""
        for process in self.living():
            if process.server is not None and process.server.listening:
                return process.server
        return None

    def _life_ended(self, process: Process, how: str) -> None:
        self._collect_alerts(process)
        index = process.number - 1
        self.lives[index] = replace(self.lives[index], died=self.now(), how=how)
        self.trace.add(self.now(), f"life {process.number} ends: {how}")
        for listener in tuple(self.on_life_ended):
            listener(process, how)

    def look(self) -> None:
        """Note what can only be noted by looking: readiness, alerts, since when accounts are ACTIVE."""
        for process in self.living():
            index = process.number - 1
            if self.lives[index].ready is None and process.ready:
                self.lives[index] = replace(self.lives[index], ready=self.now())
                self.trace.add(self.now(), f"life {process.number} is ready")
            self._collect_alerts(process)

    def _collect_alerts(self, process: Process) -> None:
        if process.agent is None:
            return
        recent, last = list(process.agent.notifier.recent), self._last_alert.get(process.number)
        new = next((index + 1 for index, alert in enumerate(recent) if alert is last), 0)
        for alert in recent[new:]:
            self.told.append(
                Told(
                    at=self.now(),
                    level=alert.level,
                    title=alert.title,
                    message=alert.message,
                    connection=alert.connection,
                )
            )
            self.trace.add(self.now(), f"alert {alert.level} {alert.connection} {alert.title}: {alert.message}")
        if recent:
            self._last_alert[process.number] = recent[-1]

    # ---- evidence

    def now(self) -> float:
        """Seconds of the loop."""
        return self.loop.time()

    def reachable(self, connection: ConnectionId) -> bool:
        """That account's line and the venue work now."""
        return self.brokers[connection].reachable

    def feed_works(self) -> bool:
        """Quotes arrive as they are."""
        return not self.feed.network.down and self.feed.mischief.honest

    def database_works(self) -> bool:
        """The database answers now."""
        return self.database.works

    def disk_works(self) -> bool:
        """The agent's directory takes writes now."""
        return self.disk.well

    def followers(self, provider: ProviderKey) -> Sequence[ConnectionId]:
        """Whose accounts copy that provider."""
        return [ConnectionId(one.id) for one in self.settings.connections if provider.id in one.providers]

    def state_of(self, connection: ConnectionId) -> ConnectionState | None:
        """What the living agent says; None while nobody lives or the account is not known yet."""
        for process in self.living():
            if process.agent is not None and connection in process.agent.flow.accounts:
                return process.agent.flow.accounts[connection].state()
        return None

    def spilt(self, client_id: str) -> bool:
        """That exit stands in a spill file."""
        texts = [*self.files.texts.items(), *self._guests_files.texts.items()]
        return any(client_id in text for name, text in texts if name.startswith("exits."))

    # ---- what goes wrong (ChaosWorld)

    def clock_skew(self, seconds: float) -> None:
        """The machine's wall clock is wrong by so much from now on."""
        self.clock.skew_s = seconds

    def stall(self, seconds: float) -> None:
        """Time passes, nothing runs."""
        self.loop.stall(seconds)

    def alerts_down(self, seconds: float) -> None:
        """Nobody takes alerts for so long."""
        self.pager.down.begin(seconds)

    def logs_blocked(self, seconds: float) -> None:
        """Log lines are lost for so long."""
        SINK.blocked = True
        self.loop.call_later(seconds, self._unblock_logs, context=Context())

    def _unblock_logs(self) -> None:
        SINK.blocked = False

    # ---- the operator

    async def operate(self, act: str, scope: str, key: str) -> int | None:
        """Halt or resume through the control API; the status, None when nobody answers."""
        server = self.server()
        if server is None:
            return None
        fields = {"scope": scope, "reason": "seed"} if act == "halt" else {"scope": scope}
        body = json.dumps(fields | ({"key": key} if key else {})).encode()
        headers = {"authorization": f"Bearer {cast.operator_token()}", "content-type": "application/json"}
        try:
            status, _ = await server.request(Request(method="POST", path=f"/control/{act}", headers=headers, body=body))
        except ConnectionRefused:
            self.operated.append(Operated(at=self.now(), act=act, scope=scope, key=key, answered=False))
            return None
        if status == 200 or status >= 500:
            self.operated.append(Operated(at=self.now(), act=act, scope=scope, key=key, answered=status == 200))
        self.trace.add(self.now(), f"operator {act} {scope} {key}: {status}")
        return status

    def operator_resumes(self, scope: str, key: str) -> None:
        """Somebody has looked and lifts a halt, as soon as anybody answers."""
        self.loop.create_task(self._resume(scope, key))

    async def _resume(self, scope: str, key: str) -> None:
        while await self.operate("resume", scope, key) not in (200, 404):
            await asyncio.sleep(1.0)

    def flatten(self, connection: ConnectionId) -> bool:
        """Close an account by the operator's hand; False while nobody is there who could."""
        for process in self.living()[:1]:
            if process.agent is not None and process.ready and connection in process.agent.flow.accounts:
                context = copy_context()
                context.run(LIFE.set, process.number)
                context.run(process.agent.flow.accounts[connection].flatten, "seed", cast.OPERATOR)
                scope = HaltScope.CONNECTION.value
                self.operated.append(Operated(at=self.now(), act="flatten", scope=scope, key=connection))
                self.trace.add(self.now(), f"operator flatten {connection}")
                return True
        return False

    # ---- other people

    def human_trade(self, connection: ConnectionId, ticket: OrderTicket) -> None:
        """Somebody trades on the account by hand: foreign volume, which the agent must leave alone."""
        try:
            order = self.venue.place(connection, ticket)
        except VenueRefused as refusal:
            self.trace.add(self.now(), f"human {connection} refused: {refusal.word}")
        else:
            self.trace.add(self.now(), f"human {connection} {ticket.symbol_id} {ticket.side.word} {order.filled}")

    # ---- the trace

    def _acknowledge(self, receipt: Acknowledged) -> None:
        self.acknowledged.append(receipt)
        self.trace.add(receipt.at, f"acknowledged {receipt.action} {receipt.signal_id} {receipt.message_id}")

    def _trace_event(self, event: VenueEvent) -> None:
        if not isinstance(event, BookMoved | WalletChanged):
            self.trace.add(self.now(), f"venue {event!r}")

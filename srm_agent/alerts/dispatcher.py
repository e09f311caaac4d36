"""The notifier of the daemon: says it in the log at once, then gets it to a sink without anybody waiting for it.

Touches neither the database nor the brokers. One task of its own writes the file and posts; when a sink is slow or
down the next one gets the alert, and what no sink takes is offered again with back-off (P24).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from srm_agent.alerts.folding import Folder, rank
from srm_agent.alerts.journal import AlertFile
from srm_agent.alerts.sink import Sink, SinkFailed
from srm_agent.clock import Clock
from srm_agent.domain.decisions import canonical_json
from srm_agent.domain.ids import ConnectionId
from srm_agent.files import Files
from srm_agent.notifier import Alert, LogNotifier

log = structlog.get_logger()

AT_ONCE = 8
"""Alerts on their way at the same time."""
PATIENCE_S = 0.6
"""How long the first sink is waited for before the next one is asked too; an alert may then arrive twice, by its id."""
TRIES = 4
"""Asks of one round, over all sinks; the same sink is left alone for a moment before it is asked again."""
AGAIN_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
DOWN_AFTER = 3
"""Failures in a row after which a sink is asked last, until its time of rest is over."""
FIRST_REST_S, LONGEST_REST_S = 5.0, 60.0
STALE_S = 3600.0
"""An alert that no sink took for so long stays in the file only."""
TEXT_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRules:
    """`agent` signs the alerts. `level`: the least that is posted (the file gets all). `repeat_s`: see Folder."""

    agent: str = "srm"
    level: str = "warning"
    repeat_s: float = 60.0
    max_waiting: int = 1000


@dataclass(slots=True)
class _Waiting:
    """An alert that no sink has taken yet."""

    number: int
    alert: Alert
    text: str
    since: float
    due: float
    tries: int = 0


@dataclass(slots=True)
class _SinkState:
    sink: Sink
    failures: int = 0
    rest_s: float = FIRST_REST_S
    asked_again_at: float = 0.0

    def down(self, now: float) -> bool:
        return self.failures >= DOWN_AFTER and now < self.asked_again_at


class AlertDispatcher(LogNotifier):
    """`notify` returns at once; the task starts with the first alert and ends with `close`.

    `clean` takes live secrets out of a text (INV-16). Without sinks the log, the memory and the file remain.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        files: Files,
        sinks: Sequence[Sink] = (),
        rng: random.Random,
        rules: AlertRules | None = None,
        clean: Callable[[str], str] | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        super().__init__(clock)
        self._rules = rules or AlertRules()
        self._folder = Folder(self._rules.repeat_s)
        self._file = AlertFile(files)
        self._sinks = [_SinkState(sink) for sink in sinks]
        self._rng = rng
        self._clean = clean or _as_it_is
        self._fresh: list[_Waiting] = []
        self._waiting: list[_Waiting] = []
        self._on_the_way: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._number = 0
        self._dropped = 0
        self._counters = _Counters(registry or CollectorRegistry())

    def notify(self, level: str, title: str, message: str, connection: ConnectionId | None = None) -> None:
        """See ports.Notifier."""
        super().notify(level, title, self._clean(message), connection)
        self._counters.told.inc()
        alert = self._folder.take(self.recent[-1], self._clock.monotonic())
        if alert is None:
            self._counters.folded.inc()
        else:
            self._keep(alert)
        self._wake()

    def sinks(self) -> list[tuple[str, bool]]:
        """See LogNotifier."""
        return [(state.sink.name, state.failures < DOWN_AFTER) for state in self._sinks]

    def waiting(self) -> int:
        """See LogNotifier."""
        return len(self._fresh) + len(self._waiting) + len(self._on_the_way)

    async def close(self, within_s: float = 2.0) -> None:
        """Post what waits, at most so long, and release the sinks; the file has everything in any case. Idempotent."""
        self._closing = True
        if self._task is not None:
            self._news.set()
            await asyncio.wait([self._task], timeout=within_s)
            for task in [self._task, *self._on_the_way]:
                task.cancel()
            await asyncio.gather(self._task, *self._on_the_way, return_exceptions=True)
            self._task = None
        self._store_fresh()
        for state in self._sinks:
            await state.sink.close()

    # ---- what waits

    def _keep(self, alert: Alert) -> None:
        self._number += 1
        now = self._clock.monotonic()
        waiting = _Waiting(
            number=self._number, alert=alert, text=_text(alert, self._rules.agent, self._number), since=now, due=now
        )
        if len(self._fresh) >= self._rules.max_waiting:
            self._fresh.remove(min(self._fresh, key=_worth))
            self._drop()
        self._fresh.append(waiting)

    def _drop(self) -> None:
        self._dropped += 1
        self._counters.dropped.inc()

    def _wake(self) -> None:
        self._news.set()
        if self._closing or (self._task is not None and not self._task.done()):
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # no loop yet: the next alert within one starts the task
        if self._task is not None and not self._task.cancelled() and (error := self._task.exception()) is not None:
            log.error("the task of alerts failed and begins again", error=repr(error))
        self._task = loop.create_task(self._run(), name="alerts")

    # ---- the task

    async def _run(self) -> None:
        while True:
            self._news.clear()
            now = self._clock.monotonic()
            for alert in self._folder.due(now):
                self._keep(alert)
            self._store_fresh()
            self._send_due(now)
            if self._closing and not self._waiting and not self._on_the_way:
                return
            try:
                async with asyncio.timeout(self._pause(now)):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _store_fresh(self) -> None:
        """To the file together, then into the queue for the sinks if they are grave enough."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        self._file.write([waiting.text for waiting in fresh])
        if self._sinks:
            least = rank(self._rules.level)
            self._waiting += [waiting for waiting in fresh if rank(waiting.alert.level) >= least]
        while len(self._waiting) > self._rules.max_waiting:
            self._waiting.remove(min(self._waiting, key=_worth))
            self._drop()
        self._counters.waiting.set(len(self._waiting))

    def _send_due(self, now: float) -> None:
        for waiting in [waiting for waiting in self._waiting if now - waiting.since > STALE_S]:
            self._waiting.remove(waiting)
            self._drop()
        due = sorted((w for w in self._waiting if w.due <= now), key=_worth, reverse=True)
        for waiting in due[: AT_ONCE - len(self._on_the_way)]:
            self._waiting.remove(waiting)
            task = asyncio.create_task(self._deliver(waiting), name=f"alert {waiting.number}")
            self._on_the_way.append(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._on_the_way.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an alert could not be posted", task=task.get_name(), error=repr(error))
        self._news.set()

    def _pause(self, now: float) -> float | None:
        """Seconds until something is due; None while there is nothing to wait for but news."""
        moments = [] if len(self._on_the_way) >= AT_ONCE else [waiting.due for waiting in self._waiting]
        folded = self._folder.next_due()
        if folded is not None:
            moments.append(folded)
        return max(0.0, min(moments) - now) if moments else None

    # ---- one alert

    async def _deliver(self, waiting: _Waiting) -> None:
        if await self._offered(waiting.text):
            self._counters.posted.inc()
            self._confess()
            return
        waiting.tries += 1
        pause = min(FIRST_PAUSE_S * 2.0 ** min(waiting.tries, 10), LONGEST_PAUSE_S)
        waiting.due = self._clock.monotonic() + pause * self._rng.uniform(0.5, 1.0)
        self._counters.failed.inc()
        self._waiting.append(waiting)

    def _confess(self) -> None:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self.notify("warning", "alerts were dropped", f"{count} alerts had to be dropped; the file has them")

    async def _offered(self, text: str) -> bool:
        """One round: sink after sink, the next as soon as one fails or is slow; True once one took it."""
        now = self._clock.monotonic()
        order = sorted(self._sinks, key=lambda state: state.down(now))
        asked: list[tuple[_SinkState, asyncio.Task[bool]]] = []
        try:
            for state in islice(cycle(order), max(TRIES, len(order))):
                if any(before is state for before, _ in asked):
                    await asyncio.sleep(AGAIN_S)
                asked.append((state, asyncio.create_task(self._ask(state, text))))
                if await _taken([task for _, task in asked], PATIENCE_S):
                    for late in [late for late, task in asked if not task.done()]:
                        self._failed(late, f"no answer within {PATIENCE_S:g} s")
                    return True
            return await _taken([task for _, task in asked], None)
        finally:
            for _, task in asked:
                task.cancel()
            await asyncio.gather(*(task for _, task in asked), return_exceptions=True)

    async def _ask(self, state: _SinkState, text: str) -> bool:
        try:
            await state.sink.post(text)
        except SinkFailed as error:
            self._failed(state, str(error))
            return False
        if state.failures >= DOWN_AFTER:
            log.info("alert sink takes alerts again", sink=state.sink.name)
        state.failures, state.rest_s = 0, FIRST_REST_S
        return True

    def _failed(self, state: _SinkState, reason: str) -> None:
        state.failures += 1
        if state.failures < DOWN_AFTER:
            return
        state.asked_again_at = self._clock.monotonic() + state.rest_s
        state.rest_s = min(state.rest_s * 2, LONGEST_REST_S)
        if state.failures == DOWN_AFTER:
            self.notify("warning", "alert sink down", f"{state.sink.name} {reason}; it is asked last until it is back")


class _Counters:
    def __init__(self, registry: CollectorRegistry) -> None:
        alerts = Counter("srm_alerts", "Alerts by what became of them.", ["outcome"], registry=registry)
        self.told = alerts.labels("told")
        self.folded = alerts.labels("folded")
        self.posted = alerts.labels("posted")
        self.failed = alerts.labels("offered_in_vain")
        self.dropped = alerts.labels("dropped")
        self.waiting = Gauge("srm_alerts_waiting", "Alerts that no sink has taken yet.", registry=registry)


def _worth(waiting: _Waiting) -> tuple[int, int]:
    """Graver first, then older."""
    return rank(waiting.alert.level), -waiting.number


def sample_alert(agent: str, clock: Clock) -> str:
    """What `srm-agent check --alerts` posts."""
    said = "srm-agent check --alerts sent this; nothing has happened"
    return _text(Alert(at=clock.wall(), level="notice", title="test", message=said, connection=None), agent, 0)


def _text(alert: Alert, agent: str, number: int) -> str:
    """An alert as it is in the file and on the wire."""
    at = alert.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = alert.message[:TEXT_CHARACTERS]
    of = "" if alert.connection is None else f" [{alert.connection}]"
    return canonical_json(
        {
            "id": f"{agent}-{at}-{number}",
            "agent": agent,
            "at": at,
            "level": alert.level,
            "title": alert.title,
            "message": message,
            "connection": alert.connection,
            "count": alert.count,
            "text": f"{agent} {alert.level}{of} {alert.title}: {message}",
        }
    )


def _as_it_is(text: str) -> str:
    return text


async def _taken(asked: Sequence[asyncio.Task[bool]], patience_s: float | None) -> bool:
    """Wait until one says yes, all have said no, or patience ends."""
    while True:
        if any(task.done() and task.result() for task in asked):
            return True
        pending = [task for task in asked if not task.done()]
        if not pending:
            return False
        done, _ = await asyncio.wait(pending, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return False

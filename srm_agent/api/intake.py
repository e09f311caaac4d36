"""The way of a message from the wire to the flow: authentic, within bounds, understood, written, delivered, answered.

Nothing is acknowledged before its commit (INV-3) and nothing is delivered twice by a repeat (INV-1).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import structlog
from prometheus_client import CollectorRegistry

from srm_agent import failpoints
from srm_agent.api.answers import busy_body, error_body
from srm_agent.api.front import Admitted, SignalRequest
from srm_agent.api.house import House
from srm_agent.api.limits import IntakeLimits, TokenBucket
from srm_agent.api.metrics import IntakeCounters
from srm_agent.api.parse import Delivery, parse_signal
from srm_agent.api.refusals import RefusalWatch
from srm_agent.api.signatures import MAX_KEYS, WebhookKey, verify
from srm_agent.api.strict_json import MAX_BODY_BYTES
from srm_agent.clock import Clock
from srm_agent.domain.decisions import canonical_json
from srm_agent.domain.ids import ProviderKey
from srm_agent.domain.signals import OpenSignal, Signal
from srm_agent.errors import ConfigurationError, OutcomeUnknown, SignalRejected, StoreBroken, StoreUnavailable
from srm_agent.ports import IntakeResult, SignalLog

logger = structlog.get_logger()

ACCEPTED = 202
RETRY_AFTER_S = 1
DOUBT_S = 300.0
EXITS = 4
"""Exits over all providers, compared with entries."""
_Doubt = tuple[ProviderKey, str]
_OPENS = re.compile(rb'"action"[ \t\r\n]*:[ \t\r\n]*"open"')
"""Found in the bytes of a flat object it can only be that field: inside a text the quotes would be escaped."""


def _nothing_waits() -> int:
    return 0


def _in_charge(_: ProviderKey) -> bool:
    return False


class _Busy(SignalRejected):
    """A refusal that another try may overcome."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int) -> None:
        super().__init__(status, code, message)
        self.retry_after_s = retry_after_s


class Intake:
    """One per daemon. `deliver` is called once per fresh message, right after its commit; it must not block.

    `waiting` counts messages delivered and not taken up yet; `refusals` hears of bad signatures; `passive`: another
    daemon trades the accounts of that provider, and is to get its messages.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        keys: Mapping[ProviderKey, Sequence[WebhookKey]],
        log: SignalLog,
        deliver: Callable[[Signal], None],
        limits: IntakeLimits,
        registry: CollectorRegistry | None = None,
        refusals: RefusalWatch | None = None,
        waiting: Callable[[], int] = _nothing_waits,
        passive: Callable[[ProviderKey], bool] = _in_charge,
    ) -> None:
        self._clock = clock
        self._log = log
        self._deliver = deliver
        self._limits = limits
        self._counters = IntakeCounters(registry or CollectorRegistry())
        self._keys: Mapping[ProviderKey, Sequence[WebhookKey]] = {}
        self._entry_lanes: dict[ProviderKey, TokenBucket] = {}
        self._exit_lanes: dict[ProviderKey, TokenBucket] = {}
        self._refusals = refusals
        self._waiting = waiting
        self._passive = passive
        now = clock.monotonic()
        self._entry_house = House(limits.total_per_s, limits.total_burst, now)
        self._exit_house = House(limits.total_per_s * EXITS, limits.total_burst * EXITS, now)
        self._in_flight = 0
        self._in_doubt: dict[_Doubt, float] = {}
        self.replace_keys(keys)

    def replace_keys(self, keys: Mapping[ProviderKey, Sequence[WebhookKey]]) -> None:
        """Rotate or revoke: what is in flight finishes, the next message is checked against the new keys.

        Raises ConfigurationError naming the provider if it has no key or more than two.
        """
        for provider, active in keys.items():
            if not 1 <= len(active) <= MAX_KEYS:
                raise ConfigurationError(
                    f"provider {provider} must have 1 or {MAX_KEYS} webhook keys, had {len(active)}; "
                    f"keep the new key and, during a rotation, the old one"
                )
        self._keys = {provider: tuple(active) for provider, active in keys.items()}

    async def receive(self, provider: ProviderKey, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """HTTP status and JSON text for one message. `headers` has lower-case names. Never raises for its content.

        Strangers are turned away before they can spend the rate of a provider: signature first, then its bucket.
        """
        let_in = self.let_in(SignalRequest(provider=provider, headers=headers, body=body))
        return await self.accept(let_in) if isinstance(let_in, Admitted) else let_in

    def let_in(self, request: SignalRequest) -> tuple[int, str] | Admitted:
        """The first half of `receive`, without the store: the refusal, or what `accept` takes."""
        try:
            return Admitted(signal=self._admit(request.provider, request.headers, request.body), body=request.body)
        except SignalRejected as refusal:
            return self.refuse(request.provider, refusal)

    async def accept(self, admitted: Admitted) -> tuple[int, str]:
        """The second half: write, deliver, answer. Never raises for the message's content."""
        try:
            return await self._accept(admitted.signal, admitted.body)
        except SignalRejected as refusal:
            return self.refuse(admitted.signal.provider, refusal)

    def refuse(self, provider: ProviderKey, refusal: SignalRejected) -> tuple[int, str]:
        """Count a refusal and put it into words; also for what the shell refuses before `receive`."""
        known = provider in self._keys
        self._counters.count(provider if known else None, refusal.code)
        if refusal.status == 401 and self._refusals is not None:
            self._refusals.refused(f"provider {provider}" if known else "unknown providers", "signatures")
        if isinstance(refusal, _Busy):
            return refusal.status, busy_body(refusal.code, str(refusal), refusal.retry_after_s)
        return refusal.status, error_body(refusal.code, str(refusal), refusal.field)

    async def settle_doubts(self) -> int:
        """Deliver what was committed although its commit seemed lost; how many. Call it on a timer (seconds).

        A repeat settles its own doubt. What is not found is looked for again for five minutes: a database may finish
        a commit after the connection is gone. Raises StoreUnavailable and OutcomeUnknown as the log does.
        """
        if not self._in_doubt:
            return 0
        asked, expired = list(self._in_doubt), self._clock.monotonic() - DOUBT_S
        unfinished = {(signal.provider, signal.receipt.message_id): signal for signal in await self._log.unfinished()}
        settled = 0
        for doubt in asked:
            # A repeat may have settled it while we were reading.
            since = self._in_doubt.get(doubt)
            if since is not None and doubt in unfinished:
                self._forget(doubt)
                self._deliver(unfinished[doubt])
                settled += 1
            elif since is not None and since < expired:
                self._forget(doubt)
        return settled

    def _admit(self, provider: ProviderKey, headers: Mapping[str, str], body: bytes) -> Signal:
        """Everything that may be refused without the store, the cheapest and the most telling first.

        The signature comes before the rate, so that strangers cannot spend it; the rate before the parsing, so that a
        flood of opens costs a hash. What is let in has spent its token.
        """
        if len(body) > MAX_BODY_BYTES:
            raise SignalRejected(413, "BODY_TOO_LARGE", f"a body has at most {MAX_BODY_BYTES} bytes", "body")
        received_at, received = self._clock.wall(), self._clock.monotonic()
        message_id = verify(self._keys.get(provider, ()), headers, body, received_at.timestamp())
        if _OPENS.search(body):
            self._check_room(provider, received, exit_lane=False)
        delivery = Delivery(message_id=message_id, received_at=received_at, received=received)
        try:
            signal = parse_signal(body, provider, delivery)
        except SignalRejected as refusal:
            if wait_s := self._lane(provider, received, exit_lane=False).take(received):
                raise _rate_limited(wait_s) from None
            logger.info("signal refused", provider=str(provider), message_id=message_id, code=refusal.code)
            raise
        exit_lane = not isinstance(signal, OpenSignal)
        self._check_room(provider, received, exit_lane=exit_lane)
        self._lane(provider, received, exit_lane=exit_lane).take(received)
        self._house(exit_lane=exit_lane).take(provider, received)
        return signal

    def _house(self, *, exit_lane: bool) -> House:
        return self._exit_house if exit_lane else self._entry_house

    def _check_room(self, provider: ProviderKey, now: float, *, exit_lane: bool) -> None:
        if self._passive(provider):
            raise _Busy(503, "NOT_IN_CHARGE", "another daemon trades these accounts; send it there, same id", 1)
        if wait_s := self._lane(provider, now, exit_lane=exit_lane).wait(now):
            raise _rate_limited(wait_s)
        if wait_s := self._house(exit_lane=exit_lane).wait(provider, now):
            raise _Busy(429, "HOUSE_FULL", f"many providers send much; send it again in {wait_s} s, same id", wait_s)
        reserve = self._limits.in_flight_reserve if exit_lane else 0
        if self._in_flight >= self._limits.in_flight + reserve or self._waiting() >= self._limits.backlog + reserve:
            raise _Busy(503, "QUEUE_FULL", "too many messages are waiting; send it again under the same id", 1)

    def _lane(self, provider: ProviderKey, now: float, *, exit_lane: bool) -> TokenBucket:
        limits, lanes = self._limits, self._exit_lanes if exit_lane else self._entry_lanes
        lane = lanes.get(provider)
        if lane is None:
            rate, burst = (
                (limits.exits_per_s, limits.exits_burst) if exit_lane else (limits.entries_per_s, limits.entries_burst)
            )
            lane = lanes[provider] = TokenBucket(rate, burst, now)
        return lane

    async def _accept(self, signal: Signal, body: bytes) -> tuple[int, str]:
        doubt = (signal.provider, signal.receipt.message_id)
        self._enter(1)
        failpoints.reached("CP1")
        try:
            result = await self._log.accept(signal, sha256(body).hexdigest(), _answer(signal))
            if not result.fresh and doubt in self._in_doubt:
                await self.settle_doubts()
        except StoreUnavailable as error:
            raise self._unavailable(signal, "STORE_UNAVAILABLE", error) from error
        except OutcomeUnknown as error:
            self._doubt(doubt)
            raise self._unavailable(signal, "STORE_OUTCOME_UNKNOWN", error) from error
        except StoreBroken as error:
            raise self._unavailable(signal, "STORE_BROKEN", error) from error
        except asyncio.CancelledError:
            # A cancelled caller may have committed (foundation.md: 59 of 90 had).
            self._doubt(doubt)
            raise
        finally:
            self._enter(-1)
        failpoints.reached("CP2")
        return self._finished(signal, result, doubt)

    def _finished(self, signal: Signal, result: IntakeResult, doubt: _Doubt) -> tuple[int, str]:
        if result.fresh:
            self._forget(doubt)
            self._deliver(signal)
        self._counters.count(signal.provider, "accepted" if result.fresh else "repeated")
        return ACCEPTED, result.answer

    def _unavailable(self, signal: Signal, code: str, error: Exception) -> _Busy:
        logger.warning(
            "signal not written",
            provider=str(signal.provider),
            message_id=signal.receipt.message_id,
            code=code,
            error=type(error).__name__,
        )
        return _Busy(503, code, "the message could not be written; send it again under the same id", RETRY_AFTER_S)

    def _enter(self, change: int) -> None:
        self._in_flight += change
        self._counters.in_flight.set(self._in_flight)

    def _doubt(self, doubt: _Doubt) -> None:
        self._in_doubt[doubt] = self._clock.monotonic()
        self._counters.in_doubt.set(len(self._in_doubt))

    def _forget(self, doubt: _Doubt) -> None:
        self._in_doubt.pop(doubt, None)
        self._counters.in_doubt.set(len(self._in_doubt))


def _rate_limited(wait_s: int) -> _Busy:
    return _Busy(429, "RATE_LIMITED", f"too many messages; send it again in {wait_s} s, same id", wait_s)


def _answer(signal: Signal) -> str:
    """The first answer to a message; a repeat gets this text byte for byte."""
    return canonical_json(
        {
            "status": "accepted",
            "signal_id": signal.signal_id.removeprefix(f"{signal.provider}/"),
            "message_id": signal.receipt.message_id,
            "received_at": signal.receipt.received_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }
    )

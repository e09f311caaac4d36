"""The gates a signal must pass, in the order of `ReasonCode`. Each refusal carries its numbers.

Unknown quote, instrument, equity or conversion blocks (INV-14); an unknown ATR or forecast never does: that gate
stands open and the record says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from srm_agent.domain.accounts import AccountSnapshot, ConnectionState, Equity
from srm_agent.domain.decisions import ReasonCode
from srm_agent.domain.instrument import Instrument
from srm_agent.domain.market import Quote
from srm_agent.domain.policies import Evidence, MissingStop
from srm_agent.domain.units import (
    Distance,
    InAtr,
    distance_in_price,
    distance_text,
    from_float,
    limit_inside,
    plain,
    stop_away,
)
from srm_agent.risk.inputs import DecisionInputs

MAX_EQUITY_AGE_S = 5.0
"""INV-13."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gate that is shut."""

    reason: ReasonCode
    numbers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A signal that passed, with what the gates had to know. Prices on the tick grid except `planned_stop`."""

    instrument: Instrument
    quote: Quote
    equity: Equity
    account: AccountSnapshot
    conversion: Decimal
    touch: Decimal
    planned_stop: Decimal
    """The provider's stated stop, or the preset's."""
    distance: Decimal
    """|touch - planned stop|."""
    take_profit: Decimal | None
    open_gates: tuple[str, ...]
    """Gates that could not be computed for want of an ATR."""


def admit(inputs: DecisionInputs) -> Admitted | Refusal:
    """Pass every gate or the first refusal."""
    instrument, quote, equity, account = inputs.instrument, inputs.quote, inputs.equity, inputs.account
    refusal = _standing(inputs) or _terms(instrument) or _message(inputs) or _market(inputs) or _money(inputs)
    if refusal is not None:
        return refusal
    conversion = inputs.conversion
    # What the gates above have proved, in mypy's words.
    assert instrument is not None
    assert quote is not None
    assert equity is not None
    assert account is not None
    assert conversion is not None
    gates = _Gates(inputs, instrument, quote)
    stop = gates.stop()
    if isinstance(stop, Refusal):
        return stop
    target = gates.target()
    if isinstance(target, Refusal):
        return target
    distance = abs(gates.touch - stop)
    refusal = gates.stop_distance(stop, distance) or gates.rest()
    if refusal is not None:
        return refusal
    return Admitted(
        instrument=instrument,
        quote=quote,
        equity=equity,
        account=account,
        conversion=conversion,
        touch=gates.touch,
        planned_stop=stop,
        distance=distance,
        take_profit=target,
        open_gates=tuple(gates.without_atr),
    )


def _standing(inputs: DecisionInputs) -> Refusal | None:
    """Who may open anything now."""
    halted = inputs.halted_by
    if halted is not None and halted not in (ReasonCode.PROVIDER_HALTED, ReasonCode.SYMBOL_HALTED):
        return Refusal(ReasonCode.AGENT_HALTED)
    if inputs.state is ConnectionState.REDUCING:
        return Refusal(ReasonCode.CONNECTION_REDUCING)
    if inputs.state is not ConnectionState.ACTIVE:
        return Refusal(ReasonCode.CONNECTION_HALTED, {"state": inputs.state.value})
    if halted is not None:
        return Refusal(halted)
    if inputs.netting and inputs.exposure.symbol_busy:
        return Refusal(ReasonCode.SYMBOL_BUSY)
    return None


def _terms(instrument: Instrument | None) -> Refusal | None:
    """Whether the contract terms are there and can be computed with."""
    if instrument is None:
        return Refusal(ReasonCode.INSTRUMENT_UNKNOWN)
    if not instrument.tradable:
        return Refusal(ReasonCode.INSTRUMENT_NOT_TRADABLE, {"tradable": "false"})
    for name in ("tick_size", "lot_step", "lot_max", "contract_size", "max_leverage"):
        value: Decimal = getattr(instrument, name)
        if not _positive(value):
            return Refusal(ReasonCode.INSTRUMENT_NOT_TRADABLE, {name: str(value)})
    return None


def _message(inputs: DecisionInputs) -> Refusal | None:
    """Whether the signal itself may still be followed."""
    if inputs.duplicate:
        window = inputs.policy.policy.filter.duplicate_window_s
        return Refusal(ReasonCode.DUPLICATE_SIGNAL, {"window_s": plain(window)})
    if inputs.closed_before_open:
        return Refusal(ReasonCode.CLOSED_BEFORE_OPEN)
    allowed = inputs.policy.policy.filter.signal_ttl_s
    age = from_float(signal_age_s(inputs))
    if age > allowed:
        return Refusal(ReasonCode.SIGNAL_STALE, {"age_s": plain(age), "allowed_s": plain(allowed)})
    return None


def signal_age_s(inputs: DecisionInputs) -> float:
    """Seconds since the provider issued the signal: the larger of the wall clock's and the monotonic clock's view.

    A wall clock that is set back, or a provider whose clock runs ahead, cannot make an old signal young: what passed
    since the receipt counts by the monotonic clock in any case.
    """
    receipt = inputs.signal.receipt
    waited = inputs.now_monotonic - receipt.received
    transport = (receipt.received_at - receipt.issued_at).total_seconds()
    return max((inputs.now - receipt.issued_at).total_seconds(), waited, waited + transport)


def _market(inputs: DecisionInputs) -> Refusal | None:
    """Whether there is a price to decide on."""
    quote = inputs.quote
    if quote is None or not (_positive(quote.bid) and _positive(quote.ask) and quote.bid <= quote.ask):
        return Refusal(ReasonCode.QUOTE_MISSING)
    allowed = inputs.policy.policy.filter.quote_max_age_s
    age = from_float(inputs.now_monotonic - quote.received)
    if age > allowed:
        return Refusal(ReasonCode.QUOTE_STALE, {"age_s": plain(age), "allowed_s": plain(allowed)})
    return None


def _money(inputs: DecisionInputs) -> Refusal | None:
    """Whether the account's money is known (INV-13) and comparable."""
    equity, account, conversion = inputs.equity, inputs.account, inputs.conversion
    if equity is None or account is None:
        return Refusal(ReasonCode.EQUITY_UNKNOWN, {"known": "false"})
    if not equity.complete:
        return Refusal(ReasonCode.EQUITY_UNKNOWN, {"complete": "false"})
    if not equity.age_s <= MAX_EQUITY_AGE_S:
        return Refusal(ReasonCode.EQUITY_UNKNOWN, {"age_s": str(equity.age_s), "allowed_s": str(MAX_EQUITY_AGE_S)})
    if not _positive(equity.value):
        return Refusal(ReasonCode.EQUITY_UNKNOWN, {"equity": str(equity.value)})
    if conversion is None or not _positive(conversion):
        return Refusal(ReasonCode.CONVERSION_UNKNOWN)
    return None


class _Gates:
    """The gates that compare prices. Thresholds without a pip are collected and refused last, as the order asks."""

    def __init__(self, inputs: DecisionInputs, instrument: Instrument, quote: Quote) -> None:
        self._inputs = inputs
        self._policy = inputs.policy.policy.filter
        self._instrument = instrument
        self._side = inputs.signal.side
        self.touch = quote.touch(self._side)
        self._exit_touch = quote.touch(self._side.opposite)
        self._spread = quote.spread
        self.without_atr: list[str] = []
        self._without_pip: list[str] = []

    def threshold(self, name: str, distance: Distance | None) -> Decimal | None:
        """In price units; None: switched off, or not computable (and then noted by what is missing)."""
        if distance is None:
            return None
        atr = None if self._inputs.context is None else self._inputs.context.atr
        value = distance_in_price(distance, self._instrument, self.touch, atr)
        if value is None:
            (self.without_atr if isinstance(distance, InAtr) else self._without_pip).append(name)
        return value

    def stop(self) -> Decimal | Refusal:
        """The provider's stop, or the preset's where the policy says so; on the right side of the market."""
        stop = self._inputs.signal.stop_loss
        if stop is None:
            preset = self._policy.preset_stop
            if self._policy.missing_stop is not MissingStop.PRESET or preset is None:
                return Refusal(ReasonCode.STOP_MISSING)
            distance = self.threshold("preset_stop", preset)
            if distance is None:
                missing = ReasonCode.THRESHOLD_UNKNOWN if self._without_pip else ReasonCode.STOP_MISSING
                return Refusal(missing, {"preset_stop": distance_text(preset)})
            stop = stop_away(self.touch - self._side * distance, self._side, self._instrument.tick_size)
        ahead = self._side * (self._exit_touch - stop)
        if ahead <= 0 or self._side * (self._inputs.signal.signal_price - stop) <= 0:
            return Refusal(ReasonCode.STOP_WRONG_SIDE, {"stop": plain(stop), "price": plain(self._exit_touch)})
        return stop

    def target(self) -> Decimal | Refusal | None:
        """The take profit on the tick grid, never farther than asked; still ahead of the market."""
        asked = self._inputs.signal.take_profit
        if asked is None:
            return None
        target = limit_inside(asked, self._side, self._instrument.tick_size)
        if self._side * (target - self.touch) <= 0 or target <= 0:
            return Refusal(ReasonCode.TARGET_WRONG_SIDE, {"target": plain(asked), "price": plain(self.touch)})
        return target

    def stop_distance(self, stop: Decimal, distance: Decimal) -> Refusal | None:
        """The broker's stops level (measured at the closing touch) and the policy's bounds (from the entry touch)."""
        room = self._side * (self._exit_touch - stop)
        if room < self._instrument.stops_distance:
            numbers = {"distance": plain(room), "allowed": plain(self._instrument.stops_distance)}
            return Refusal(ReasonCode.STOP_TOO_CLOSE, numbers)
        least = self.threshold("min_stop", self._policy.min_stop)
        if least is not None and distance < least:
            return Refusal(ReasonCode.STOP_TOO_CLOSE, {"distance": plain(distance), "allowed": plain(least)})
        most = self.threshold("max_stop", self._policy.max_stop)
        if most is not None and distance > most:
            return Refusal(ReasonCode.STOP_TOO_FAR, {"distance": plain(distance), "allowed": plain(most)})
        if stop_away(stop, self._side, self._instrument.tick_size) <= 0:
            return Refusal(ReasonCode.STOP_TOO_FAR, {"distance": plain(distance), "stop": plain(stop)})
        return None

    def rest(self) -> Refusal | None:
        """Score, slippage, drift, spread, counts, daily loss, and at last thresholds without a unit."""
        return (
            self._score()
            or self._distances()
            or self._counts()
            or (
                Refusal(ReasonCode.THRESHOLD_UNKNOWN, {"gates": ",".join(self._unknown())}) if self._unknown() else None
            )
        )

    def _score(self) -> Refusal | None:
        rule = self._inputs.policy.policy.score
        if rule.evidence is not Evidence.ASSUMED or not self._inputs.score.sufficient:
            return None  # nobody is refused on what his peers do
        threshold = rule.readmit_above if self._inputs.score_was_rejected else rule.reject_below
        probability = self._inputs.score.probability_positive
        if probability >= threshold:
            return None
        return Refusal(
            ReasonCode.SCORE_TOO_LOW,
            {
                "probability": plain(probability),
                "allowed": plain(threshold),
                "trades": str(self._inputs.score.trades),
            },
        )

    def _distances(self) -> Refusal | None:
        forecast, signal = self._inputs.forecast, self._inputs.signal
        checks = (
            (
                ReasonCode.SLIPPAGE_TOO_HIGH,
                "expected",
                None if forecast is None else forecast.entry_mean,
                self.threshold("max_expected_slippage", self._policy.max_expected_slippage),
            ),
            (
                ReasonCode.ENTRY_EXPIRED,
                "drift",
                self._side * (self.touch - signal.signal_price),
                self.threshold("max_entry_drift", self._policy.max_entry_drift),
            ),
            (
                ReasonCode.SPREAD_TOO_WIDE,
                "spread",
                self._spread,
                self.threshold("max_spread", self._policy.max_spread),
            ),
        )
        for reason, name, value, allowed in checks:
            if value is not None and allowed is not None and value > allowed:
                return Refusal(reason, {name: plain(value), "allowed": plain(allowed)})
        return None

    def _counts(self) -> Refusal | None:
        own = self._inputs.copy.max_positions
        allowed = self._policy.max_positions if own is None else min(own, self._policy.max_positions)
        if self._inputs.exposure.legs >= allowed:
            numbers = {"legs": str(self._inputs.exposure.legs), "allowed": str(allowed)}
            return Refusal(ReasonCode.TOO_MANY_POSITIONS, numbers)
        return Refusal(ReasonCode.DAILY_LOSS_REACHED) if self._inputs.daily_loss_reached else None

    def _unknown(self) -> list[str]:
        policy = self._inputs.policy.policy
        others = {
            "max_slippage": policy.limits.max_slippage,
            "buffer_minimum": policy.buffer.minimum,
            "buffer_maximum": policy.buffer.maximum,
        }
        for name, distance in others.items():
            if name not in self._without_pip and name not in self.without_atr:
                self.threshold(name, distance)
        return self._without_pip


def _positive(value: Decimal) -> bool:
    return value.is_finite() and value > 0

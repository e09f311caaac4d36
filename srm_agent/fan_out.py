"""One signal, many followers: what is common is computed once, the rest is decided per connection (design.md 3)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

import structlog

from srm_agent.account import Account
from srm_agent.clock import Clock
from srm_agent.domain.accounts import HaltScope
from srm_agent.domain.decisions import Decision, ReasonCode
from srm_agent.domain.forecasts import ForecastRequest, ProviderScore, SlippageForecast
from srm_agent.domain.ids import ConnectionId, ProviderKey, SignalId, client_order_id
from srm_agent.domain.instrument import AssetClass, Instrument
from srm_agent.domain.market import MarketContext, Quote
from srm_agent.domain.orders import OrderIntent, OrderPurpose
from srm_agent.domain.signals import OpenSignal
from srm_agent.domain.trades import Leg, LegState
from srm_agent.domain.units import ONE, ZERO
from srm_agent.execution.legs import planned_leg
from srm_agent.execution.slippage import Arrival
from srm_agent.market_watch import MarketWatch
from srm_agent.ports import Forecaster, Scorer
from srm_agent.protection.halts import HaltBoard
from srm_agent.risk.inputs import DecisionInputs, Exposure
from srm_agent.risk.pipeline import decide
from srm_agent.roster import Roster

log = structlog.get_logger()

REMEMBERED = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an accepted decision wants sent."""

    intent: OrderIntent
    leg: Leg
    arrival: Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A decision, its account, and the order if it was accepted."""

    decision: Decision
    account: Account
    order: Order | None


@dataclass(slots=True, kw_only=True)
class _Common:
    """What all followers of a signal at one venue share."""

    market: MarketWatch
    instrument: Instrument | None
    quote: Quote | None
    context: MarketContext | None
    forecast: SlippageForecast | None
    queue_lot: Decimal = ZERO


class FanOut:
    """Decides a signal for each follower, lazily, so that the first order need not wait for the last decision."""

    def __init__(
        self,
        *,
        clock: Clock,
        roster: Roster,
        markets: Mapping[str, MarketWatch],
        forecaster: Forecaster,
        scorer: Scorer,
        halts: HaltBoard,
        send_deadline_s: float,
    ) -> None:
        self._clock = clock
        self._roster = roster
        self._markets = markets
        self._forecaster = forecaster
        self._scorer = scorer
        self._halts = halts
        self._send_deadline_s = send_deadline_s
        self._cancelled: dict[SignalId, None] = {}
        self._touches: dict[tuple[SignalId, str], Decimal] = {}
        self._recent: dict[tuple[object, ...], tuple[float, SignalId]] = {}
        self._refused_providers: dict[ProviderKey, None] = {}

    # ---- what the flow asks

    def note_arrival(self, signal: OpenSignal) -> None:
        """The first of the three touches: right after the signal's commit, before it waits for its turn."""
        for market in self._markets.values():
            touch = market.touch(signal.symbol, signal.side)
            if touch is not None:
                _remember(self._touches, (signal.signal_id, market.name), touch)

    def cancel(self, signal: SignalId) -> None:
        """Entries of this signal that have not left yet never will."""
        _remember(self._cancelled, signal, None)

    def cancelled(self, signal: SignalId) -> bool:
        """Whether the provider has withdrawn it."""
        return signal in self._cancelled

    def market_of(self, signal: OpenSignal) -> MarketWatch | None:
        """A market that knows the signal's symbol."""
        return next((market for market in self._markets.values() if signal.symbol in market.instruments), None)

    def decide(
        self,
        signal: OpenSignal,
        accounts: Mapping[ConnectionId, Account],
        *,
        tombstone: bool,
        decided: Container[ConnectionId] = (),
        defects: list[Exception] | None = None,
    ) -> Iterator[Planned]:
        """A verdict per follower, in a fair rotating order; accepted ones are reserved before the next is decided.

        Followers who have been `decided` (a repeat after an outage), or whose order an earlier process has sent, are
        left out: their decision stands, and nothing is sent twice (INV-1). A defect in one follower's decision is put
        into `defects` and costs the others nothing; without that list it is raised.
        """
        twin = self._age_of_twin(signal)
        score = self._scorer.score(signal.provider)
        shared: dict[str, _Common] = {}
        for member in self._roster.followers(signal.provider):
            account = accounts.get(member.connection_id)
            if account is None or member.connection_id in decided or account.desk.entered_before(signal.signal_id):
                continue
            try:
                planned = self._planned(signal, account, shared, score, twin=twin, tombstone=tombstone)
            except Exception as error:
                if defects is None:
                    raise
                log.exception("a follower could not be decided", connection_id=member.connection_id)
                defects.append(error)
                continue
            yield planned

    # ---- details

    def _planned(
        self,
        signal: OpenSignal,
        account: Account,
        shared: dict[str, _Common],
        score: ProviderScore,
        *,
        twin: float | None,
        tombstone: bool,
    ) -> Planned:
        venue = account.member.venue
        common = shared.get(venue)
        if common is None:
            common = shared[venue] = self._common(signal, self._markets[venue])
        decision = decide(self._inputs(signal, account, common, score, twin=twin, tombstone=tombstone))
        if decision.reason is ReasonCode.SCORE_TOO_LOW:
            self._refused_providers[signal.provider] = None
        elif decision.accepted:
            self._refused_providers.pop(signal.provider, None)
        order = self._order(signal, decision, account, common) if decision.accepted else None
        if order is not None:
            account.desk.plan_entry(order.leg, order.intent)
            common.queue_lot += order.intent.lot
        return Planned(decision=decision, account=account, order=order)

    def _common(self, signal: OpenSignal, market: MarketWatch) -> _Common:
        instrument = market.instruments.get(signal.symbol)
        quote, context = market.fresh_quote(signal.symbol), market.context(signal.symbol)
        forecast = None
        if instrument is not None and context is not None:
            forecast = self._forecaster.forecast(
                ForecastRequest(
                    symbol=signal.symbol,
                    side=signal.side,
                    venue=market.name,
                    context=context,
                    pip_size=instrument.pip_size,
                    tick_size=instrument.tick_size,
                    latency_s=None,
                    queue_lot=ZERO,
                )
            )
        return _Common(market=market, instrument=instrument, quote=quote, context=context, forecast=forecast)

    def _inputs(
        self,
        signal: OpenSignal,
        account: Account,
        common: _Common,
        score: ProviderScore,
        *,
        twin: float | None,
        tombstone: bool,
    ) -> DecisionInputs:
        member, instrument = account.member, common.instrument
        if instrument is not None and account.desk.refusals.shut(signal.symbol, signal.side):
            instrument = replace(instrument, tradable=False)
        snapshot = account.watch.snapshot
        asset_class = AssetClass.CRYPTO if instrument is None else instrument.asset_class
        policy = member.policies[asset_class]
        settle = None if instrument is None else instrument.settle_currency
        conversion = ONE if snapshot is not None and settle == snapshot.currency else None
        return DecisionInputs(
            signal=signal,
            connection_id=member.connection_id,
            now=self._clock.wall(),
            now_monotonic=self._clock.monotonic(),
            instrument=instrument,
            quote=common.quote,
            context=common.context,
            forecast=common.forecast,
            score=score,
            equity=account.equity(),
            account=snapshot,
            conversion=conversion,
            exposure=_exposure(account, signal, conversion or ONE),
            state=account.state(),
            halted_by=self._halted_by(signal, account),
            drawdown=account.drawdown(),
            losses_in_a_row=account.losses_in_a_row(policy.policy.brake.days),
            daily_loss_reached=account.verdict is not None and account.verdict.day_over,
            duplicate=twin is not None and twin <= policy.policy.filter.duplicate_window_s,
            closed_before_open=tombstone or signal.signal_id in self._cancelled,
            score_was_rejected=signal.provider in self._refused_providers,
            netting=account.desk.netting,
            copy=member.copy,
            policy=policy,
            model_versions={
                "slippage": common.forecast.version if common.forecast else "none",
                "score": score.version,
            },
        )

    def _halted_by(self, signal: OpenSignal, account: Account) -> ReasonCode | None:
        if self._halts.find(HaltScope.ALL) is not None:
            return ReasonCode.AGENT_HALTED
        if self._halts.find(HaltScope.PROVIDER, str(signal.provider)) is not None:
            return ReasonCode.PROVIDER_HALTED
        if self._halts.find(HaltScope.SYMBOL, signal.symbol) is not None:
            return ReasonCode.SYMBOL_HALTED
        if signal.symbol in account.desk.halted_symbols:
            return ReasonCode.SYMBOL_HALTED
        return None

    def _age_of_twin(self, signal: OpenSignal) -> float | None:
        """Seconds since the same trade came under another id (S3), None if it did not."""
        key = (signal.provider, signal.symbol, signal.side, signal.signal_price, signal.stop_loss, signal.take_profit)
        now = self._clock.monotonic()
        known = self._recent.get(key)
        if known is not None and known[1] != signal.signal_id:
            return now - known[0]
        _remember(self._recent, key, (now, signal.signal_id))
        return None

    def _order(self, signal: OpenSignal, decision: Decision, account: Account, common: _Common) -> Order:
        assert decision.lot is not None
        leg = planned_leg(decision)
        quote = common.quote
        assert quote is not None
        now = self._clock.monotonic()
        intent = OrderIntent(
            client_id=client_order_id(decision.connection_id, decision.signal_id, "entry"),
            connection_id=decision.connection_id,
            leg_id=leg.leg_id,
            signal_id=decision.signal_id,
            decision_id=decision.decision_id,
            purpose=OrderPurpose.ENTRY,
            symbol=decision.symbol,
            side=decision.side,
            lot=decision.lot,
            limit_price=decision.limit_price,
            stop_loss=decision.stop_loss,
            take_profit=decision.take_profit,
            reduce=None,
            reason="signal",
            created_at=self._clock.wall(),
            deadline=now + self._send_deadline_s,
            fence=account.desk.fence,
        )
        arrival = Arrival(
            provider=signal.provider,
            venue=common.market.name,
            signal_price=signal.signal_price,
            received=signal.receipt.received,
            touch_received=self._touches.get((signal.signal_id, common.market.name)),
            touch_decided=quote.touch(signal.side),
        )
        return Order(intent=intent, leg=leg, arrival=arrival)


def _exposure(account: Account, signal: OpenSignal, conversion: Decimal) -> Exposure:
    """What the account already risks, in account currency; legs under way count as filled."""
    open_risk = symbol_notional = total_notional = margin = ZERO
    legs = list(account.desk.open_legs())
    for leg in legs:
        instrument = account.market.instruments.get(leg.symbol)
        if instrument is None:
            continue  # its terms are not loaded: the account is REDUCING, and nothing is decided by these sums
        price = leg.entry_price or account.market.touch(leg.symbol, leg.side) or ZERO
        notional = instrument.notional(leg.open_lot, price) * conversion
        open_risk += leg.planned_risk * (leg.open_lot / leg.lot if leg.lot else ZERO) * conversion
        total_notional += notional
        if leg.symbol == signal.symbol:
            symbol_notional += notional
        if leg.state is LegState.OPENING:
            margin += notional / instrument.max_leverage
    return Exposure(
        legs=len(legs),
        symbol_busy=account.desk.ledger.busy(signal.symbol),
        open_risk=open_risk,
        symbol_notional=symbol_notional,
        total_notional=total_notional,
        margin_reserved=margin,
    )


K = TypeVar("K")
V = TypeVar("V")


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]

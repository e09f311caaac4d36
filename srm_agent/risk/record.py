"""What was known when a decision was taken, as exact text; an absent key was unknown."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite

from srm_agent.domain.accounts import AccountSnapshot, Equity
from srm_agent.domain.forecasts import ProviderScore, SlippageForecast
from srm_agent.domain.market import MarketContext
from srm_agent.domain.units import plain
from srm_agent.risk.inputs import DecisionInputs


def known(inputs: DecisionInputs) -> dict[str, str]:
    """The record of the inputs. Never raises: what is no finite number is left out like what is missing."""
    record = _Record()
    record.number("drawdown", inputs.drawdown)
    record.number("conversion", inputs.conversion)
    if inputs.losses_in_a_row is not None:
        record.text("losses_in_a_row", str(inputs.losses_in_a_row))
    record.text("state", inputs.state.value)
    _money(record, inputs.equity, inputs.account)
    _prices(record, inputs)
    _context(record, inputs.context)
    _forecast(record, inputs.forecast)
    _score(record, inputs.score)
    return record.values


class _Record:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def text(self, key: str, value: str) -> None:
        self.values[key] = value

    def number(self, key: str, value: Decimal | None) -> None:
        if value is not None and _usable(value):
            self.values[key] = plain(value)

    def measure(self, key: str, value: float) -> None:
        if isfinite(value):
            self.values[key] = plain(Decimal(repr(float(value))))


def _usable(value: Decimal) -> bool:
    """Finite and of an exponent that neither overflows nor fills a page."""
    return value.is_finite() and (value == 0 or abs(value.adjusted()) < 60)


def _money(record: _Record, equity: Equity | None, account: AccountSnapshot | None) -> None:
    if equity is not None:
        record.number("equity", equity.value)
        record.measure("equity_age_s", equity.age_s)
    if account is not None:
        record.number("balance", account.balance)
        record.text("currency", account.currency)


def _prices(record: _Record, inputs: DecisionInputs) -> None:
    signal, quote, instrument = inputs.signal, inputs.quote, inputs.instrument
    record.number("signal_price", signal.signal_price)
    record.number("signal_stop", signal.stop_loss)
    record.number("signal_target", signal.take_profit)
    if instrument is not None:
        record.number("tick_size", instrument.tick_size)
        record.number("pip_size", instrument.pip_size)
        record.number("contract_size", instrument.contract_size)
    if quote is None:
        return
    record.number("bid", quote.bid)
    record.number("ask", quote.ask)
    record.measure("quote_age_s", inputs.now_monotonic - quote.received)
    if _usable(quote.bid) and _usable(quote.ask):
        record.number("spread", quote.spread)
        if _usable(signal.signal_price):
            record.number("entry_drift", signal.side * (quote.touch(signal.side) - signal.signal_price))


def _context(record: _Record, context: MarketContext | None) -> None:
    if context is None:
        return
    record.number("spread_median", context.spread_median)
    record.number("atr", context.atr)
    record.number("volatility_index", context.volatility_index)
    record.text("session", context.session.value)
    record.text("iso_weekday", str(context.iso_weekday))
    record.text("market_at", context.at.isoformat())


def _forecast(record: _Record, forecast: SlippageForecast | None) -> None:
    if forecast is None:
        return
    record.number("forecast_entry_mean", forecast.entry_mean)
    record.number("forecast_entry_upper", forecast.entry_upper)
    record.number("forecast_stop_mean", forecast.stop_mean)
    record.number("forecast_stop_upper", forecast.stop_upper)
    record.text("forecast_provenance", forecast.provenance)


def _score(record: _Record, score: ProviderScore) -> None:
    record.measure("score_mean", score.mean)
    record.measure("score_deviation", score.deviation)
    record.number("score_shown", score.shown)
    record.measure("score_platform_mean", score.platform_mean)
    record.text("score_trades", str(score.trades))

"""The policy blocks of the configuration, with defaults that differ by asset class."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field, model_validator

from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.policies import (
    BrakePolicy,
    BufferPolicy,
    Evidence,
    FilterPolicy,
    ForeignStopChange,
    LadderPolicy,
    LimitPolicy,
    MissingStop,
    Policy,
    ScorePolicy,
    StopPolicy,
)
from srm_agent.domain.units import Distance
from srm_agent.settings.numbers import (
    Ceiling,
    DistanceModel,
    Fraction,
    Gate,
    NotNegative,
    Positive,
    StrictModel,
    atr,
    bps,
    pips,
)


class FilterSettings(StrictModel):
    """When a signal is refused."""

    signal_ttl_s: Positive = Field(Decimal(30), description="seconds after which an opening signal is stale")
    quote_max_age_s: Positive = Field(Decimal(5), description="seconds after which a quote is too old to enter on")
    max_entry_drift: DistanceModel = Field(
        pips("5"), description="entry expired: the market moved this far beyond the signal price, adversely"
    )
    max_expected_slippage: Gate = Field(
        pips("3"), description="refuse when the expected slippage is above this; 'off' switches it off"
    )
    max_spread: Gate = Field(pips("6"), description="refuse when the spread is above this; 'off' switches it off")
    missing_stop: Literal["refuse", "preset"] = Field("refuse", description="what to do with a signal without a stop")
    preset_stop: DistanceModel | None = Field(None, description="the stop used when missing_stop = preset")
    min_stop: Gate = Field(pips("1"), description="refuse stops nearer than this; 'off' switches it off")
    max_stop: Gate = Field(pips("1000"), description="refuse stops farther than this; 'off' switches it off")
    max_positions: int = Field(10, ge=1, le=1000, description="open legs per connection")
    duplicate_window_s: NotNegative = Field(
        Decimal(10), description="seconds in which the same trade under a new signal id is a duplicate"
    )

    @model_validator(mode="after")
    def _preset_needs_a_stop(self) -> FilterSettings:
        if self.missing_stop == "preset" and self.preset_stop is None:
            raise ValueError("missing_stop = preset needs preset_stop, e.g. { atr = 2 }")
        return self

    def domain(self) -> FilterPolicy:
        """The domain's value."""
        return FilterPolicy(
            signal_ttl_s=self.signal_ttl_s,
            quote_max_age_s=self.quote_max_age_s,
            max_entry_drift=self.max_entry_drift.domain(),
            max_expected_slippage=_domain(self.max_expected_slippage),
            max_spread=_domain(self.max_spread),
            missing_stop=MissingStop(self.missing_stop),
            preset_stop=_domain(self.preset_stop),
            min_stop=_domain(self.min_stop),
            max_stop=_domain(self.max_stop),
            max_positions=self.max_positions,
            duplicate_window_s=self.duplicate_window_s,
        )


class BufferSettings(StrictModel):
    """How far a stop may be moved away from entry; the lot shrinks accordingly."""

    minimum: DistanceModel = Field(pips("1"), description="smallest buffer when one is called for")
    maximum: DistanceModel = Field(pips("3"), description="largest buffer")
    max_share: Fraction = Field(
        Decimal("0.15"), description="buffer is 0 when it exceeds this share of the stop distance"
    )
    calm_is_zero: bool = Field(True, description="no buffer where neither forecast nor spread calls for one")
    spread_share: NotNegative = Field(Decimal("0.8"), description="times the median spread: covers premature stops")

    def domain(self) -> BufferPolicy:
        """The domain's value."""
        return BufferPolicy(
            minimum=self.minimum.domain(),
            maximum=self.maximum.domain(),
            max_share=self.max_share,
            calm_is_zero=self.calm_is_zero,
            spread_share=self.spread_share,
        )


class ScoreSettings(StrictModel):
    """How the provider score acts on the lot."""

    evidence: Literal["measured", "assumed"] = Field(
        "measured", description="measured: scores steer within 0.9-1.1 until proved on your data; assumed: at once"
    )
    reject_below: Fraction = Field(Decimal("0.20"), description="refuse when P(provider profitable) is below this")
    readmit_above: Fraction = Field(Decimal("0.30"), description="once refused, take signals again above this")
    slope: NotNegative = Field(Decimal(6), description="lot multiplier per R of expectancy")
    caution: NotNegative = Field(Decimal("0.5"), description="standard deviations subtracted from the expectancy")
    floor: Fraction = Field(Decimal("0.3"), description="smallest lot multiplier")
    max_up: Positive = Field(Decimal(1), le=Decimal("1.5"), description="largest lot multiplier, at most 1.5")

    @model_validator(mode="after")
    def _hysteresis(self) -> ScoreSettings:
        if self.readmit_above < self.reject_below:
            raise ValueError(
                f"readmit_above ({self.readmit_above}) must not be below reject_below ({self.reject_below})"
            )
        return self

    def domain(self) -> ScorePolicy:
        """The domain's value."""
        return ScorePolicy(
            evidence=Evidence(self.evidence),
            reject_below=self.reject_below,
            readmit_above=self.readmit_above,
            slope=self.slope,
            caution=self.caution,
            floor=self.floor,
            max_up=self.max_up,
        )


class LadderSettings(StrictModel):
    """Smaller lots as the drawdown grows."""

    start: Fraction = Field(Decimal("0.08"), description="drawdown up to which the lot stays whole")
    stop: Fraction = Field(Decimal("0.20"), description="drawdown at which the lot is `floor` times as large")
    floor: Fraction = Field(Decimal("0.25"), description="smallest factor of the ladder")

    @model_validator(mode="after")
    def _rising(self) -> LadderSettings:
        if self.start >= self.stop:
            raise ValueError(f"start ({self.start}) must be below stop ({self.stop})")
        return self

    def domain(self) -> LadderPolicy:
        """The domain's value."""
        return LadderPolicy(start=self.start, stop=self.stop, floor=self.floor)


class BrakeSettings(StrictModel):
    """Smaller lots after losses in a row of the same account, until its next win."""

    free_losses: int = Field(3, ge=0, le=1000, description="losses in a row that change nothing")
    step: Fraction = Field(Decimal("0.1"), description="of the lot taken off for each further loss")
    floor: Fraction = Field(Decimal("0.5"), description="smallest factor of the brake; 1 switches it off")
    days: int = Field(5, ge=1, le=365, description="days since the last loss after which the streak is forgotten")

    def domain(self) -> BrakePolicy:
        """The domain's value."""
        return BrakePolicy(free_losses=self.free_losses, step=self.step, floor=self.floor, days=self.days)


class LimitSettings(StrictModel):
    """Hard ceilings."""

    max_risk: Fraction = Field(Decimal("0.02"), description="of equity, lost at the buffered stop: never exceeded")
    max_open_risk: Fraction = Field(Decimal("0.06"), description="of equity, over all open legs")
    max_symbol_notional: Ceiling = Field(None, description='times equity per symbol; "off" is none')
    max_total_notional: Ceiling = Field(Decimal(20), description='times equity over all symbols; "off" is none')
    max_margin_use: Fraction = Field(Decimal("0.5"), description="of free margin an entry may take")
    max_slippage: DistanceModel = Field(pips("3"), description="entries are limit orders at touch +- this")

    def domain(self) -> LimitPolicy:
        """The domain's value."""
        return LimitPolicy(
            max_risk=self.max_risk,
            max_open_risk=self.max_open_risk,
            max_symbol_notional=self.max_symbol_notional,
            max_total_notional=self.max_total_notional,
            max_margin_use=self.max_margin_use,
            max_slippage=self.max_slippage.domain(),
        )


class StopSettings(StrictModel):
    """How stops in force may change."""

    foreign_change: Literal["restore", "flag"] = Field(
        "restore",
        description="a stop that somebody else loosened: set again, or told and left (a removed one is set again)",
    )
    allow_widening: bool = Field(
        False, description="whether a provider may move a stop away from entry; limits.max_risk is never exceeded"
    )

    def domain(self) -> StopPolicy:
        """The domain's value."""
        return StopPolicy(foreign_change=ForeignStopChange(self.foreign_change), allow_widening=self.allow_widening)


class PolicySettings(StrictModel):
    """The policy of one asset class."""

    filter: FilterSettings = FilterSettings()
    buffer: BufferSettings = BufferSettings()
    score: ScoreSettings = ScoreSettings()
    ladder: LadderSettings = LadderSettings()
    brake: BrakeSettings = BrakeSettings()
    limits: LimitSettings = LimitSettings()
    stops: StopSettings = StopSettings()

    def domain(self, name: str) -> Policy:
        """The domain's value."""
        return Policy(
            name=name,
            filter=self.filter.domain(),
            buffer=self.buffer.domain(),
            score=self.score.domain(),
            ladder=self.ladder.domain(),
            brake=self.brake.domain(),
            limits=self.limits.domain(),
            stops=self.stops.domain(),
        )


# Defaults of the classes that have no pip, or whose pip is not comparable to FX: basis points and ATR.
_BPS: dict[str, dict[str, object]] = {
    "filter": {
        "max_entry_drift": bps("5"),
        "max_expected_slippage": bps("4"),
        "max_spread": bps("8"),
        "min_stop": bps("2"),
        "max_stop": bps("1500"),
    },
    "buffer": {"minimum": bps("1"), "maximum": bps("4")},
    "limits": {"max_slippage": bps("5")},
}
_METAL: dict[str, dict[str, object]] = {**_BPS, "buffer": {"minimum": atr("0.05"), "maximum": atr("0.2")}}
_SHIPPED: dict[AssetClass, dict[str, dict[str, object]]] = {
    AssetClass.FX: {},
    AssetClass.METAL: _METAL,
    AssetClass.INDEX: _BPS,
    AssetClass.CRYPTO: _BPS,
}


def with_class_defaults(asset_class: AssetClass, given: dict[str, object]) -> dict[str, object]:
    """What the operator wrote for a class, on top of that class's shipped defaults, key by key."""
    merged: dict[str, object] = dict(given)
    for block, defaults in _SHIPPED[asset_class].items():
        own = given.get(block, {})
        if isinstance(own, dict):
            merged[block] = {**defaults, **own}
    return merged


class PoliciesSettings(StrictModel):
    """One policy per asset class; what is not written keeps the shipped default of that class."""

    fx: PolicySettings = PolicySettings()
    metal: PolicySettings = PolicySettings()
    index: PolicySettings = PolicySettings()
    crypto: PolicySettings = PolicySettings()

    @model_validator(mode="before")
    @classmethod
    def _class_defaults(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        filled = dict(value)
        for asset_class in AssetClass:
            own = filled.get(asset_class.value, {})
            if isinstance(own, dict):
                filled[asset_class.value] = with_class_defaults(asset_class, own)
        return filled

    def of(self, asset_class: AssetClass) -> PolicySettings:
        """The block of a class."""
        block = getattr(self, asset_class.value)
        assert isinstance(block, PolicySettings)
        return block


def _domain(model: DistanceModel | None) -> Distance | None:
    return None if model is None else model.domain()

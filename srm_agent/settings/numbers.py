"""Field types that refuse what people really mistype: a percent for a fraction, NaN, true for 1."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from srm_agent.domain.units import Distance, InAtr, InBps, InPips, distance_text, plain


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, was true or false")
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, str):
        text = value
        try:
            value = Decimal(text)
        except ArithmeticError:
            raise ValueError(f"must be a number, was {text[:40]!r}") from None
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError(f"must be a finite number, was {value}")
    return value


def _fraction(value: object) -> object:
    number = _number(value)
    if isinstance(number, int | Decimal) and not 0 <= number <= 1:
        percent = f"write {plain(Decimal(number) / 100)} for {number} %" if 1 < number <= 100 else "0.2 means 20 %"
        raise ValueError(f"must be a fraction between 0 and 1, was {number} ({percent})")
    return number


Number = Annotated[Decimal, BeforeValidator(_number)]
Positive = Annotated[Decimal, BeforeValidator(_number), Field(gt=0, le=Decimal(10) ** 12)]
NotNegative = Annotated[Decimal, BeforeValidator(_number), Field(ge=0)]
Fraction = Annotated[Decimal, BeforeValidator(_fraction)]
"""0 to 1; 0.2 means 20 %."""


class StrictModel(BaseModel):
    """Frozen; an unknown key is an error; inputs never appear in messages."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)


class DistanceModel(StrictModel):
    """`{ pips = 5 }`, `{ bps = 5 }` or `{ atr = 0.2 }`: exactly one of them."""

    pips: Positive | None = None
    bps: Positive | None = None
    atr: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_table(cls, value: object) -> object:
        if not isinstance(value, dict | cls):
            raise ValueError("must say its unit: { pips = 5 }, { bps = 5 } or { atr = 0.2 }")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> DistanceModel:
        if sum(unit is not None for unit in (self.pips, self.bps, self.atr)) != 1:
            raise ValueError("must have exactly one unit: { pips = 5 }, { bps = 5 } or { atr = 0.2 }")
        return self

    def domain(self) -> Distance:
        """The domain's value."""
        if self.pips is not None:
            return InPips(self.pips)
        if self.bps is not None:
            return InBps(self.bps)
        assert self.atr is not None
        return InAtr(self.atr)

    def __str__(self) -> str:
        return distance_text(self.domain())


def _off(value: object) -> object:
    """TOML has no null: the word `off` switches a gate or ceiling off."""
    return None if value == "off" else value


Gate = Annotated[DistanceModel | None, BeforeValidator(_off)]
"""A distance, or "off"."""
Ceiling = Annotated[Positive | None, BeforeValidator(_off)]
"""A positive number, or "off"."""


def pips(value: str) -> DistanceModel:
    """Shorthand for defaults."""
    return DistanceModel(pips=Decimal(value))


def bps(value: str) -> DistanceModel:
    """Shorthand for defaults."""
    return DistanceModel(bps=Decimal(value))


def atr(value: str) -> DistanceModel:
    """Shorthand for defaults."""
    return DistanceModel(atr=Decimal(value))

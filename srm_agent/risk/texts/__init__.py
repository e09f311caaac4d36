"""The words of the explanations, one TOML file a language, and the numbers inside them as people write them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from importlib.resources import files
from string import Formatter


class Language(StrEnum):
    """Languages there are texts for."""

    EN = "en"
    ID = "id"


@dataclass(frozen=True, slots=True)
class Texts:
    """One language: `reason` by ReasonCode, `rule` (labels) and `cause` (half sentences) by rule, `frame` sentences.

    `heading` are the words of tables.
    """

    heading: Mapping[str, str]
    frame: Mapping[str, str]
    reason: Mapping[str, str]
    rule: Mapping[str, str]
    cause: Mapping[str, str]
    word: Mapping[str, str]
    decimal_point: str
    thousands: str


@cache
def texts(language: Language) -> Texts:
    """The texts of a language, read once from the package."""
    body = tomllib.loads(files(__package__).joinpath(f"{language.value}.toml").read_text(encoding="utf-8"))
    return Texts(
        heading=body["heading"],
        frame=body["frame"],
        reason=body["reason"],
        rule=body["rule"],
        cause=body["cause"],
        word=body["word"],
        decimal_point=body["numbers"]["decimal_point"],
        thousands=body["numbers"]["thousands"],
    )


class Phrases(Formatter):
    """Fills `{key:kind}` with exact text values, rounded for people; a missing or odd value reads `unknown`.

    Kinds: `lot`, `price`, `distance` (pips, or basis points of `price` where there is no pip), `money` (two digits and
    the currency), `percent` (of a fraction), `score` (whole number), `seconds`, and none (as it is).
    """

    def __init__(self, texts: Texts, facts: Mapping[str, str]) -> None:
        super().__init__()
        self._texts = texts
        self._facts = facts

    def fill(self, template: str, values: Mapping[str, str]) -> str:
        """The template with its values."""
        return self.vformat(template, (), values)

    def get_value(self, key: int | str, args: object, kwargs: Mapping[str, object]) -> object:
        """A value by name, the empty text where it is missing."""
        del args
        return kwargs.get(str(key), "")

    def format_field(self, value: object, format_spec: str) -> str:
        """One value as its kind."""
        text = str(value)
        if not format_spec:
            return text or self._texts.word["unknown"]
        try:
            number = Decimal(text)
        except InvalidOperation:
            return self._texts.word["unknown"]
        if not number.is_finite():
            return self._texts.word["unknown"]
        return self._kind(number, format_spec)

    def _kind(self, number: Decimal, kind: str) -> str:
        match kind:
            case "percent":
                return f"{self._digits(number * 100, 1)} %"
            case "score":
                return self._digits(number, 0)
            case "seconds":
                return f"{self._digits(number, 1)} {self._texts.word['seconds']}"
            case "money":
                return f"{self._digits(number, 2)} {self._facts.get('currency', '')}".rstrip()
            case "distance":
                return self._distance(number)
            case "price":
                tick = self._fact("tick_size")
                return self._digits(number, 10 if tick is None else max(-int(tick.normalize().as_tuple().exponent), 0))
            case _:
                return self._digits(number, 8)

    def _distance(self, number: Decimal) -> str:
        pip = self._fact("pip_size")
        if pip is not None:
            return f"{self._digits(number / pip, 1)} {self._texts.word['pips']}"
        price = self._fact("bid") or self._fact("signal_price")
        if price is not None:
            return f"{self._digits(number / price * 10_000, 1)} {self._texts.word['bps']}"
        return self._digits(number, 10)

    def _fact(self, key: str) -> Decimal | None:
        text = self._facts.get(key)
        if text is None:
            return None
        value = Decimal(text)
        return value if value > 0 else None

    def _digits(self, number: Decimal, places: int) -> str:
        """Rounded half to even, thousands separated; trailing zeros kept only for money (two places)."""
        if number.adjusted() > 30:
            return f"{number:.2E}"
        rounded = number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
        text = f"{rounded:,f}"
        if "." in text and places != 2:
            text = text.rstrip("0").rstrip(".")
        if text == "-0":
            text = "0"
        swap = {",": self._texts.thousands, ".": self._texts.decimal_point}
        return "".join(swap.get(sign, sign) for sign in text)

"""What a column makes of a value: scale 10, aware UTC, no NaN: `srm_agent/store/columns.py` without SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException, Inexact, InvalidOperation
from math import isnan
from typing import TYPE_CHECKING, Generic, TypeVar

from srm_agent.domain.units import plain
from srm_agent.errors import StoreBroken

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")

Column = Callable[[object], object]
"""Value as written -> value as read. Raises StoreBroken."""

_QUANTUM = Decimal("1e-10")
_LIMIT = Decimal(10) ** 18
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, Inexact])
_NEAREST = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])


def exact(value: object) -> Decimal:
    """Prices and lots as they were sent. Raises StoreBroken for digits beyond the scale, NaN and other types."""
    return _fixed(value, _EXACT)


def measured(value: object) -> Decimal:
    """Results of a product or division, rounded half-even. Raises StoreBroken for NaN and other types."""
    return _fixed(value, _NEAREST)


def _fixed(value: object, context: Context) -> Decimal:
    if not isinstance(value, Decimal):
        raise StoreBroken(f"a value cannot be stored: money must be Decimal, was {type(value).__name__}")
    try:
        fixed = context.quantize(value, _QUANTUM)
        fits = abs(fixed) < _LIMIT
    except DecimalException as error:
        raise StoreBroken(f"a value cannot be stored: {error}, was {value}") from error
    if not fits:
        raise StoreBroken(f"a value cannot be stored: does not fit DECIMAL(28,10), was {value}")
    return fixed or abs(fixed)  # -0 becomes 0


def instant(value: object) -> datetime:
    """An aware instant in UTC. Raises StoreBroken for one without a zone."""
    if not isinstance(value, datetime):
        raise StoreBroken(f"a value cannot be stored: an instant must be a datetime, was {type(value).__name__}")
    if value.tzinfo is None:
        raise StoreBroken(f"a value cannot be stored: instant without zone, was {value}")
    return value.astimezone(UTC)


def real(value: object) -> float:
    """A float column. NaN is NULL to SQLite, and these columns take none: raises StoreBroken."""
    number = float(value)  # type: ignore[arg-type]  # a float or int by the domain's types
    if isnan(number):
        raise StoreBroken("a value cannot be stored: a float must not be NaN")
    return number


def known(column: Column) -> Column:
    """The same where None (unknown) is allowed."""
    return lambda value: None if value is None else column(value)


def written(value: object) -> Decimal:
    """A decimal inside a record of canonical text: no trailing zeros, any scale."""
    return Decimal(plain(value))  # type: ignore[arg-type]  # only Decimal fields are given here


def mapping(value: object) -> dict[str, str]:
    """A copy in the order of canonical text."""
    return dict(sorted(value.items()))  # type: ignore[attr-defined]  # only Mapping fields are given here


class Columns(Generic[T]):
    """Which fields of a value a table changes on the way in, by name; the others are kept as they are."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = tuple(columns.items())

    def stored(self, value: T) -> T:
        """The value as it will be read. Raises StoreBroken for a field that cannot be stored."""
        return replace(value, **{name: column(getattr(value, name)) for name, column in self._columns})

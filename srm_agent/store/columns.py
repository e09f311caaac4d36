"""Column types that mean the same on SQLite and MySQL: exact money, aware UTC instants."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

import structlog
from sqlalchemy import BigInteger, DateTime, Dialect, Integer, Numeric, String, TypeDecorator
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

PRECISION = 28
SCALE = 10
MYSQL_NAMES = ("mysql", "mariadb")
"""Two dialect names for one family; variants must name both."""

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, Inexact])
_NEAREST = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])
_log = structlog.get_logger(__name__)


class _FixedScale(TypeDecorator[Decimal]):
    """Decimal of fixed scale: TEXT on SQLite (whose NUMERIC is a float), DECIMAL on MySQL.

    Never compared, sorted or summed in SQL: on SQLite that would be text order.
    """

    impl = String
    cache_ok = True
    context = _EXACT

    def __init__(self, precision: int = PRECISION, scale: int = SCALE) -> None:
        super().__init__(precision + 2)
        self.precision, self.scale = precision, scale
        self._quantum = Decimal(1).scaleb(-scale)
        self._limit = Decimal(10) ** (precision - scale)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Decimal] | TypeEngine[str]:
        """DECIMAL where it is exact, else text of two characters (sign, point) more."""
        if dialect.name in MYSQL_NAMES:
            return dialect.type_descriptor(Numeric(self.precision, self.scale))
        return dialect.type_descriptor(String(self.precision + 2))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Decimal | str | None:
        """The value at the column's scale. Raises TypeError for a float, InvalidOperation or Inexact."""
        if value is None:
            return None
        if not isinstance(value, Decimal):
            raise TypeError(f"money must be Decimal, was {type(value).__name__}")
        fixed = self.context.quantize(value, self._quantum)
        if abs(fixed) >= self._limit:
            self.overflowing(value)
            return None
        if not fixed:
            fixed = abs(fixed)  # -0 becomes 0
        return fixed if dialect.name in MYSQL_NAMES else format(fixed, "f")

    def overflowing(self, value: Decimal) -> None:
        """What becomes of a value with too many digits before the point: refused."""
        raise InvalidOperation(f"does not fit DECIMAL({self.precision},{self.scale}), was {value}")

    def process_result_value(self, value: Decimal | str | None, dialect: Dialect) -> Decimal | None:
        """Exactly what was stored."""
        return None if value is None else Decimal(value)


class ExactDecimal(_FixedScale):
    """Prices and lots as they were sent: floats, NaN and digits beyond the scale are refused, never rounded."""

    cache_ok = True


class MeasuredDecimal(_FixedScale):
    """Results of a product or division (averages, fees, money, R): rounded half-even to the scale; NaN is refused."""

    cache_ok = True
    context = _NEAREST


class NarrowDecimal(_FixedScale):
    """A narrow column of the platform: rounded half-even; what does not fit becomes NULL with a logged reason.

    The exact value stands in the agent's own tables. `field` names the column in the log.
    """

    cache_ok = True
    context = _NEAREST

    def __init__(self, precision: int, scale: int, field: str) -> None:
        super().__init__(precision, scale)
        self.field = field

    def overflowing(self, value: Decimal) -> None:
        """NULL, with the reason in the log."""
        _log.warning(
            "value_does_not_fit", field=self.field, value=str(value), column=f"DECIMAL({self.precision},{self.scale})"
        )


class UtcDateTime(TypeDecorator[datetime]):
    """Aware instant, stored as naive UTC with microseconds."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """DATETIME(6) on MySQL: plain DATETIME drops the microseconds."""
        if dialect.name in MYSQL_NAMES:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC without its label. Raises ValueError for an instant without a zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"instant without zone, was {value}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


BIG = BigInteger().with_variant(Integer, "sqlite")
"""64-bit key; SQLite numbers rows only for a column that is literally INTEGER PRIMARY KEY."""

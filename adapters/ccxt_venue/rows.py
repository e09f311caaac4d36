"""Reading fields of a venue's rows (pure): exact Decimals from the raw strings, one documented error for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from srm_agent.domain.units import ZERO

Row = Mapping[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DIGITS = 60


class BadRow(ValueError):
    """A reply of the venue that is not understood; names the field and the value. Nothing is guessed instead."""


def as_row(value: object, what: str) -> Row:
    """A JSON object. Raises BadRow."""
    if not isinstance(value, Mapping):
        raise BadRow(f"{what} must be an object, was {_short(value)}")
    return value


def as_rows(value: object, what: str) -> Sequence[Row]:
    """A list of JSON objects. Raises BadRow."""
    if not isinstance(value, list | tuple):
        raise BadRow(f"{what} must be a list, was {_short(value)}")
    return [as_row(item, what) for item in value]


def text(row: Row, field: str) -> str:
    """A text that must be there and not be empty. Raises BadRow."""
    found = optional_text(row, field)
    if found is None:
        raise BadRow(f"{field} must be a text, was {_short(row.get(field))}")
    return found


def optional_text(row: Row, field: str) -> str | None:
    """A text, or None where the field is missing or empty. Raises BadRow for another type."""
    value = row.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRow(f"{field} must be a text, was {_short(value)}")
    return value


def number(row: Row, field: str) -> Decimal:
    """A finite number that must be there, exact where the venue sent a text. Raises BadRow."""
    found = optional_number(row, field)
    if found is None:
        raise BadRow(f"{field} must be a number, was {_short(row.get(field))}")
    return found


def optional_number(row: Row, field: str) -> Decimal | None:
    """A finite number, or None where the field is missing or empty. Raises BadRow for what is no number."""
    value = row.get(field)
    if value is None or value == "":
        return None
    return as_number(value, field)


def as_number(value: object, field: str) -> Decimal:
    """A text, int or float as a finite Decimal; a float by its shortest repr, which gives back the venue's digits.

    Raises BadRow.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRow(f"{field} must be a number, was {_short(value)}")
    written = value if isinstance(value, str) else repr(value)
    # Decimal() accepts digits of every script, underscores and 'Infinity'; the venue sends none of them.
    if len(written) > _MAX_DIGITS or not written.isascii() or "_" in written:
        raise BadRow(f"{field} must be a number, was {_short(value)}")
    try:
        found = Decimal(written)
    except InvalidOperation as error:
        raise BadRow(f"{field} must be a number, was {_short(value)}") from error
    if not found.is_finite() or abs(found.adjusted()) > _MAX_DIGITS:
        raise BadRow(f"{field} must be a finite number, was {_short(value)}")
    return found


def positive(row: Row, field: str) -> Decimal:
    """A number above zero. Raises BadRow."""
    found = number(row, field)
    if found <= ZERO:
        raise BadRow(f"{field} must be positive, was {found}")
    return found


def price_or_none(row: Row, field: str) -> Decimal | None:
    """A price; missing, empty and zero mean that there is none. Raises BadRow when negative."""
    found = optional_number(row, field)
    if found is None or found == ZERO:
        return None
    if found < ZERO:
        raise BadRow(f"{field} must not be negative, was {found}")
    return found


def instant(row: Row, field: str) -> datetime:
    """Milliseconds since the epoch as aware UTC. Raises BadRow."""
    found = optional_instant(row, field)
    if found is None:
        raise BadRow(f"{field} must be milliseconds since 1970, was {_short(row.get(field))}")
    return found


def optional_instant(row: Row, field: str) -> datetime | None:
    """Milliseconds since the epoch as aware UTC; None where missing, empty or zero. Raises BadRow."""
    found = optional_number(row, field)
    if found is None or found == ZERO:
        return None
    return from_ms(found, field)


def from_ms(value: Decimal | int, field: str) -> datetime:
    """Milliseconds since the epoch as aware UTC. Raises BadRow outside 1970-9999 or between milliseconds."""
    if value != int(value) or not 0 <= value < 253_402_300_800_000:
        raise BadRow(f"{field} must be milliseconds since 1970, was {value}")
    return _EPOCH + timedelta(milliseconds=int(value))


def to_ms(at: datetime) -> int:
    """Aware UTC as whole milliseconds since the epoch, rounded down (so that a query from it misses nothing)."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _short(value: object) -> str:
    return repr(value)[:80]

"""The bodies of a webhook as they are on the wire, and the words in which a wrong one is refused.

The models are the schema of the OpenAPI page and the check itself, so the two cannot differ. Their validators see
values from `strict_json` only: text, exact Decimals, booleans, None.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from srm_agent.api.answers import named, shown
from srm_agent.api.signatures import MESSAGE_ID
from srm_agent.api.strict_json import JsonScalar, exact_number
from srm_agent.domain.units import STORED, plain
from srm_agent.errors import SignalRejected

MAX_PRICE = Decimal(1_000_000_000)
MAX_LOT = Decimal(1_000_000)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def _wrong(message: str, code: str = "FIELD_INVALID") -> PydanticCustomError:
    # The message goes in as context: pydantic would read braces in it as a template.
    return PydanticCustomError("srm", "{message}", {"message": message, "code": code})


def _decimal(value: JsonScalar) -> Decimal:
    if isinstance(value, Decimal):
        return value
    number = exact_number(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None
    if number is None:
        raise _wrong(f'must be a decimal number like "1.0842", was {shown(value)}; send digits only')
    return number


def _bounded(maximum: Decimal, of: str) -> BeforeValidator:
    def check(value: JsonScalar) -> Decimal:
        number = _decimal(value)
        if not 0 < number <= maximum:
            raise _wrong(f"must be above 0 and at most {plain(maximum)}, was {shown(value)}; send {of}")
        exact = number.quantize(STORED, ROUND_DOWN)
        if exact != number:
            raise _wrong(f"must have at most 10 decimals, was {shown(value)}; round it to the instrument's grid")
        return Decimal(plain(exact))

    return BeforeValidator(check)


def _decimal_schema(maximum: Decimal, example: str, description: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_NUMBER.pattern}$", "maxLength": 40},
                {"type": "number", "exclusiveMinimum": 0, "maximum": int(maximum)},
            ],
            "description": f"{description} Above 0, at most {plain(maximum)}, at most 10 decimals; text is exact.",
            "examples": [example],
        }
    )


def _moment(value: JsonScalar) -> datetime:
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _wrong(f'must be an RFC 3339 time with zone like "2026-01-05T11:00:03.123456Z", was {shown(value)}')


Price = Annotated[
    Decimal, _bounded(MAX_PRICE, "the price in quote currency"), _decimal_schema(MAX_PRICE, "60123.4", "A price.")
]
Lot = Annotated[
    Decimal, _bounded(MAX_LOT, "the lot you traded, or leave it out"), _decimal_schema(MAX_LOT, "0.05", "A volume.")
]
Fraction = Annotated[
    Decimal,
    _bounded(Decimal(1), "the share to close, 1 for all"),
    _decimal_schema(Decimal(1), "0.5", "Share of what is still open."),
]
ProvidersSignalId = Annotated[
    str,
    StringConstraints(pattern=f"^{MESSAGE_ID.pattern}$"),
    Field(
        description="Your own id of this signal; modify, close and cancel name the id of their open.", examples=["a-17"]
    ),
]
SymbolText = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9#][A-Za-z0-9._/:#-]{0,63}$"),
    Field(description="The broker's name of the instrument.", examples=["BTC/USDT:USDT"]),
]
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "When you issued the message, RFC 3339 with zone; at most 2 s in our future. "
            "Old opens are refused by the filter, closes never expire.",
            "examples": ["2026-01-05T11:00:03.123456Z"],
        }
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    signal_id: ProvidersSignalId
    issued_at: Moment


class OpenBody(_Body):
    """Open a position."""

    action: Literal["open"]
    symbol: SymbolText
    side: Literal["buy", "sell"]
    entry: Price
    stop_loss: Price | None = None
    take_profit: Price | None = None
    lot: Lot | None = None


class ModifyBody(_Body):
    """Change stop or target of an earlier signal; what is left out (or null) stays."""

    action: Literal["modify"]
    stop_loss: Price | None = None
    take_profit: Price | None = None


class CloseBody(_Body):
    """Close an earlier signal, in part or whole."""

    action: Literal["close"]
    fraction: Fraction = Decimal(1)


class CancelBody(_Body):
    """Withdraw an earlier signal that has not been filled."""

    action: Literal["cancel"]


Body = OpenBody | ModifyBody | CloseBody | CancelBody
BODY: TypeAdapter[Body] = TypeAdapter(Annotated[Body, Field(discriminator="action")])
"""The union by `action`, for checking and for its JSON schema."""


def read_body(value: dict[str, JsonScalar]) -> Body:
    """Check a flat object against the schema. Raises SignalRejected (422) naming the first field at fault."""
    try:
        return BODY.validate_python(value)
    except ValidationError as error:
        raise refused(error.errors(include_url=False)[0], value) from None


def refused(detail: ErrorDetails, value: dict[str, JsonScalar]) -> SignalRejected:
    """One of pydantic's errors in our words."""
    kind = detail["type"]
    given = [str(part) for part in detail["loc"] if str(part) in value or kind == "missing"]
    field = given[-1] if given else "action"
    was = shown(value.get(field))
    context = detail.get("ctx", {})
    match kind:
        case "srm":
            return _say(str(context["code"]), field, str(context["message"]))
        case "missing":
            return _say("FIELD_MISSING", field, "is missing; send it")
        case "extra_forbidden":
            return _say("FIELD_UNKNOWN", named(field), "is not a field of this action; leave it out")
        case "union_tag_not_found":
            return _say("FIELD_MISSING", "action", "is missing; send one of open, modify, close, cancel")
        case "union_tag_invalid":
            return _say("FIELD_INVALID", "action", f"must be one of open, modify, close, cancel, was {was}")
        case "literal_error":
            return _say("FIELD_INVALID", field, f"must be {context['expected']}, was {was}")
        case "string_pattern_mismatch":
            return _say("FIELD_INVALID", field, f"must match {context['pattern']}, was {was}")
        case "string_type":
            return _say("FIELD_INVALID", field, f"must be text in quotes, was {was}")
        case _:
            return _say("FIELD_INVALID", field, f"is refused: {detail['msg'].lower()}, was {was}")


def _say(code: str, field: str, message: str) -> SignalRejected:
    return SignalRejected(422, code, f"{field} {message}", field)

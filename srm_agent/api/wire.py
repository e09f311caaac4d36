"""Shapes of the HTTP bodies that are not signals, and the pieces of the OpenAPI page that FastAPI cannot derive.

Intake and control read their bodies themselves (bounded, strict), so their schemas are put into the page by hand from
the same models that check them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from srm_agent.api.bodies import BODY, refused
from srm_agent.api.signatures import ID_HEADER, MESSAGE_ID, SIGNATURE_HEADER, TIMESTAMP_HEADER
from srm_agent.api.strict_json import flat_object
from srm_agent.domain.accounts import HaltScope

JsonObject = dict[str, object]
_REF = "#/components/schemas/{model}"


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AcceptedAnswer(_Shape):
    """The message is written. A repeat gets the first answer, byte for byte."""

    status: Literal["accepted"]
    signal_id: str
    message_id: str
    received_at: str


class ErrorDetail(_Shape):
    """What is wrong, where, and what to do about it."""

    code: Annotated[str, Field(description="Stable word for machines.", examples=["STOP_WRONG_SIDE"])]
    field: str | None
    message: str
    retry_after_s: int | None = None


class ErrorAnswer(_Shape):
    """The body of every answer from 400 upwards."""

    error: ErrorDetail


class HealthAnswer(_Shape):
    """Ready, or what is missing: name -> reason."""

    status: Literal["ready", "not ready"]
    missing: dict[str, str]


class HaltAnswer(_Shape):
    """What was done, and by whom."""

    status: Literal["halted", "resumed"]
    scope: HaltScope
    key: str
    operator: str


_SCOPE = Annotated[HaltScope, Field(strict=False, description="What the halt stops.")]
_KEY = Annotated[
    str,
    Field(
        pattern=r"^[!-~]{0,128}$",
        description="Connection id, provider (`channel_source:alpha`) or symbol; empty for scope all.",
        examples=["channel_source:alpha"],
    ),
]


class ResumeRequest(_Shape):
    """Clear a halt."""

    scope: _SCOPE
    key: _KEY = ""


class HaltRequest(_Shape):
    """Stop new risk; exits go on."""

    scope: _SCOPE
    key: _KEY = ""
    reason: Annotated[str, Field(min_length=1, max_length=200, description="Goes to the audit log.")]


def read_halt(raw: bytes) -> HaltRequest:
    """Check a halt's body. Raises SignalRejected (400, 413, 422) naming the field."""
    value = flat_object(raw)
    try:
        return HaltRequest.model_validate(value)
    except ValidationError as error:
        raise refused(error.errors(include_url=False)[0], value) from None


def read_resume(raw: bytes) -> ResumeRequest:
    """Check a resume's body. Raises SignalRejected (400, 413, 422) naming the field."""
    value = flat_object(raw)
    try:
        return ResumeRequest.model_validate(value)
    except ValidationError as error:
        raise refused(error.errors(include_url=False)[0], value) from None


def _body(schema: object) -> JsonObject:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _header(name: str, schema: JsonObject, description: str) -> JsonObject:
    return {"name": name, "in": "header", "required": True, "schema": schema, "description": description}


def _signal_schema() -> tuple[object, JsonObject]:
    schema = BODY.json_schema(ref_template=_REF)
    definitions = schema.pop("$defs")
    return schema, definitions


SIGNAL_EXTRA: JsonObject = {
    "requestBody": _body(_signal_schema()[0]),
    "parameters": [
        _header(
            ID_HEADER,
            {"type": "string", "pattern": f"^{MESSAGE_ID.pattern}$"},
            "Delivery id, the same for every try of one message.",
        ),
        _header(
            TIMESTAMP_HEADER,
            {"type": "string", "pattern": "^[0-9]{1,12}$"},
            "Unix seconds of this try, within 30 s of our clock.",
        ),
        _header(
            SIGNATURE_HEADER,
            {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]{43}=$"},
            "v1,base64(HMAC-SHA256(key, id.timestamp.body)); several, separated by spaces, during a rotation.",
        ),
    ],
}
HALT_EXTRA: JsonObject = {"requestBody": _body({"$ref": _REF.format(model="HaltRequest")}), "security": [{"token": []}]}
RESUME_EXTRA: JsonObject = {
    "requestBody": _body({"$ref": _REF.format(model="ResumeRequest")}),
    "security": [{"token": []}],
}
STATUS_EXTRA: JsonObject = {"security": [{"token": []}]}


def describe(app: FastAPI) -> JsonObject:
    """The OpenAPI document with the bodies that the endpoints read themselves; built once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas.update(_signal_schema()[1])
        for model in (HaltRequest, ResumeRequest):
            schema = TypeAdapter(model).json_schema(ref_template=_REF)
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = document
    return app.openapi_schema

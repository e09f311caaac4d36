"""Reading the configuration: every mistake ends in one message that names the key, the value and the remedy."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from srm_agent.errors import ConfigurationError
from srm_agent.settings.models import Settings

# Variables of this program that are not settings.
NOT_SETTINGS = frozenset({"SRM_CONFIG", "SRM_FAILPOINT", "SRM_TEST_PROFILE"})
SECRET_WORDS = ("key", "secret", "token", "password", "url", "credential")


def load(path: Path, over: Mapping[str, object] | None = None) -> Settings:
    """Settings from the TOML file, `over` laid on it, `SRM_SECTION__KEY` over both. Raises ConfigurationError.

    pydantic-settings ignores a missing file and a misspelt variable without a word; this function refuses both.
    """
    content = _merged(_read(path), over or {})
    _refuse_unknown_variables(os.environ)
    build: Callable[..., Settings] = Settings  # BaseSettings' own keyword arguments would hide ours from mypy
    try:
        return build(**content)
    except ValidationError as error:
        raise ConfigurationError(_explain(path, error, content)) from None
    except SettingsError as error:
        raise ConfigurationError(f"{path}: an SRM_ variable cannot be read: {error}") from None


def _read(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"configuration file {str(path)!r} does not exist: start from config/srm.example.toml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration file {str(path)!r} cannot be read: {error}") from None
    try:
        content = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    content.pop("$schema", None)
    return content


def _merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _refuse_unknown_variables(variables: Mapping[str, str]) -> None:
    for name in sorted(variables):
        if not name.startswith("SRM_") or name in NOT_SETTINGS:
            continue
        path = name.removeprefix("SRM_").lower().split("__")
        model: type[BaseModel] = Settings
        for depth, part in enumerate(path):
            if part not in model.model_fields:
                known = [f"SRM_{'__'.join([*path[:depth], field])}".upper() for field in model.model_fields]
                raise ConfigurationError(f"environment variable {name} is no setting{_nearest(name, known)}")
            annotation = model.model_fields[part].annotation
            nested = _model_in(annotation)
            if nested is None:
                break  # a leaf, or a table with free keys whose content the model validates
            model = nested


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            if isinstance(member, type) and issubclass(member, BaseModel):
                return member
    return None


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _explain(path: Path, error: ValidationError, content: Mapping[str, object]) -> str:
    lines = [
        _line(problem["loc"], problem["type"], problem["msg"], content)
        for problem in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    unique = list(dict.fromkeys(lines))
    if len(unique) > 1:  # a list whose items are wrong also counts as too short: say the cause only
        unique = [line for line in unique if "should have at least 1 item" not in line] or unique
    return "\n".join(
        [f"{path}: {len(unique)} problem{'s' if len(unique) > 1 else ''}", *(f"  {line}" for line in unique)]
    )


def _line(location: tuple[int | str, ...], kind: str, message: str, content: Mapping[str, object]) -> str:
    key = _key(location)
    text = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"{key}: unknown key{_nearest(str(location[-1]), _siblings(location))}{_secret_hint(str(location[-1]))}"
    if kind == "missing":
        return f"{key}: required and not set"
    variable = _variable(location)
    if variable:
        return f"{key}: {text} (from the environment variable {variable})"
    value = "" if ", was " in text else _value(location, content)
    return f"{key or 'configuration'}: {text}{value}"


def _key(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable that set this key, if one did: environment wins over the file."""
    wanted = "SRM_" + "__".join(str(part) for part in location).upper()
    return next((name for name in sorted(os.environ) if name.upper() == wanted), "")


def _value(location: tuple[int | str, ...], content: Mapping[str, object]) -> str:
    """The offending value where it is known and cannot be a secret."""
    if any(word in str(part).lower() for part in location for word in SECRET_WORDS):
        return ""
    found: object = content
    for part in location:
        try:
            found = found[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return ""
    return "" if isinstance(found, dict | list) else f" (was {found!s:.60})"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] | None = Settings
    for part in location[:-1]:
        if isinstance(part, int) or model is None:
            continue
        field = model.model_fields.get(part)
        if field is None:
            continue  # a free key of a table such as [venues.NAME]
        model = _model_in(field.annotation) or next(
            (found for argument in get_args(field.annotation) if (found := _model_in(argument))), None
        )
    return list(model.model_fields) if model else []


def _secret_hint(word: str) -> str:
    if any(secret in word.lower() for secret in ("key", "secret", "token", "password")):
        return " (secrets belong into files of the credentials directory, never into this file)"
    return ""

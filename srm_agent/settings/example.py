"""Writes config/srm.example.toml from the models: `python -m srm_agent.settings.example > config/srm.example.toml`.

What is needed stands there in force, so that the file works once ids and credentials are one's own. Everything else is
commented out as `#key = default`: taking the `#` away changes nothing until the value is changed.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from srm_agent.domain.instrument import AssetClass
from srm_agent.domain.units import plain
from srm_agent.settings.models import (
    ConnectionSettings,
    InstrumentSettings,
    ProviderSettings,
    Settings,
    VenueSettings,
)
from srm_agent.settings.numbers import DistanceModel, Fraction
from srm_agent.settings.policy_models import PoliciesSettings, PolicySettings

WIDTH = 118
COLUMN = 40
"""Where the sentence beside a key begins."""

HEAD = """\
# Every key of the SRM agent's configuration, with its unit, its default and what it does.
# Written by `python -m srm_agent.settings.example`; to begin: cp config/srm.example.toml config/srm.toml
#
# What stands without # is needed, or is an example of yours. `#key = value` is the default (or an example where there
# is none): take the # away to change it. Fractions are written 0.2 for 20 %. Distances say their unit: { pips = 5 },
# { bps = 5 } (basis points of the price) or { atr = 0.2 }. An unknown key, a percent where a fraction is meant, NaN:
# refused at start, by the key's name.
#
# A variable overrides a key: SRM_PROTECTION__MAX_DRAWDOWN=0.15 (two underscores between the parts, always upper case).
# Secrets never stand here. They are files (mode 0600) of the credentials directory: connection.<id>.api_key and
# connection.<id>.secret, provider.<id>.key (whsec_ and base64), operator.token.
"""

IN_FORCE: Mapping[tuple[type[BaseModel], str], str] = {
    (VenueSettings, "environment"): '"testnet"',
    (ConnectionSettings, "id"): '"main"',
    (ConnectionSettings, "follower"): '"you"',
    (ConnectionSettings, "venue"): '"bybit"',
    (ConnectionSettings, "providers"): '["alpha"]',
}
UNSET: Mapping[str, str] = {
    "credentials_dir": '"credentials"',
    "url": '"https://alerts.example.com"',
    "second_url": '"https://b.example.com"',
    "emergency_scope": '"account"',
    "daily_loss": "0.05",
    "asset_class": '"crypto"',
    "pip_size": "1",
    "owner": '"you"',
    "max_lot": "0.5",
    "max_positions": "4",
    "max_risk": "0.01",
    "max_open_risk": "0.04",
    "max_drawdown": "0.15",
    "preset_stop": "{ atr = 2 }",
    "max_symbol_notional": "10",
    "base_url": '"http://127.0.0.1:18080"',
    "fixed_lot": "0.01",
}
"""An example for each key that has no default."""


def example() -> str:
    """The whole file. Raises KeyError for a key that has neither a default nor an example here."""
    special: Mapping[str, Callable[[], Iterable[str]]] = {
        "policies": _policies,
        "venues": _venues,
        "instruments": _instruments,
        "providers": _providers,
        "connections": _connections,
    }
    lines = [HEAD.rstrip()]
    for name, field in Settings.model_fields.items():
        rule = "-" * (WIDTH - len(name) - 5)
        lines += ["", f"# {rule} {name}", ""]
        model = field.annotation
        if name in special:
            lines += special[name]()
        elif isinstance(model, type) and issubclass(model, BaseModel):
            lines += [*_prose(model.__doc__), f"[{name}]", *_keys(model)]
        else:
            raise KeyError(f"no way to write section {name!r}")
    return "\n".join(lines) + "\n"


def _policies() -> Iterator[str]:
    shipped = PoliciesSettings.model_validate({})
    yield from _prose(PoliciesSettings.__doc__)
    for block, field in PolicySettings.model_fields.items():
        yield from ["", *_prose(_model(field).__doc__), f"[policies.fx.{block}]"]
        yield from _keys(_model(field))
    for asset_class in AssetClass:
        if asset_class is AssetClass.FX:
            continue
        name = asset_class.value
        yield from ["", *_prose(f"{name}: as fx, but for these keys.")]
        for block, field in PolicySettings.model_fields.items():
            ours, usual = (getattr(shipped.of(one), block) for one in (asset_class, AssetClass.FX))
            differing = [key for key in type(ours).model_fields if getattr(ours, key) != getattr(usual, key)]
            if differing:
                yield f"[policies.{name}.{block}]"
                yield from _keys(_model(field), only=differing, values=ours)


def _venues() -> Iterator[str]:
    yield from _prose(f"{VenueSettings.__doc__} The name after the dot is yours.")
    yield "[venues.bybit]"
    yield from _keys(VenueSettings, besides=("base_url",))
    yield from ["", *_prose("A server of your own, such as the simulator: srm-simulator bybit --port 18080 ...")]
    yield from ["#[venues.local]", '#environment = "url"', *_keys(VenueSettings, only=("base_url",))]


def _instruments() -> Iterator[str]:
    yield from _prose(
        "Only symbols that have a table here are traded; the table may be empty. The name is the venue's, in ccxt's "
        "writing for a linear perpetual. Keys add what the venue does not say about a symbol."
    )
    yield '[instruments."BTC/USDT:USDT"]'
    yield from _keys(InstrumentSettings)
    yield '[instruments."ETH/USDT:USDT"]'


def _providers() -> Iterator[str]:
    yield from _prose(ProviderSettings.__doc__)
    yield "[providers.alpha]"
    yield from _keys(ProviderSettings)


def _connections() -> Iterator[str]:
    yield from _prose(f"{ConnectionSettings.__doc__} One block each.")
    yield "[[connections]]"
    yield from _keys(ConnectionSettings, besides=("fixed_lot",))
    yield from ["", *_prose("A second account, with a fixed lot instead of a share of its equity.")]
    yield from ["#[[connections]]", '#id = "second"', '#follower = "you"', '#venue = "bybit"', '#providers = ["alpha"]']
    yield from ['#size_mode = "FIXED"', *_keys(ConnectionSettings, only=("fixed_lot",))]


# ---- one key


def _keys(
    model: type[BaseModel],
    *,
    only: Iterable[str] | None = None,
    besides: Iterable[str] = (),
    values: BaseModel | None = None,
) -> Iterator[str]:
    """A line per key (and lines its sentence runs over to). `values`: other defaults than the model's."""
    chosen = [key for key in model.model_fields if key not in besides] if only is None else list(only)
    for key in chosen:
        field = model.model_fields[key]
        default = field.default if values is None else getattr(values, key)
        unset = default is None or field.is_required()
        value = IN_FORCE.get((model, key)) or (UNSET[key] if unset else _toml(default))
        mark = "" if field.is_required() or (model, key) in IN_FORCE else "#"
        yield from _line(f"{mark}{key} = {value}", _sentence(field, default))


def _line(setting: str, sentence: str) -> Iterator[str]:
    first, *more = textwrap.wrap(sentence, WIDTH - COLUMN - 2)
    yield f"{setting:<{COLUMN - 2}}  # {first}"
    for line in more:
        yield f"#{' ' * (COLUMN - 1)}# {line}"


def _sentence(field: FieldInfo, default: object) -> str:
    said = field.description or ""
    notes = [said]
    choices = [str(choice) for choice in _choices(field.annotation)]
    if len(choices) > 1 and not all(choice in said for choice in choices):
        notes.append(f"one of {', '.join(choices)}")
    if _is_fraction(field) and "fraction" not in said:
        notes.append("a fraction")
    low, high = (_bound(field, name) for name in ("ge", "le"))
    if low is not None and high is not None:
        notes.append(f"{low} to {high}")
    if default is None:
        notes.append("unset by default")
    return "; ".join(notes)


def _choices(annotation: object) -> tuple[object, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


def _is_fraction(field: FieldInfo) -> bool:
    mark = get_args(Fraction)[1]
    return mark in field.metadata or any(mark in get_args(part)[1:] for part in get_args(field.annotation))


def _bound(field: FieldInfo, name: str) -> object:
    return next((value for rule in field.metadata if (value := getattr(rule, name, None)) is not None), None)


def _toml(value: object) -> str:
    """A default as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case Decimal():
            return plain(value)
        case int():
            return str(value)
        case str():
            return f'"{value}"'
        case DistanceModel():
            ((unit, size),) = value.model_dump(exclude_none=True).items()
            return f"{{ {unit} = {plain(size)} }}"
    raise TypeError(f"no TOML for a default of type {type(value).__name__}")


def _prose(text: str | None) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text or "", WIDTH - 2)]


def _model(field: FieldInfo) -> type[BaseModel]:
    model = field.annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return model


if __name__ == "__main__":
    sys.stdout.write(example())

"""config/srm.example.toml is what the models say, complete, and works."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from srm_agent.settings import Settings, load
from srm_agent.settings.example import UNSET, WIDTH, example
from srm_agent.settings.policy_models import PoliciesSettings

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "config" / "srm.example.toml"
COMMENTED_OUT = re.compile(r"^#(?=[A-Za-z\[])", re.MULTILINE)


@pytest.fixture
def uncommented(tmp_path: Path) -> Path:
    """The example with everything in force that it comments out."""
    path = tmp_path / "all.toml"
    path.write_text(COMMENTED_OUT.sub("", FILE.read_text()))
    return path


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _all_keys(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    for key, field in model.model_fields.items():
        nested = list(_models(field.annotation))
        if nested and nested[0].__name__ != "DistanceModel":
            for one in nested:
                yield from _all_keys(one)
        else:
            yield model.__name__, key


def test_the_committed_file_is_what_the_generator_writes() -> None:
    """Whoever changes a setting writes the example anew with the command that its second line names."""
    written = subprocess.run(
        [sys.executable, "-m", "srm_agent.settings.example"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert written.stdout == FILE.read_text()


def test_it_works_as_it_is_for_one_testnet_account() -> None:
    """Untouched, it is a valid configuration of one connection at Bybit's testnet: only ids and secrets are missing."""
    settings = load(FILE)
    assert [connection.id for connection in settings.connections] == ["main"]
    assert (settings.venues["bybit"].exchange, settings.venues["bybit"].environment) == ("bybit", "testnet")


def test_it_works_with_everything_in_force(uncommented: Path) -> None:
    """What it comments out is valid TOML and valid settings, all of it together."""
    settings = load(uncommented)
    assert [connection.id for connection in settings.connections] == ["main", "second"]
    assert settings.venues["local"].base_url == "http://127.0.0.1:18080"


def test_taking_a_default_out_of_its_comment_changes_nothing(uncommented: Path) -> None:
    """A key that has a default is shown with exactly that default, policies of every class included."""
    shipped, shown = load(FILE).model_dump(), load(uncommented).model_dump()
    for section, before in shipped.items():
        if isinstance(before, dict) and section not in ("venues", "instruments"):
            _assert_same_where_set(before, shown[section], section)
    _assert_same_where_set(shipped["venues"]["bybit"], shown["venues"]["bybit"], "venues.bybit")
    _assert_same_where_set(shipped["connections"][0], shown["connections"][0], "connections[0]")


def _assert_same_where_set(before: dict[str, object], after: dict[str, object], where: str) -> None:
    for key, value in before.items():
        other = after[key]
        if isinstance(value, dict) and isinstance(other, dict):
            _assert_same_where_set(value, other, f"{where}.{key}")
        elif value is not None and where.partition(".")[0] != "providers":
            assert other == value, f"{where}.{key}"


def test_every_key_of_the_models_is_in_it_with_a_sentence() -> None:
    """No setting exists that the example does not show, and each has a sentence beside it."""
    text = FILE.read_text()
    keys = sorted(set(_all_keys(Settings)))
    assert len(keys) > 80
    for model, key in keys:
        assert re.search(rf"^#?{key} = \S.*  # \S", text, re.MULTILINE), f"{model}.{key}"


def test_the_defaults_that_differ_by_asset_class_are_shown() -> None:
    """Where a class ships another default than FX, its own block of the example says it."""
    text = FILE.read_text()
    policies = PoliciesSettings.model_validate({})
    assert f"{policies.crypto.filter.max_entry_drift}" == "5 bps"
    crypto = text[text.index("# crypto: as fx") : text.index("venues\n")]
    assert "#max_entry_drift = { bps = 5 }" in crypto
    assert "#max_slippage = { bps = 5 }" in crypto
    assert "max_positions" not in crypto


def test_lines_fit_a_screen() -> None:
    """A person reads it in an editor: no line is wider than the sentence column allows, none ends in a blank."""
    for line in example().splitlines():
        assert len(line) <= WIDTH + 2
        assert line == line.rstrip()


def test_no_example_value_outlives_its_key() -> None:
    """Whoever removes a setting removes its example value from the generator too."""
    keys = {key for _, key in _all_keys(Settings)}
    assert set(UNSET) <= keys

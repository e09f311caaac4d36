"""The words of the scores, one TOML file a language."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib.resources import files


class Language(StrEnum):
    """Languages there are texts for."""

    EN = "en"
    ID = "id"


@cache
def texts(language: Language) -> Mapping[str, str]:
    """The texts of a language, read once from the package."""
    body = tomllib.loads(files(__package__).joinpath(f"{language.value}.toml").read_text(encoding="utf-8"))
    return {str(key): str(value) for key, value in body["score"].items()}

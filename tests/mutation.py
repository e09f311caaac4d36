"""A copy of the product with one line changed: what a test or a simulation must notice.

A mutant names the module, the text that is there exactly once, and what stands there instead. The copy lives in a
folder of its own whose other parts are links into the real tree; bytecode is taken along, so it starts quickly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = "srm_agent"
LINKED = ("adapters", "simulator", "tests", "config", "docs", "pyproject.toml", "README.md", "systemd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of the product. `path` below `srm_agent/`."""

    name: str
    path: str
    old: str
    new: str


class NotApplicable(Exception):
    """The text of a mutant is not there exactly once: the code has moved on, and the mutant must follow it."""


@contextmanager
def mutated(mutant: Mutant) -> Iterator[Path]:
    """The folder of a tree with that change. Raises NotApplicable."""
    with TemporaryDirectory(prefix="srm-mutant-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / PRODUCT, folder / PRODUCT)
        for part in LINKED:
            if (ROOT / part).exists():
                (folder / part).symlink_to(ROOT / part)
        apply(mutant, folder / PRODUCT)
        yield folder


def apply(mutant: Mutant, product: Path) -> None:
    """Change the text. Raises NotApplicable."""
    path = product / mutant.path
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise NotApplicable(f"{mutant.name}: {mutant.path} has {text.count(mutant.old)} times {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def run_in(folder: Path, *arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
    """`python -m ...` with that tree first on the path."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )

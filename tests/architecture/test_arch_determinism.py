"""The deterministic part stays deterministic: no clock, chance, thread or order of its own (INV-15)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("srm_agent", "simulator")
OUTSIDE = {
    "srm_agent/clock.py": "the one reader of clocks",
    "srm_agent/files.py": "real files",
    "srm_agent/failpoints.py": "kills the real process",
    "srm_agent/__main__.py": "the process",
    "srm_agent/cli.py": "the process",
    "srm_agent/check.py": "a command, not the daemon",
    "srm_agent/bootstrap.py": "makes the real parts",
    "srm_agent/logs.py": "the real log",
    "srm_agent/run.py": "the process",
    "srm_agent/log_pipe.py": "the real log",
    "srm_agent/supervision/notify.py": "the service manager's socket",
    "srm_agent/api/server.py": "real sockets",
    "srm_agent/api/control_client.py": "a command, not the daemon",
    "srm_agent/store/runner.py": "the database's own thread",
    "simulator/__main__.py": "the process of the simulated venue",
    "simulator/simulation/loop.py": "refuses threads, so it names them",
    "simulator/simulation/runner.py": "many processes around the worlds",
    "simulator/simulation/__main__.py": "the command",
}
"""Modules that touch the real machine, each with its reason; nothing else may."""
OUTSIDE_FOLDERS = ("srm_agent/demo/", "srm_agent/alerts/")
BANNED_MODULES = {"time", "threading", "concurrent", "multiprocessing", "secrets", "subprocess", "socket"}
BANNED_CALLS = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "os.urandom", "asyncio.to_thread",
    "asyncio.as_completed", "random.random", "random.randint", "random.choice", "random.shuffle", "random.uniform",
    "random.seed", "random.SystemRandom", "uuid.uuid4", "uuid4", "uuid.uuid1", "uuid1", "id", "hash",
}  # fmt: skip
BANNED_METHODS = {"run_in_executor"}
ORDERING = {"sorted", "len", "min", "max", "sum", "any", "all", "set", "frozenset", "bool"}
"""Functions whose answer does not depend on the order in which a set is walked."""


def sources() -> list[Path]:
    """Modules of the deterministic part."""
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    names = {path: path.relative_to(ROOT).as_posix() for path in found}
    return [path for path in found if names[path] not in OUTSIDE and not names[path].startswith(OUTSIDE_FOLDERS)]


def faults(source: str) -> list[str]:
    """What a module does that two runs could do differently."""
    tree = ast.parse(source)
    return sorted({*_imports(tree), *_calls(tree), *_set_walks(tree)})


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            if name.split(".")[0] in BANNED_MODULES:
                yield f"line {node.lineno}: imports {name}"  # type: ignore[attr-defined]


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in BANNED_CALLS or name.rpartition(".")[2] in BANNED_METHODS:
                yield f"line {node.lineno}: calls {name}"


def _set_walks(tree: ast.AST) -> Iterator[str]:
    """Loops over what is a set by its form, or by the name it was annotated or assigned with in this module."""
    known = _set_names(tree)
    for node, walked in _walks(tree):
        if _is_set(walked, known):
            yield f"line {node}: walks the set {ast.unparse(walked)}"


def _walks(tree: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    harmless = {
        generator
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDERING
        for argument in node.args
        if isinstance(argument, ast.GeneratorExp)
        for generator in argument.generators
    } | {generator for node in ast.walk(tree) if isinstance(node, ast.SetComp) for generator in node.generators}
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor):
            yield node.lineno, node.iter
        elif isinstance(node, ast.comprehension) and node not in harmless:
            yield node.iter.lineno, node.iter
        elif isinstance(node, ast.Starred):
            yield node.lineno, node.value
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("list", "tuple", "iter", "next", "join", "enumerate", "extend", "fromkeys"):
                yield node.lineno, node.args[0]


def _is_set(node: ast.expr, known: set[str]) -> bool:
    match node:
        case ast.Set() if any(isinstance(element, ast.Starred) for element in node.elts) or len(node.elts) > 1:
            return True
        case ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr() | ast.Sub() | ast.BitXor()):
            return _is_set(node.left, known) or _is_set(node.right, known)
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in known
    return False


def _set_names(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            kind = ast.unparse(node.annotation)
            if kind.startswith(("set[", "frozenset[", "Set[", "AbstractSet[")):
                name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
                found |= {name, f"self.{name}"}
        elif isinstance(node, ast.Assign) and _is_set(node.value, set()):
            found |= {ast.unparse(target) for target in node.targets}
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_of_the_deterministic_part_has_no_clock_chance_thread_or_order_of_its_own(path: Path) -> None:
    """Two runs of the same seed may not differ by anything but the seed."""
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "bad",
    [
        "import time",
        "from threading import Thread",
        "from datetime import datetime\nx = datetime.now()",
        "import random\nx = random.random()",
        "import asyncio\nasync def f(): await asyncio.to_thread(print)",
        "async def f(loop): await loop.run_in_executor(None, print)",
        "for x in {1, 2}: print(x)",
        "class A:\n    def __init__(self): self.n: set[str] = set()\n    def f(self): return [x for x in self.n]",
        "def f(names: frozenset[str]): return ','.join(names)",
        "def f(a: set[str], b: set[str]): return list(a - b)",
        "x = hash('a')",
        "from uuid import uuid4\nx = uuid4()",
    ],
)
def test_the_gate_sees_what_it_forbids(bad: str) -> None:
    """Each forbidden thing is found in a module that does nothing else."""
    assert len(faults(bad)) == 1


@pytest.mark.parametrize(
    "good",
    ["def f(a: set[str]): return sorted(a)", "def f(a: set[str]): return any(x == 'b' for x in a)", "x = {1} | {2}"],
)
def test_the_gate_lets_pass_what_has_no_order(good: str) -> None:
    """A set may be asked, counted and sorted."""
    assert faults(good) == []


def test_every_exception_is_a_module_that_exists() -> None:
    """An exemption does not outlive its module."""
    assert [name for name in OUTSIDE if not (ROOT / name).exists()] == []

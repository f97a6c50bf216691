"""The packages form an order, and imports only point down it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sheaf

ROOT = Path(sheaf.__file__).parent

LEVELS = [
    ["core"],
    ["models", "data", "codecs", "profiles"],
    ["submodels"],
    ["training"],
    ["merges"],
    ["runtime"],
    ["methods", "export"],
    ["fleets"],
    ["experiments"],
    ["report"],
    ["api"],
    ["cli"],
]
"""From the lowest to the highest. Packages of one level do not import each other."""

LEVEL = {package: level for level, packages in enumerate(LEVELS) for package in packages}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
MODULES = {path: path.relative_to(ROOT.parent).with_suffix("").parts for path in FILES}


def name(path: Path) -> str:
    """``sheaf/methods/ecavg.py`` is the module ``sheaf.methods.ecavg``."""
    return ".".join(part for part in MODULES[path] if part != "__init__")


NAMES = {name(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Return the modules of sheaf that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            module = node.module or ""
            found |= {
                f"{module}.{alias.name}" if f"{module}.{alias.name}" in NAMES else module
                for alias in node.names
            }
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.split(".")[0] == "sheaf"}


def test_only_the_public_names_are_at_the_root() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(
        LEVEL
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_the_packages(path: Path) -> None:
    own = MODULES[path][1]
    for imported in imports(path):
        package = imported.split(".")[1]
        assert package == own or LEVEL[package] < LEVEL[own], f"{name(path)} imports {imported}"


def test_no_modules_import_each_other() -> None:
    """Imports inside packages form no cycle either."""
    graph = {module: imports(path) & NAMES.keys() - {module} for module, path in NAMES.items()}
    settled: set[str] = set()
    while ready := {module for module in graph.keys() - settled if graph[module] <= settled}:
        settled |= ready
    assert not graph.keys() - settled

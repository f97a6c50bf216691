"""Each module imports only from levels below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sheaf

ROOT = Path(sheaf.__file__).parent

LEVELS = [
    ["cores"],
    [
        "errors",
        "seeds",
        "blob",
        "memory",
        "recorded",
        "provenance",
        "augment",
        "metrics",
        "cost",
        "tail",
        "resident",
        "addition",
    ],
    ["types", "extras", "frozen", "dropout", "captured"],
    [
        "plugins",
        "wire",
        "coverage",
        "budget",
        "held",
        "weights",
        "training",
        "readers",
        "cut",
        "outliers",
        "mixture",
        "products",
    ],
    ["journal", "ledger", "tracing", "head", "sharing", "statistics", "permutation", "stacked"],
    ["models", "data", "partitions", "cuts", "record", "network"],
    ["datasets", "worker", "watch", "merges", "schema", "card"],
    ["sites", "engines", "formats"],
    ["methods", "config"],
    ["prepared"],
    ["runs", "plan"],
    ["compare", "deployed", "export"],
    ["report", "rehearsal", "predict", "trackers"],
    ["terminal"],
    ["cli_options"],
    ["cli_fleet"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path: Path) -> str:
    """``methods/ecavg.py`` is in the room ``methods``."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    assert room(path) in LEVEL, f"{room(path)} has no level yet: add it to LEVELS"
    for imported in imports(path):
        if imported != room(path):
            assert LEVEL[imported] < LEVEL[room(path)], f"{room(path)} imports {imported}"


def imports(path: Path) -> set[str]:
    """The rooms of sheaf that a file imports from, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "sheaf":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sheaf."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sheaf.")}
    return found

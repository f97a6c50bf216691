"""The notebook in docs/ runs from the top, and its stored outputs belong to its cells."""

from __future__ import annotations

import ast
import json
import linecache
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "first-steps.ipynb"
CELLS = [
    cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
]


def run(source: str, names: dict[str, Any], number: int) -> Any:
    """Execute a cell; return the value of its last line if that is an expression, as a notebook does."""
    file = f"<cell {number}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, file, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), file, "eval"), names)


def test_the_cells_run_and_their_outputs_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes some seconds: it trains the default experiment, whose figures the notebook shows."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__notebook__"}
    for number, cell in enumerate(CELLS):
        value = run("".join(cell["source"]), names, number)
        assert not [output for output in cell["outputs"] if output["output_type"] in ("error", "stream")]
        stored = [output["data"] for output in cell["outputs"] if output["output_type"] == "execute_result"]
        assert len(stored) == 1, "store the outputs: see CONTRIBUTING.md"
        plain = "".join(stored[0]["text/plain"])
        assert plain.split()[:3] == repr(value).split()[:3], "run the notebook again: see CONTRIBUTING.md"

"""The public names: exactly these, documented, typed, sufficient for the documents, and free of torch."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import sheaf

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "CLOUD",
    "Absence",
    "Blob",
    "ChannelStructure",
    "Cloud",
    "Comparison",
    "Cost",
    "CurrentModel",
    "Cut",
    "DataSettings",
    "Dataset",
    "ECAvg",
    "EdgeTensors",
    "Edges",
    "Experiment",
    "Fleet",
    "FromStatistics",
    "LocalFleet",
    "Log",
    "LossContext",
    "Merge",
    "ModelSettings",
    "Network",
    "Observer",
    "Params",
    "Privacy",
    "Recipe",
    "Result",
    "Ridge",
    "Run",
    "Samples",
    "Scheme",
    "ServerOptimizer",
    "Share",
    "SheafError",
    "SiteNeeds",
    "Sites",
    "Statistic",
    "Summary",
    "Task",
    "TrainingBudget",
    "Update",
    "Worker",
    "__version__",
    "build_model",
    "compare",
    "load",
    "load_dataset",
    "load_experiment",
    "resume",
    "run",
    "settings",
    "sites",
    "write_report",
]
"""Adding a name here is a promise to keep it; removing one breaks users' code."""

PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(sheaf.__all__) == sorted(PUBLIC)
    assert dir(sheaf) == sorted(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(sheaf, name) is not None
    assert documentation(name), f"sheaf.{name} has no docstring"


def documentation(name: str) -> str | None:
    """Return the docstring of a class or function, or the string below an alias or a constant."""
    source = Path(importlib.import_module(f"sheaf.{sheaf._PUBLIC[name]}").__file__ or "")
    statements = ast.parse(source.read_text(encoding="utf-8")).body
    for statement, following in zip(statements, [*statements[1:], None], strict=True):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return ast.get_docstring(statement)
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if name in (target.id for target in targets if isinstance(target, ast.Name)):
                match following:
                    case ast.Expr(value=ast.Constant(value=str() as text)):
                        return text
                return None
    return None


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(sheaf.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.asname: node.module.removeprefix("sheaf.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    assert declared == sheaf._PUBLIC


def test_the_version_is_that_of_the_installed_package() -> None:
    assert sheaf.__version__ == importlib.metadata.version("sheaf-edge")


def test_the_package_is_marked_as_typed() -> None:
    assert files("sheaf").joinpath("py.typed").is_file()
    ignored = subprocess.run(["git", "check-ignore", "-q", "sheaf/py.typed"], cwd=ROOT, check=False)
    assert ignored.returncode != 0, "the wheel holds every file of sheaf/ that git does not ignore"


def test_run_stays_a_function_after_its_module_is_imported() -> None:
    import sheaf.cli.main
    import sheaf.experiments.run

    assert callable(sheaf.run)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        sheaf.rum  # noqa: B018


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_from_sheaf_itself(document: Path) -> None:
    for block in PYTHON_BLOCK.findall(document.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sheaf":
                assert node.module == "sheaf", f"from {node.module} import …"
                assert {alias.name for alias in node.names} <= set(PUBLIC)
            elif isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if alias.name.startswith("sheaf.")]


def test_importing_sheaf_and_listing_plugins_load_no_torch() -> None:
    code = (
        "import sys, sheaf, sheaf.core.registry as r; [r.describe(kind) for kind in r.KINDS]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

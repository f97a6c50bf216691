"""The names of the shipped models and of their variants, read from the zoo's files without importing them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from sheaf.core import registry

ZOO = Path(__file__).with_name("zoo")


def model_names() -> dict[str, str]:
    """Return the description of each shipped model and, as ``name@variant``, of each variant."""
    descriptions = {}
    for name, description in registry.describe("models").items():
        descriptions[name] = description
        for variant, change in variants(name).items():
            descriptions[f"{name}@{variant}"] = f"{name} {change}"
    return descriptions


@cache
def variants(model: str) -> dict[str, str]:
    """Return variant -> description: the literal ``VARIANTS`` in the model's file, or where it is from."""
    for statement in ast.parse((ZOO / f"{model}.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == "VARIANTS" for target in targets):
                literal: dict[str, str] = ast.literal_eval(statement.value)
                return literal
        if isinstance(statement, ast.ImportFrom) and "VARIANTS" in (alias.name for alias in statement.names):
            return variants((statement.module or "").rpartition(".")[2])
    return {}

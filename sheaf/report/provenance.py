"""Read settings and provenance from a result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sheaf.core import objects
from sheaf.runtime.result import Result


def provenance_value(result: Result, *path: str) -> Any:
    """Return the provenance's value under nested keys; None if a key is missing."""
    value: Any = result.provenance
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def setting_value(result: Result, *path: str) -> Any:
    """Return the value of an experiment's setting; None if it is missing."""
    return provenance_value(result, "settings", *path)


def commit_label(result: Result) -> str:
    """Return the commit's first twelve digits, and ``(modified)`` for a dirty work tree."""
    commit = str(provenance_value(result, "commit") or "unknown")[:12]
    return f"{commit}{' (modified)' if provenance_value(result, 'dirty') else ''}"


def dataset_name(result: Result) -> str:
    """Return the dataset's name; for a folder, the last part of its path; for an object, its type."""
    return Path(objects.readable(str(setting_value(result, "data", "name")))).name


def used_settings(table: Any) -> Any:
    """Return nested settings without ``momentum`` beside an optimizer that does not use it."""
    if not isinstance(table, Mapping):
        return table
    unused = ("momentum",) if table.get("optimizer", "sgd") != "sgd" else ()
    return {key: used_settings(value) for key, value in table.items() if key not in unused}


def flatten(table: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as text) of every value in nested tables, in the notation of ``--set``."""
    for key, value in table.items() if isinstance(table, Mapping) else ():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"{prefix}{key}", text if len(text) <= 200 else f"{text[:199]}…"

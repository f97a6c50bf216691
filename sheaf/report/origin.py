"""Where a result comes from, read from its provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sheaf.runtime.result import Result


def made(result: Result, *path: str) -> Any:
    """What the provenance says under these keys; None where it says nothing."""
    found: Any = result.provenance
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def setting(result: Result, *path: str) -> Any:
    """The value of a setting of the experiment; None where there is none."""
    return made(result, "settings", *path)


def commit(result: Result) -> str:
    """The commit's first twelve digits, and whether there were changes on top."""
    return (
        f"{str(made(result, 'commit') or 'unknown')[:12]}{', with changes' if made(result, 'dirty') else ''}"
    )


def data_name(result: Result) -> str:
    """The dataset's name, or the last part of its folder."""
    return Path(str(setting(result, "data", "name"))).name


def flattened(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and value of everything in nested tables, as ``--set`` takes them."""
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
            continue
        said = value if isinstance(value, str) else json.dumps(value)
        yield f"{prefix}{key}", said if len(said) <= 200 else f"{said[:199]}…"

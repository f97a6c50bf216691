"""Python objects that an experiment names: ``object:NAME`` is a dataset, a model or a class of this process.

An experiment is text, so that it can be stored and run again. An object that no import finds, such as a
tensor dataset or a class in a notebook, is kept in this table for as long as the process runs.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

PREFIX = "object"


@dataclass(frozen=True)
class NamedObject:
    """An entry of the table.

    Attributes:
        value: the object.
        record: its description for provenance, as plain JSON values: type, digests, sizes.
    """

    value: Any
    record: dict[str, Any]


_table: dict[str, NamedObject] = {}


def add(label: str, value: Any, record: dict[str, Any], digest: str = "") -> str:
    """Put an object into the table and return its name, ``object:LABEL_DIGEST``.

    Args:
        label: readable; characters other than letters, digits and underscores are replaced.
        value: the object.
        record: its description.
        digest: of its content. An equal label and digest name the same object, so the earlier one stays.
    """
    name = f"{PREFIX}:{re.sub('[^A-Za-z0-9_]+', '_', label).strip('_') or 'it'}"
    name += f"_{digest[:8]}" if digest else ""
    free, number = name, 1
    while free in _table and not digest and _table[free].value is not value:
        number += 1
        free = f"{name}_{number}"
    if free not in _table:
        put(free, value, record)
    return free


def put(name: str, value: Any, record: dict[str, Any]) -> None:
    """Put an object into the table under the name that an earlier process gave it."""
    _table[name] = NamedObject(value, record)


def find(name: str) -> NamedObject | None:
    """Return the entry of a name; None if this process has none."""
    return _table.get(name)


def is_object(name: str) -> bool:
    """Return whether a plugin's name has the form ``object:NAME``."""
    return name.startswith(f"{PREFIX}:")


def readable(name: str) -> str:
    """Return a plugin's name without module, ``object:`` and digest: ``Net`` for ``object:Net_1f00c4d2``."""
    return re.sub("_[0-9a-f]{8}$", "", name.partition(":")[2]) if is_object(name) else name.rpartition(":")[2]


def records(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return name -> description of those names that are objects of this process."""
    return {name: _table[name].record for name in names if name in _table}


def importable_name(value: Any) -> str | None:
    """Return ``package.module:object`` if another process can import ``value`` by it, else None."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        return None
    try:
        same = attrgetter(name)(importlib.import_module(module)) is value
    except (ImportError, AttributeError):
        return None
    return f"{module}:{name}" if same else None

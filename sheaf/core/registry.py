"""From a name to an object: the folder is the registry.

``sheaf/methods/ecavg.py`` is the method ``ecavg``, and what it offers is the one object in it that is named
as the file is (``ECAvg``: capitals and underscores aside). A user's own is named ``package.module:object``.
"""

from __future__ import annotations

import ast
import importlib
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sheaf.core.errors import SheafError, UnknownNameError


@dataclass(frozen=True)
class Kind:
    """A kind of plugin: what one is called, and the package whose files they are."""

    noun: str
    package: str


KINDS = {
    "methods": Kind("method", "sheaf.methods"),
    "models": Kind("model", "sheaf.models.zoo"),
    "data": Kind("dataset", "sheaf.data.sets"),
    "partitions": Kind("partition", "sheaf.data.partitions"),
    "cuts": Kind("cut", "sheaf.submodels.schemes"),
    "losses": Kind("loss", "sheaf.training.losses"),
    "merges": Kind("merge", "sheaf.merges.rules"),
}


def describe(kind: str) -> dict[str, str]:
    """Name -> its one line, for every file of a kind, in alphabetical order. Imports none of them."""
    folder = Path(*importlib.import_module(KINDS[kind].package).__path__)
    files = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: _first_line(path) for path in files}


def load(kind: str, name: str) -> Any:
    """The object that ``name`` stands for.

    Raises:
        UnknownNameError: no file of that kind has that name.
        SheafError: ``package.module:object`` cannot be imported.
    """
    if ":" in name:
        return _import_own(kind, name)
    known = describe(kind)
    if name not in known:
        raise UnknownNameError(KINDS[kind].noun, name, known)
    module = importlib.import_module(f"{KINDS[kind].package}.{name}")
    wanted = name.replace("_", "")
    return next(thing for key, thing in vars(module).items() if key.lower().replace("_", "") == wanted)


def _import_own(kind: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module_name))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise SheafError(
            f"{KINDS[kind].noun} {name!r} cannot be imported: {error}; it must be package.module:object"
        ) from error


def _first_line(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def name_of(thing: Any) -> str:
    """The name under which ``load`` finds the class of ``thing``."""
    package, _, name = type(thing).__module__.rpartition(".")
    if any(kind.package == package for kind in KINDS.values()):
        return name
    return f"{type(thing).__module__}:{type(thing).__qualname__}"

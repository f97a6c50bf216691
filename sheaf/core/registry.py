"""Find plugins by name. The folder is the registry.

``sheaf/methods/ecavg.py`` defines the method ``ecavg``: the object in it whose name equals the file's,
ignoring case and underscores (``ECAvg``). A user's own plugin is named ``package.module:object``, or
``object:NAME`` if it exists only in this process (``core/objects.py``).
"""

from __future__ import annotations

import ast
import functools
import importlib
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sheaf.core import objects
from sheaf.core.errors import SheafError, UnknownNameError, first_line


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    Attributes:
        noun: what messages call one plugin of this kind.
        package: the package whose modules are the plugins.
        method: the method that every plugin has, if plugins are settings.
    """

    noun: str
    package: str
    method: str = "__call__"


KINDS = {
    "methods": Kind("method", "sheaf.methods", "run"),
    "models": Kind("model", "sheaf.models.zoo"),
    "data": Kind("dataset", "sheaf.data.sets"),
    "partitions": Kind("partition", "sheaf.data.partitions"),
    "cuts": Kind("cut", "sheaf.submodels.schemes"),
    "losses": Kind("loss", "sheaf.training.losses"),
    "merges": Kind("merge", "sheaf.merges.rules"),
    "codecs": Kind("codec", "sheaf.codecs", "encode"),
}
"""Every kind of plugin, by the name that ``load`` and ``describe`` take."""

FILES = {
    "formats": Kind("export format", "sheaf.export.formats"),
    "trackers": Kind("tracker", "sheaf.report.trackers"),
}
"""Kinds whose plugins are modules, not settings: ``describe`` lists them too."""


def describe(kind: str) -> dict[str, str]:
    """Return name -> docstring's first line for the plugins of a kind, sorted. Imports none of them."""
    folder = Path(*importlib.import_module((KINDS | FILES)[kind].package).__path__)
    files = sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return {path.stem: _docstring_summary(path) for path in files}


def load(kind: str, name: str) -> Any:
    """Return the plugin named ``name``.

    Raises:
        UnknownNameError: no plugin of that kind has that name.
        SheafError: ``package.module:object`` cannot be imported, or ``object:NAME`` is of another process.
    """
    if objects.is_object(name):
        return _object(kind, name)
    if ":" in name:
        return _import_own(kind, name)
    known = describe(kind)
    if name not in known:
        raise UnknownNameError(KINDS[kind].noun, name, known)
    module = importlib.import_module(f"{KINDS[kind].package}.{name}")
    plain = name.replace("_", "")
    return next(value for key, value in vars(module).items() if key.lower().replace("_", "") == plain)


def _object(kind: str, name: str) -> Any:
    entry = objects.find(name)
    if entry is not None:
        return entry.value
    argument = {"data": "data", "models": "model"}.get(kind)
    remedy = (
        f"give it again in Python: sheaf.load(FOLDER, {argument}=…) to use the run, "
        f"sheaf.resume(FOLDER, {argument}=…) to continue it"
        if argument
        else "define it in a module and name it package.module:object"
    )
    raise SheafError(f"{KINDS[kind].noun} {name!r} is a Python object of another process; {remedy}")


def _import_own(kind: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module_name))
    except Exception as error:  # the user's module may raise any
        reason = first_line(error)
        if not isinstance(error, (ImportError, AttributeError)):
            reason = f"{type(error).__name__}: {reason}"
        raise SheafError(
            f"{KINDS[kind].noun} {name!r} cannot be imported: {reason}; it must be package.module:object"
        ) from error


@functools.cache  # also because CPython 3.11's ast.parse can fail while another thread is in it
def _docstring_summary(path: Path) -> str:
    """Return the first line of a module's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def name_of(plugin: Any) -> str:
    """Return the name under which ``load`` finds the class of ``plugin``."""
    cls = type(plugin)
    package, _, name = cls.__module__.rpartition(".")
    if any(kind.package == package for kind in KINDS.values()):
        return name
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:  # no other process can import it
        return objects.add(cls.__name__, cls, {"type": cls.__name__})
    return f"{cls.__module__}:{cls.__qualname__}"

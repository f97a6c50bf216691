"""Every field of a settings class or public dataclass is documented by name in the class's docstring."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import sheaf


def modules() -> Iterator[ModuleType]:
    """Import every module of sheaf except those whose optional library is missing."""
    for found in pkgutil.walk_packages(sheaf.__path__, "sheaf."):
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "sheaf":
                raise


def classes() -> Iterator[type]:
    """Yield the settings classes and public dataclasses, where they are defined."""
    for module in modules():
        for name, value in vars(module).items():
            if not isinstance(value, type) or value.__module__ != module.__name__:
                continue
            is_settings = hasattr(value, "__pydantic_fields__")
            if dataclasses.is_dataclass(value) and (is_settings or not name.startswith("_")):
                yield value


def is_documented(cls: type, field: str) -> bool:
    """Return whether the docstring has an entry ``field:`` (or ``one, field, other:``), or names the field.

    An inherited field may be documented in the class that it comes from.
    """
    entry = rf"(?m)^\s*(\w+, )*{field}(, \w+)*: |``{field}\b"
    return any(
        re.search(entry, base.__doc__ or "")
        for base in cls.__mro__
        if field in base.__dict__.get("__dataclass_fields__", ())
    )


CLASSES = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes()}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_field_is_documented(name: str) -> None:
    cls = CLASSES[name]
    missing = {field.name for field in dataclasses.fields(cls) if not is_documented(cls, field.name)}
    assert not missing

"""The settings of a class for people: name, type, range, default and text, from its fields and docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from sheaf.core import registry
from sheaf.core.settings import plain

ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")
"""The first line of an entry below ``Attributes:``, in a docstring without common indentation."""

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}

WORDS = {bool: "true or false", int: "integer", float: "number", str: "text"}


@dataclass(frozen=True)
class SettingHelp:
    """One setting.

    Attributes:
        name: its key.
        type: its type and range in words.
        default: its default as in TOML; ``required`` or ``unset``.
        text: its description.
    """

    name: str
    type: str
    default: str
    text: str


def describe_settings(cls: type) -> list[SettingHelp]:
    """Return the settings of a settings class, in the order of its fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    texts = documented(cls)
    return [
        SettingHelp(field.name, describe_type(hints[field.name]), _default(field), texts.get(field.name, ""))
        for field in dataclasses.fields(cls)
    ]


def documented(cls: type) -> dict[str, str]:
    """Return field -> description, from the section ``Attributes:`` of the docstring and of its bases'."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, section = (inspect.cleandoc(base.__doc__ or "")).partition("\nAttributes:\n")
        names: list[str] = []
        for line in section.splitlines():
            if line and not line.startswith("    "):
                break  # the next section
            if entry := ENTRY.match(line):
                names = entry[1].split(", ")
                texts |= dict.fromkeys(names, entry[2])
            elif line.strip():
                texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def nested_settings(cls: type) -> Iterator[type]:
    """Yield the settings classes that the fields of ``cls`` hold, each once, but for plugins."""
    seen: set[type] = set()
    for hint in typing.get_type_hints(cls, include_extras=True).values():
        for member in _members(hint):
            if isinstance(member, type) and hasattr(member, "__pydantic_fields__") and member not in seen:
                seen.add(member)
                yield member


def describe_type(hint: Any) -> str:
    """Return a type in words, such as ``number, above 0, at most 1``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        base, *extras = arguments
        for extra in extras:
            if isinstance(extra, BeforeValidator) and (kind := getattr(extra.func, "kind", None)):
                return f"{registry.KINDS[kind].noun}, by name or as a table"
        words = [describe_type(base)]
        for extra in extras:
            if isinstance(extra, FieldInfo):
                words += _bounds(extra)
        return ", ".join(words)
    if origin is typing.Literal:
        return " or ".join(filter(None, [", ".join(map(str, arguments[:-1])), str(arguments[-1])]))
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(describe_type(member) for member in arguments if member is not type(None))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"list of ({describe_type(arguments[0])})"
        return f"list of {len(arguments)} ({describe_type(arguments[0])})"
    if origin in (dict, Mapping):
        return f"table: {describe_type(arguments[0])} → {describe_type(arguments[1])}"
    if hint in WORDS:
        return WORDS[hint]
    return getattr(hint, "__name__", "any value")


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        for name, word in BOUNDS.items():
            if hasattr(bound, name):
                yield f"{word} {getattr(bound, name):g}"


def _members(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in typing.get_args(hint):
        yield from _members(argument)


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return "required"
        value = field.default_factory()
    if value is None:
        return "unset"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _short(value)
    return _as_toml(plain(value))


def _short(value: Any) -> str:
    """Return the settings of ``value`` that differ from their defaults; the name of a plugin."""
    if callable(value):
        return f'"{registry.name_of(value)}"'
    standard = type(value)()
    names = [each.name for each in dataclasses.fields(value)]
    changed = {name: new for name in names if (new := getattr(value, name)) != getattr(standard, name)}
    return _as_toml(plain(changed)) if changed else "the defaults"


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {_as_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    return str(value)

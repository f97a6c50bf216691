"""Settings: frozen dataclasses that are validated on creation, read from tables and written back."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar, cast

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass as checked_dataclass
from typing_extensions import dataclass_transform

from sheaf.core import registry
from sheaf.core.errors import SettingError, nearest

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[_T]) -> type[_T]:
    """Make a class a frozen, keyword-only dataclass that is validated on creation."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    checked: Any = checked_dataclass(frozen=True, kw_only=True, config=config)(cls)
    return cast(type[_T], checked)


def parse(cls: type[_T], table: Any, where: str = "") -> _T:
    """Create a ``cls`` from a TOML table, strictly: no unknown keys, no conversion between types.

    Args:
        cls: a ``@settings`` dataclass.
        table: its keys and values.
        where: the dotted path of the table, for messages.

    Raises:
        SettingError: a key or value is wrong; the message names the key, the value and what is allowed.
    """
    text = json.dumps(table, allow_nan=True, default=str)  # TOML dates and times become strings
    try:
        return TypeAdapter(cls).validate_json(text, strict=True, context={"where": where, "table": table})
    except ValidationError as error:
        raise SettingError(_one_line(cls, error, where, table)) from error


def plain(value: Any) -> Any:
    """Return the table from which ``parse`` creates ``value``. None has no form in TOML and is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        is_plugin = any(hasattr(value, kind.method) for kind in registry.KINDS.values())
        named = {"name": registry.name_of(value)} if is_plugin else {}
        return named | plain(
            {
                field.name: setting
                for field in dataclasses.fields(value)
                if (setting := getattr(value, field.name)) != {} or field.default_factory is not dict
            }
        )
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def make_plugin(kind: str, table: Any, where: str) -> Any:
    """Create a plugin from its table: ``"name"``, or ``{name = "name", …}`` with settings.

    Args:
        kind: a key of ``registry.KINDS``.
        table: the name, or a table with the name and the settings.
        where: the dotted path of the table, for messages.

    Raises:
        UnknownNameError: no plugin of that kind has that name.
        SettingError: the settings are wrong, or the object is not a plugin of that kind.
    """
    table = {"name": table} if isinstance(table, str) else table
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        names = ", ".join(registry.describe(kind))
        raise SettingError(f"{where} = {table!r}: give a name or a table with one; there are: {names}")
    cls = registry.load(kind, table["name"])
    needs = registry.KINDS[kind].method
    if not (
        isinstance(cls, type) and dataclasses.is_dataclass(cls) and any(needs in vars(c) for c in cls.mro())
    ):
        raise SettingError(
            f"{where} = {table['name']!r}: a {registry.KINDS[kind].noun} is a dataclass of settings "
            f"with {needs}()"
        )
    return parse(cls, {key: value for key, value in table.items() if key != "name"}, where)


def plugin_field(kind: str) -> BeforeValidator:
    """Annotate a field that holds a plugin of ``kind``, given by its name or by a table with its settings."""

    def convert(value: Any, info: ValidationInfo) -> Any:
        if dataclasses.is_dataclass(value):
            return value
        context, key = info.context or {}, info.field_name or kind
        path = [context.get("where", ""), *_keys_to(key, value, context.get("table")), key]
        return make_plugin(kind, value, ".".join(name for name in path if name))

    convert.kind = kind  # type: ignore[attr-defined]  # for ``settings_help``
    return BeforeValidator(convert)


def _keys_to(key: str, value: Any, table: Any) -> list[str]:
    """Return the path of the innermost table in which ``key`` has ``value``; pydantic does not report it."""
    if not isinstance(table, Mapping):
        return []
    if key in table and table[key] == value:
        return []
    for name, inner in table.items():
        if isinstance(inner, Mapping) and _has(key, value, inner):
            return [name, *_keys_to(key, value, inner)]
    return []


def _has(key: str, value: Any, table: Mapping[str, Any]) -> bool:
    return (key in table and table[key] == value) or any(
        isinstance(inner, Mapping) and _has(key, value, inner) for inner in table.values()
    )


def _one_line(cls: Any, error: ValidationError, where: str, table: Any) -> str:
    errors = [one for one in error.errors() if not _known_to_another_choice(cls, one, table)]
    first = errors[0]
    path = _path(first["loc"], table)
    if "missing" in first["type"]:
        path.append(str(first["loc"][-1]))
    key = ".".join([where, *path] if where else path) or "experiment"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = _keys_at(cls, path[:-1])
        return f"unknown key {key}{nearest(path[-1], allowed)}; allowed: {', '.join(allowed)}"
    if "missing" in first["type"]:
        return f"{key} is missing"
    if first["type"] == "value_error":  # raised by __post_init__ for settings that contradict each other
        return f"{key}: {first['ctx']['error']}"
    # A field that allows several types has one error for each of them.
    messages = dict.fromkeys(one["msg"] for one in errors if _path(one["loc"], table) == path)
    return f"{key} = {first['input']!r}: " + ", or: ".join(text[0].lower() + text[1:] for text in messages)


def _known_to_another_choice(cls: Any, error: Any, table: Any) -> bool:
    """Return whether a field allows several classes of settings, and another of them has the unknown key."""
    path = _path(error["loc"], table)
    return error["type"] == "unexpected_keyword_argument" and path[-1] in _keys_at(cls, path[:-1])


def _path(location: Sequence[str | int], table: Any) -> list[str]:
    """Return the keys and indices of ``table`` in a pydantic location, which mixes labels of its own in."""
    path = []
    for part in location:
        if part in table if isinstance(table, Mapping) else isinstance(table, list) and isinstance(part, int):
            table = table[part]
            path.append(str(part))
    return path


def _keys_at(cls: Any, path: Sequence[str]) -> list[str]:
    """Return the keys of the settings at ``path`` below ``cls``."""
    choices = [cls]
    for name in path:
        hints = [typing.get_type_hints(choice).get(name) for choice in choices]
        choices = [member for hint in hints for member in typing.get_args(hint) or (hint,)]
        choices = [choice for choice in choices if dataclasses.is_dataclass(choice)]
    return [field.name for choice in choices for field in dataclasses.fields(choice)]

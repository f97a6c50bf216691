"""Settings: frozen dataclasses checked when they are made, read from plain tables and written back."""

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
    """Decorator: a frozen dataclass, checked when it is made; its fields are keys of an experiment."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    checked: Any = checked_dataclass(frozen=True, kw_only=True, config=config)(cls)
    return cast(type[_T], checked)


def parse(cls: type[_T], table: Any, where: str = "") -> _T:
    """A ``cls`` from what TOML holds, strictly: no unknown key, no conversion between types.

    Args:
        cls: a ``@settings`` dataclass.
        table: its keys and values.
        where: the dotted path of the table, for messages.

    Raises:
        SettingError: one line: the key, its value, what is allowed.
    """
    text = json.dumps(table, allow_nan=True, default=str)  # TOML's dates and times are text here
    try:
        return TypeAdapter(cls).validate_json(text, strict=True, context={"where": where})
    except ValidationError as error:
        raise SettingError(_one_line(cls, error, where, table)) from error


def plain(value: Any) -> Any:
    """The table that ``parse`` makes ``value`` from; what TOML cannot say (None) is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {"name": registry.name_of(value)} if callable(value) or hasattr(value, "run") else {}
        return named | plain(
            {
                field.name: given
                for field in dataclasses.fields(value)
                if (given := getattr(value, field.name)) != {} or field.default_factory is not dict
            }
        )
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def make_plugin(kind: str, table: Any, where: str) -> Any:
    """The object that ``"name"`` or ``{name = "name", …}`` stands for, with its settings.

    Raises:
        UnknownNameError: nothing of that kind has that name.
        SettingError: its settings are wrong, or the object is not of that kind.
    """
    table = {"name": table} if isinstance(table, str) else table
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        names = ", ".join(registry.describe(kind))
        raise SettingError(f"{where} = {table!r}: give a name or a table with one; there are: {names}")
    cls = registry.load(kind, table["name"])
    needs = "run" if kind == "methods" else "__call__"
    if not (
        isinstance(cls, type) and dataclasses.is_dataclass(cls) and any(needs in vars(c) for c in cls.mro())
    ):
        raise SettingError(
            f"{where} = {table['name']!r}: a {registry.KINDS[kind].noun} is a dataclass of settings "
            f"with {needs}()"
        )
    return parse(cls, {key: value for key, value in table.items() if key != "name"}, where)


def plugin_field(kind: str) -> BeforeValidator:
    """Annotate a field whose value names a plugin of ``kind``: a name, or a table with one and settings."""

    def convert(value: Any, info: ValidationInfo) -> Any:
        if dataclasses.is_dataclass(value):
            return value
        above = (info.context or {}).get("where")
        key = info.field_name or kind
        return make_plugin(kind, value, f"{above}.{key}" if above else key)

    return BeforeValidator(convert)


def _one_line(cls: Any, error: ValidationError, where: str, table: Any) -> str:
    errors = [found for found in error.errors() if not _of_another_choice(cls, found, table)]
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
    if first["type"] == "value_error":  # settings that do not go together; says itself which
        return f"{key}: {first['ctx']['error']}"
    # Where several kinds of value are allowed, each says what it would have been.
    said = dict.fromkeys(found["msg"] for found in errors if _path(found["loc"], table) == path)
    return f"{key} = {first['input']!r}: " + ", or: ".join(msg[0].lower() + msg[1:] for msg in said)


def _of_another_choice(cls: Any, error: Any, table: Any) -> bool:
    """Whether a key is unknown to one kind of settings, but known to another that is allowed there."""
    path = _path(error["loc"], table)
    return error["type"] == "unexpected_keyword_argument" and path[-1] in _keys_at(cls, path[:-1])


def _path(location: Sequence[str | int], table: Any) -> list[str]:
    """The keys and places of ``table`` that a location names; pydantic puts its own labels between them."""
    path = []
    for part in location:
        if part in table if isinstance(table, Mapping) else isinstance(table, list) and isinstance(part, int):
            table = table[part]
            path.append(str(part))
    return path


def _keys_at(cls: Any, path: Sequence[str]) -> list[str]:
    """The keys of the settings that lie at ``path`` under ``cls``."""
    choices = [cls]
    for name in path:
        hints = [typing.get_type_hints(choice).get(name) for choice in choices]
        choices = [member for hint in hints for member in typing.get_args(hint) or (hint,)]
        choices = [choice for choice in choices if dataclasses.is_dataclass(choice)]
    return [field.name for choice in choices for field in dataclasses.fields(choice)]

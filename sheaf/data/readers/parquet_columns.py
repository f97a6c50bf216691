"""Choice of the columns of inputs and labels in the schema of a parquet shard."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from typing import Any

import pyarrow as pa

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import abbreviate
from sheaf.data.readers.folder_layout import is_utf8
from sheaf.data.readers.parquet_shards import Shard


def encoded_column(shard: Shard) -> str:
    """Return the name of the column of images or sounds."""
    columns = [field.name for field in shard.schema if _has_content(field.type)]
    structs = [name for name in columns if pa.types.is_struct(column_type(shard, name, "input"))]
    candidates = structs or columns
    if len(candidates) != 1:
        found = f"{len(candidates)}: {abbreviate(candidates)}" if candidates else "none"
        remedy = "choose one with data.input; " if candidates else ""
        raise DataError(
            f"{shard.path} must have one column of images or sounds ({{bytes, path}} structs, or bytes), "
            f"but has {found}; {remedy}its columns: {abbreviate(shard.schema.names, 20)}"
        )
    return str(candidates[0])


def column_type(shard: Shard, column: str, key: str) -> pa.DataType:
    """Return the type of the column that ``data.KEY`` chooses, checked to exist once."""
    count = shard.schema.names.count(column)
    if count != 1:
        raise DataError(
            f"{shard.path} has {count or 'no'} column{'s' if count else ''} {column!r}; choose one that "
            f"exists once with data.{key}: {abbreviate(shard.schema.names, 20)}"
        )
    return shard.schema.field(column).type


def check_alike(shard: Shard, first: Shard, column: str, label: str) -> None:
    """Check that the columns of a shard are those of the first."""
    content = column_type(shard, column, "input")
    if not _has_content(content):
        raise DataError(
            f"{shard.path}: column {column!r} must contain {{bytes, path}} structs or bytes, not {content}; "
            f"choose another one with data.input: {abbreviate(shard.schema.names, 20)}"
        )
    column_type(shard, label, "label")
    names = class_names(shard, label)
    if names and names != class_names(first, label):
        raise DataError(f"{shard.path} and {first.path} have different class names; all shards must agree")


def _has_content(kind: pa.DataType) -> bool:
    """Return whether a column of this type may hold files: bytes, or structs with a field ``bytes``."""
    if pa.types.is_struct(kind):
        return any(_is_bytes(child.type) and child.name == "bytes" for child in kind)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def label_column(shard: Shard) -> str:
    """Return the name of the column of labels."""
    if "label" in shard.schema.names:
        return "label"
    class_labels = [name for name, feature in _features(shard.schema).items() if _is_class_label(feature)]
    if len(class_labels) != 1:
        raise DataError(
            f"{shard.path} has no column 'label', only {abbreviate(shard.schema.names, 20)}; "
            "choose the column of labels with data.label"
        )
    return class_labels[0]


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the Hub's metadata of each column; empty if it is missing or malformed."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_class_label(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "ClassLabel"


def class_names(shard: Shard, label: str) -> tuple[str, ...]:
    """Return the class names in the metadata, checked to be different; empty if there are none."""
    feature = _features(shard.schema).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list):
        return ()
    counts = Counter(normal_form(str(name)) for name in names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise DataError(
            f"{shard.path}: the metadata of column {label!r} names more than one class {abbreviate(twice)}; "
            "give each class its own name"
        )
    if wrong := [name for name in counts if not is_utf8(name)]:
        raise DataError(
            f"{shard.path}: the metadata of column {label!r} names a class {wrong[0]!a}, which is not valid "
            "Unicode; rename it"
        )
    return tuple(str(name) for name in names)


def normal_form(name: str) -> str:
    """Return the composed form of a name: macOS stores accents apart from their letters."""
    return unicodedata.normalize("NFC", name)

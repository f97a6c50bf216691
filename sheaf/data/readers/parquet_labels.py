"""Labels of parquet shards: their values as class numbers, and the names of the classes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Ints, abbreviate
from sheaf.data.readers.parquet_columns import column_type, normal_form
from sheaf.data.readers.parquet_shards import Shard, guarded

MAX_CLASSES = 100_000
"""Limit of class numbers without names: a column with greater ones contains identifiers."""


def is_unlabelled(shards: list[Shard], label: str) -> bool:
    """Return whether no row has a label: the column does not exist, or is null, empty or -1 in every row."""
    for shard in shards:
        if label in shard.schema.names:
            column_type(shard, label, "label")
            column = guarded(shard.path, partial(shard.file.read, columns=[label]))[label].drop_null()
            if len(column) == 0:
                continue
            values = column.unique().to_pylist()
            if values not in ([-1], [""]):
                return False
    return True


def label_values(shards: list[Shard], label: str) -> npt.NDArray[Any]:
    """Return the labels of all rows, (N,), int64 or, for columns of strings, str objects."""
    values = []
    for shard in shards:
        kind = column_type(shard, label, "label")
        column = guarded(shard.path, partial(shard.file.read, columns=[label]))[label]
        if column.null_count:
            null = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(
                f"{shard.location(null)} has no label; {column.null_count} rows of the file have none"
            )
        if pa.types.is_dictionary(kind):
            column, kind = guarded(shard.path, partial(column.cast, kind.value_type)), kind.value_type
        if pa.types.is_integer(kind):
            try:
                values.append(column.cast(pa.int64()).to_numpy())
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{shard.path}: column {label!r} is no column of labels, as a value is above 2^63; "
                    f"choose another one with data.label: {abbreviate(shard.schema.names, 20)}"
                ) from error
        elif _is_text(kind):
            texts = guarded(shard.path, column.cast(pa.string()).to_pylist)
            values.append(np.array([normal_form(text) for text in texts], object))
        else:
            raise DataError(
                f"{shard.path}: column {label!r} must contain integers or strings, not {kind}; "
                f"choose another one with data.label: {abbreviate(shard.schema.names, 20)}"
            )
        if values[-1].dtype != values[0].dtype:
            raise DataError(f"{shard.path} and {shards[0].path} have different types of column {label!r}")
    return np.concatenate(values)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_boolean(kind)
    )


def number_names(first: Shard, label: str, values: Ints) -> tuple[str, ...]:
    """Return the class names "0" to "K-1" for training labels without names in the metadata.

    Raises:
        DataError: K exceeds ``MAX_CLASSES``, or there is no class.
    """
    largest = int(values.max(initial=-1))
    if not 0 <= largest < MAX_CLASSES:
        raise DataError(
            f"{first.path}: column {label!r} has {len(np.unique(values)):,} different values up to "
            f"{largest:,}, but the labels of K classes must be 0 to K-1, below {MAX_CLASSES:,}; choose "
            f"another column with data.label: {abbreviate(first.schema.names, 20)}"
        )
    return tuple(str(number) for number in range(largest + 1))


def check_range(labels: Ints, shards: list[Shard], label: str, classes: tuple[str, ...]) -> None:
    """Check that the labels of the shards' rows are numbers of ``classes``."""
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong) == 0:
        return
    row = int(wrong[0])
    value = int(labels[row])
    for shard in shards:
        if row < shard.file.metadata.num_rows:
            break
        row -= shard.file.metadata.num_rows
    allowed = f"must be 0 to {len(classes) - 1}" + (" (-1 means unlabelled)" if value == -1 else "")
    raise DataError(
        f"{shard.location(row)}: {label} is {value}, {allowed}; {len(wrong)} of {len(labels)} rows are out "
        "of range; remove them, or choose another column with data.label"
    )

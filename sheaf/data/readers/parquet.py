"""Reading of parquet shards in the layout of the Hugging Face Hub.

Shards are named ``train-*.parquet`` or are in a folder named ``train``; likewise ``test`` and
``validation``. The validation split is used only if there is no test split. The images or sounds are in the
column of ``{bytes, path}`` structs, of which ``path`` is ignored. The labels are integers in the column
``label`` or, if there is none, in the only column of type ``ClassLabel`` in the shards' metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sheaf.core.errors import DataError, first_line
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind, abbreviate

SPLITS = ("train", "test", "validation")
ROWS = 512  # rows that are decoded from parquet at a time


@dataclass(frozen=True)
class Shard:
    """An open parquet file.

    Attributes:
        path: of the file.
        file: with its footer read.
    """

    path: Path
    file: pq.ParquetFile

    @property
    def schema(self) -> pa.Schema:
        """Return the columns with the Hub's metadata."""
        return self.file.schema_arrow

    def location(self, row: int) -> str:
        """Return the name of a row, counted from 0, in messages."""
        return f"row {row} of {self.path}"


def find_shards(folder: Path) -> list[Path]:
    """Return all parquet files below ``folder`` in sorted order, without hidden files and folders."""
    files = (path for path in folder.rglob("*.parquet") if path.is_file())
    return sorted(
        path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_parquet(
    folder: Path,
    test: str | None = None,
    label: str | None = None,
    without: Sequence[str] = (),
) -> Encoded:
    """Read the dataset whose shards are in ``folder``, at any depth.

    Args:
        folder: of the shards.
        test: the split that serves as the test split. Unset: ``test`` or, if there is none, ``validation``.
        label: the column of labels. Unset: see the module's docstring.
        without: classes whose rows are left out.

    Raises:
        DataError: shards are missing or damaged, or lack a column, or a label is missing or out of range.
    """
    splits = _splits(folder)
    if test is None:
        test = "validation" if "validation" in splits and "test" not in splits else "test"
    for split in ("train", test):
        if split not in splits:
            raise DataError(f"{folder} has no {split}-*.parquet, only {abbreviate(sorted(splits))}")
    shards = {split: [_open(path) for path in splits[split]] for split in ("train", test)}
    first = shards["train"][0]
    column = _encoded_column(first)
    label = label or _label_column(first)
    for shard in [*shards["train"], *shards[test]]:
        _check_alike(shard, first, column, label)
    train_labels, test_labels = (_labels(shards[split], label) for split in ("train", test))
    classes = _class_names(first.schema, label) or tuple(
        str(number) for number in range(int(train_labels.max(initial=-1)) + 1)
    )
    _check_range(train_labels, shards["train"], label, classes)
    _check_range(test_labels, shards[test], label, classes)
    train_split = EncodedSplit(train_labels, _items(shards["train"], column))
    test_split = EncodedSplit(test_labels, _items(shards[test], column))
    for name in without:
        if name in classes:
            number = classes.index(name)
            train_split, test_split = _without(train_split, number), _without(test_split, number)
            classes = tuple(other for other in classes if other != name)
    return Encoded(_kind(first, column), train_split, test_split, classes)


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Return the sorted shards of each split, checked to be complete and of one dataset."""
    splits: dict[str, list[Path]] = {}
    set_folders: dict[Path, None] = {}  # an ordered set
    for path in find_shards(folder):
        match = re.match(rf"({'|'.join(SPLITS)})(?![a-z])", path.stem)
        if match:
            split, base = match[1], path.parent
        elif path.parent.name in SPLITS:
            split, base = path.parent.name, path.parent.parent
        else:
            raise DataError(
                f"{path} is of no split; name it train-*.parquet, test-*.parquet or validation-*.parquet"
            )
        splits.setdefault(split, []).append(path)
        set_folders[base] = None
    if not splits:
        raise DataError(f"{folder} contains no parquet file")
    if len(set_folders) > 1:
        raise DataError(f"{folder} contains several datasets; name one of them: {abbreviate(set_folders)}")
    for split, paths in splits.items():
        count = re.search(r"-of-(\d+)$", paths[0].stem)
        if count and int(count[1]) != len(paths):
            raise DataError(
                f"{paths[0].parent} has {len(paths)} of {int(count[1])} {split} shards; add the missing ones"
            )
    return splits


def _open(path: Path) -> Shard:
    return Shard(path, _guard(path, partial(pq.ParquetFile, path, memory_map=True)))


def _guard(path: Path, read: Callable[[], Any]) -> Any:
    """Return ``read()``, with its errors as DataError."""
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or not a parquet file: {first_line(error)}") from error


def _encoded_column(shard: Shard) -> str:
    """Return the name of the column of images or sounds."""
    structs = [
        field.name
        for field in shard.schema
        if pa.types.is_struct(field.type)
        and any(_is_bytes(child.type) and child.name == "bytes" for child in field.type)
    ]
    if len(structs) != 1:
        found = f"{len(structs)}: {abbreviate(structs)}" if structs else "none"
        raise DataError(
            f"{shard.path} must have one column of images or sounds ({{bytes, path}} structs), but has "
            f"{found}; its columns: {abbreviate(shard.schema.names)}"
        )
    return str(structs[0])


def _check_alike(shard: Shard, first: Shard, column: str, label: str) -> None:
    if _encoded_column(shard) != column:
        raise DataError(f"{shard.path} has no column {column!r} like {first.path}")
    names = _class_names(shard.schema, label)
    if names and names != _class_names(first.schema, label):
        raise DataError(f"{shard.path} and {first.path} have different class names; all shards must agree")


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _label_column(shard: Shard) -> str:
    if "label" in shard.schema.names:
        return "label"
    class_labels = [name for name, feature in _features(shard.schema).items() if _is_class_label(feature)]
    if len(class_labels) != 1:
        raise DataError(f"{shard.path} has no column 'label', only {abbreviate(shard.schema.names)}")
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


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    feature = _features(schema).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _labels(shards: list[Shard], label: str) -> Ints:
    """Return the labels of all rows, (N,)."""
    labels = []
    for shard in shards:
        if label not in shard.schema.names:
            raise DataError(f"{shard.path} has no column {label!r}, only {abbreviate(shard.schema.names)}")
        kind = shard.schema.field(label).type
        if not pa.types.is_integer(kind):
            raise DataError(f"{shard.path}: column {label!r} must contain integers, not {kind}")
        table = _guard(shard.path, partial(shard.file.read, columns=[label]))
        column = table[label]
        if column.null_count:
            null = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(
                f"{shard.location(null)} has no label; {column.null_count} rows of the file have none"
            )
        labels.append(column.to_numpy().astype(np.int64))
    return np.concatenate(labels)


def _check_range(labels: Ints, shards: list[Shard], label: str, classes: tuple[str, ...]) -> None:
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
        f"{shard.location(row)}: {label} is {value}, {allowed}; "
        f"{len(wrong)} of {len(labels)} rows are out of range"
    )


def _without(split: EncodedSplit, label: int) -> EncodedSplit:
    """Leave out the class ``label``; the labels above it move down by one."""
    rest = split.select(np.flatnonzero(split.labels != label))
    return EncodedSplit(rest.labels - (rest.labels > label), rest.items)


def _items(shards: list[Shard], column: str) -> Callable[[Ints], Iterator[tuple[str, bytes]]]:
    """Return ``EncodedSplit.items`` of the rows of all shards."""

    def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
        start = 0
        for shard in shards:
            stop = start + shard.file.metadata.num_rows
            yield from _rows(shard, column, positions[(positions >= start) & (positions < stop)] - start)
            start = stop

    return items


def _rows(shard: Shard, column: str, rows: Ints) -> Iterator[tuple[str, bytes]]:
    """Yield (location, content) of some rows; reads only the row groups that contain one of them."""
    start = 0
    for group in range(shard.file.metadata.num_row_groups):
        stop = start + shard.file.metadata.row_group(group).num_rows
        if ((rows >= start) & (rows < stop)).any():
            batches = shard.file.iter_batches(ROWS, row_groups=[group], columns=[column])
            while (batch := _guard(shard.path, partial(next, batches, None))) is not None:
                cells = batch.column(column).field("bytes")
                for row in rows[(rows >= start) & (rows < start + len(batch))].tolist():
                    content = cells[row - start].as_py()
                    if content is None:
                        raise DataError(f"{shard.location(row)} contains no bytes")
                    yield shard.location(row), content
                start += len(batch)
        start = stop


def _kind(shard: Shard, column: str) -> Kind:
    """Return the kind of the first row, by the first bytes of its content."""
    if shard.file.metadata.num_rows == 0:
        return "image"
    _, content = next(_rows(shard, column, np.zeros(1, np.int64)))
    return "sound" if content[8:12] == b"WAVE" or content[:4] in (b"fLaC", b"OggS") else "image"

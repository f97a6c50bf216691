"""Parquet shards as the Hugging Face hub keeps them.

Shards are named ``train-*.parquet``, or lie in a folder named ``train``; likewise ``test`` and
``validation``. Where there is no test part, the validation part takes its place, otherwise it is
left alone. The column of images or sounds is the one of ``{bytes, path}`` structs; ``path`` is
never followed. Labels are integers in the column ``label`` or, if there is none, in the only one
that the shards' metadata calls a class label.
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
from sheaf.data.readers.encoded import Encoded, Ints, Kind, Part, some

SPLITS = ("train", "test", "validation")
ROWS = 512  # decoded from parquet at a time


@dataclass(frozen=True)
class Shard:
    """One file, its footer read."""

    path: Path
    file: pq.ParquetFile

    @property
    def schema(self) -> pa.Schema:
        """The columns, and the hub's metadata."""
        return self.file.schema_arrow

    def row(self, row: int) -> str:
        """How a row is named to a user, counted from 0."""
        return f"row {row} of {self.path}"


def find_shards(folder: Path) -> list[Path]:
    """Every parquet file at or below ``folder``, but for those in hidden folders."""
    found = (path for path in folder.rglob("*.parquet") if path.is_file())
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_parquet(
    folder: Path,
    test: str | None = None,
    label: str | None = None,
    without: Sequence[str] = (),
) -> Encoded:
    """The set whose shards lie in ``folder``, at any depth.

    Args:
        folder: where the shards lie.
        test: the split that is the test part; unset: ``test`` or, if there is none, ``validation``.
        label: the column of labels; unset: found as the module says.
        without: classes whose rows are left out.

    Raises:
        DataError: shards are missing or damaged, hold no such columns, or their labels cannot be
            used.
    """
    splits = _splits(folder)
    if test is None:
        test = "validation" if "validation" in splits and "test" not in splits else "test"
    for split in ("train", test):
        if split not in splits:
            raise DataError(f"{folder} has no {split}-*.parquet, only {some(sorted(splits))}")
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
    train = Part(train_labels, _items(shards["train"], column))
    held = Part(test_labels, _items(shards[test], column))
    for part, of in ((train, shards["train"]), (held, shards[test])):
        _check_range(part.labels, of, label, classes)
    for name in without:
        if name in classes:
            train, held = (_without(part, classes.index(name)) for part in (train, held))
            classes = tuple(other for other in classes if other != name)
    return Encoded(_kind(first, column), train, held, classes)


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Split -> its shards in order; all of one set and none missing."""
    splits: dict[str, list[Path]] = {}
    sets: dict[Path, None] = {}
    for path in find_shards(folder):
        named = re.match(rf"({'|'.join(SPLITS)})(?![a-z])", path.stem)
        if named:
            split, base = named[1], path.parent
        elif path.parent.name in SPLITS:
            split, base = path.parent.name, path.parent.parent
        else:
            raise DataError(
                f"{path} says neither train, test nor validation; shards are named train-*.parquet"
            )
        splits.setdefault(split, []).append(path)
        sets[base] = None
    if not splits:
        raise DataError(f"{folder} holds no parquet file")
    if len(sets) > 1:
        raise DataError(f"{folder} holds several sets, name one of them: {some(sets)}")
    for split, paths in splits.items():
        count = re.search(r"-of-(\d+)$", paths[0].stem)
        if count and int(count[1]) != len(paths):
            raise DataError(f"{paths[0].parent} has {len(paths)} of {int(count[1])} {split} shards")
    return splits


def _open(path: Path) -> Shard:
    return Shard(path, _guard(path, partial(pq.ParquetFile, path, memory_map=True)))


def _guard(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or no parquet file: {first_line(error)}") from error


def _encoded_column(shard: Shard) -> str:
    structs = [
        field.name
        for field in shard.schema
        if pa.types.is_struct(field.type)
        and any(_is_bytes(child.type) and child.name == "bytes" for child in field.type)
    ]
    if len(structs) != 1:
        found = f"{len(structs)}: {some(structs)}" if structs else f"none among {some(shard.schema.names)}"
        raise DataError(
            f"{shard.path} must have one column of images or sounds ({{bytes, path}} structs) and has {found}"
        )
    return str(structs[0])


def _check_alike(shard: Shard, first: Shard, column: str, label: str) -> None:
    if _encoded_column(shard) != column:
        raise DataError(f"{shard.path} has no column {column!r}, which {first.path} has")
    names = _class_names(shard.schema, label)
    if names and names != _class_names(first.schema, label):
        raise DataError(f"{shard.path} and {first.path} do not name the same classes")


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _label_column(shard: Shard) -> str:
    if "label" in shard.schema.names:
        return "label"
    marked = [name for name, feature in _features(shard.schema).items() if _is_class_label(feature)]
    if len(marked) != 1:
        raise DataError(f"{shard.path} has no column 'label', only {some(shard.schema.names)}")
    return marked[0]


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the hub wrote of each column; nothing where that is missing or malformed."""
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
    read = []
    for shard in shards:
        if label not in shard.schema.names:
            raise DataError(f"{shard.path} has no column {label!r}, only {some(shard.schema.names)}")
        kind = shard.schema.field(label).type
        if not pa.types.is_integer(kind):
            raise DataError(f"{shard.path}: column {label!r} must hold integers and holds {kind}")
        table = _guard(shard.path, partial(shard.file.read, columns=[label]))
        column = table[label]
        if column.null_count:
            null = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(f"{shard.row(null)} has no label; so have {column.null_count} rows")
        read.append(column.to_numpy().astype(np.int64))
    return np.concatenate(read)


def _check_range(labels: Ints, shards: list[Shard], label: str, classes: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong) == 0:
        return
    at = int(wrong[0])
    value = int(labels[at])
    for shard in shards:
        if at < shard.file.metadata.num_rows:
            break
        at -= shard.file.metadata.num_rows
    allowed = f"must be 0 to {len(classes) - 1}" + (" (-1 means unlabelled)" if value == -1 else "")
    raise DataError(
        f"{shard.row(at)}: {label} is {value}, {allowed}; {len(wrong)} of {len(labels)} rows are like that"
    )


def _without(part: Part, number: int) -> Part:
    kept = part.select(np.flatnonzero(part.labels != number))
    return Part(kept.labels - (kept.labels > number), kept.items)


def _items(shards: list[Shard], column: str) -> Callable[[Ints], Iterator[tuple[str, bytes]]]:
    """Reads only the row groups that hold a wanted row, a few hundred rows at a time."""

    def items(which: Ints) -> Iterator[tuple[str, bytes]]:
        start = 0
        for shard in shards:
            stop = start + shard.file.metadata.num_rows
            rows = which[(which >= start) & (which < stop)] - start
            yield from _rows(shard, column, rows)
            start = stop

    return items


def _rows(shard: Shard, column: str, rows: Ints) -> Iterator[tuple[str, bytes]]:
    start = 0
    for group in range(shard.file.metadata.num_row_groups):
        stop = start + shard.file.metadata.row_group(group).num_rows
        if ((rows >= start) & (rows < stop)).any():
            batches = shard.file.iter_batches(ROWS, row_groups=[group], columns=[column])
            while (batch := _guard(shard.path, partial(next, batches, None))) is not None:
                wanted = rows[(rows >= start) & (rows < start + len(batch))]
                cells = batch.column(column).field("bytes")
                for row in wanted.tolist():
                    data = cells[row - start].as_py()
                    if data is None:
                        raise DataError(f"{shard.row(row)} holds no bytes")
                    yield shard.row(row), data
                start += len(batch)
        start = stop


def _kind(shard: Shard, column: str) -> Kind:
    """Told by the first file's first bytes."""
    if shard.file.metadata.num_rows == 0:
        return "image"
    _, data = next(_rows(shard, column, np.zeros(1, np.int64)))
    return "sound" if data[8:12] == b"WAVE" or data[:4] in (b"fLaC", b"OggS") else "image"

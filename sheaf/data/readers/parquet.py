"""Reading of parquet shards in the layout of the Hugging Face Hub.

Shards are named ``train-*.parquet`` or are in a folder named ``train``; likewise ``test`` and
``validation``, also with the other names that folders of a split may have, such as ``val``. The validation
split is used only if there is no labelled test split.

The images or sounds are in the only column of ``{bytes, path}`` structs, of which ``path`` is ignored, or in
the only column of bytes. The labels are in the column ``label`` or, if there is none, in the only column of
type ``ClassLabel`` in the shards' metadata. They are integers from 0, or strings, which are classes in sorted
order. The settings ``data.input`` and ``data.label`` choose other columns.
"""

from __future__ import annotations

import json
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sheaf.core.errors import DataError, first_line
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind, abbreviate
from sheaf.data.readers.folder_layout import SPLIT_NAMES, is_ignored, is_utf8

logger = logging.getLogger("sheaf")

SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
"""Name of a split in lower case -> split."""
SPLIT_PREFIX = re.compile(rf"({'|'.join(sorted(SPLIT_OF, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
"""Matches the split at the start of a file's name."""
ROWS = 512  # rows that are decoded from parquet at a time
MAX_CLASSES = 100_000
"""Limit of class numbers without names: a column with greater ones contains identifiers."""


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
    """Return all parquet files below ``folder`` in sorted order, without ignored files and folders.

    Symbolic links to folders are followed, except to a folder that contains the link.

    Raises:
        DataError: a folder cannot be read.
    """
    try:
        return sorted(_shards_below(folder, ())) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _shards_below(folder: Path, parents: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in parents:
        return
    for path in folder.iterdir():
        if is_ignored(path.name):
            continue
        if path.is_dir():
            yield from _shards_below(path, (*parents, real))
        elif path.name.lower().endswith(".parquet"):
            yield path


def read_parquet(
    folder: Path,
    test: str | None = None,
    label: str | None = None,
    input_column: str | None = None,
    without: Sequence[str] = (),
) -> Encoded:
    """Read the dataset whose shards are in ``folder``, at any depth.

    Args:
        folder: of the shards.
        test: the split that serves as the test split. Unset: ``test`` or, if it does not exist or has no
            labels, ``validation``.
        label: the column of labels. Unset: see the module's docstring.
        input_column: the column of images or sounds, likewise.
        without: classes whose rows are left out.

    Raises:
        DataError: shards are missing or damaged, or lack a column, or a label is missing or out of range.
    """
    splits = _splits(folder)
    choice = test is None and {"test", "validation"} <= splits.keys()
    if test is None:
        test = "validation" if "validation" in splits and "test" not in splits else "test"
    for split in ("train", test):
        if split not in splits:
            raise DataError(f"{folder} has no {split}-*.parquet, only {abbreviate(sorted(splits))}")
    train_shards, test_shards = ([_open(path) for path in splits[split]] for split in ("train", test))
    first = train_shards[0]
    column = input_column or _encoded_column(first)
    label = label or _label_column(first)
    if choice and _is_unlabelled(test_shards, label):
        logger.info("%s: the test split has no labels; the validation split is the test split", folder)
        test_shards = [_open(path) for path in splits["validation"]]
    elif choice:
        logger.info("%s: the validation split is left out", folder)
    for shard in [*train_shards, *test_shards]:
        _check_alike(shard, first, column, label)
    for shards in (train_shards, test_shards):
        if not any(shard.file.metadata.num_rows for shard in shards):
            raise DataError(f"{shards[0].path} has no rows; download it again, or name another dataset")
    values = _label_values([*train_shards, *test_shards], label)
    count = sum(shard.file.metadata.num_rows for shard in train_shards)
    if values.dtype == object:
        names, values = np.unique(values, return_inverse=True)
        classes = tuple(names.tolist())
    else:
        classes = _class_names(first, label) or _numbers(first, label, values[:count])
        _check_range(values[:count], train_shards, label, classes)
        _check_range(values[count:], test_shards, label, classes)
    train_split = EncodedSplit(values[:count], _items(train_shards, column))
    test_split = EncodedSplit(values[count:], _items(test_shards, column))
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
        if match := SPLIT_PREFIX.match(path.stem):
            split, base = SPLIT_OF[match[1].lower()], path.parent
        elif path.parent.name.lower() in SPLIT_OF:
            split, base = SPLIT_OF[path.parent.name.lower()], path.parent.parent
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
        _check_complete(split, paths)
    return splits


def _check_complete(split: str, paths: list[Path]) -> None:
    """Check the numbers in the names of a split's shards.

    Names such as ``train-00000-of-00002``, also followed by a hash, contain the number of shards. Names that
    end in a number from 0, such as ``0000``, have no gap.
    """
    folder = paths[0].parent
    numbered = [re.search(r"([0-9]+)[-_. ]?of[-_. ]?([0-9]+)", path.stem) for path in paths]
    if not any(numbered):
        prefixes = {path.stem.rstrip("0123456789") for path in paths}
        numbers = {int(match[0]) for path in paths if (match := re.search(r"[0-9]+$", path.stem))}
        if len(prefixes) == 1 and 0 in numbers and max(numbers) >= len(paths):
            missing = next(number for number in range(len(paths)) if number not in numbers)
            raise DataError(
                f"{folder} has {split} shards up to number {max(numbers)}, but no number {missing}; add it"
            )
        return
    for path, match in zip(paths, numbered, strict=True):
        if match is None:
            raise DataError(f"{path} is not numbered like the other {split} shards; remove or rename it")
    shards = [(int(match[1]), int(match[2])) for match in numbered if match]
    totals = {total for _, total in shards}
    if len(totals) > 1 or len(set(shards)) < len(shards):
        raise DataError(
            f"{folder} has {split} shards of several versions of the dataset: "
            f"{abbreviate(path.name for path in paths)}; keep one version"
        )
    total = totals.pop()
    if {number for number, _ in shards} not in ({*range(total)}, {*range(1, total + 1)}):
        raise DataError(
            f"{folder} has {len(shards)} of {total} {split} shards"
            + (", numbered wrongly; rename them" if len(shards) == total else "; add the missing ones")
        )


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
    columns = [field.name for field in shard.schema if _has_content(field.type)]
    structs = [name for name in columns if pa.types.is_struct(_type(shard, name, "input"))]
    candidates = structs or columns
    if len(candidates) != 1:
        found = f"{len(candidates)}: {abbreviate(candidates)}" if candidates else "none"
        remedy = "choose one with data.input; " if candidates else ""
        raise DataError(
            f"{shard.path} must have one column of images or sounds ({{bytes, path}} structs, or bytes), "
            f"but has {found}; {remedy}its columns: {abbreviate(shard.schema.names, 20)}"
        )
    return str(candidates[0])


def _type(shard: Shard, column: str, key: str) -> pa.DataType:
    """Return the type of the column that ``data.KEY`` chooses, checked to exist once."""
    count = shard.schema.names.count(column)
    if count != 1:
        raise DataError(
            f"{shard.path} has {count or 'no'} column{'s' if count else ''} {column!r}; choose one that "
            f"exists once with data.{key}: {abbreviate(shard.schema.names, 20)}"
        )
    return shard.schema.field(column).type


def _check_alike(shard: Shard, first: Shard, column: str, label: str) -> None:
    """Check that the columns of a shard are those of the first."""
    content = _type(shard, column, "input")
    if not _has_content(content):
        raise DataError(
            f"{shard.path}: column {column!r} must contain {{bytes, path}} structs or bytes, not {content}; "
            f"choose another one with data.input: {abbreviate(shard.schema.names, 20)}"
        )
    _type(shard, label, "label")
    names = _class_names(shard, label)
    if names and names != _class_names(first, label):
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


def _label_column(shard: Shard) -> str:
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


def _class_names(shard: Shard, label: str) -> tuple[str, ...]:
    """Return the class names in the metadata, checked to be different; empty if there are none."""
    feature = _features(shard.schema).get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list):
        return ()
    counts = Counter(_normal(str(name)) for name in names)
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


def _normal(name: str) -> str:
    """Return the composed form of a name: macOS stores accents apart from their letters."""
    return unicodedata.normalize("NFC", name)


def _is_unlabelled(shards: list[Shard], label: str) -> bool:
    """Return whether no row has a label: the column does not exist, or is null, empty or -1 in every row."""
    for shard in shards:
        if label in shard.schema.names:
            _type(shard, label, "label")
            column = _guard(shard.path, partial(shard.file.read, columns=[label]))[label].drop_null()
            if len(column) == 0:
                continue
            values = column.unique().to_pylist()
            if values not in ([-1], [""]):
                return False
    return True


def _label_values(shards: list[Shard], label: str) -> npt.NDArray[Any]:
    """Return the labels of all rows, (N,), int64 or, for columns of strings, str objects."""
    values = []
    for shard in shards:
        kind = _type(shard, label, "label")
        column = _guard(shard.path, partial(shard.file.read, columns=[label]))[label]
        if column.null_count:
            null = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(
                f"{shard.location(null)} has no label; {column.null_count} rows of the file have none"
            )
        if pa.types.is_dictionary(kind):
            column, kind = _guard(shard.path, partial(column.cast, kind.value_type)), kind.value_type
        if pa.types.is_integer(kind):
            try:
                values.append(column.cast(pa.int64()).to_numpy())
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{shard.path}: column {label!r} is no column of labels, as a value is above 2^63; "
                    f"choose another one with data.label: {abbreviate(shard.schema.names, 20)}"
                ) from error
        elif _is_text(kind):
            texts = _guard(shard.path, column.cast(pa.string()).to_pylist)
            values.append(np.array([_normal(text) for text in texts], object))
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


def _numbers(first: Shard, label: str, values: Ints) -> tuple[str, ...]:
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
        f"{shard.location(row)}: {label} is {value}, {allowed}; {len(wrong)} of {len(labels)} rows are out "
        "of range; remove them, or choose another column with data.label"
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
                cells = batch.column(column)
                if pa.types.is_struct(cells.type):
                    cells = cells.field("bytes")
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
    if content[8:12] == b"WAVE" or content[:4] in (b"fLaC", b"OggS") or content[:3] == b"ID3":
        return "sound"
    # Frames of MP3 start with eleven set bits; JPEG starts with FF D8.
    return "sound" if content[:1] == b"\xff" and content[1:2] >= b"\xe0" else "image"

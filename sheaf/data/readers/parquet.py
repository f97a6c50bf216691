"""Reading of parquet shards in the layout of the Hugging Face Hub.

Shards are named ``train-*.parquet`` or are in a folder named ``train``; likewise ``test`` and
``validation``, also with the other names that folders of a split may have, such as ``val``. The validation
split is used only if there is no labelled test split.

The images or sounds are in the only column of ``{bytes, path}`` structs, of which ``path`` is ignored, or in
the only column of bytes. The labels are in the column ``label`` or, without that column, in the only one of
type ``ClassLabel`` in the shards' metadata. They are integers from 0, or strings, which are classes in sorted
order. The settings ``data.input`` and ``data.label`` choose other columns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from sheaf.core.errors import DataError
from sheaf.data.class_balance import draw_test_split
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind, abbreviate
from sheaf.data.readers.parquet_columns import check_alike, class_names, encoded_column, label_column
from sheaf.data.readers.parquet_files import shards_by_split
from sheaf.data.readers.parquet_labels import check_range, is_unlabelled, label_values, number_names
from sheaf.data.readers.parquet_shards import Shard, guarded, open_shard

logger = logging.getLogger("sheaf")

ROWS = 512  # rows that are decoded from parquet at a time


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
    return read_splits(folder, shards_by_split(folder), test, label, input_column, without)


def read_splits(
    folder: Path,
    splits: Mapping[str, Sequence[Path]],
    test: str | None = None,
    label: str | None = None,
    input_column: str | None = None,
    without: Sequence[str] = (),
    test_fraction: float | None = None,
) -> Encoded:
    """Read the dataset whose shards are ``splits``. Without training shards, there is no training split.

    Args:
        folder: of the shards, for messages.
        splits: train, test or validation -> its shards.
        test: see ``read_parquet``.
        label: likewise.
        input_column: likewise.
        without: likewise.
        test_fraction: of the training rows that form the test split if there is no other, in (0, 1). Unset:
            another split is necessary.

    Raises:
        DataError: shards are damaged, or lack a column, or a label is missing or out of range.
    """
    choice = test is None and {"test", "validation"} <= splits.keys()
    if test is None:
        test = "validation" if "validation" in splits and "test" not in splits else "test"
    is_drawn = test_fraction is not None and splits.keys() == {"train"}
    if not is_drawn and test not in splits:
        raise DataError(f"{folder} has no {test}-*.parquet, only {abbreviate(sorted(splits))}")
    train_shards = [open_shard(path) for path in splits.get("train", ())]
    test_shards = [open_shard(path) for path in splits.get(test, ())]
    first = (train_shards or test_shards)[0]
    column = input_column or encoded_column(first)
    label = label or label_column(first)
    if choice and is_unlabelled(test_shards, label):
        logger.info("%s: the test split has no labels; the validation split is the test split", folder)
        test_shards = [open_shard(path) for path in splits["validation"]]
    elif choice:
        logger.info("%s: the validation split is left out", folder)
    for shard in [*train_shards, *test_shards]:
        check_alike(shard, first, column, label)
    for shards in (train_shards, test_shards):
        if shards and not any(shard.file.metadata.num_rows for shard in shards):
            raise DataError(f"{shards[0].path} has no rows; download it again, or name another dataset")
    values = label_values([*train_shards, *test_shards], label)
    count = sum(shard.file.metadata.num_rows for shard in train_shards)
    if values.dtype == object:
        names, values = np.unique(values, return_inverse=True)
        classes = tuple(names.tolist())
    else:
        classes = class_names(first, label) or number_names(first, label, values[: count or None])
        check_range(values[:count], train_shards, label, classes)
        check_range(values[count:], test_shards, label, classes)
    train_split = EncodedSplit(values[:count], _items(train_shards, column))
    test_split = EncodedSplit(values[count:], _items(test_shards, column))
    if is_drawn and test_fraction is not None:
        is_test = draw_test_split(values, test_fraction)
        logger.info("%s has no test split: %d of %d rows are drawn for it", folder, is_test.sum(), count)
        train_split, test_split = (train_split.select(np.flatnonzero(mask)) for mask in (~is_test, is_test))
    for name in without:
        if name in classes:
            number = classes.index(name)
            train_split, test_split = _without(train_split, number), _without(test_split, number)
            classes = tuple(other for other in classes if other != name)
    return Encoded(_kind(first, column), train_split, test_split, classes)


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
            while (batch := guarded(shard.path, partial(next, batches, None))) is not None:
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
    if content[8:12] in (b"WAVE", b"AIFF", b"AIFC") or content.startswith(
        (b"fLaC", b"OggS", b".snd", b"ID3")
    ):
        return "sound"
    # Frames of MP3 start with eleven set bits; JPEG starts with FF D8.
    return "sound" if content[:1] == b"\xff" and content[1:2] >= b"\xe0" else "image"

"""Parquet files in a folder: which exist, of which split, and whether all are there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import abbreviate
from sheaf.data.readers.folder_layout import SPLIT_OF, is_ignored

SPLIT_PREFIX = re.compile(rf"({'|'.join(sorted(SPLIT_OF, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
"""Matches the split at the start of a file's name."""


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


def shards_by_split(folder: Path) -> dict[str, list[Path]]:
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

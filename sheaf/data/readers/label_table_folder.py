"""Reading of a folder whose files have their labels in a CSV table.

The table names each file, with or without its folder and its suffix. Its column of splits decides the
splits or, if it has none, the folders that are named like splits, or hashes of the files' names.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Encoded, Kind, abbreviate
from sheaf.data.readers.folder_layout import (
    SPLIT_OF,
    files_and_folders,
    is_utf8,
    printable,
    walk_files,
)
from sheaf.data.readers.label_table import SUFFIXES, LabelRow, read_label_table
from sheaf.data.readers.labelled_files import encode_hashed_split, split_of_files
from sheaf.data.settings import DataSettings

logger = logging.getLogger("sheaf")


def find_label_table(folder: Path, settings: DataSettings) -> Path | None:
    """Return the table of labels of ``folder``: that of ``data.labels``, else the only one beside flat files.

    Raises:
        DataError: the file of ``data.labels`` does not exist, or several tables are beside flat files.
    """
    if settings.labels is not None:
        paths = [folder / settings.labels, Path(settings.labels).expanduser()]
        if found := next((path for path in paths if path.is_file()), None):
            return found
        raise DataError(
            f"data.labels = {settings.labels!r} is no file in {folder}, nor in the working directory"
        )
    files, folders = files_and_folders(folder)
    tables = [path for path in files if path.suffix.lower() in SUFFIXES]
    is_flat = len(folders) <= 1 or all(path.name.lower() in SPLIT_OF for path in folders)
    if not tables or not is_flat or any(files_and_folders(path)[1] for path in folders):
        return None
    if len(tables) > 1:
        raise DataError(
            f"{folder} contains {abbreviate(path.name for path in tables)}; choose the table of labels with "
            f"data.labels = {tables[0].name!r}"
        )
    logger.info("the labels are read from %s", tables[0])
    return tables[0]


def read_label_table_folder(
    folder: Path, table: Path, kind: Kind, suffixes: Collection[str], settings: DataSettings
) -> Encoded:
    """Read the files of ``folder`` that ``table`` lists.

    Args:
        folder: contains the files at any depth.
        table: the CSV file.
        kind: of the files.
        suffixes: of the files, in lower case.
        settings: ``label``, ``input`` and ``test_share``.

    Raises:
        DataError: the table cannot be read, names a missing file or a file twice, does not list a file, or a
            split is missing.
    """
    index = FileIndex(folder, table, suffixes)
    rows = read_label_table(
        table, lambda cell: bool(index.matches(cell)), suffixes, settings.input, settings.label
    )
    paths = [index.find(row) for row in rows]
    first_row: dict[Path, int] = {}
    for row, path in zip(rows, paths, strict=True):
        if (other := first_row.setdefault(path, row.number)) != row.number:
            raise DataError(f"{table}, rows {other} and {row.number} both name {printable(path)}; remove one")
    _check_unlisted(table, index, first_row)
    labels = [unicodedata.normalize("NFC", row.label) for row in rows]
    classes = _classes(labels)
    label_of = {name: label for label, name in enumerate(classes)}
    numbers = np.array([label_of[label] for label in labels], np.int64)
    splits = _splits(folder, table, rows, paths)
    order = np.array(sorted(range(len(paths)), key=lambda row: (numbers[row], str(paths[row]))))
    files, numbers = [paths[row] for row in order.tolist()], numbers[order]
    if splits is None:
        return encode_hashed_split(folder, kind, files, numbers, classes, settings.test_share)
    whole = split_of_files(files, numbers)
    train, test = (whole.select(np.flatnonzero(splits[order] == split)) for split in ("train", "test"))
    return Encoded(kind, train, test, classes)


class FileIndex:
    """The files of a folder, to be found by the names in a table.

    A name may lack folders and the suffix, and may have other capitals. An absolute path, which may be of
    another machine, matches the file with the most equal folders.
    """

    def __init__(self, folder: Path, table: Path, suffixes: Collection[str]) -> None:
        self.folder = folder
        self.table = table
        self.files: list[Path] = []
        self._by_name: dict[str, list[Path]] = {}
        for path in walk_files(folder):
            if path.suffix.lower() in suffixes:
                self.files.append(path)
                for key in {_key(path.name), _key(path.stem)}:
                    self._by_name.setdefault(key, []).append(path)

    def matches(self, cell: str) -> list[Path]:
        """Return the files that ``cell`` may name."""
        parts = PurePosixPath(cell.replace("\\", "/")).parts
        if not parts or "\0" in cell:
            return []
        candidates = self._by_name.get(_key(parts[-1]), [])
        bases = (self.table.parent, self.folder)
        exact = {os.path.normpath(os.path.join(base, *parts)) for base in bases}
        if found := [path for path in candidates if os.path.normpath(path) in exact]:
            return found
        equal = [_equal_folders(path, parts) for path in candidates]
        is_absolute = parts[0] == "/" or parts[0].endswith(":")
        needed = max(equal, default=0) if is_absolute else len(parts) - 1
        return [path for path, count in zip(candidates, equal, strict=True) if count == needed]

    def find(self, row: LabelRow) -> Path:
        """Return the file that a row names.

        Raises:
            DataError: no file has that name, or several do.
        """
        found = self.matches(row.file)
        if len(found) > 1:
            found = [path for path in found if path.name == PurePosixPath(row.file).name] or found
        if not found:
            raise DataError(
                f"{self.table}, row {row.number} names {row.file!r}, which is not in {self.folder}; "
                "correct the name, add the file, or remove the row"
            )
        if len(found) > 1:
            raise DataError(
                f"{self.table}, row {row.number} names {row.file!r}, which can be "
                f"{abbreviate(map(printable, found))}; add its folder to the name"
            )
        return found[0]


def _equal_folders(path: Path, parts: Sequence[str]) -> int:
    """Return how many of the folders at the end of ``path`` equal those of a name with these ``parts``."""
    pairs = zip(reversed(path.parent.parts), reversed(parts[:-1]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: _key(pair[0]) == _key(pair[1]), pairs))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _check_unlisted(table: Path, index: FileIndex, listed: Collection[Path]) -> None:
    """Check that each file in a folder of a listed file is listed; note other folders.

    Raises:
        DataError: a file is not listed.
    """
    unlisted = [path for path in index.files if path not in listed]
    folders = {path.parent for path in listed}
    beside = [path for path in unlisted if path.parent in folders]
    if beside:
        more = f", nor are {len(beside) - 1} others" if len(beside) > 1 else ""
        raise DataError(f"{printable(beside[0])} is not in {table}{more}; add a row, or remove the file")
    if unlisted:
        others = dict.fromkeys(printable(path.parent) for path in unlisted)
        logger.info("%s are left out: %s does not list their files", abbreviate(others), table)


def _classes(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the different labels, in the order of their values if all are whole numbers."""
    names = sorted(set(labels))
    if wrong := next((name for name in names if not is_utf8(name)), None):
        raise DataError(f"the label {wrong!a} is not valid Unicode; correct it")
    return tuple(
        sorted(names, key=int) if all(re.fullmatch("[0-9]{1,18}", name) for name in names) else names
    )


def _splits(
    folder: Path, table: Path, rows: Sequence[LabelRow], paths: Sequence[Path]
) -> npt.NDArray[np.str_] | None:
    """Return the split of each row, by the table or by folders named like splits; None if neither has any.

    A validation split is the test split if there is no other, and is left out otherwise. There may be no
    training split.

    Raises:
        DataError: there is no test split.
    """
    splits = [row.split for row in rows]
    if None in splits:
        splits = [SPLIT_OF.get(path.relative_to(folder).parts[0].lower()) for path in paths]
        if None in splits or set(splits) in ({"train"}, {"validation"}):
            return None
    if "test" not in splits and "validation" in splits:
        logger.info("%s: the validation split is the test split", table)
        splits = ["test" if split == "validation" else split for split in splits]
    elif "validation" in splits:
        logger.info("%s: the validation split is left out", table)
    if "test" not in splits:
        raise DataError(f"{table} has no row of the test split; add rows, or remove the column")
    return np.array(splits)

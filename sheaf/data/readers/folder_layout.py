"""Recognition of a folder's layout: class folders, directly or in a training and a test folder."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import abbreviate

logger = logging.getLogger("sheaf")

LEFTOVERS = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "picasa.ini",
        "icon\r",
        "__macosx",
        "@eadir",
        "lost+found",
        "$recycle.bin",
        "system volume information",
    }
)
"""Names in lower case of files and folders that file managers and archivers add."""
NOISE = "_background_noise_"
"""The folder of long recordings in Speech Commands, which is not a class."""
TABLES = frozenset({".csv", ".tsv", ".json", ".jsonl", ".xls", ".xlsx"})
SPLIT_NAMES = {
    "train": ("train", "training", "train_set", "training_set"),
    "test": ("test", "testing", "test_set", "testing_set"),
    "validation": ("val", "valid", "validation", "val_set", "validation_set"),
}
"""Split -> the names of its folder in lower case."""
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
"""Name of a split's folder in lower case -> split."""
SPLIT_LIKE = re.compile(r"(train|training|test|testing|val|valid|validation|dev|eval)([^a-z].*|[a-z])?")
"""Names in lower case, such as test1 and trainA, that are no classes if all folders have one."""


def is_ignored(name: str) -> bool:
    """Return whether a file or folder is hidden or was left by a file manager or archiver."""
    return name.startswith(".") or name.lower() in LEFTOVERS


def is_utf8(name: str) -> bool:
    """Return whether a name of the file system can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path) -> str:
    """Return the path as text that is valid UTF-8: other bytes are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def class_name(path: Path) -> str:
    """Return the name of a class folder in Unicode's normal form C; macOS writes another one."""
    return unicodedata.normalize("NFC", path.name)


def files_and_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files and the folders in ``folder``, sorted by normalised name, without ignored ones.

    Symbolic links count as their targets. One system call reads the types of all entries except links.

    Raises:
        DataError: an entry is a symbolic link to nothing, or neither a file nor a folder.
    """
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            path = folder / entry.name
            if entry.is_dir():
                folders.append(path)
            elif entry.is_file():
                files.append(path)
            elif entry.is_symlink():
                raise DataError(
                    f"{printable(path)} is a symbolic link to a missing file; remove or repair it"
                )
            else:
                raise DataError(f"{printable(path)} is neither a file nor a folder; remove it")
    return sorted(files, key=_sort_key), sorted(folders, key=_sort_key)


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all files below ``folder`` in order of their names, without ignored files and folders.

    Symbolic links to folders are followed, each folder once, so that a loop ends.
    """
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        yield from (Path(parent, name) for name in sorted(names) if not is_ignored(name))


def _sort_key(path: Path) -> tuple[str, str]:
    return class_name(path), path.name


def class_folders(folder: Path) -> dict[str, Path]:
    """Return class name -> folder, sorted by name; symbolic links to folders count.

    Raises:
        DataError: a name is not UTF-8, or two names are equal after normalisation.
    """
    found: dict[str, Path] = {}
    for path in files_and_folders(folder)[1]:
        if path.name == NOISE:
            continue
        if not is_utf8(path.name):
            raise DataError(f"the folder name {str(path)!a} is not UTF-8; rename the folder")
        if (other := found.setdefault(class_name(path), path)) != path:
            raise DataError(
                f"{folder} contains {other.name!a} and {path.name!a}, which are equal "
                "in Unicode's normal form C; merge the two folders"
            )
    return found


def find_splits(folder: Path) -> tuple[Path | None, Path] | None:
    """Return the training and the test folder, or None if ``folder`` contains the class folders itself.

    A test folder alone is enough, as for the cloud of a real fleet: the training folder is then None.

    Capitals do not matter. A validation folder is the test folder if no other is, and is left out otherwise.
    Folders of these names that contain no folders are classes, if other classes are beside them.

    Raises:
        DataError: a split is missing or ambiguous, or contains no class folders.
    """
    folders = class_folders(folder)
    splits: dict[str, list[Path]] = {split: [] for split in SPLIT_NAMES}
    others: list[Path] = []
    for name, path in folders.items():
        (splits[SPLIT_OF[name.lower()]] if name.lower() in SPLIT_OF else others).append(path)
    candidates = [path for paths in splits.values() for path in paths]
    with_classes = {path for path in candidates if class_folders(path)}
    all_like_splits = all(SPLIT_LIKE.fullmatch(name.lower()) for name in folders)
    if folders and all_like_splits and not any(map(class_folders, folders.values())):
        raise DataError(
            f"{folder} contains {abbreviate(folders)}, which contain no class folders; "
            "move their files into one folder per class"
        )
    if not candidates or (others and not with_classes):
        return None
    if others:
        raise DataError(
            f"{folder} must contain either train and test or one folder per class, "
            f"but contains {abbreviate(folders)}"
        )
    if repeated := next((paths for paths in splits.values() if len(paths) > 1), None):
        raise DataError(
            f"{folder} contains {abbreviate(path.name for path in repeated)}, which mean the same split; "
            "keep one"
        )
    train, test, validation = (paths[0] if paths else None for paths in splits.values())
    if test not in with_classes and validation in with_classes:
        test, validation = validation, None
        logger.info("%s is the test split: there is no test folder with classes", test)
    if test is None:
        assert train is not None
        raise DataError(
            f"{folder} contains {train.name} but no test folder; add test, "
            f"or set data.name = {str(train)!r} to split that folder by data.test_share"
        )
    if flat := [path for path in (train, test) if path and path not in with_classes]:
        raise DataError(f"{flat[0]} contains no class folders; move its files into one folder per class")
    if validation is not None:
        logger.info("%s is left out: train and test are the splits of the dataset", validation)
    return train, test


def check_depth(folder: Path, is_split: bool = False) -> None:
    """Check that the folders in ``folder`` can be classes: at least one contains files.

    Args:
        folder: the dataset, or one of its splits.
        is_split: whether it is a split.

    Raises:
        DataError: each contains folders only, or a table of labels is beside a single folder.
    """
    paths = list(class_folders(folder).values())
    tables = [path for path in files_and_folders(folder)[0] if path.suffix.lower() in TABLES]
    if tables and len(paths) <= 1:
        raise DataError(
            f"{folder} has no class folders, and labels are not read from {tables[0].name}; save it as a CSV "
            "table beside the files, or move each file into a folder that is named after its class"
        )
    if tables and not is_split:
        logger.info("%s is not read: the names of the class folders are the labels", tables[0])
    if not paths or not all(_contains_only_folders(path) for path in paths):
        return
    if is_split:
        raise DataError(
            f"{folder} contains {abbreviate(path.name for path in paths)}, which contain folders: "
            f"one level too many; move the class folders into {folder}"
        )
    right = paths[0]
    if len(paths) > 1:
        raise DataError(
            f"{folder} contains {abbreviate(path.name for path in paths)}, which contain folders: "
            f"one level too many; set data.name to one of them, such as {str(right)!r}"
        )
    while len(inner := list(class_folders(right).values())) == 1 and _contains_only_folders(inner[0]):
        right = inner[0]
    raise DataError(
        f"{folder} contains {paths[0].name!r} only, and the class folders are further down; "
        f"set data.name = {str(right)!r}"
    )


def _contains_only_folders(folder: Path) -> bool:
    files, folders = files_and_folders(folder)
    return bool(folders) and all(path.suffix.lower() in {".md", ".txt"} for path in files)

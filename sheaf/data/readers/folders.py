"""Reading of a folder with one subfolder per class, of images or of sounds.

The class folders are in a training and a test folder, or directly in the folder. In the latter case a
fraction of the files forms the test split: a hash of a file's name decides, except where it would leave a
class of two or more files without a training or a test example.

A class folder may contain files of its kind only; hidden files and those of file managers are ignored. Any
other file is an error, so that no example is skipped unnoticed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Encoded, Ints, Kind, abbreviate
from sheaf.data.readers.folder_layout import (
    NOISE,
    check_depth,
    class_folders,
    class_name,
    files_and_folders,
    find_splits,
    printable,
)
from sheaf.data.readers.labelled_files import encode_hashed_split, split_of_files

logger = logging.getLogger("sheaf")


def read_folder(folder: Path, kind: Kind, suffixes: Collection[str], test_fraction: float) -> Encoded:
    """Read the dataset in ``folder``.

    Args:
        folder: contains the class folders, or a training and a test folder which contain them.
        kind: of the files.
        suffixes: of the files, in lower case.
        test_fraction: of the files that form the test split if there is no test folder, in (0, 1].

    Raises:
        DataError: a file does not belong into the dataset, or a split or a class is missing.
    """
    if splits := find_splits(folder):
        train_folder, test_folder = splits
        for split in filter(None, splits):
            check_depth(split, is_split=True)
        test_folders = class_folders(test_folder)
        train_folders = class_folders(train_folder) if train_folder else {}
        classes = tuple(train_folders or test_folders)
        if unknown := sorted(set(test_folders) - set(classes)):
            raise DataError(
                f"{test_folder} has classes that {train_folder} does not have: {abbreviate(unknown)}"
            )
        train = _files(train_folder, train_folders, kind, suffixes) if train_folder else []
        test = _files(test_folder, test_folders, kind, suffixes)
    else:
        check_depth(folder)
        folders = class_folders(folder)
        classes = tuple(folders)
        files = _files(folder, folders, kind, suffixes)
        if (folder / NOISE).is_dir():
            logger.info("%s is left out: it is not a class", folder / NOISE)
        if (listed := _listed_split(folder, files)) is None:
            labels = _labels(files, classes)
            return encode_hashed_split(folder, kind, files, labels, classes, test_fraction)
        train, test = listed
    train_split, test_split = (split_of_files(part, _labels(part, classes)) for part in (train, test))
    return Encoded(kind, train_split, test_split, classes)


def _labels(files: list[Path], classes: tuple[str, ...]) -> Ints:
    """Return (N,) the class of each file's folder."""
    label_of = {name: label for label, name in enumerate(classes)}
    return np.array([label_of[class_name(path.parent)] for path in files], np.int64)


def _files(folder: Path, folders: Mapping[str, Path], kind: Kind, suffixes: Collection[str]) -> list[Path]:
    """Return the files of all classes, sorted by class and name."""
    for path in files_and_folders(folder)[0]:
        if path.suffix.lower() in suffixes:
            raise DataError(f"{printable(path)} is in no class folder; move it into the folder of its class")
    files = []
    for class_folder in folders.values():
        class_files, inner_folders = files_and_folders(class_folder)
        if inner_folders:
            raise DataError(
                f"{printable(inner_folders[0])} is a folder, but a class folder may contain "
                f"{kind} files only; move or remove it"
            )
        for path in class_files:
            if path.suffix.lower() not in suffixes:
                raise DataError(
                    f"{printable(path)} is no {kind} file; a class folder may contain nothing else"
                )
        if not class_files:
            raise DataError(f"{class_folder} is empty; add {kind} files or remove it")
        files += class_files
    return files


def _listed_split(folder: Path, files: list[Path]) -> tuple[list[Path], list[Path]] | None:
    """Split by ``testing_list.txt`` and ``validation_list.txt`` as in Speech Commands (Warden, 2018).

    The lists contain lines such as ``yes/0a7c2a8d_nohash_0.wav``. The validation files are the test split if
    there is no testing list, and are left out otherwise.

    Returns:
        (training files, test files); None without a list.

    Raises:
        DataError: the list of the test split contains no file or every file.
    """
    lists = [folder / name for name in ("testing_list.txt", "validation_list.txt")]
    lists = [path for path in lists if path.is_file()]
    if not lists:
        return None
    listed = [set(path.read_text("utf-8", "surrogateescape").split()) for path in lists]
    test = [path for path in files if f"{path.parent.name}/{path.name}" in listed[0]]
    train = [path for path in files if not any(f"{path.parent.name}/{path.name}" in one for one in listed)]
    if not test or not train:
        listing = "lists every file" if test else "lists no file"
        raise DataError(f"{lists[0]} {listing} of {folder}; correct or remove it")
    left_out = len(files) - len(train) - len(test)
    logger.info(
        "%s decides the test split%s",
        lists[0],
        f"; the {left_out} files of {lists[-1].name} are left out" if left_out else "",
    )
    return train, test

"""Reading of a folder with one subfolder per class, of images or of sounds.

The class folders are in a training and a test folder, or directly in the folder. In the latter case a
fraction of the files forms the test split: a hash of a file's name decides, except where it would leave a
class of two or more files without a training or a test example.

A class folder may contain files of its kind only; hidden files and those of file managers are ignored. Any
other file is an error, so that no example is skipped unnoticed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind, abbreviate
from sheaf.data.readers.folder_layout import (
    NOISE,
    check_depth,
    class_folders,
    class_name,
    files_and_folders,
    find_splits,
    printable,
)

logger = logging.getLogger("sheaf")


def read_folder(folder: Path, kind: Kind, suffixes: Collection[str], test_fraction: float) -> Encoded:
    """Read the dataset in ``folder``.

    Args:
        folder: contains the class folders, or a training and a test folder which contain them.
        kind: of the files.
        suffixes: of the files, in lower case.
        test_fraction: of the files that form the test split if there is no test folder, in (0, 1).

    Raises:
        DataError: a file does not belong into the dataset, or a split or a class is missing.
    """
    if splits := find_splits(folder):
        for split in splits:
            check_depth(split, is_split=True)
        train_folders, test_folders = map(class_folders, splits)
        classes = tuple(train_folders)
        if unknown := sorted(set(test_folders) - set(classes)):
            raise DataError(f"{splits[1]} has classes that {splits[0]} does not have: {abbreviate(unknown)}")
        train = _files(splits[0], train_folders, kind, suffixes)
        test = _files(splits[1], test_folders, kind, suffixes)
    else:
        check_depth(folder)
        folders = class_folders(folder)
        classes = tuple(folders)
        files = _files(folder, folders, kind, suffixes)
        train, test = _listed_split(folder, files) or _hashed_split(files, test_fraction)
        if not train or not test:
            raise DataError(
                f"{folder}: data.test_share = {test_fraction} leaves the {'test' if train else 'train'} "
                "split empty, because no class has two files; add files or set another data.test_share"
            )
    if (folder / NOISE).is_dir():
        logger.info("%s is left out: it is not a class", folder / NOISE)
    return Encoded(kind, _split(train, classes), _split(test, classes), classes)


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
        DataError: no file is on the list of the test split.
    """
    lists = [folder / name for name in ("testing_list.txt", "validation_list.txt")]
    lists = [path for path in lists if path.is_file()]
    if not lists:
        return None
    listed = [set(path.read_text("utf-8", "surrogateescape").split()) for path in lists]
    test = [path for path in files if f"{path.parent.name}/{path.name}" in listed[0]]
    train = [path for path in files if not any(f"{path.parent.name}/{path.name}" in one for one in listed)]
    if not test:
        raise DataError(f"{lists[0]} lists no file of {folder}; correct or remove it")
    left_out = len(files) - len(train) - len(test)
    logger.info(
        "%s decides the test split%s",
        lists[0],
        f"; the {left_out} files of {lists[-1].name} are left out" if left_out else "",
    )
    return train, test


def _hashed_split(files: list[Path], test_fraction: float) -> tuple[list[Path], list[Path]]:
    """Return (training files, test files): a file whose hash is below ``test_fraction`` is a test file.

    In a class without a test file, the file of the lowest hash becomes one, and in a class without a
    training file, that of the highest; a class of one file stays as it is.
    """
    of_class: dict[Path, list[Path]] = {}
    for path in files:
        of_class.setdefault(path.parent, []).append(path)
    test = set()
    for own in of_class.values():
        hashes = {path: _hash(path.name) for path in own}
        by_hash = sorted(own, key=hashes.__getitem__)
        count = sum(value < test_fraction for value in hashes.values())
        if len(own) > 1:
            count = min(max(count, 1), len(own) - 1)
        test |= set(by_hash[:count])
    return [path for path in files if path not in test], [path for path in files if path in test]


def _split(files: list[Path], classes: tuple[str, ...]) -> EncodedSplit:
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[class_name(path.parent)] for path in files], np.int64)

    def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
        for position in positions.tolist():
            path = files[position]
            try:
                yield printable(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{printable(path)} cannot be read: {error.strerror}") from error

    return EncodedSplit(labels, items)


def _hash(name: str) -> float:
    """Return the hash of a file's name, scaled to 0..1."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

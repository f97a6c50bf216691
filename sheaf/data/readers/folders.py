"""Reading of a folder with one subfolder per class, of images or of sounds.

The class folders are in ``train/`` and ``test/``, or directly in the folder. In the latter case a fraction
of the files forms the test split, and a hash of a file's name alone decides to which split it belongs.

A class folder may contain files of its kind only; hidden files are ignored. Any other file is an error, so
that no example is skipped unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind, abbreviate


def read_folder(folder: Path, kind: Kind, suffixes: Collection[str], test_fraction: float) -> Encoded:
    """Read the dataset in ``folder``.

    Args:
        folder: contains the class folders, or ``train`` and ``test`` which contain them.
        kind: of the files.
        suffixes: of the files, in lower case.
        test_fraction: of the files that form the test split if there is no ``test``, in (0, 1).

    Raises:
        DataError: a file does not belong into the dataset, or ``train``, ``test`` or a class is missing.
    """
    names = [path.name for path in _folders(folder)]
    if "train" in names or "test" in names:
        if sorted(names) != ["test", "train"]:
            raise DataError(
                f"{folder} must contain either train and test or one folder per class, "
                f"but contains {abbreviate(names)}"
            )
        classes = tuple(path.name for path in _folders(folder / "train"))
        test_classes = [path.name for path in _folders(folder / "test")]
        if unknown := sorted(set(test_classes) - set(classes)):
            raise DataError(
                f"{folder / 'test'} has classes that {folder / 'train'} does not have: {abbreviate(unknown)}"
            )
        train = _files(folder / "train", classes, kind, suffixes)
        test = _files(folder / "test", tuple(test_classes), kind, suffixes)
    else:
        classes = tuple(names)
        files = _files(folder, classes, kind, suffixes)
        is_test = [_is_test(path.name, test_fraction) for path in files]
        train = [path for path, tested in zip(files, is_test, strict=True) if not tested]
        test = [path for path, tested in zip(files, is_test, strict=True) if tested]
    return Encoded(kind, _split(train, classes), _split(test, classes), classes)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, classes: tuple[str, ...], kind: Kind, suffixes: Collection[str]) -> list[Path]:
    """Return the files of all classes, sorted by class and name."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.is_dir():
            raise DataError(f"{path} is in no class folder; move it into the folder of its class")
    files = []
    for name in classes:
        class_files = sorted(path for path in (folder / name).iterdir() if not path.name.startswith("."))
        for path in class_files:
            if path.suffix.lower() not in suffixes or not path.is_file():
                raise DataError(f"{path} is no {kind} file; a class folder may contain nothing else")
        if not class_files:
            raise DataError(f"{folder / name} is empty; add {kind} files or remove it")
        files += class_files
    return files


def _split(files: list[Path], classes: tuple[str, ...]) -> EncodedSplit:
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[path.parent.name] for path in files], np.int64)

    def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
        for position in positions.tolist():
            path = files[position]
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}") from error

    return EncodedSplit(labels, items)


def _is_test(name: str, fraction: float) -> bool:
    """Return whether the hash of a file's name, scaled to 0..1, is below ``fraction``."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction

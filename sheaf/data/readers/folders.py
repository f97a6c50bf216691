"""One folder per class, of images or of sounds; ``train/`` and ``test/`` above them or not.

Without ``train/`` and ``test/``, a share of the files is kept for testing, and a file's name alone
decides which. A class folder holds nothing but its files: what begins with a dot is passed over,
anything else that is no image (no sound) is refused, so that nothing is left out unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Encoded, Ints, Kind, Part, some


def read_folder(folder: Path, kind: Kind, suffixes: Collection[str], test_share: float) -> Encoded:
    """The set in ``folder``.

    Args:
        folder: holds a folder for each class, or ``train`` and ``test`` that do.
        kind: what the files are.
        suffixes: how their names end, in lower case.
        test_share: how large a share is kept for testing where there is no ``test``.

    Raises:
        DataError: something is there that cannot be part of the set, or a part is missing.
    """
    names = [path.name for path in _folders(folder)]
    if "train" in names or "test" in names:
        if sorted(names) != ["test", "train"]:
            raise DataError(
                f"{folder} must hold train and test, or a folder for each class, and has {some(names)}"
            )
        classes = tuple(path.name for path in _folders(folder / "train"))
        tested = [path.name for path in _folders(folder / "test")]
        if unknown := sorted(set(tested) - set(classes)):
            raise DataError(f"{folder / 'test'} has classes that {folder / 'train'} has not: {some(unknown)}")
        train = _files(folder / "train", classes, kind, suffixes)
        test = _files(folder / "test", tuple(tested), kind, suffixes)
        return Encoded(kind, _part(train, classes), _part(test, classes), classes)
    classes = tuple(names)
    files = _files(folder, classes, kind, suffixes)
    kept = [_is_kept(path.name, test_share) for path in files]
    train = [path for path, test in zip(files, kept, strict=True) if not test]
    test = [path for path, test in zip(files, kept, strict=True) if test]
    return Encoded(kind, _part(train, classes), _part(test, classes), classes)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, classes: tuple[str, ...], kind: Kind, suffixes: Collection[str]) -> list[Path]:
    """The files of all classes, class by class, by name."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.is_dir():
            raise DataError(f"{path} lies in no class's folder")
    files = []
    for name in classes:
        inside = sorted(path for path in (folder / name).iterdir() if not path.name.startswith("."))
        for path in inside:
            if path.suffix.lower() not in suffixes or not path.is_file():
                raise DataError(f"{path} is not an {kind} file; a class's folder holds nothing else")
        if not inside:
            raise DataError(f"{folder / name} is empty")
        files += inside
    return files


def _part(files: list[Path], classes: tuple[str, ...]) -> Part:
    number = {name: label for label, name in enumerate(classes)}
    labels = np.array([number[path.parent.name] for path in files], np.int64)

    def items(which: Ints) -> Iterator[tuple[str, bytes]]:
        for at in which.tolist():
            try:
                yield str(files[at]), files[at].read_bytes()
            except OSError as error:
                raise DataError(f"{files[at]} cannot be read: {error.strerror}") from error

    return Part(labels, items)


def _is_kept(name: str, share: float) -> bool:
    """Whether a file is for testing: its name, hashed to a number in 0..1, is below ``share``."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share

"""Files with labels: one split of them, and the split by hashes of their names."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints, Kind
from sheaf.data.readers.folder_layout import printable

logger = logging.getLogger("sheaf")

NOTED = 0.08
"""Smallest difference between the fraction of the test split and ``data.test_share`` that is noted."""


def split_of_files(files: Sequence[Path], labels: Ints) -> EncodedSplit:
    """Return N ``files`` with their ``labels``, (N,), as a split; a location is the file's path."""

    def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
        for position in positions.tolist():
            path = files[position]
            try:
                yield printable(path), path.read_bytes()
            except OSError as error:
                raise DataError(f"{printable(path)} cannot be read: {error.strerror}") from error

    return EncodedSplit(labels, items, files)


def encode_hashed_split(
    folder: Path, kind: Kind, files: Sequence[Path], labels: Ints, classes: tuple[str, ...], fraction: float
) -> Encoded:
    """Split ``files`` by hashes of their names into a training and a test split.

    Args:
        folder: of the files, for messages.
        kind: of the files.
        files: N paths.
        labels: (N,) their classes.
        classes: the K class names.
        fraction: of the files that form the test split, in (0, 1]; 1: there is no training split.

    Raises:
        DataError: a split is empty.
    """

    def encode(rest: Ints) -> Encoded:
        own = [files[position] for position in rest.tolist()]
        is_test = _in_test_split([path.name for path in own], labels[rest], fraction)
        if fraction < 1 and (not is_test.any() or is_test.all()):
            raise DataError(
                f"{folder}: data.test_share = {fraction} leaves the {'train' if is_test.any() else 'test'} "
                "split empty, because no class has two files; add files or set another data.test_share"
            )
        if abs(is_test.mean() - fraction) > NOTED:
            logger.info(
                "%s: %d of %d files are the test split with data.test_share = %g: the hash of a file's name "
                "decides; folders named train and test would decide instead",
                folder,
                is_test.sum(),
                len(is_test),
                fraction,
            )
        whole = split_of_files(own, labels[rest])
        train, test = (whole.select(np.flatnonzero(mask)) for mask in (~is_test, is_test))
        return Encoded(kind, train, test, classes, split_without=without)

    def without(locations: frozenset[str]) -> Encoded:
        return encode(np.flatnonzero([printable(path) not in locations for path in files]))

    return encode(np.arange(len(files)))


def _in_test_split(names: Sequence[str], labels: Ints, fraction: float) -> npt.NDArray[np.bool_]:
    """Return which files are test files, (N,): those whose hash is below ``fraction``.

    In a class without a test file, the file of the lowest hash becomes one, and in a class without a
    training file, that of the highest; a class of one file stays as it is. A fraction of 1 takes all files.
    """
    hashes = np.array([_hash(name) for name in names])
    is_test = hashes < fraction
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        by_hash = own[np.argsort(hashes[own], kind="stable")]
        if len(own) > 1 and not is_test[own].any():
            is_test[by_hash[0]] = True
        elif fraction < 1 and len(own) > 1 and is_test[own].all():
            is_test[by_hash[-1]] = False
    return is_test


def _hash(name: str) -> float:
    """Return the hash of a file's name, scaled to 0..1."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64

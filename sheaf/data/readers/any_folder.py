"""Reading of a user's folder of parquet shards, images or sounds."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.data.readers import images, logmel
from sheaf.data.readers.encoded import Encoded, Kind, abbreviate
from sheaf.data.readers.folder_layout import is_ignored
from sheaf.data.readers.folders import read_folder
from sheaf.data.readers.label_table_folder import find_label_table, read_label_table_folder
from sheaf.data.readers.parquet import read_parquet
from sheaf.data.settings import DataSettings


def read_any_folder(folder: Path, settings: DataSettings) -> Encoded:
    """Read the dataset in ``folder``; the file name suffixes decide of what kind it is.

    Raises:
        DataError: the folder is empty, holds images and sounds, or no file that sheaf reads.
    """
    try:
        suffixes = _suffixes(folder)
        if ".parquet" in suffixes:
            if settings.labels:
                raise DataError(
                    f"data.labels is a table of the labels of files, but {folder} contains parquet shards, "
                    "which have labels; remove it"
                )
            return read_parquet(folder, label=settings.label, input_column=settings.input)
        image_suffixes, sound_suffixes = suffixes & images.SUFFIXES, suffixes & logmel.SUFFIXES
        if image_suffixes and sound_suffixes:
            both = abbreviate(sorted(image_suffixes | sound_suffixes))
            raise DataError(f"{folder} contains both images and sounds ({both}); keep one kind")
        if image_suffixes:
            return _read_files(folder, "image", images.SUFFIXES, settings)
        if sound_suffixes:
            return _read_files(folder, "sound", logmel.SUFFIXES, settings)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    content = f"only files that end in {abbreviate(sorted(suffixes))}" if suffixes else "no file"
    raise DataError(f"{folder} must contain parquet shards, images or sounds, but contains {content}")


def _read_files(folder: Path, kind: Kind, suffixes: Collection[str], settings: DataSettings) -> Encoded:
    """Read files whose labels are in a table or, if there is none, are the names of their folders."""
    if table := find_label_table(folder, settings):
        return read_label_table_folder(folder, table, kind, suffixes, settings)
    if settings.label or settings.input:
        raise DataError(
            "data.label and data.input choose columns of parquet shards or of a table of labels, but "
            f"{folder} has neither; remove them"
        )
    return read_folder(folder, kind, suffixes, settings.test_share)


def _suffixes(folder: Path) -> set[str]:
    """Return the suffixes of all files below ``folder`` in lower case, without ignored files and folders.

    Symbolic links to folders are followed, each folder once, so that a loop ends.
    """
    suffixes = set()
    visited: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not is_ignored(name)]
        suffixes |= {Path(name).suffix.lower() for name in files if not is_ignored(name)}
    return suffixes

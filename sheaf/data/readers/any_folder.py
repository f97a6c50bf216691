"""Reading of a user's folder of parquet shards, images or sounds."""

from __future__ import annotations

import os
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.data.readers import images, logmel
from sheaf.data.readers.encoded import Encoded, abbreviate
from sheaf.data.readers.folder_layout import is_ignored
from sheaf.data.readers.folders import read_folder
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
            return read_parquet(folder, label=settings.label, input_column=settings.input)
        if settings.label or settings.input:
            raise DataError(
                f"data.label and data.input choose columns of parquet shards, but {folder} has none; "
                "remove them"
            )
        image_suffixes, sound_suffixes = suffixes & images.SUFFIXES, suffixes & logmel.SUFFIXES
        if image_suffixes and sound_suffixes:
            both = abbreviate(sorted(image_suffixes | sound_suffixes))
            raise DataError(f"{folder} contains both images and sounds ({both}); keep one kind")
        if image_suffixes:
            return read_folder(folder, "image", images.SUFFIXES, settings.test_share)
        if sound_suffixes:
            return read_folder(folder, "sound", logmel.SUFFIXES, settings.test_share)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    content = f"only files that end in {abbreviate(sorted(suffixes))}" if suffixes else "no file"
    raise DataError(f"{folder} must contain parquet shards, images or sounds, but contains {content}")


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

"""Reading of a user's folder of parquet shards, images or sounds."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.core.optional_imports import needs
from sheaf.data.readers import images, logmel
from sheaf.data.readers.encoded import Encoded, Kind, abbreviate
from sheaf.data.readers.folder_layout import walk_files
from sheaf.data.readers.folders import read_folder
from sheaf.data.readers.label_table_folder import find_label_table, read_label_table_folder
from sheaf.data.settings import DataSettings


def read_any_folder(folder: Path, settings: DataSettings) -> Encoded:
    """Read the dataset in ``folder``; the file name suffixes decide of what kind it is.

    Raises:
        DataError: the folder is empty, holds images and sounds, or no file that sheaf reads.
    """
    try:
        suffixes = {path.suffix.lower() for path in walk_files(folder)}
        if ".parquet" in suffixes:
            if settings.labels:
                raise DataError(
                    f"data.labels is a table of the labels of files, but {folder} contains parquet shards, "
                    "which have labels; remove it"
                )
            with needs("parquet"):
                from sheaf.data.readers.parquet import read_parquet
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
    """Read files with labels from a table or, without a table, from the names of their folders."""
    if table := find_label_table(folder, settings):
        return read_label_table_folder(folder, table, kind, suffixes, settings)
    if settings.label or settings.input:
        raise DataError(
            "data.label and data.input choose columns of parquet shards or of a table of labels, but "
            f"{folder} has neither; remove them"
        )
    return read_folder(folder, kind, suffixes, settings.test_share)

"""A user's folder, whatever it holds: parquet shards, images or sounds."""

from __future__ import annotations

import os
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.data.readers import images, logmel
from sheaf.data.readers.audio_folder import read_audio_folder
from sheaf.data.readers.encoded import Encoded, some
from sheaf.data.readers.image_folder import read_image_folder
from sheaf.data.readers.parquet import read_parquet
from sheaf.data.settings import DataSettings


def read_any_folder(folder: Path, settings: DataSettings) -> Encoded:
    """The set in ``folder``; how its files' names end tells of what kind it is.

    Raises:
        DataError: it is empty, holds more than one kind, or none that sheaf reads.
    """
    try:
        suffixes = _suffixes(folder)
        if ".parquet" in suffixes:
            return read_parquet(folder)
        pictures, sounds = suffixes & images.SUFFIXES, suffixes & logmel.SUFFIXES
        if pictures and sounds:
            raise DataError(f"{folder} holds both images and sounds: {some(sorted(pictures | sounds))}")
        if pictures:
            return read_image_folder(folder, settings.test_share)
        if sounds:
            return read_audio_folder(folder, settings.test_share)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error
    found = f"only files that end in {some(sorted(suffixes))}" if suffixes else "no file"
    raise DataError(f"{folder} must hold parquet shards, images or sounds and holds {found}")


def _suffixes(folder: Path) -> set[str]:
    """The endings of all files' names below ``folder``, in lower case, hidden ones aside."""
    found = set()
    for _, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found |= {Path(name).suffix.lower() for name in files if not name.startswith(".")}
    return found

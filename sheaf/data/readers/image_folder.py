"""A folder of images: one folder per class."""

from __future__ import annotations

from pathlib import Path

from sheaf.data.readers.encoded import Encoded
from sheaf.data.readers.folders import read_folder
from sheaf.data.readers.images import SUFFIXES


def read_image_folder(folder: Path, test_share: float) -> Encoded:
    """See ``sheaf.readers.folders``."""
    return read_folder(folder, "image", SUFFIXES, test_share)

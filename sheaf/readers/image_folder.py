"""A folder of images: one folder per class."""

from __future__ import annotations

from pathlib import Path

from sheaf.readers.folders import read_folder
from sheaf.readers.images import SUFFIXES
from sheaf.readers.parts import Encoded


def read_image_folder(folder: Path, test_share: float) -> Encoded:
    """See ``sheaf.readers.folders``."""
    return read_folder(folder, "image", SUFFIXES, test_share)

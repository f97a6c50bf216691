"""A folder of sounds (WAV or FLAC): one folder per class."""

from __future__ import annotations

from pathlib import Path

from sheaf.readers.folders import read_folder
from sheaf.readers.logmel import SUFFIXES
from sheaf.readers.parts import Encoded


def read_audio_folder(folder: Path, test_share: float) -> Encoded:
    """See ``sheaf.readers.folders``."""
    return read_folder(folder, "sound", SUFFIXES, test_share)

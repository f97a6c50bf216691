"""A folder of sounds (WAV or FLAC): one folder per class."""

from __future__ import annotations

from pathlib import Path

from sheaf.data.readers.encoded import Encoded
from sheaf.data.readers.folders import read_folder
from sheaf.data.readers.logmel import SUFFIXES


def read_audio_folder(folder: Path, test_share: float) -> Encoded:
    """See ``sheaf.readers.folders``."""
    return read_folder(folder, "sound", SUFFIXES, test_share)

"""Sound files."""

from __future__ import annotations

import io

import numpy as np
import scipy.signal  # noqa: F401 (else the first resampling imports it, within the limits of one input)
import soundfile
from fuzz.engine import Harness, mutated

from sheaf.data.readers.decode import decode
from sheaf.data.readers.encoded import Encoded, EncodedSplit
from sheaf.data.settings import DataSettings

FORMATS = (
    *[("WAV", kind) for kind in ("PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")],
    *[("AIFF", "PCM_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
    ("MP3", "MPEG_LAYER_III"),
)


def seeds() -> list[bytes]:
    """Return sounds of a tenth of a second, mono and stereo."""
    contents = []
    for number, (name, kind) in enumerate(FORMATS):
        tone = np.sin(np.arange(1600)[:, None] * np.array([[0.1, 0.2]][: 1 + number % 2])) * 0.5
        file = io.BytesIO()
        soundfile.write(file, tone, 16000, subtype=kind, format=name)
        contents.append(file.getvalue())
    return contents


def read(content: bytes) -> None:
    """Decode a dataset of one sound twice: at its own rate, and resampled."""
    split = EncodedSplit(np.zeros(1, np.int64), lambda positions: iter([("sound.wav", content)]))
    encoded = Encoded("sound", split, split, ("a",))
    decoded = decode("sounds", encoded, DataSettings(name="sounds", rate=8000))
    assert decoded.train.inputs.shape == (1, 1, 40, 63)
    assert decoded.train.inputs.isfinite().all()
    decode("sounds", encoded, DataSettings(name="sounds"))


HARNESS = Harness(mutated(seeds()), read)

"""The data of a device: the form of its examples goes into the card of its models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import wavfile

from sheaf.core.dataset import Sound
from sheaf.data.device_data import load_device_data
from sheaf.data.settings import DataSettings


def test_a_device_with_sounds_knows_their_rate_and_length(tmp_path: Path) -> None:
    for name in ("no", "yes"):
        for split in ("train", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            wave = np.random.default_rng(1).integers(-999, 999, 800, dtype=np.int16)
            wavfile.write(tmp_path / split / name / "one.wav", 8000, wave)
    settings = DataSettings(name=str(tmp_path), seconds=0.1, cache=False)
    dataset = load_device_data(settings, ("no", "other", "yes"))
    assert dataset.sound == Sound(rate=8000, seconds=0.1)
    assert dataset.train.labels.tolist() == [0, 2]

"""Measure shared image files: bytes and CPU time for an image, against tensors, with equal pixels.

One thread of an x86 server, Pillow 12, 28 November 2026; bytes with the 8 of a label, CPU seconds of
``encode_shared`` (which decodes each file to compare it) and ``decode_shared``:

    folder                                      tensor    file      fewer   encode    decode
    two photos, 224x224, JPEG quality 90        150.5 kB  16.2 kB    9.3x   1.01 ms   0.68 ms
    two photos, 224x224, JPEG quality 75        150.5 kB   9.6 kB   15.6x   0.99 ms   0.58 ms
    two photos, 256x256, resized to 224x224     150.5 kB  21.5 kB    7.0x   1.50 ms   1.13 ms
    CIFAR-10, JPEG quality 90                     3.1 kB   1.1 kB    2.9x   0.24 ms   0.18 ms
    CIFAR-10, PNG                                 3.1 kB   2.3 kB    1.3x   0.20 ms   0.13 ms

Run: SHEAF_DATA=… python -m benchmarks.shared_files
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from sheaf.core.wire_format import encode_samples
from sheaf.data.load import load_dataset
from sheaf.data.settings import DataSettings
from sheaf.data.shared_samples import decode_shared, encode_shared

CROPS = 100
"""Crops of each of scikit-learn's two photos."""
IMAGES = 1000
"""Images of CIFAR-10."""
TEST = 10
"""One image of so many is in the test split."""


def photos(folder: Path, side: int, quality: int) -> None:
    """Write square crops of the two photos as JPEG files."""
    draws = np.random.default_rng(0)
    for photo, pixels in enumerate(load_sample_images().images):
        for number in range(CROPS):
            top, left = (draws.integers(0, length - side) for length in pixels.shape[:2])
            crop = Image.fromarray(pixels[top : top + side, left : left + side])
            crop.save(_path(folder, number, f"photo-{photo}", "jpg"), quality=quality)


def cifar10(folder: Path, suffix: str, **options: Any) -> None:
    """Write test images of CIFAR-10 as files."""
    samples = load_dataset(DataSettings(name="cifar10")).test
    for number in range(IMAGES):
        image = Image.fromarray(samples.inputs[number].permute(1, 2, 0).numpy())
        image.save(_path(folder, number, str(int(samples.targets[number])), suffix), **options)


def _path(folder: Path, number: int, label: str, suffix: str) -> Path:
    path = folder / ("train" if number % TEST else "test") / label / f"{number}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def measure(title: str, write: Callable[[Path], None], size: tuple[int, int] | None = None) -> None:
    """Print a line about the images that ``write`` writes to a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        data = load_dataset(DataSettings(name=folder, size=size, cache=False))
        started = time.process_time()
        blob = encode_shared(data.train, data.bits)
        encoded = time.process_time()
        shared = decode_shared(blob, data.shape, data.bits)
        decoded = time.process_time()
        assert torch.equal(shared.inputs, data.train.inputs)
    count, tensors = len(data.train), encode_samples(data.train).size
    print(
        f"{title:42}  {tensors / count / 1e3:7.1f} kB {blob.size / count / 1e3:6.1f} kB "
        f"{tensors / blob.size:6.1f}x {1e3 * (encoded - started) / count:7.2f} ms "
        f"{1e3 * (decoded - encoded) / count:7.2f} ms"
    )


def main() -> None:
    """Measure all folders."""
    torch.set_num_threads(1)
    measure("two photos, 224x224, JPEG quality 90", lambda folder: photos(folder, 224, 90))
    measure("two photos, 224x224, JPEG quality 75", lambda folder: photos(folder, 224, 75))
    measure("two photos, 256x256, resized to 224x224", lambda folder: photos(folder, 256, 90), (224, 224))
    measure("CIFAR-10, JPEG quality 90", lambda folder: cifar10(folder, "jpg", quality=90))
    measure("CIFAR-10, PNG", lambda folder: cifar10(folder, "png"))


if __name__ == "__main__":
    main()

"""Digits: 1,797 handwritten digits, 8x8 grey, 10 classes; comes with scikit-learn.

Of each class, every fifth image in scikit-learn's order is a test image: 355 of them, always the
same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from sheaf.data.readers.encoded import Encoded, Ints, Part
from sheaf.data.settings import DataSettings


def digits(settings: DataSettings, root: Path | None) -> Encoded:
    """The set; neither argument matters to it."""
    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)  # scikit-learn counts to 16
    labels = raw.target.astype(np.int64)
    rank = np.array([np.count_nonzero(labels[:at] == label) for at, label in enumerate(labels)])

    def part(which: Ints) -> Part:
        def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
            for at in which[positions].tolist():
                file = io.BytesIO()
                Image.fromarray(pixels[at]).save(file, "PNG")
                yield f"image {at} of digits", file.getvalue()

        return Part(labels[which], items)

    is_test = rank % 5 == 4
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return Encoded("image", part(train), part(test), tuple("0123456789"))

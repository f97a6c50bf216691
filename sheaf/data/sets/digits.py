"""Digits: 1,797 handwritten digits, 8x8 grey, 10 classes; included in scikit-learn.

The test split is every fifth image of each class in scikit-learn's order: 355 images, always the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from sheaf.core.errors import DataError
from sheaf.data.class_balance import rank_in_class
from sheaf.data.readers.encoded import Encoded, EncodedSplit, Ints
from sheaf.data.settings import DataSettings


def digits(settings: DataSettings, root: Path | None) -> Encoded:
    """Return the dataset; ignores ``root``.

    Raises:
        DataError: the settings choose a column, which the dataset does not have.
    """
    if settings.label or settings.input:
        raise DataError(
            "data.label and data.input choose columns of parquet shards, not of digits; remove them"
        )
    raw = load_digits()
    pixels = np.rint(raw.images * (255 / 16)).astype(np.uint8)  # scikit-learn's values are 0 to 16
    labels = raw.target.astype(np.int64)

    def split(members: Ints) -> EncodedSplit:
        def items(positions: Ints) -> Iterator[tuple[str, bytes]]:
            for image in members[positions].tolist():
                file = io.BytesIO()
                Image.fromarray(pixels[image]).save(file, "PNG")
                yield f"image {image} of digits", file.getvalue()

        return EncodedSplit(labels[members], items)

    is_test = rank_in_class(labels) % 5 == 4
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    return Encoded("image", split(train), split(test), tuple("0123456789"))

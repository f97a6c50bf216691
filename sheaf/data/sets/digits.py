"""Digits: 1,797 handwritten digits, 8x8 grey, 10 classes; included in scikit-learn.

The test split is every fifth image of each class in scikit-learn's order: 355 images, always the same.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sheaf.core.errors import DataError
from sheaf.core.optional_imports import require
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
    table = _table()
    pixels = np.rint(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # from 0 to 16
    labels = table[:, -1].astype(np.int64)

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


def _table() -> npt.NDArray[np.float64]:
    """Read scikit-learn's file: (N, 65), 64 pixels and the label.

    ``sklearn.datasets.load_digits`` reads the same, but its import, with SciPy and pandas, takes a second.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require("workstation", "sklearn")
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    return np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")

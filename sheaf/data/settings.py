"""What ``[data]`` says: which data, and how it is brought into one shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sheaf.core.settings import settings

Positive = Annotated[int, Field(ge=1)]


@settings
class DataSettings:
    """The keys under ``[data]``.

    Attributes:
        name: a set that sheaf knows (``sheaf list data``), the path of a folder (parquet shards, or
            one folder of images or of WAV files per class), or ``package.module:callable``, which
            is called without arguments and returns a ``sheaf.Dataset``. A folder named as a
            known set is written ``./mnist``.
        size: resize images to (rows, columns). Unset: they must all be of one size.
        channels: 1 makes all images grey, 3 makes them colour. Unset: they must all be alike.
        rate: resample sounds to so many samples a second. Unset: they must all be alike.
        seconds: sounds are cut, or padded with silence at the end, to this length.
        limit: train on at most so many images: the first ones of each class in the order of the
            files, as equal a number of each as there is.
        limit_test: the same for the test images.
        mean: of each channel, images scaled to 0..1. Unset: what is usual for a known set,
            otherwise computed from the training images.
        std: the same, standard deviation.
        test_share: of a folder without ``train/`` and ``test/``: how large a share of the files is
            kept for testing. A file's name alone decides, so adding files moves none from one part
            to the other.
        held_out: share of each edge's own training part on which it bases its decisions.
    """

    name: str
    size: tuple[Positive, Positive] | None = None
    channels: Literal[1, 3] | None = None
    rate: Annotated[int, Field(ge=2000, le=384_000)] | None = None
    seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    limit: Positive | None = None
    limit_test: Positive | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1

"""Negative examples ("none of these classes") that a site synthesises from its own samples."""

from __future__ import annotations

import torch
from torch import Tensor

from sheaf.core.dataset import Samples
from sheaf.core.seeds import generator


def make_outliers(samples: Samples, count: int, seed: int) -> Tensor:
    """Return (count, C, H, W) mosaics: each quarter is cut from another corner of another example.

    A mosaic has the texture and contrast of the site's data, but not the layout of any class. A model
    therefore has to learn the layout to tell it from the classes.
    """
    draws = generator(seed)
    _, height, width = samples.inputs.shape[1:]
    rows, columns = height // 2, width // 2
    corners = [(top, left) for top in (0, height - rows) for left in (0, width - columns)]

    def random_examples() -> Tensor:
        return samples.inputs[samples.positions[torch.randint(len(samples), (count,), generator=draws)]]

    mosaics = random_examples()
    for corner, (top, left) in enumerate(corners):
        source_top, source_left = corners[(corner + 1 + int(torch.randint(3, (1,), generator=draws))) % 4]
        mosaics[:, :, top : top + rows, left : left + columns] = random_examples()[
            :, :, source_top : source_top + rows, source_left : source_left + columns
        ]
    return mosaics

"""Examples of "none of these classes" that a site makes from its own."""

from __future__ import annotations

import torch

from sheaf.core.dataset import Samples
from sheaf.core.seeds import generator


def make_outliers(samples: Samples, count: int, seed: int) -> torch.Tensor:
    """(count, C, H, W) mosaics: each quarter is another example's, from another corner.

    Their small patches look like the site's data and their whole looks like no class, so what tells them from
    the classes is not texture or contrast.
    """
    draws = generator(seed)
    _, height, width = samples.inputs.shape[1:]
    rows, columns = height // 2, width // 2
    corners = [(top, left) for top in (0, height - rows) for left in (0, width - columns)]

    def some() -> torch.Tensor:
        return samples.inputs[samples.positions[torch.randint(len(samples), (count,), generator=draws)]]

    mosaics = some()
    for there, (top, left) in enumerate(corners):
        taken_from = corners[(there + 1 + int(torch.randint(3, (1,), generator=draws))) % 4]
        quarter = some()[:, :, taken_from[0] : taken_from[0] + rows, taken_from[1] : taken_from[1] + columns]
        mosaics[:, :, top : top + rows, left : left + columns] = quarter
    return mosaics

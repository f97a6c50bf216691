"""The hold-out split: an edge trains on one part of its data and bases its decisions on the other."""

from __future__ import annotations

from dataclasses import replace

import torch

from sheaf.core.dataset import Samples
from sheaf.core.errors import DataError
from sheaf.core.seeds import generator


def hold_out(samples: Samples, fraction: float, seed: int) -> tuple[Samples, Samples]:
    """Split ``samples`` at random into a training part and a held-out part.

    Args:
        samples: the N training samples of one edge.
        fraction: of the N samples to hold out, in [0, 1); the count is rounded.
        seed: of the draw.

    Returns:
        (training part, held-out part). Both share the tensors of ``samples`` and are sorted by position.

    Raises:
        DataError: the training part is empty.
    """
    order = samples.positions[torch.randperm(len(samples), generator=generator(seed))]
    count = round(fraction * len(samples))
    if count == len(samples):
        raise DataError(
            f"held_out = {fraction:g} holds out {count} of {len(samples)} samples and "
            "leaves none to train on; lower it or add samples"
        )
    training, held_out = order[count:].sort().values, order[:count].sort().values
    return replace(samples, positions=training), replace(samples, positions=held_out)

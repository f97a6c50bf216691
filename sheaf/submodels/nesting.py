"""Sub-models inside a sub-model: the first channels of every layer, at several widths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.submodels.runs import indices_of
from sheaf.submodels.schemes._common import fraction_of
from sheaf.submodels.structure import ChannelStructure


def levels(structure: ChannelStructure, cut: Cut, widths: Sequence[float]) -> dict[tuple[str, int], Tensor]:
    """Return (tensor, dimension) -> the level of each of its indices in the sub-model.

    The level is the number of the first of ``widths`` at which ``schemes.prefix`` keeps the channel there.

    Args:
        structure: of the whole model.
        cut: a prefix cut of the largest width.
        widths: ascending fractions of the channels of the whole model.
    """
    groups = {group.name: group for group in structure.groups}
    kept = {name: set(indices_of(runs)) for name, runs in cut.kept}
    found = {}
    for axis in structure.axes:
        own = []
        for channel in axis.channels:
            if channel is None or channel[0] not in groups:
                own.append(0)  # an input of the model, or a class
                continue
            name, index = channel
            if name in kept and index not in kept[name]:
                continue
            group = groups[name]
            unit = index % group.units
            held = [level for level, width in enumerate(widths) if unit < fraction_of(group.units, width)]
            own.append(held[0])
        found[axis.tensor, axis.dim] = torch.tensor(own, dtype=torch.float32)
    return found

"""The classifier's rows of some classes, of a sub-model that has the rows of all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sheaf.core.cut import Cut
from sheaf.core.types import Params
from sheaf.submodels.structure import ChannelStructure


def rows_of(
    structure: ChannelStructure, cut: Cut | None, params: Params, classes: Sequence[int]
) -> tuple[Cut, dict[str, Tensor]]:
    """Return the smaller cut with the classifier's rows of ``classes`` only, and its parameters.

    Args:
        structure: of the whole model.
        cut: of the parameters; None: the whole model. A cut that selects classes stays as it is.
        params: the parameters.
        classes: sorted.
    """
    cut = cut or Cut()
    if cut.classes is not None or len(classes) == structure.num_classes:
        return cut, dict(params)
    index, rows = torch.tensor(classes, dtype=torch.int64), dict(params)
    for axis in structure.axes:
        if any(channel and channel[0] == structure.classifier.name for channel in axis.channels):
            rows[axis.tensor] = params[axis.tensor].index_select(axis.dim, index)
    return replace(cut, classes=tuple(classes)), rows

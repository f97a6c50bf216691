"""A classifier for each edge that answers only with the classes that the edge has examples of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.runtime.edge_tensors import EdgeTensors
from sheaf.runtime.edges import Edges
from sheaf.training.network import Network

ABSENT = -1e4
"""The bias of a class without examples: far below usual logits, and representable in float16."""


def biases_of_own_classes(fleet: Edges, theta: Params, updates: Sequence[Update]) -> dict[str, EdgeTensors]:
    """Return edge -> the bias of its classifier, to replace that of ``theta``.

    Args:
        fleet: the edges.
        theta: the global model; its classifier has a bias.
        updates: of the edges, with their numbers of examples. An edge without an update keeps the bias of
            ``theta``.
    """

    def bias(network: Network) -> dict[str, Tensor]:
        return {network.classifier_bias: theta[network.classifier_bias]}

    ((name, known),) = fleet.compute("bias of the classifier", bias).items()
    found = {}
    for update in updates:
        present = torch.tensor(update.counts) > 0
        found[update.site] = EdgeTensors.of({name: torch.where(present, known, ABSENT)})
    return found

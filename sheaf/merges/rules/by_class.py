"""Mean by examples, but each class's row of the classifier only over the edges that hold the class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import average_by_entry
from sheaf.training.network import Network


@settings
class ByClass:
    """Row c is weighted by each edge's examples of class c; a row that nobody holds stays as it is.

    An edge without examples of a class has only learned never to answer it, which a plain mean passes on.
    """

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merges the updates; see ``coverage.average_by_entry``.

        Raises:
            CutError: the model cannot be traced, so its classifier is not known.
        """
        classifier = network.structure.classifier.name
        rows = []
        for axis in network.structure.axes:
            classes = [channel[1] for channel in axis.channels if channel and channel[0] == classifier]
            if classes:
                rows.append((axis, torch.tensor(classes)))

        def weighted() -> Iterator[tuple[Params, float, Mapping[str, Tensor]]]:
            for update in updates:
                counts = torch.tensor(update.counts, dtype=torch.float64)
                own = {}
                for axis, classes in rows:
                    shape = [1] * theta[axis.tensor].dim()
                    shape[axis.dim] = -1
                    own[axis.tensor] = counts[classes].view(shape)
                yield update.params, float(update.examples), own

        return average_by_entry(theta, weighted())

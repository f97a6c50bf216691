"""Mean weighted by examples; each class's row of the classifier only over the edges that hold the class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.training.network import Network


@settings
class ByClass:
    """Row c is weighted by each edge's examples of class c; the row of a class without examples stays.

    An edge without examples of a class learns only to avoid it, which a plain mean passes on.
    """

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Average the updates; see ``average``.

        Raises:
            CutError: the model cannot be traced, so its classifier is not known.
        """
        classifier = network.structure.classifier.name
        rows = []
        for axis in network.structure.axes:
            classes = [channel[1] for channel in axis.channels if channel and channel[0] == classifier]
            if classes:
                rows.append((axis, torch.tensor(classes)))

        def contributions() -> Iterator[Contribution]:
            for update in updates:
                counts = torch.tensor(update.counts, dtype=torch.float64)
                by_row = {}
                for axis, classes in rows:
                    shape = [1] * theta[axis.tensor].dim()
                    shape[axis.dim] = -1
                    by_row[axis.tensor] = counts[classes].view(shape)
                yield Contribution(update.params, float(update.examples), entry_weights=by_row)

        return average(theta, contributions())

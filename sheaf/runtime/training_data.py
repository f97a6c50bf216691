"""The examples that a train task trains on: the site's own, and negatives for an "other" output."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from sheaf.core.cut import Cut
from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError
from sheaf.core.seeds import seed_for
from sheaf.core.task import Task
from sheaf.core.tensor_file import Blob
from sheaf.core.wire_format import decode_samples
from sheaf.data.synthetic_negatives import make_outliers
from sheaf.training.network import Network


class TrainingData:
    """One site's training examples, labelled by the outputs of the network that a task trains.

    Args:
        site: the site's name.
        network: gives the outputs of a cut.
        path: the file of the samples that were lent to the site.
    """

    def __init__(self, site: str, network: Network, path: Path) -> None:
        self._site = site
        self._network = network
        self._path = path

    def lend(self, samples: Blob) -> None:
        """Store other sites' samples durably, as examples of "other"."""
        samples.write(self._path)

    def classes(self, cut: Cut | None) -> Tensor | None:
        """Return the (k,) classes of the cut's outputs; None for all in order."""
        return None if cut is None else torch.tensor(self._network.submodel(cut).classes)

    def count(self, data: Dataset, task: Task) -> int:
        """Return the number of examples that ``of`` returns."""
        if task.cut is None or not task.cut.other:
            return len(data.train)
        lent = self._lent()
        return len(data.train) + round(task.outliers * len(data.train)) + (len(lent) if lent else 0)

    def of(self, data: Dataset, task: Task) -> Samples:
        """Return the site's own examples, and those of "other" if the task's cut has that output.

        Raises:
            DataError: there is nothing to train on, or an example whose class the cut has no output for.
        """
        own = data.train
        if len(own) == 0:
            raise DataError(f"{self._site} has nothing to train on; was anything shared with it?")
        cut = task.cut
        if cut is None or (cut.classes is None and not cut.other):
            return own
        classes = self.classes(cut)
        assert classes is not None
        if not cut.other and not torch.isin(own.labels, classes).all():
            raise DataError(f"{self._site} has examples of classes that its sub-model has no output for")
        other = len(classes)
        output = torch.full((len(data.classes),), other)
        output[classes] = torch.arange(other)
        parts = [Samples(own.inputs, output[own.targets], own.positions)]
        if cut.other:
            if task.outliers:
                count = round(task.outliers * len(own))
                outliers = make_outliers(own, count, seed_for(task.seed, "outliers"))
                parts.append(Samples.of(outliers, torch.full((count,), other)))
            if lent := self._lent():
                parts.append(Samples.of(lent.inputs, torch.full((len(lent),), other)))
        return parts[0] if len(parts) == 1 else Samples.concat(parts)

    def check_batch_norm(self, samples: Samples, cut: Cut | None) -> None:
        """Check that batch norm has a variance.

        Raises:
            DataError: there is one example, and the network has batch norm.
        """
        modules = self._network.of(cut).modules()
        if len(samples) == 1 and any(isinstance(module, _BatchNorm) for module in modules):
            raise DataError(f"{self._site} has one training example, over which batch norm has no variance")

    def _lent(self) -> Samples | None:
        return decode_samples(Blob.at(self._path)) if self._path.exists() else None

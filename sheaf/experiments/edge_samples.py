"""The samples of each edge: split from one dataset, or known only by their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sheaf.core.dataset import Dataset, Samples
from sheaf.core.errors import DataError, PartitionError
from sheaf.core.seeds import seed_for
from sheaf.core.site_names import check_edge_name
from sheaf.data.held_out import hold_out
from sheaf.experiments.config import Experiment


def split(experiment: Experiment, dataset: Dataset) -> dict[str, tuple[Samples, Samples]]:
    """Return edge -> (training samples, held-out samples).

    Raises:
        PartitionError: an edge has no training samples, or its name is not a valid file name.
    """
    labels = dataset.train.labels
    positions = experiment.partition(labels, dataset.classes, seed_for(experiment.seed, "partition"))
    edge_samples = {}
    for site, own in positions.items():
        check_edge_name(site)
        seed = seed_for(experiment.seed, "held out", site)
        try:
            edge_samples[site] = hold_out(dataset.train.select(own), experiment.data.held_out, seed)
        except DataError as error:
            raise PartitionError(f"{site}: {error}") from error
    return edge_samples


def samples_of_counts(
    counts: Mapping[str, Sequence[int]], dataset: Dataset
) -> dict[str, tuple[Samples, Samples]]:
    """Return samples with labels only, for data on the edges' own disks."""
    edge_samples = {}
    for site, of_class in counts.items():
        labels = torch.repeat_interleave(
            torch.arange(len(of_class)), torch.tensor(of_class, dtype=torch.int64)
        )
        nothing = dataset.train.inputs[:0]
        train = Samples(nothing, labels, torch.arange(len(labels)))
        edge_samples[site] = train, train.select(torch.arange(0))
    return edge_samples

"""Mean weighted by examples, after matching each edge's channels to one edge's: for unequal starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sheaf.core.optional_imports import require
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.submodels.weight_matching import align, check_same_function
from sheaf.training.network import Network


@settings
class Aligned:
    """theta = sum_k (n_k / n) P_k theta_k, with P_k the channel permutation that best matches the reference.

    Git Re-Basin: Merging Models modulo Permutation Symmetries. Ainsworth, Hayase, Srinivasa. ICLR 2023.
    arXiv:2209.04836, algorithm 1. Networks that start from different weights learn similar channels in
    different positions, and the mean of two different channels is neither. The reference is the edge with the
    most examples (of equals, the first by name).
    """

    def __post_init__(self) -> None:
        require("workstation", "scipy")  # before training, as the first merge comes after it

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Average the updates, one at a time beside the reference.

        Raises:
            CutError: the model's channels cannot be traced, or not reordered.
        """
        chosen = min(updates, key=lambda update: (-update.examples, update.site))
        reference = chosen.params
        parameters = {name for name, _ in network.model.named_parameters()}

        def contributions() -> Iterator[Contribution]:
            for update in updates:
                params = reference if update is chosen else update.params
                if update is not chosen:
                    moved = align(network.structure, reference, params, parameters)
                    check_same_function(network.model, network.in_shape, params, moved)
                    params = moved
                yield Contribution(params, float(update.examples))

        return average(theta, contributions())

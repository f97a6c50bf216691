"""Mean by examples, after each edge's channels are put into the order of one edge's: for different starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import average
from sheaf.submodels.weight_matching import align, check_same_function
from sheaf.training.network import Network


@settings
class Aligned:
    """theta = sum_k (n_k / n) P_k theta_k, with P_k the permutation of channels most like the reference.

    Git Re-Basin: Merging Models modulo Permutation Symmetries. Ainsworth, Hayase, Srinivasa. ICLR 2023.
    arXiv:2209.04836, algorithm 1. Networks that did not start from one initialisation learn alike channels in
    different places, and a mean of unlike ones is neither. The reference is the edge of the most examples (of
    equals, the first by name), whatever order the updates come in.
    """

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merges the updates, one at a time beside the reference.

        Raises:
            CutError: the model's channels cannot be traced, or not reordered.
        """
        chosen = min(updates, key=lambda update: (-update.examples, update.site))
        reference = chosen.params
        parameters = {name for name, _ in network.model.named_parameters()}

        def weighted() -> Iterator[tuple[Params, float]]:
            for update in updates:
                params = reference if update is chosen else update.params
                if update is not chosen:
                    moved = align(network.structure, reference, params, parameters)
                    check_same_function(network.model, network.in_shape, params, moved)
                    params = moved
                yield params, float(update.examples)

        return average(theta, weighted())

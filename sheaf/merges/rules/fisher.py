"""Mean weighted, parameter by parameter, by its Fisher information: how much each edge's answers need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from sheaf.core.recipe import Statistic
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import average_by_entry
from sheaf.training.network import Network


@settings
class Fisher:
    """theta = sum_k n_k F_k theta_k / sum_k n_k F_k, with F_k the diagonal Fisher information on edge k.

    Merging Models with Fisher-Weighted Averaging. Matena, Raffel. NeurIPS 2022. arXiv:2111.09832. Statistics
    of batch norm, which have no Fisher information, are means weighted by examples n_k.

    Attributes:
        floor: the least that an F is taken for; where all are below it, the mean by examples is what is left.
        examples: how many of its training examples an edge estimates F on, at most.
    """

    floor: Annotated[float, Field(gt=0)] = 1e-6
    examples: Annotated[int, Field(ge=1)] = 1024

    @property
    def statistic(self) -> Statistic:
        """What each update has to carry."""
        return Statistic("fisher", self.examples)

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Merges the updates; see ``coverage.average_by_entry``."""

        def weighted() -> Iterator[tuple[Params, float, Mapping[str, Tensor]]]:
            for update in updates:
                found = update.statistics.items()
                own = {name: f.double().clamp_min_(self.floor).mul_(update.examples) for name, f in found}
                yield update.params, float(update.examples), own

        return average_by_entry(theta, weighted())

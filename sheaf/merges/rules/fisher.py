"""Mean weighted, parameter by parameter, by the diagonal Fisher information on each edge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from sheaf.core.recipe import Statistic
from sheaf.core.settings import settings
from sheaf.core.task import Update
from sheaf.core.types import Params
from sheaf.merges.average import Contribution, average
from sheaf.training.network import Network


@settings
class Fisher:
    """theta = sum_k n_k F_k theta_k / sum_k n_k F_k, with F_k the diagonal Fisher information on edge k.

    Merging Models with Fisher-Weighted Averaging. Matena, Raffel. NeurIPS 2022. arXiv:2111.09832. Statistics
    of batch norm, which have no Fisher information, are averaged by examples n_k.

    Attributes:
        floor: smaller values of F are raised to this one; where all are, the result is the mean by examples.
        examples: the number of training examples on which an edge estimates F, at most.
    """

    floor: Annotated[float, Field(gt=0)] = 1e-6
    examples: Annotated[int, Field(ge=1)] = 1024

    @property
    def statistic(self) -> Statistic:
        """The statistic that each update carries."""
        return Statistic("fisher", self.examples)

    def __call__(self, theta: Params, updates: Sequence[Update], network: Network) -> Params:
        """Average the updates; see ``average``."""

        def contributions() -> Iterator[Contribution]:
            for update in updates:
                fisher = {
                    name: value.double().clamp_min_(self.floor).mul_(update.examples)
                    for name, value in update.statistics.items()
                }
                yield Contribution(update.params, float(update.examples), entry_weights=fisher)

        return average(theta, contributions())

"""The training loop, for one site or for several at once, for edges and the cloud alike.

The loop feeds mini-batches to a ``TrainingState``, which holds the sites' parameters and takes the steps:
``one_site.OneSite`` trains a module as it is, ``vectorized.Stack`` the parameters of several sites at once.
The loss of a step is ``step.batch_loss`` in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from torch import Tensor

from sheaf.core.recipe import Recipe
from sheaf.training.batches import Job, batches, sizes_of_epoch, steps_of
from sheaf.training.preparation import Preparation
from sheaf.training.weight_averaging import WeightAverage, floating

Progress = Callable[[int, int, int, float, int], None]
"""Called with a job's number, its steps done, its steps in all, its latest loss, its examples so far."""

EVERY = 16
"""Steps between two calls of ``progress``."""


class Trained(NamedTuple):
    """The result of one job.

    Attributes:
        params: the trained ``state_dict``, on the CPU.
        losses: the mean loss of each epoch.
        optimizer: the state of the optimizer, on the CPU, if the job asks for it (``lone_site``).
    """

    params: dict[str, Tensor]
    losses: list[float]
    optimizer: Mapping[str, Tensor] = {}


class TrainingState(Protocol):
    """Parameters, optimizer and schedule of the S sites that train together."""

    def begin(self, jobs: Sequence[Job], prepare: Preparation, steps: int) -> AbstractContextManager[object]:
        """Load the jobs' start parameters and set up the optimizer for at most ``steps`` steps."""
        ...

    def padded_size(self, longest: int) -> int:
        """Return the size to which mini-batches of at most ``longest`` examples are filled up."""
        ...

    def keep_first(self, active: int) -> None:
        """Train on with the first ``active`` sites only; the others are finished."""
        ...

    @property
    def takes_several(self) -> bool:
        """Whether one call for several steps is faster than a call for each."""
        ...

    def steps(self, x: Tensor, labels: Tensor) -> Tensor:
        """Take T steps on (T, S, B, C, H, W) inputs and (T, S, B) labels; return the (T, S) losses."""
        ...

    @property
    def values(self) -> Mapping[str, Tensor]:
        """The ``state_dict`` of the sites that still train, (S, *shape) each. Not copies."""
        ...

    def overwrite(self, values: Mapping[str, Tensor]) -> None:
        """Replace (S, *shape) values of all sites."""
        ...

    def result(self, site: int) -> dict[str, Tensor]:
        """Return one site's ``state_dict``, on the CPU."""
        ...


def train(
    state: TrainingState,
    jobs: Sequence[Job],
    recipe: Recipe,
    prepare: Preparation,
    progress: Progress | None = None,
) -> list[Trained]:
    """Train every job by ``recipe`` and return the results in the order of the jobs.

    Every draw of a job comes from its seed. Jobs may differ in their numbers of examples: one with fewer
    steps finishes earlier. Its result is that of training alone, but for the rounding of sums.
    """
    sizes = [sizes_of_epoch(recipe, len(job.samples)) for job in jobs]
    steps = [steps_of(recipe, len(job.samples)) for job in jobs]
    order = sorted(range(len(jobs)), key=lambda k: -steps[k])  # the sites that still train come first
    ordered = [jobs[k] for k in order]
    losses: list[Tensor] = []
    with state.begin(ordered, prepare, steps[order[0]]):
        average = None
        if recipe.average_last and steps[order[0]]:
            average = WeightAverage(floating(state.values), [steps[k] for k in order], recipe.average_last)
        at_once = EVERY if state.takes_several and average is None else 1
        step = 0
        for x, labels in batches(ordered, recipe, prepare, state.padded_size, at_once):
            step += len(x)
            state.keep_first(x.shape[1])
            losses.append(state.steps(x, labels))
            if average is not None:
                average.add(floating(state.values), step)
            if progress is not None and (step % EVERY == 0 or step == steps[order[x.shape[1] - 1]]):
                for k, loss in zip(order, losses[-1][-1].tolist(), strict=False):
                    epochs, rest = divmod(step, len(sizes[k]))
                    progress(k, step, steps[k], loss, epochs * sum(sizes[k]) + sum(sizes[k][:rest]))
        if average is not None:
            state.overwrite(average.mean)
    by_step = [row for each in losses for row in each.tolist()]  # read once: a GPU would stop for each
    trained = {
        k: Trained(state.result(at), _of_epochs([row[at] for row in by_step[: steps[k]]], sizes[k]))
        for at, k in enumerate(order)
    }
    return [trained[k] for k in range(len(jobs))]


def _of_epochs(losses: list[float], sizes: Sequence[int]) -> list[float]:
    """Return the mean loss of each epoch from the losses of its steps, weighted by their examples.

    The last epoch may have fewer steps.
    """
    epochs = [losses[at : at + len(sizes)] for at in range(0, len(losses), len(sizes))]
    return [
        sum(loss * n for loss, n in zip(each, sizes, strict=False)) / sum(sizes[: len(each)])
        for each in epochs
    ]

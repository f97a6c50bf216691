"""Training of one site by several processes: distributed data parallel.

Every process draws the same mini-batches, computes the gradients of some rows of each, and takes the same
steps on the mean of the gradients, weighted by rows. The result is that of one process, except for the order
of floating-point sums.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.models.forward_effects import effects_of, is_marked
from sheaf.training.batches import Job, Rows
from sheaf.training.model_check import draws_randomly
from sheaf.training.one_site import OneSite
from sheaf.training.preparation import Preparation
from sheaf.training.step import LossContext, autocast, batch_loss
from sheaf.training.synchronized_batch_norm import synchronized

CHECKED_ROWS, FIRST_ROWS = 7, 3
"""Rows of the mini-batch on which a loss is checked, and how many of them form the first half."""


class DistributedSite(OneSite):
    """The training state of one site in one of several processes. See ``loop.TrainingState``.

    Args:
        model: the network; left as it is.
        recipe: the recipe that it is trained by.
        group: the processes. All of them train the same jobs.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, group: dist.ProcessGroup) -> None:
        self._rows = Rows()
        super().__init__(copy.deepcopy(model), recipe, rows=self._rows)  # hooks stay on the copy
        self._group = group

    @contextmanager
    def begin(self, jobs: Sequence[Job], prepare: Preparation, steps: int) -> Iterator[None]:
        """Load the job's parameters and set up the optimizer; see ``loop.TrainingState``."""
        with super().begin(jobs, prepare, steps), synchronized(self._model, self._group), _quiet():
            self._parallel = DistributedDataParallel(
                self._model,
                process_group=self._group,
                broadcast_buffers=False,  # batch norm's statistics are the same already
                find_unused_parameters=is_marked(self._model),
            )
            self._gradients = self._backward
            try:
                yield
            finally:
                del self._parallel

    def _backward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the loss of a mini-batch, and its gradients, from this process's rows of it."""
        size = self._group.size()
        own = self._rows.divide(len(x), self._group.rank(), size)
        self._optimizer.zero_grad()
        if own.start == own.stop:  # fewer rows than processes
            with autocast(self._recipe, x.device):
                loss = self._parallel(x[own]).sum() * 0
        else:
            loss = batch_loss(self._recipe, self._parallel, x[own], labels[own], self._context)
        loss = loss * ((own.stop - own.start) / len(x))
        (loss * size).backward()  # DistributedDataParallel divides by the number of processes
        total = loss.detach().clone()
        dist.all_reduce(total, group=self._group)
        gradients = [parameter.grad for parameter in self._trained]
        return total, *gradients


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings of ``DistributedDataParallel`` on speed and on names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match")
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # torch 2.6 has no other name
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
        yield


def why_not_distributed(
    model: nn.Module, in_shape: tuple[int, int, int], recipes: Sequence[Recipe], device: torch.device
) -> str:
    """Return why several processes would not train ``model`` as one does; "" if they would."""
    effects = effects_of(model)
    if why := effects.alone or effects.not_recorded:
        return f"of the model: {why}"
    if draws_randomly(model, in_shape):
        return "layers other than nn.Dropout draw random numbers, and rows of a mini-batch would draw others"
    if device.type not in ("cpu", "cuda"):
        return f"torch.distributed does not support {device.type}"
    for recipe in recipes:
        if not _is_mean(recipe, model, in_shape):
            name = type(recipe.loss).__name__
            return f"the loss {name} is not a mean over examples, so it cannot be computed in parts"
    return ""


@torch.no_grad()
def _is_mean(recipe: Recipe, model: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Return whether the loss of a mini-batch is the mean of the losses of its parts, weighted by rows."""
    draws = generator(0)
    was_training = model.training
    device = next(model.parameters()).device
    outputs = model.eval()(torch.zeros(2, *in_shape, device=device)).shape[1]
    model.train(was_training)
    logits = torch.randn(CHECKED_ROWS, outputs, generator=draws)
    labels = torch.randint(outputs, (CHECKED_ROWS,), generator=draws)
    params = {name: value.detach().cpu() for name, value in model.named_parameters()}
    start = {name: value + 0.01 for name, value in params.items()}
    context = LossContext(torch.ones(outputs, dtype=torch.bool), params, start)
    parts = [slice(0, FIRST_ROWS), slice(FIRST_ROWS, CHECKED_ROWS)]
    losses = [recipe.loss(logits[part], labels[part], context) for part in parts]
    mean = (FIRST_ROWS * losses[0] + (CHECKED_ROWS - FIRST_ROWS) * losses[1]) / CHECKED_ROWS
    return bool(torch.isclose(recipe.loss(logits, labels, context), mean, rtol=1e-4, atol=1e-6))

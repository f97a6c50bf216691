"""Training of several sites at once: their parameters lie in one stack, and every operation runs for all.

A small network spends its time on starting operations, not on computing them. Sites that train the same
network by the same recipe can share each operation: their parameters are stacked, (S, *shape) for S sites,
and ``torch.func.vmap`` runs the network over all of them. On a CPU the step is recorded besides
(``cpu_graph``). ``benchmarks/simulation`` shows the gain of both.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator, seed_for
from sheaf.models.freezing import into_training
from sheaf.training import optimizer_state
from sheaf.training.batches import Job, batch_sizes
from sheaf.training.cpu_graph import CpuGraphFunction, Function, Recordings
from sheaf.training.cuda_graph import CudaGraphFunction
from sheaf.training.optimizers import make_optimizer, make_scheduler
from sheaf.training.preparation import Preparation, move_model
from sheaf.training.step import LossContext, batch_loss, effective, needs, present_outputs
from sheaf.training.weak_method import weak_method


class Stack:
    """The training state of several sites, reusable for other sites. See ``loop.TrainingState``.

    A stack of one computes exactly what ``one_site.OneSite`` does, but recorded. ``compatibility`` says which
    jobs can be in one stack, ``model_check`` which networks.

    Args:
        model: the network; left as it is.
        sites: S, the number of jobs of each training.
        recipe: the recipe of each training.
        device: where the stack lies.
        recorded: record a step and replay it; False: for a single step.
        recordings: shared with other stacks of the same arguments.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: int,
        recipe: Recipe,
        device: torch.device,
        *,
        recorded: bool = True,
        recordings: Recordings | None = None,
    ) -> None:
        self._recipe = recipe
        self._one = sites == 1
        self._pads = not self._one and not _has_batch_norm(model)
        self._model = move_model(copy.deepcopy(model), device)
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        # The weight of a linear layer is stored transposed, in the order in which bmm makes its gradient.
        self._transposed = {
            f"{name}.weight".lstrip(".")
            for name, module in model.named_modules()
            if type(module) is nn.Linear and not self._one
        } & trained
        self._stacked = {
            name: torch.empty_like(value)[None]
            if self._one
            else torch.empty(sites, *self._oriented(name, value).shape, dtype=value.dtype, device=device)
            for name, value in self._model.state_dict().items()
        }
        self._first = {
            active: {
                name: value[:active].requires_grad_(name in trained) for name, value in self._stacked.items()
            }
            for active in range(1, sites + 1)
        }
        """Number of sites -> views of the first ones."""
        self._trained = [name for name in self._stacked if name in trained]
        self._start = {
            name: torch.empty_like(self._stacked[name]) for name in self._trained if needs(recipe, "start")
        }
        self._fields: dict[
            str, Tensor
        ] = {}  # of the sites' ``LossContext``, where a recorded step reads them
        self._constants: dict[str, Tensor] = {}  # likewise
        self._draws: list[torch.Generator] = []
        self._active = sites
        self._optimizers: dict[int, Optimizer] = {}  # by the number of sites that still train
        self._scheduler: LRScheduler | None = None
        self._with_gradient: list[str] = []
        self._fast: Function
        self._recorded: CpuGraphFunction | None = None  # the whole step
        whole = recipe.schedule == "constant"  # a rate that changes cannot be recorded
        step = weak_method(self._whole_step if whole else self._backward)
        if not recorded:
            self._fast = step
        elif device.type == "cuda":
            self._fast = CudaGraphFunction(weak_method(self._backward))  # an optimizer steps in few kernels
        else:
            self._fast = graph = CpuGraphFunction(
                step, weak_method(self._memory), exact=self._one, recordings=recordings
            )
            self._recorded = graph if whole else None

    @contextmanager
    def begin(self, jobs: Sequence[Job], prepare: Preparation, steps: int) -> Iterator[None]:
        """Load the jobs' parameters and set up the optimizer; see ``loop.TrainingState``.

        Raises:
            ValueError: a job continues with the state of an optimizer, which only ``OneSite`` does.
        """
        if any(job.keep_optimizer or optimizer_state.state_among(job.constants) for job in jobs):
            raise ValueError("a job that keeps the state of its optimizer trains by itself")
        for name, stacked in self._stacked.items():
            starts = [self._oriented(name, value) for value in dict.fromkeys(job.start[name] for job in jobs)]
            if len(starts) == 1:  # transposed once
                stacked[0].copy_(starts[0])
                stacked[1:].copy_(stacked[0])
            else:
                for own, job in zip(stacked, jobs, strict=True):
                    own.copy_(self._oriented(name, job.start[name]))
        for name, start in self._start.items():
            start.copy_(self._stacked[name])
        self._set_context(jobs, prepare)
        into_training(self._model)
        self._active = len(jobs)
        if self._recipe.schedule != "constant" or not self._optimizers:
            self._optimizers = {self._active: make_optimizer(self._leaves, self._recipe)}
        optimizer = self._optimizers[self._active]
        for moments in optimizer.state.values():  # reset in place, as a recorded step refers to them
            for value in moments.values():
                if isinstance(value, Tensor):
                    value.zero_()
        self._scheduler = make_scheduler(optimizer, self._recipe, steps)
        yield

    def padded_size(self, longest: int) -> int:
        """Return one of two sizes, as a step is recorded for each: that takes as long as some twenty steps.

        Batch norm takes the statistics of a whole mini-batch, so there nothing is padded.
        """
        if not self._pads:
            return longest
        half = -(-self._recipe.batch_size // 2)
        return half if longest <= half else max(self._recipe.batch_size, longest)

    def keep_first(self, active: int) -> None:
        """Train on with the first ``active`` sites; the others stay as they are."""
        if active == self._active:
            return
        moments = [self._optimizers[self._active].state[leaf] for leaf in self._leaves]
        self._active = active
        if active in self._optimizers:
            return
        self._optimizers[active] = make_optimizer(self._leaves, self._recipe)
        for leaf, moment in zip(self._leaves, moments, strict=True):
            self._optimizers[active].state[leaf] = {
                key: value[:active] if isinstance(value, Tensor) and value.dim() else value
                for key, value in moment.items()
            }

    @property
    def takes_several(self) -> bool:
        """Whether one call for several steps is faster than a call for each."""
        return self._recorded is not None and "draw" not in self._fields

    def steps(self, x: Tensor, labels: Tensor) -> Tensor:
        """Take T steps of the A sites that still train; return their (T, A) losses."""
        if self._recorded is not None and self.takes_several:
            (losses,) = self._recorded.successive(x, labels)
            return losses
        return torch.stack([self._step(*batch) for batch in zip(x, labels, strict=True)])

    def _step(self, x: Tensor, labels: Tensor) -> Tensor:
        """Take one step; return the (A,) losses."""
        if "draw" in self._fields:
            for draw, own in zip(self._fields["draw"][: self._active], self._draws, strict=False):
                draw.fill_(torch.rand((), generator=own).item())
        losses, *gradients = self._fast(x, labels)
        if gradients:
            self._descend(gradients)
        return losses.clone()  # a recorded step writes over it

    @property
    def values(self) -> Mapping[str, Tensor]:
        """The ``state_dict`` of the sites that still train, as it lies in the stack."""
        return self._first[self._active]

    def overwrite(self, values: Mapping[str, Tensor]) -> None:
        """Replace (S, *shape) values of all sites, as they lie in the stack."""
        for name, value in values.items():
            self._stacked[name].copy_(value)

    def result(self, site: int) -> dict[str, Tensor]:
        """Return a copy of one site's ``state_dict`` on the CPU, with the strides of the stack.

        A transposing copy of 400 kB took 0.2 ms, five times as long as a plain one.
        """
        return {
            name: self._oriented(
                name, stacked[site].to("cpu", copy=True, memory_format=torch.contiguous_format)
            )
            for name, stacked in self._stacked.items()
        }

    def _whole_step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        losses, *gradients = self._backward(x, labels)
        self._descend(gradients)
        return (losses,)

    def _backward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the (A,) losses, and the gradients of the parameters that have one."""
        state = {name: self._oriented(name, value) for name, value in self._first[self._active].items()}
        start = {name: self._oriented(name, value[: self._active]) for name, value in self._start.items()}
        fields = {name: value[: self._active] for name, value in self._fields.items()}
        constants = {name: value[: self._active] for name, value in self._constants.items()}
        if self._one:
            state, start, fields, constants = (
                {name: value.squeeze(0) for name, value in each.items()}
                for each in (state, start, fields, constants)
            )
            losses = self._loss(state, start, fields, constants, x.squeeze(0), labels.squeeze(0))[None]
        else:
            losses = vmap(self._loss)(state, start, fields, constants, x, labels)
        gradients = torch.autograd.grad(losses.sum(), self._leaves, allow_unused=True)
        self._with_gradient = [
            name for name, gradient in zip(self._trained, gradients, strict=True) if gradient is not None
        ]
        return losses.detach(), *(
            gradient if gradient.stride() == leaf.stride() else torch.empty_like(leaf).copy_(gradient)
            for leaf, gradient in zip(self._leaves, gradients, strict=True)
            if gradient is not None
        )

    def _loss(
        self,
        state: dict[str, Tensor],
        start: dict[str, Tensor],
        fields: dict[str, Tensor],
        constants: dict[str, Tensor],
        x: Tensor,
        labels: Tensor,
    ) -> Tensor:
        """Return the loss of one site, given the fields of its ``LossContext``."""
        trained = {name: state[name] for name in self._trained}
        params = trained if needs(self._recipe, "params") else {}
        context = LossContext(params=params, start=start, constants=constants, **fields)
        used = {**state, **effective(self._recipe, trained, context)}
        return batch_loss(
            self._recipe, lambda x: functional_call(self._model, used, (x,)), x, labels, context
        )

    def _descend(self, gradients: Sequence[Tensor]) -> None:
        optimizer, state = self._optimizers[self._active], self._first[self._active]
        for name, gradient in zip(self._with_gradient, gradients, strict=True):
            state[name].grad = gradient
        optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()

    @property
    def _leaves(self) -> list[Tensor]:
        """The trained parameters of the sites that still train."""
        return [self._first[self._active][name] for name in self._trained]

    def _memory(self) -> list[Tensor]:
        """Return the tensors beside its inputs that a step reads or changes."""
        moments = [self._optimizers[self._active].state[leaf].values() for leaf in self._leaves]
        tensors = [each for own in moments for each in own if isinstance(each, Tensor)]
        others = (self._stacked, self._start, self._fields, self._constants)
        return [*(each for own in others for each in own.values()), *tensors]

    def _set_context(self, jobs: Sequence[Job], prepare: Preparation) -> None:
        """Set what the sites' ``LossContext`` has beside parameters, in place for a recorded step."""
        fields = {}
        if needs(self._recipe, "present"):
            present = [present_outputs(self._model, job.samples, prepare) for job in jobs]
            fields["present"] = torch.stack(present)
        if needs(self._recipe, "draw"):
            fields["draw"] = torch.zeros(len(jobs), device=prepare.device)
            self._draws = [generator(seed_for(job.seed, "steps")) for job in jobs]
        constants = {
            name: torch.stack([job.constants[name] for job in jobs]).to(prepare.device)
            for name in jobs[0].constants
        }
        for own, new in ((self._fields, fields), (self._constants, constants)):
            for name, value in new.items():
                own[name] = own[name].copy_(value) if name in own else value

    def _oriented(self, name: str, value: Tensor) -> Tensor:
        """Return the stack's value from the network's, and the other way round."""
        return value.mT if name in self._transposed else value


def compatibility(model: nn.Module, samples: int, recipe: Recipe) -> tuple[int, ...]:
    """Return what jobs must have in common, beyond network and recipe, to be in one stack.

    With batch norm no mini-batch is padded, so it is the number of examples. A schedule depends on the number
    of steps, and a stack has one learning rate.
    """
    if _has_batch_norm(model):
        return (samples,)
    if recipe.schedule != "constant":
        return (len(batch_sizes(samples, recipe.batch_size)),)
    return ()


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())

"""Several sites' training as one: what ``training.train`` does to each, over parameters in one stack.

A small network spends its time on starting operations, not on computing them. Sites that train the same
network by the same recipe can share each operation: their parameters lie one behind the other, (S, *shape)
for S sites, and ``torch.func.vmap`` runs the network over all of them. Each site keeps its own draws, batches
and steps, so its result is that of training alone but for the order in which floating-point sums run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sheaf import training
from sheaf.augment import AUGMENTATIONS
from sheaf.seeds import generator
from sheaf.types import Params, Recipe, Samples

LEFT_OUT = -100
"""The label of what only fills a batch up; ``cross_entropy`` leaves it out."""


@dataclass(frozen=True)
class Job:
    """One site's training: where it starts, on what, from which seed."""

    start: Params
    samples: Samples
    seed: int


def train(
    model: nn.Module,
    jobs: Sequence[Job],
    recipe: Recipe,
    prepare: training.Preparation,
    progress: Callable[[int, int, int, float, int], None] | None = None,
) -> list[tuple[dict[str, Tensor], list[float]]]:
    """Trains every job by ``recipe``; ``model`` itself is left as it is.

    Sites may differ in their numbers of examples: one with fewer steps is done earlier and moves no more.
    ``together`` says which jobs can be trained so.

    Args:
        progress: told of job, steps done, steps in all, loss and examples seen.

    Returns:
        of each job: what training leaves of its state, on the CPU, and the mean loss of each epoch.
    """
    sizes = [training.batch_sizes(len(job.samples), recipe.batch_size) for job in jobs]
    steps = [recipe.epochs * len(own) for own in sizes]
    order = sorted(range(len(jobs)), key=lambda k: -steps[k])  # those that train at any step come first
    stack = _Stack(model, [jobs[k] for k in order], recipe, prepare.device, steps[order[0]])
    feeds = [_Feed(jobs[k], recipe) for k in order]
    lost: list[Tensor] = []  # (those that train) a step, on the device
    with training.autocast(recipe, prepare.device):
        for step in range(steps[order[0]]):
            active = sum(steps[k] > step for k in order)
            x, labels = _batch(feeds[:active], recipe, prepare)
            lost.append(stack.step(x, labels))
            if progress is not None and (step % 16 == 15 or step + 1 == steps[order[active - 1]]):
                for at in range(active):
                    k = order[at]
                    epochs, rest = divmod(step + 1, len(sizes[k]))
                    seen = epochs * sum(sizes[k]) + sum(sizes[k][:rest])
                    progress(k, step + 1, steps[k], lost[-1][at].item(), seen)
    table = [losses.tolist() for losses in lost]
    trained: list[tuple[dict[str, Tensor], list[float]]] = [({}, [])] * len(jobs)
    for at, k in enumerate(order):
        trained[k] = stack.state_of(at), _of_epochs([row[at] for row in table[: steps[k]]], sizes[k])
    return trained


def together(model: nn.Module, samples: int, recipe: Recipe) -> tuple[int, ...]:
    """What jobs must have in common, beyond network and recipe, to be trained as one.

    Batch norm takes the statistics of a whole batch, so no batch may be filled up; a schedule that depends on
    the number of steps gives each step one rate.
    """
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return (samples,)
    if recipe.schedule != "constant":
        return (len(training.batch_sizes(samples, recipe.batch_size)),)
    return ()


def can_stack(model: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Whether ``model`` can be trained so: no draws, no tied parameters, nothing foreign to ``vmap``."""
    if len(list(model.named_parameters(remove_duplicate=False))) > len(list(model.named_parameters())):
        return False
    model = copy.deepcopy(model).cpu()
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    blank = Samples.of(torch.zeros(2, *in_shape), torch.zeros(2, dtype=torch.int64))
    recipe = Recipe(precision="float32", optimizer="sgd")
    as_it_is = training.Preparation((0.0,) * in_shape[0], (1.0,) * in_shape[0], torch.device("cpu"))
    try:
        train(model, [Job(start, blank, 0)] * 2, recipe, as_it_is)
    except Exception:  # whatever a user's network does that cannot be batched
        return False
    return True


def draws(model: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Whether the layers of ``model`` draw random numbers in training, as dropout does."""
    model = copy.deepcopy(model).cpu().train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        model(torch.zeros(2, *in_shape))
        return not torch.equal(torch.get_rng_state(), before)


class _Feed:
    """One site's batches, step by step, with the draws of ``training.train``."""

    def __init__(self, job: Job, recipe: Recipe) -> None:
        self.samples = job.samples
        self.draws = generator(job.seed)
        self._positions = self._of_all_epochs(recipe)

    def next(self) -> Tensor:
        """(B) positions in ``samples.inputs``."""
        return next(self._positions)

    def _of_all_epochs(self, recipe: Recipe) -> Iterator[Tensor]:
        for _ in range(recipe.epochs):
            yield from training.positions_of_batches(self.samples, recipe.batch_size, self.draws)


def _batch(feeds: Sequence[_Feed], recipe: Recipe, prepare: training.Preparation) -> tuple[Tensor, Tensor]:
    """(S, B, C, H, W) inputs and (S, B) labels of one step; ``LEFT_OUT`` fills up shorter batches."""
    each = [feed.next() for feed in feeds]
    lengths = [len(positions) for positions in each]
    positions = pad_sequence(each, batch_first=True)
    inputs = _gather([feed.samples.inputs for feed in feeds], positions)
    labels = _gather([feed.samples.targets for feed in feeds], positions)
    if min(lengths) < positions.shape[1]:
        labels[torch.arange(positions.shape[1]) >= torch.tensor(lengths)[:, None]] = LEFT_OUT
    x = prepare(inputs.flatten(0, 1)).view(inputs.shape)
    for name in recipe.augment:
        for site, (feed, length) in enumerate(zip(feeds, lengths, strict=True)):
            x[site, :length] = AUGMENTATIONS[name](x[site, :length], feed.draws)
    return x, labels.to(prepare.device)


def _gather(sources: Sequence[Tensor], positions: Tensor) -> Tensor:
    if all(source is sources[0] for source in sources):
        return sources[0][positions]
    return torch.stack([source[own] for source, own in zip(sources, positions, strict=True)])


def _of_epochs(losses: list[float], sizes: list[int]) -> list[float]:
    epochs = [losses[at : at + len(sizes)] for at in range(0, len(losses), len(sizes))]
    return [sum(loss * n for loss, n in zip(each, sizes, strict=True)) / sum(sizes) for each in epochs]


class _Stack:
    """The states of several sites, (S, *shape) each, and one optimizer over them."""

    def __init__(
        self, model: nn.Module, jobs: Sequence[Job], recipe: Recipe, device: torch.device, steps: int
    ) -> None:
        self._recipe = recipe
        self._model = copy.deepcopy(model).to(device).train()
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        whole = {
            name: torch.stack([job.start[name] for job in jobs]).to(device) for name in model.state_dict()
        }
        self._linear = _linear_layers(self._model, trained)
        # The weight of a linear layer lies as its transpose, in the order in which bmm makes its gradient.
        whole = {
            name: value.mT.contiguous() if name in self._linear.weights else value
            for name, value in whole.items()
        }
        self._parameters = {name: value for name, value in whole.items() if name in trained}
        self._others = {name: value for name, value in whole.items() if name not in trained}
        self._leaves: dict[str, Tensor] = {}
        self._optimizer: Optimizer | None = None
        self._active = len(jobs)
        self._take(self._active)
        assert self._optimizer is not None
        self._scheduler: LRScheduler | None = training.make_scheduler(self._optimizer, recipe, steps)

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        """One step of the first len(x) sites. Returns (S) their losses."""
        if len(x) < self._active:
            self._take(len(x))
        assert self._optimizer is not None
        for name, leaf in self._leaves.items():
            if name not in self._linear.gradients:
                leaf.grad = None
        self._linear.begin()
        others = {name: value[: self._active] for name, value in self._others.items()}
        parameters = {name: self._as_seen(name, leaf) for name, leaf in self._leaves.items()}
        losses: Tensor = vmap(self._loss)(parameters, others, x, labels)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        if self._scheduler is not None:
            self._scheduler.step()
        return losses.detach()

    def state_of(self, site: int) -> dict[str, Tensor]:
        """The state of one site, on the CPU."""
        whole = self._parameters | self._others
        return {
            name: self._as_seen(name, whole[name][site]).cpu().contiguous()
            for name in self._model.state_dict()
        }

    def _as_seen(self, name: str, value: Tensor) -> Tensor:
        return value.mT if name in self._linear.weights else value

    def _loss(
        self, parameters: dict[str, Tensor], others: dict[str, Tensor], x: Tensor, labels: Tensor
    ) -> Tensor:
        return training.loss(functional_call(self._model, (parameters, others), (x,)), labels)

    def _take(self, active: int) -> None:
        """Goes on with the first ``active`` sites; the others stay as they are."""
        before, self._active = self._optimizer, active
        moments = [] if before is None else [before.state[leaf] for leaf in self._leaves.values()]
        self._leaves = {
            name: value[:active].detach().requires_grad_() for name, value in self._parameters.items()
        }
        self._optimizer = training.optimizer_over(list(self._leaves.values()), self._recipe)
        for leaf, moment in zip(self._leaves.values(), moments, strict=False):
            self._optimizer.state[leaf] = {
                key: value[:active] if isinstance(value, Tensor) and value.dim() else value
                for key, value in moment.items()
            }
        self._linear.hold(self._leaves)


@dataclass
class _LinearLayers:
    """Where the gradients of the linear layers' weights go: the same memory at every step.

    They are most of what a small network computes, and new memory costs more than filling it.
    """

    weights: tuple[str, ...]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)

    def hold(self, leaves: dict[str, Tensor]) -> None:
        """Makes room for the gradients of ``leaves``."""
        self.gradients = {name: torch.empty_like(leaves[name]) for name in self.weights}
        for name, gradient in self.gradients.items():
            leaves[name].grad = gradient

    def begin(self) -> None:
        """A step begins: what the gradients hold is of the one before."""
        self.fresh = set(self.gradients)

    def add(self, name: str, upper: Tensor, x: Tensor) -> None:
        """Adds a layer's share of its weight's gradient. upper: (S, N, out), x: (S, N, in)."""
        if name in self.fresh:
            torch.bmm(x.mT, upper, out=self.gradients[name])
        else:
            self.gradients[name].baddbmm_(x.mT, upper)
        self.fresh.discard(name)


def _linear_layers(model: nn.Module, trained: set[str]) -> _LinearLayers:
    """Has the plain linear layers of ``model`` go through ``_Linear``."""
    found = [
        (f"{name}.weight" if name else "weight", module)
        for name, module in model.named_modules()
        if type(module) is nn.Linear and (f"{name}.weight" if name else "weight") in trained
    ]
    layers = _LinearLayers(tuple(name for name, _ in found))
    for name, module in found:
        module.forward = partial(_linear, module, layers, name)  # type: ignore[method-assign]
    return layers


def _linear(module: nn.Linear, layers: _LinearLayers, name: str, x: Tensor) -> Tensor:
    y: Tensor = _Linear.apply(x, module.weight, layers, name)  # type: ignore[no-untyped-call]
    return y if module.bias is None else y + module.bias


class _Linear(torch.autograd.Function):
    """x W^T of one site, as vmap sees it; of all sites, what ``_Product`` does."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, layers: _LinearLayers, name: str) -> Tensor:
        return F.linear(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, x: Tensor, weight: Tensor, layers: _LinearLayers, name: str
    ) -> tuple[Tensor, int]:
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        flat = x.reshape(len(x), -1, x.shape[-1])
        y: Tensor = _Product.apply(flat, weight, layers, name)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1), 0


class _Product(torch.autograd.Function):
    """(S, N, in) times the transpose of (S, out, in); the weight's gradient goes into ``layers``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layers: _LinearLayers, name: str) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layers, ctx.name = layers, name
        return torch.bmm(x, weight.mT)

    @staticmethod
    def backward(ctx: Any, upper: Tensor) -> tuple[Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.layers.add(ctx.name, upper, x)
        return torch.bmm(upper, weight) if ctx.needs_input_grad[0] else None, None, None, None

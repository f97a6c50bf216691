"""Several sites' training as one: what ``training.train`` does to each, over parameters in one stack.

A small network spends its time on starting operations, not on computing them. Sites that train the same
network by the same recipe can share each operation: their parameters lie one behind the other, (S, *shape)
for S sites, and ``torch.func.vmap`` runs the network over all of them. Each site keeps its own draws, batches
and steps, so its result is that of training alone but for the order in which floating-point sums run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.rnn import pad_sequence
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.types import Params
from sheaf.models.freezing import into_training
from sheaf.training import loop, products
from sheaf.training.augmentation import AUGMENTATIONS
from sheaf.training.cpu_graph import CpuGraphFunction, Function
from sheaf.training.cuda_graph import CudaGraphFunction
from sheaf.training.gpu_cache import pick
from sheaf.training.seeded_dropout import dropout_from
from sheaf.training.weight_averaging import Tail, floating

Trained = tuple[dict[str, Tensor], list[float]]
"""What training leaves of a site's state, and the mean loss of each epoch."""

LEFT_OUT = -100
"""The label of what only fills a batch up; ``cross_entropy`` leaves it out."""

AHEAD = 512
"""How many images are normalised at a time: many enough to be quick, few enough to stay in a core's cache."""


@dataclass(frozen=True)
class Job:
    """One site's training: where it starts, on what, from which seed."""

    start: Params
    samples: Samples
    seed: int


def train(model: nn.Module, jobs: Sequence[Job], recipe: Recipe, prepare: loop.Preparation) -> list[Trained]:
    """Trains every job by ``recipe``; ``model`` itself is left as it is."""
    return Stack(model, len(jobs), recipe, prepare.device).train(jobs, prepare)


class Stack:
    """Room for so many sites that train a network by a recipe, used for one set of sites after another.

    A stack of one does just what ``training.train`` does, but recorded. Sites may differ in their numbers of
    examples: one with fewer steps is done earlier and moves no more. ``together`` says which jobs can be
    trained so.
    """

    def __init__(self, model: nn.Module, sites: int, recipe: Recipe, device: torch.device) -> None:
        self._recipe = recipe
        self._state = _State(model, sites, recipe, device)
        self._step: Function
        if device.type == "cuda":
            self._step = CudaGraphFunction(self._state.lowers)  # an optimizer steps in few kernels
        elif recipe.schedule == "constant":
            self._step = CpuGraphFunction(self._state.step)
        else:
            self._step = CpuGraphFunction(self._state.lowers)  # a rate that changes cannot be recorded

    def train(
        self,
        jobs: Sequence[Job],
        prepare: loop.Preparation,
        progress: Callable[[int, int, int, float, int], None] | None = None,
    ) -> list[Trained]:
        """Trains every job.

        Args:
            progress: told of job, steps done, steps in all, loss and examples seen.

        Returns:
            of each job: what training leaves of its state, on the CPU, and the mean loss of each epoch.
        """
        recipe, state = self._recipe, self._state
        sizes = [loop.batch_sizes(len(job.samples), recipe.batch_size) for job in jobs]
        steps = [recipe.epochs * len(own) for own in sizes]
        order = sorted(range(len(jobs)), key=lambda k: -steps[k])  # those that train at any step come first
        state.fill([jobs[k].start for k in order], steps[order[0]])
        feeds = [_Feed(jobs[k], recipe, steps[k]) for k in order]
        width = partial(_width, recipe.batch_size) if state.fills else int
        tail = None
        if recipe.tail and steps[order[0]]:
            tail = Tail(floating(state.states), [steps[k] for k in order], recipe.tail)
        lost: list[Tensor] = []  # (those that train) a step, on the device
        with loop.autocast(recipe, prepare.device):
            for step, (x, labels) in enumerate(_batches(feeds, recipe, prepare, width)):
                state.take(len(x))
                losses, *gradients = self._step(x, labels)
                if gradients:
                    state.descend(gradients)
                if tail is not None:
                    tail.add(floating(state.states), step + 1)
                lost.append(losses.clone())
                if progress is not None and (step % 16 == 15 or step + 1 == steps[order[len(x) - 1]]):
                    for k, loss in zip(order, lost[-1].tolist(), strict=False):
                        epochs, rest = divmod(step + 1, len(sizes[k]))
                        seen = epochs * sum(sizes[k]) + sum(sizes[k][:rest])
                        progress(k, step + 1, steps[k], loss, seen)
        if tail is not None:
            state.overwrite(tail.mean)
        table = [losses.tolist() for losses in lost]
        trained: list[Trained] = [({}, [])] * len(jobs)
        for at, k in enumerate(order):
            trained[k] = state.of(at), _of_epochs([row[at] for row in table[: steps[k]]], sizes[k])
        return trained


def together(model: nn.Module, samples: int, recipe: Recipe) -> tuple[int, ...]:
    """What jobs must have in common, beyond network and recipe, to be trained as one.

    Batch norm takes the statistics of a whole batch, so no batch may be filled up; a schedule that depends on
    the number of steps gives each step one rate.
    """
    if _normalises(model):
        return (samples,)
    if recipe.schedule != "constant":
        return (len(loop.batch_sizes(samples, recipe.batch_size)),)
    return ()


def _normalises(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def can_stack(model: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Whether ``model`` can be trained so: no draws, no tied parameters, nothing foreign to ``vmap``."""
    if len(list(model.named_parameters(remove_duplicate=False))) > len(list(model.named_parameters())):
        return False
    model = copy.deepcopy(model).cpu()
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    blank = Samples.of(torch.zeros(2, *in_shape), torch.zeros(2, dtype=torch.int64))
    recipe = Recipe(precision="float32", optimizer="sgd")
    as_it_is = loop.Preparation((0.0,) * in_shape[0], (1.0,) * in_shape[0], torch.device("cpu"))
    try:
        train(model, [Job(start, blank, 0)] * 2, recipe, as_it_is)
    except Exception:  # whatever a user's network does that cannot be batched
        return False
    return True


def draws(model: nn.Module, in_shape: tuple[int, int, int]) -> bool:
    """Whether layers of ``model`` other than dropout draw random numbers in training."""
    model = copy.deepcopy(model).cpu().train()
    with torch.random.fork_rng(devices=[]), dropout_from(model, 0), torch.no_grad():
        before = torch.get_rng_state()
        model(torch.zeros(2, *in_shape))
        return not torch.equal(torch.get_rng_state(), before)


class _Feed:
    """One site's batches, step by step, with the draws of ``training.train``."""

    def __init__(self, job: Job, recipe: Recipe, steps: int) -> None:
        self.samples = job.samples
        self.draws = generator(job.seed)
        self.steps = steps
        self._positions = self._of_all_epochs(recipe)

    def next(self) -> Tensor:
        """(B) positions in ``samples.inputs``."""
        return next(self._positions)

    def _of_all_epochs(self, recipe: Recipe) -> Iterator[Tensor]:
        for _ in range(recipe.epochs):
            yield from loop.positions_of_batches(self.samples, recipe.batch_size, self.draws)


def _batches(
    feeds: Sequence[_Feed], recipe: Recipe, prepare: loop.Preparation, width: Callable[[int], int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(S, B, C, H, W) inputs and (S, B) labels of each step, of the feeds that have one more.

    Args:
        feeds: those of most steps first.
        width: B by the longest of a step's batches.
    """
    step = 0
    while step < feeds[0].steps:
        there = [feed for feed in feeds if feed.steps > step]
        ahead = 1  # what augments draws between one step's order and the next
        if not recipe.augment:
            ahead = min(there[-1].steps - step, max(1, AHEAD // (len(there) * recipe.batch_size)))
        yield from _next(there, ahead, recipe, prepare, width)
        step += ahead


def _next(
    feeds: Sequence[_Feed],
    steps: int,
    recipe: Recipe,
    prepare: loop.Preparation,
    width: Callable[[int], int],
) -> Iterator[tuple[Tensor, Tensor]]:
    """The feeds' next ``steps`` batches; ``LEFT_OUT`` fills up those that are shorter than others."""
    each = [feed.next() for _ in range(steps) for feed in feeds]
    lengths = torch.tensor([len(positions) for positions in each]).view(steps, len(feeds))
    widths = [width(longest) for longest in lengths.amax(1).tolist()]
    lying = pad_sequence(each, batch_first=True)
    positions = F.pad(lying, (0, max(widths) - lying.shape[1])).view(steps, len(feeds), -1)
    inputs = _gather([feed.samples.inputs for feed in feeds], positions, prepare.device)
    labels = _gather([feed.samples.targets for feed in feeds], positions, prepare.device)
    labels[(torch.arange(positions.shape[-1]) >= lengths[..., None]).to(labels.device)] = LEFT_OUT
    x, labels = prepare(inputs.flatten(0, 2)).view(inputs.shape), labels.to(prepare.device)
    for name in recipe.augment:
        for site, feed in enumerate(feeds):
            length = int(lengths[0, site])
            x[0, site, :length] = AUGMENTATIONS[name](x[0, site, :length], feed.draws)
    for step, wide in enumerate(widths):
        yield x[step, :, :wide], labels[step, :, :wide]


def _width(batch_size: int, longest: int) -> int:
    """How far a batch is filled up: of each width, a step is recorded, which takes as long as some twenty."""
    half = -(-batch_size // 2)
    return half if longest <= half else max(batch_size, longest)


def _gather(sources: Sequence[Tensor], positions: Tensor, device: torch.device) -> Tensor:
    """(T, S, B, ...): at each of T steps, what lies at (T, S, B) ``positions`` of S sites' sources."""

    def of(source: Tensor, positions: Tensor) -> Tensor:
        found = pick(source, positions.flatten(), device)
        return found.view(*positions.shape, *found.shape[1:])

    if all(source is sources[0] for source in sources):
        return of(sources[0], positions)
    return torch.stack([of(own, positions[:, site]) for site, own in enumerate(sources)], dim=1)


def _of_epochs(losses: list[float], sizes: list[int]) -> list[float]:
    epochs = [losses[at : at + len(sizes)] for at in range(0, len(losses), len(sizes))]
    return [sum(loss * n for loss, n in zip(each, sizes, strict=True)) / sum(sizes) for each in epochs]


class _State:
    """The states of several sites, (S, *shape) each, and one optimizer over them.

    Attributes:
        fills: whether batches may be filled up.
    """

    def __init__(self, model: nn.Module, sites: int, recipe: Recipe, device: torch.device) -> None:
        self._recipe = recipe
        self._one = sites == 1
        self.fills = not self._one and not _normalises(model)
        self._model = into_training(loop.move(copy.deepcopy(model), device))
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        # The weight of a linear layer lies as its transpose, in the order in which bmm makes its gradient.
        self._transposed = {
            f"{name}.weight".lstrip(".")
            for name, module in model.named_modules()
            if type(module) is nn.Linear and not self._one
        } & trained
        self._whole = {
            name: torch.empty_like(value)[None]
            if self._one
            else torch.empty(sites, *self._turned(name, value).shape, dtype=value.dtype, device=device)
            for name, value in self._model.state_dict().items()
        }
        self._of_first = {
            active: {
                name: value[:active].requires_grad_(name in trained) for name, value in self._whole.items()
            }
            for active in range(1, sites + 1)
        }
        self._trained = [name for name in self._whole if name in trained]
        self._reached: list[str] = []
        self._factors: list[tuple[str, Tensor, Tensor]] = []
        if products.steps_in_products(recipe) and not loop.casts(recipe, device):
            for name in self._transposed:
                layer = self._model.get_submodule(name.rpartition(".")[0])
                products.factor(layer, partial(self._take, name))  # type: ignore[arg-type]
        self._active = sites
        self._optimizers: dict[int, Optimizer] = {}  # by how many sites still train
        self._scheduler: LRScheduler | None = None

    def fill(self, starts: Sequence[Params], steps: int) -> None:
        """All sites begin, for so many steps at most."""
        for name, whole in self._whole.items():
            lies: dict[int, Tensor] = {}  # what several begin with is turned once
            for own, start in zip(whole, starts, strict=True):
                found = lies.setdefault(id(start[name]), own)
                own.copy_(self._turned(name, start[name]) if found is own else found)
        self._active = len(starts)
        if self._recipe.schedule != "constant" or not self._optimizers:
            self._optimizers = {self._active: loop.optimizer_over(self._leaves, self._recipe)}
        optimizer = self._optimizers[self._active]
        for moments in optimizer.state.values():  # zero is where they begin, and they stay in their place
            for value in moments.values():
                if isinstance(value, Tensor):
                    value.zero_()
        self._scheduler = loop.make_scheduler(optimizer, self._recipe, steps)

    def take(self, active: int) -> None:
        """Goes on with the first ``active`` sites; the others stay as they are."""
        if active == self._active:
            return
        moments = [self._optimizers[self._active].state[leaf] for leaf in self._leaves]
        self._active = active
        if active in self._optimizers:
            return
        self._optimizers[active] = loop.optimizer_over(self._leaves, self._recipe)
        for leaf, moment in zip(self._leaves, moments, strict=True):
            self._optimizers[active].state[leaf] = {
                key: value[:active] if isinstance(value, Tensor) and value.dim() else value
                for key, value in moment.items()
            }

    def step(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """One step of those that still train; their losses (A)."""
        losses, *gradients = self.lowers(x, labels)
        self.descend(gradients)
        return (losses,)

    def lowers(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """The sites' losses (S), and the gradients of all that has any, for ``descend``: factors last."""
        self._factors.clear()
        seen = {name: self._turned(name, value) for name, value in self._of_first[self._active].items()}
        if self._one:
            alone = {name: value.squeeze(0) for name, value in seen.items()}
            losses = self._loss(alone, x.squeeze(0), labels.squeeze(0))[None]
        else:
            losses = vmap(self._loss)(seen, x, labels)
        found = torch.autograd.grad(losses.sum(), self._leaves, allow_unused=True)
        self._reached = [
            name for name, gradient in zip(self._trained, found, strict=True) if gradient is not None
        ]
        laid = [
            gradient if gradient.stride() == leaf.stride() else torch.empty_like(leaf).copy_(gradient)
            for leaf, gradient in zip(self._leaves, found, strict=True)
            if gradient is not None
        ]
        factors = (factor for _, *both in self._factors for factor in both)
        return losses.detach(), *laid, *factors

    def descend(self, gradients: Sequence[Tensor]) -> None:
        """One step of the optimizer."""
        optimizer, states = self._optimizers[self._active], self._of_first[self._active]
        for name, gradient in zip(self._reached, gradients, strict=False):
            states[name].grad = gradient
        optimizer.step()
        factors = iter(gradients[len(self._reached) :])
        with torch.no_grad():
            for (name, *_), x, gradient in zip(self._factors, factors, factors, strict=True):
                products.descend(states[name], x, gradient, optimizer.param_groups[0]["lr"])
        if self._scheduler is not None:
            self._scheduler.step()

    @property
    def states(self) -> dict[str, Tensor]:
        """The states of those that still train, (A, *shape) each, as they lie in the stack."""
        return self._of_first[self._active]

    def overwrite(self, states: Mapping[str, Tensor]) -> None:
        """Gives all sites other values, (S, *shape) each, of some of their state."""
        for name, value in states.items():
            self._whole[name].copy_(value)

    def of(self, site: int) -> dict[str, Tensor]:
        """The state of one site, on the CPU, in memory of its own."""
        return {
            name: self._turned(name, whole[site]).to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, whole in self._whole.items()
        }

    @property
    def _leaves(self) -> list[Tensor]:
        """What is trained of those that still train."""
        return [self._of_first[self._active][name] for name in self._trained]

    def _take(self, name: str, x: Tensor, gradient: Tensor) -> None:
        self._factors.append((name, x, gradient))

    def _turned(self, name: str, value: Tensor) -> Tensor:
        """What lies in the stack from what the network has, and the other way round."""
        return value.mT if name in self._transposed else value

    def _loss(self, state: dict[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
        return loop.loss(functional_call(self._model, state, (x,)), labels)

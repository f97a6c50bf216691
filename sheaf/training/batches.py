"""Mini-batches of one site or of several side by side: order, augmentation, padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, groupby, islice
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from sheaf.core.dataset import Samples
from sheaf.core.recipe import Recipe
from sheaf.core.seeds import generator
from sheaf.core.types import Params
from sheaf.training.augmentation import AUGMENTATIONS
from sheaf.training.gpu_cache import pick
from sheaf.training.preparation import Preparation
from sheaf.training.step import PADDING

AHEAD_BYTES = 2**21
"""Size of the float32 inputs that are normalised at a time; they stay in a core's cache."""


@dataclass(frozen=True)
class Job:
    """The training of one site.

    Attributes:
        start: the parameters that training starts from.
        samples: the training examples.
        seed: of all random draws.
        constants: tensors for the recipe's loss, and the state from which the optimizer continues
            (``training/optimizer_state.py``).
        keep_optimizer: return the state of the optimizer, too.
    """

    start: Params
    samples: Samples
    seed: int
    constants: Params = field(default_factory=dict)
    keep_optimizer: bool = False


@dataclass
class Rows:
    """The rows of the current mini-batch that this process computes.

    Attributes:
        total: rows of the mini-batch.
        start: the first of this process.
        stop: the first of the next process.
    """

    total: int = 0
    start: int = 0
    stop: int = 0

    def divide(self, total: int, rank: int, size: int) -> slice:
        """Set the rows of process ``rank`` of ``size``, of nearly equal numbers, and return them."""
        self.total, self.start, self.stop = total, total * rank // size, total * (rank + 1) // size
        return slice(self.start, self.stop)


@lru_cache(256)
def batch_sizes(examples: int, batch_size: int) -> tuple[int, ...]:
    """Return the sizes of an epoch's mini-batches: full ones, then the rest.

    A rest of one example joins the mini-batch before it: batch norm has no variance over one example.
    """
    full, rest = divmod(examples, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if rest == 1 and full:
        sizes[-2:] = [batch_size + 1]
    return tuple(sizes)


def sizes_of_epoch(recipe: Recipe, examples: int) -> tuple[int, ...]:
    """Return the sizes of the mini-batches of an epoch that begins where the training begins."""
    sizes = batch_sizes(examples, recipe.batch_size)
    first = span_of(recipe, examples)[0] % max(1, len(sizes))
    return sizes[first:] + sizes[:first]


def span_of(recipe: Recipe, examples: int) -> tuple[int, int]:
    """Return the first mini-batch of a training on a site's examples, from 0, and the one after its last."""
    steps = recipe.epochs * len(batch_sizes(examples, recipe.batch_size))
    if recipe.work < 1:
        steps = ceil(round(recipe.work * steps, 9))
    if recipe.part is None:
        return 0, steps
    return (recipe.part.n - 1) * steps // recipe.part.of, recipe.part.n * steps // recipe.part.of


def steps_of(recipe: Recipe, examples: int) -> int:
    """Return the number of mini-batches of a training on a site's examples."""
    first, end = span_of(recipe, examples)
    return end - first


def examples_of(recipe: Recipe, examples: int) -> int:
    """Return the number of examples in the mini-batches of a training, counted once for each use."""
    sizes = sizes_of_epoch(recipe, examples)
    epochs, rest = divmod(steps_of(recipe, examples), max(1, len(sizes)))
    return epochs * examples + sum(sizes[:rest])


def positions_of_batches(samples: Samples, batch_size: int, draws: torch.Generator) -> tuple[Tensor, ...]:
    """Return the mini-batches of one shuffled epoch, as positions in ``samples.inputs``."""
    order = samples.positions[torch.randperm(len(samples), generator=draws)]
    return order.split_with_sizes(batch_sizes(len(samples), batch_size))


def batches(
    jobs: Sequence[Job],
    recipe: Recipe,
    prepare: Preparation,
    padded_size: Callable[[int], int],
    at_once: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (T, S, B, C, H, W) inputs and (T, S, B) labels of the next T steps of the S unfinished jobs.

    Each job's draws (order, augmentation) come from its own seed, whatever other jobs it trains beside.

    Args:
        jobs: those of most steps first.
        padded_size: B of the longest of a step's mini-batches. Shorter ones are filled up with label
            ``PADDING``.
        at_once: T, at most; no T steps reach across a multiple of it.
    """
    feeds = [_Feed(job, recipe) for job in jobs]
    if len(feeds) == 1:
        yield from _of_one(feeds[0], recipe, prepare, padded_size, at_once)
        return
    step = 0
    while step < feeds[0].steps:
        active = [feed for feed in feeds if feed.steps > step]
        ahead = min(active[-1].steps - step, _ahead(active, recipe))
        for x, labels in _next(active, ahead, recipe, prepare, padded_size):
            yield from _pieces(x, labels, step, at_once)
            step += len(x)


def _pieces(x: Tensor, labels: Tensor, step: int, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Divide the mini-batches of the steps from ``step`` on at the multiples of ``at_once``."""
    start = 0
    while start < len(x):
        stop = start + at_once - (step + start) % at_once
        yield x[start:stop], labels[start:stop]
        start = stop


class _Feed:
    """The mini-batches of one job, step by step."""

    def __init__(self, job: Job, recipe: Recipe) -> None:
        self.samples = samples = job.samples
        self.draws = draws = generator(job.seed)
        self.steps = steps_of(recipe, len(samples))
        order = draws if recipe.part is None else generator(recipe.part.order)
        # No method of this object: a reference cycle would keep the examples in memory.
        positions = chain.from_iterable(
            positions_of_batches(samples, recipe.batch_size, order) for _ in range(recipe.epochs)
        )
        self._positions = islice(positions, span_of(recipe, len(samples))[0], None)

    def next(self) -> Tensor:
        """Return (B,) positions in ``samples.inputs``."""
        return next(self._positions)


def _ahead(feeds: Sequence[_Feed], recipe: Recipe) -> int:
    """Return the number of steps whose mini-batches are normalised at a time."""
    if recipe.augment:  # which draws between one step's order and the next
        return 1
    example_bytes = torch.float32.itemsize * feeds[0].samples.inputs.shape[1:].numel()
    return max(1, AHEAD_BYTES // (len(feeds) * recipe.batch_size * example_bytes))


def _of_one(
    feed: _Feed, recipe: Recipe, prepare: Preparation, padded_size: Callable[[int], int], at_once: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all mini-batches of one job, without the work of aligning several (benchmarks/overhead.py)."""
    step, ahead = 0, min(at_once, _ahead([feed], recipe))
    while step < feed.steps:
        count = min(ahead, feed.steps - step, at_once - step % at_once)
        step += count
        for length, equal in groupby([feed.next() for _ in range(count)], len):
            positions = torch.stack(list(equal))
            if padding := padded_size(length) - length:
                positions = F.pad(positions, (0, padding))
            flat, shape = positions.view(-1), (len(positions), 1, length + padding)
            x = prepare(pick(feed.samples.inputs, flat, prepare.device))
            labels = pick(feed.samples.targets, flat, prepare.device).to(prepare.device).view(shape)
            if padding:
                labels[..., length:] = PADDING
            for name in recipe.augment:
                x[:length] = AUGMENTATIONS[name](x[:length], feed.draws)
            yield x.view(*shape, *x.shape[1:]), labels


def _next(
    feeds: Sequence[_Feed],
    steps: int,
    recipe: Recipe,
    prepare: Preparation,
    padded_size: Callable[[int], int],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the feeds' next ``steps`` mini-batches, successive ones of one size together."""
    positions_of = [feed.next() for _ in range(steps) for feed in feeds]
    sizes = [each.shape[0] for each in positions_of]
    lengths = [sizes[at : at + len(feeds)] for at in range(0, len(sizes), len(feeds))]
    widths = [padded_size(max(own)) for own in lengths]
    equal_sizes = min(sizes) == max(sizes)
    padded = torch.stack(positions_of) if equal_sizes else pad_sequence(positions_of, batch_first=True)
    positions = F.pad(padded, (0, max(widths) - padded.shape[1])).view(steps, len(feeds), -1)
    inputs = _gather([feed.samples.inputs for feed in feeds], positions, prepare.device)
    labels = _gather([feed.samples.targets for feed in feeds], positions, prepare.device)
    if min(sizes) < max(widths):
        filler = torch.arange(positions.shape[-1]) >= torch.tensor(lengths)[..., None]
        labels[filler.to(labels.device)] = PADDING
    x, labels = prepare(inputs.flatten(0, 2)).view(inputs.shape), labels.to(prepare.device)
    for name in recipe.augment:
        for site, feed in enumerate(feeds):
            length = lengths[0][site]
            x[0, site, :length] = AUGMENTATIONS[name](x[0, site, :length], feed.draws)
    start = 0
    for width, equal in groupby(widths):
        stop = start + len(list(equal))
        yield x[start:stop, :, :width], labels[start:stop, :, :width]
        start = stop


def _gather(sources: Sequence[Tensor], positions: Tensor, device: torch.device) -> Tensor:
    """Return (T, S, B, ...): of S sites' sources, the examples at (T, S, B) ``positions`` of T steps."""

    def of(source: Tensor, positions: Tensor) -> Tensor:
        picked = pick(source, positions.flatten(), device)
        return picked.view(*positions.shape, *picked.shape[1:])

    if all(source is sources[0] for source in sources):
        return of(sources[0], positions)
    return torch.stack([of(own, positions[:, site]) for site, own in enumerate(sources)], dim=1)

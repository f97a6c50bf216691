"""Which sites of a call train together, and how.

``stacked``  parameters in one stack, every operation for all (``stacked.train``), one stack on each core
``threads``  each by itself, one site on each core; whole networks in stacks of one, which are recorded
``never``    one after another, each on all cores

In sketches on two cores a stack wins where a step computes so little that starting operations
costs more, and only without convolutions: grouped ones take a CPU longer than the same ones apart. Small
convolutions win side by side, as one of them has not enough work for two cores.

On a GPU small networks of either kind are stacked, deeply, and one stack goes after another, as do the
networks of the rest: each has all of the GPU. That is not measured yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe
from sheaf.core.task import Task
from sheaf.runtime.worker import Worker
from sheaf.training import vectorized
from sheaf.training.network import Network
from sheaf.training.products import steps_in_products

Manner = Literal["auto", "stacked", "threads", "never"]

DEEPEST, SHALLOWEST = 16, 4
"""How many sites a stack has at most and at least: fewer gain nothing."""

DEEPEST_ON_GPU = 64
"""A GPU takes as long to start an operation for one site as for many."""

STACK_BYTES = 3_500_000
"""What a stack trains, with gradients and moments, lies in so many bytes, unless it is of the shallowest.

One hidden layer of 128, batches of 10, plain SGD, a stack on each of two cores that share 32 MB of cache:
milliseconds a site and epoch of 60 steps were 7.7 in stacks of 4, 6.9 to 7.6 of 5, 6.9 to 7.2 of 7, 7.1 to
7.4 of 10 and 8.2 to 8.8 of 14 (medians of 12, on either core).
"""

SMALL_STEP = 50_000_000
"""Multiply-adds of one training step up to which a stack is faster than its sites one after another."""

SMALL_CONVOLUTIONS = 1_000_000_000
"""The same for networks with convolutions, up to which sites are faster side by side."""


@dataclass(frozen=True)
class SiteGroup:
    """Sites that train together: several in a stack, or one by itself, in a stack of one or as it is."""

    names: tuple[str, ...]
    stacked: bool


def group_sites(
    workers: Mapping[str, Worker], tasks: Mapping[str, Task], together: Manner
) -> tuple[list[SiteGroup], list[str]]:
    """The groups that train side by side, and the sites that do their tasks one after another.

    Depends on the tasks (in whatever order) and the networks, and on the number of threads only in whether
    sites go side by side or one after another: stacks are the same on however many cores.
    """
    alike: dict[tuple[int, Cut | None, Recipe, tuple[int, ...]], list[str]] = {}
    found, alone = [], []
    for name, task in ((name, tasks[name]) for name in workers if name in tasks):
        how = _how(workers[name], task, together) if task.kind == "train" else "never"
        if how == "stacked":
            assert task.recipe is not None
            network, count = workers[name].network, workers[name].trains_on(task)
            common = vectorized.together(network.of(task.cut), count, task.recipe)
            alike.setdefault((id(network), task.cut, task.recipe, common), []).append(name)
        elif how == "threads":
            found.append(SiteGroup((name,), stacked=_recorded(workers[name].network, task)))
        else:
            alone.append(name)
    for names in alike.values():
        if len(names) < (2 if together == "stacked" else SHALLOWEST):
            alone += names
        else:
            # Those of a similar number of steps together: a stack takes as long as its longest.
            names.sort(key=lambda name: -workers[name].trains_on(tasks[name]))
            if workers[names[0]].prepare.device.type == "cuda":
                deal = _even(tuple(names), -(-len(names) // DEEPEST_ON_GPU))
            else:
                deal = _split(tuple(names), STACK_BYTES // _bytes_of_one(workers[names[0]], tasks[names[0]]))
            found += [SiteGroup(each, stacked=True) for each in deal]
    if len(found) == 1 and len(found[0].names) == 1:
        return [], alone + list(found[0].names)
    return found, alone


def _recorded(network: Network, task: Task) -> bool:
    """Whether a site by itself trains in a stack of one.

    Parts differ from site to site, and to record a step takes as long as some twenty steps.
    """
    return task.cut is None and _stacks(network, task)


def _stacks(network: Network, task: Task) -> bool:
    """Whether the steps of several sites can be one; a restricted softmax differs from site to site."""
    return network.nature(task.cut).stacks and task.recipe is not None and task.recipe.alpha == 1


def _bytes_of_one(worker: Worker, task: Task) -> int:
    """What a site trains, with its gradients, where these are made, and moments."""
    assert task.recipe is not None
    moments = 2 if task.recipe.optimizer != "sgd" else int(task.recipe.momentum > 0)
    copies = 1 + (not steps_in_products(task.recipe)) + moments
    return sum(value.nbytes for value in worker.network.of(task.cut).parameters()) * copies


def _split(names: tuple[str, ...], fit: int) -> list[tuple[str, ...]]:
    """Stacks of nearly one depth: so many sites fit, and up to four cores have as much to do each."""
    deepest = max(SHALLOWEST, min(fit, DEEPEST))
    count = max(-(-len(names) // deepest), min(4, len(names) // SHALLOWEST))
    count += count % 2 if count > 1 else 0
    return _even(names, count)


def _even(names: tuple[str, ...], count: int) -> list[tuple[str, ...]]:
    ends = [len(names) * part // count for part in range(count + 1)]
    return [names[start:stop] for start, stop in pairwise(ends)]


def _how(worker: Worker, task: Task, together: Manner) -> Literal["stacked", "threads", "never"]:
    if together == "never" or task.recipe is None or worker.trains_on(task) == 0:
        return "never"
    if task.statistic and task.reply:
        return "never"  # a statistic needs the trained network
    cpu = worker.prepare.device.type == "cpu"
    step = task.recipe.batch_size * worker.network.macs(task.cut).train
    if together == "auto" and step > (SMALL_CONVOLUTIONS if cpu else SMALL_STEP):
        return "never"  # without looking at its nature, which runs it once
    nature = worker.network.nature(task.cut)
    if nature.draws:
        return "never"
    if together == "auto":
        small = step <= SMALL_STEP and not (nature.convolves and cpu)
        side_by_side = cpu and nature.convolves and torch.get_num_threads() > 1
        together = "stacked" if small else "threads" if side_by_side else "never"
    if together == "stacked":
        return "stacked" if _stacks(worker.network, task) else "never"
    return "threads" if together == "threads" and cpu else "never"

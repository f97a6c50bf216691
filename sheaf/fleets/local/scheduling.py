"""Decide which sites of a call train together, and how.

``stacked``  several sites in one stack (``training/vectorized.py``), a stack on each core
``threads``  one site on each core; whole networks in stacks of one, which are recorded
``never``    one site after another, each on all cores

On a CPU a stack wins where a step computes so little that starting operations takes longer, and only without
convolutions: grouped ones are slower than the same ones by themselves. Small convolutions win on threads, as
one of them has too little work for several cores. On a GPU small networks of either kind are stacked, and one
stack trains after another. ``benchmarks/simulation`` measures the CPU's ways.
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
from sheaf.models.forward_effects import is_marked
from sheaf.runtime.training_job import recipe_of
from sheaf.runtime.worker import Worker
from sheaf.training.network import Network
from sheaf.training.vectorized import compatibility

Mode = Literal["auto", "stacked", "threads", "never"]

MAX_DEPTH, MIN_DEPTH = 16, 4
"""Sites of a stack, at most and at least: fewer gain nothing."""

MAX_DEPTH_ON_GPU = 64
"""A GPU starts an operation for many sites in the time that one takes."""

STACK_BYTES = 7_000_000
"""Size of a stack's memory that a step reads from end to end, unless it has ``MIN_DEPTH`` sites.

Two stacks of this size, one on each core, stay in a shared cache of 32 MB with their inputs.
"""

SMALL_STEP = 50_000_000
"""Multiply-adds of one training step up to which a stack is faster than its sites one after another."""

SMALL_CONVOLUTIONS = 1_000_000_000
"""The same for networks with convolutions, up to which sites are faster on threads."""


@dataclass(frozen=True)
class SiteGroup:
    """Sites that train together.

    Attributes:
        names: several sites in one stack, or one site.
        stacked: whether they train in a stack (of one site: recorded).
        alone: whether the site may use several threads and the global generators: it would train after the
            others if there were no other processes.
    """

    names: tuple[str, ...]
    stacked: bool
    alone: bool = False


def group_sites(
    workers: Mapping[str, Worker], tasks: Mapping[str, Task], together: Mode
) -> tuple[list[SiteGroup], list[str]]:
    """Return the groups that train side by side, and the sites that execute their tasks one after another.

    Depends on the tasks, in any order, and on the networks. The number of threads only decides between side
    by side and one after another: stacks are the same on any number of cores.
    """
    alike: dict[tuple[int, Cut | None, Recipe, tuple[int, ...]], list[str]] = {}
    common: dict[tuple[int, Cut | None, Recipe, int], tuple[int, ...]] = {}
    groups, alone = [], []
    for name, task in ((name, tasks[name]) for name in workers if name in tasks):
        mode = _mode(workers[name], task, together) if task.kind == "train" else "never"
        if mode == "stacked":
            network, recipe = workers[name].network, recipe_of(task)
            examples = workers[name].training_examples(task)
            key = id(network), task.cut, recipe, examples
            if key not in common:
                common[key] = compatibility(network.of(task.cut), examples, recipe)
            alike.setdefault((*key[:3], common[key]), []).append(name)
        elif mode == "threads":
            groups.append(SiteGroup((name,), stacked=_records(workers[name].network, task)))
        else:
            alone.append(name)
    for names in alike.values():
        if len(names) < (2 if together == "stacked" else MIN_DEPTH):
            alone += names
        else:
            # Sites with similar numbers of steps go together: a stack takes as long as its longest.
            names.sort(key=lambda name: -workers[name].training_examples(tasks[name]))
            first = workers[names[0]]
            if first.prepare.device.type == "cuda":
                stacks = _divide(tuple(names), -(-len(names) // MAX_DEPTH_ON_GPU))
            else:
                stacks = _stacks(tuple(names), STACK_BYTES // _bytes_of_site(first, tasks[names[0]]))
            groups += [SiteGroup(each, stacked=True) for each in stacks]
    if len(groups) == 1 and len(groups[0].names) == 1:
        return [], alone + list(groups[0].names)
    return groups, alone


def examine_ways(network: Network, together: Mode, batch_size: int) -> None:
    """Determine how a user's network can be trained, and log it, before sites may train together.

    Args:
        network: the whole network.
        together: how sites are trained.
        batch_size: the smallest one of the run.
    """
    small = batch_size * network.macs().train <= SMALL_CONVOLUTIONS
    if is_marked(network.model) and together != "never" and (small or together != "auto"):
        network.traits()


def _records(network: Network, task: Task) -> bool:
    """Return whether a site by itself trains in a stack of one.

    Not with cuts: sub-models differ from site to site, and recording takes as long as some twenty steps.
    """
    return task.cut is None and network.traits(task.cut).stacks


def _bytes_of_site(worker: Worker, task: Task) -> int:
    """Return the size of a site's trained parameters and moments, and of gradients except those of SGD.

    SGD applies the gradient of a site while it is in the core's cache (``training/update_by_site``).
    """
    recipe = recipe_of(task)
    moments = 2 if recipe.optimizer != "sgd" else int(recipe.momentum > 0)
    gradients = 0 if recipe.optimizer == "sgd" and recipe.schedule == "constant" else 1
    parameters = sum(value.nbytes for value in worker.network.of(task.cut).parameters())
    return parameters * (1 + gradients + moments)


def _stacks(names: tuple[str, ...], fit: int) -> list[tuple[str, ...]]:
    """Divide sites into stacks of nearly one depth, so that up to four cores have as much to do each.

    Stacks of exactly one depth need one recording, so up to a quarter more of them are made for it.
    """
    depth = max(MIN_DEPTH, min(fit, MAX_DEPTH))
    count = max(-(-len(names) // depth), min(4, len(names) // MIN_DEPTH))
    count += count % 2 if count > 1 else 0
    equal = (more for more in range(count, count * 5 // 4 + 1, 2) if len(names) % more == 0)
    return _divide(names, next(equal, count))


def _divide(names: tuple[str, ...], count: int) -> list[tuple[str, ...]]:
    ends = [len(names) * part // count for part in range(count + 1)]
    return [names[start:stop] for start, stop in pairwise(ends)]


def _mode(worker: Worker, task: Task, together: Mode) -> Literal["stacked", "threads", "never"]:
    if together == "never" or task.recipe is None or worker.training_examples(task) == 0:
        return "never"
    if task.statistic and task.reply:
        return "never"  # a statistic needs the trained module
    cpu = worker.prepare.device.type == "cpu"
    step = task.recipe.batch_size * worker.network.macs(task.cut).train
    if together == "auto" and step > (SMALL_CONVOLUTIONS if cpu else SMALL_STEP):
        return "never"  # before its traits are determined, which runs the network
    traits = worker.network.traits(task.cut)
    if traits.draws:
        return "never"
    if together == "auto":
        small = step <= SMALL_STEP and not (traits.convolves and cpu)
        on_threads = cpu and traits.convolves and torch.get_num_threads() > 1
        together = "stacked" if small else "threads" if on_threads else "never"
    if together == "stacked":
        return "stacked" if traits.stacks else "never"
    return "threads" if together == "threads" and cpu else "never"

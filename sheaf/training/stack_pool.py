"""Stacks for reuse: recording a network's step takes as long as some twenty steps."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sheaf.core.cut import Cut
from sheaf.core.recipe import Recipe
from sheaf.training.cpu_graph import Recordings
from sheaf.training.loop import TrainingState
from sheaf.training.network import Network
from sheaf.training.one_site import OneSite
from sheaf.training.vectorized import Stack


class StackPool:
    """The idle stacks of the latest key. Stacks of the same number of sites share their recordings."""

    def __init__(self) -> None:
        self._idle: dict[Any, tuple[list[Stack], Recordings]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stack(self, key: Any, sites: int, device: torch.device) -> Iterator[Stack]:
        """Borrow a stack of this number of sites. Idle stacks of other keys are dropped.

        Args:
            key: network, cut and recipe.
        """
        with self._lock:
            self._idle = {each: idle for each, idle in self._idle.items() if each[0] == key}
            idle, recordings = self._idle.setdefault((key, sites), ([], Recordings()))
            stack = idle.pop() if idle else None
        if stack is None:
            network, cut, recipe = key
            stack = Stack(network.of(cut), sites, recipe, device, recordings=recordings)
        yield stack
        idle.append(stack)

    @contextmanager
    def state(
        self,
        network: Network,
        cut: Cut | None,
        recipe: Recipe,
        sites: int,
        device: torch.device,
        *,
        stacked: bool,
        global_draws: bool = True,
    ) -> Iterator[TrainingState]:
        """Yield the training state of one group of sites: a stack, or a copy of the module of one site.

        Args:
            network: the whole model.
            cut: the sub-model of all sites; None: the whole model.
            recipe: of all sites.
            sites: their number.
            device: where they train.
            stacked: whether in a stack.
            global_draws: see ``OneSite``.
        """
        if stacked:
            with self.stack((network, cut, recipe), sites, device) as stack:
                yield stack
        else:
            yield OneSite(copy.deepcopy(network.of(cut)), recipe, global_draws=global_draws)

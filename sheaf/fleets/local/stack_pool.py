"""Stacks for reuse: recording a network's step takes as long as some twenty steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sheaf.training.vectorized import Stack


class StackPool:
    """The idle stacks of the latest key."""

    def __init__(self) -> None:
        self._idle: dict[Any, list[Stack]] = {}

    @contextmanager
    def stack(self, key: Any, sites: int, device: torch.device) -> Iterator[Stack]:
        """Borrow a stack of this number of sites. Idle stacks of other keys are dropped.

        Args:
            key: network, cut and recipe.
        """
        self._idle = {each: idle for each, idle in self._idle.items() if each[0] == key}
        idle = self._idle.setdefault((key, sites), [])
        network, cut, recipe = key
        try:
            stack = idle.pop()
        except IndexError:
            stack = Stack(network.of(cut), sites, recipe, device)
        yield stack
        idle.append(stack)

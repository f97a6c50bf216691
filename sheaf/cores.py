"""Work spread over the cores, a thread on each.

Threads that share one short operation wait for each other longer than they compute, above all where other
programs want the cores too. Threads that each do an operation of their own wait for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


def side_by_side(function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """``function`` of each item, in their order; of fewer items than cores, each on all of them."""
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < threads:
        return [function(item) for item in items]
    try:
        with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)  # threads that are new take what was set last

"""Work spread over the cores, a thread on each.

Threads that share one short operation wait for each other longer than they compute, above all where other
programs want the cores too. Threads that each do an operation of their own wait for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


@cache
def thread_pool(purpose: str, count: int) -> ThreadPoolExecutor:
    """So many threads for one purpose, on which torch computes with one thread each.

    They stay for as long as the process: what a new thread computes in is memory that is new to it too, which
    took five sites' six small steps from 7 ms to 13.
    """
    return ThreadPoolExecutor(count, purpose, initializer=partial(torch.set_num_threads, 1))


def side_by_side(function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """``function`` of each item, in their order; of fewer items than cores, each on all of them."""
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < threads:
        return [function(item) for item in items]
    torch.set_num_threads(1)  # some libraries have one number for all threads
    try:
        found = [thread_pool("core", threads).submit(function, item) for item in items]
        wait(found)
        return [each.result() for each in found]
    finally:
        torch.set_num_threads(threads)
